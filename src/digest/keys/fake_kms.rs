//! AWS KMS on loopback: GetPublicKey and Sign over the keys of a test, in the service's own words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::deliver::fake::{Answer, Asked, Service};
use crate::deliver::renewing::Renewing;

pub struct FakeKms {
    service: Service,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    /// By ARN.
    pairs: BTreeMap<String, KeyPair>,
    /// The ARN behind each name.
    pub names: BTreeMap<String, String>,
    /// What keys answer that may not be used: by ARN, the code.
    pub refused: BTreeMap<String, &'static str>,
    /// What everybody is answered, whatever they ask.
    pub down: Option<(u16, &'static str)>,
    /// Signatures come from the key with this ARN.
    pub signs_instead: Option<String>,
}

impl FakeKms {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let answering = state.clone();
        let service = Service::start(move |asked| answering.lock().unwrap().answer(asked)).await;
        Self { service, state }
    }

    /// Makes a key of this spec, behind `name`; gives its ARN.
    pub fn make(&self, name: &str, size: KeySize) -> String {
        let mut state = self.state();
        let arn = arn(state.pairs.len());
        state
            .pairs
            .insert(arn.clone(), KeyPair::generate(size).unwrap());
        state.names.insert(name.to_owned(), arn.clone());
        arn
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn client(&self) -> Renewing<aws_sdk_kms::Client> {
        let client = aws_sdk_kms::Client::new(&self.service.sdk_config());
        Renewing::new(client.clone(), move || std::future::ready(client.clone()))
    }

    /// How often an operation was asked for.
    pub fn times(&self, operation: &str) -> usize {
        let asked = self.service.asked();
        let named = |it: &&Asked| it.target() == format!("TrentService.{operation}");
        asked.iter().filter(named).count()
    }

    /// The input of the last request.
    pub fn last(&self) -> Value {
        self.service.asked().last().unwrap().json()
    }
}

impl State {
    fn answer(&self, asked: &Asked) -> Answer {
        if let Some((status, code)) = self.down {
            return error(status, code);
        }
        let input = asked.json();
        let name = input["KeyId"].as_str().unwrap();
        let arn = self.names.get(name).map_or(name, String::as_str);
        if let Some(code) = self.refused.get(arn) {
            return error(400, code);
        }
        let Some(pair) = self.pairs.get(arn) else {
            return error(400, "NotFoundException");
        };
        match asked.target() {
            "TrentService.GetPublicKey" => Answer::new(200, described(arn, pair)),
            "TrentService.Sign" => {
                let signer = self.signs_instead.as_deref().unwrap_or(arn);
                assert_eq!(input["MessageType"], "DIGEST");
                assert_eq!(input["SigningAlgorithm"], "RSASSA_PKCS1_V1_5_SHA_256");
                let hash = BASE64.decode(input["Message"].as_str().unwrap()).unwrap();
                let signature = BASE64.encode(sign(&self.pairs[signer], &hash));
                Answer::new(200, json!({ "KeyId": arn, "Signature": signature }))
            }
            other => panic!("asked for {other}"),
        }
    }
}

fn arn(number: usize) -> String {
    format!("arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-{number:012}")
}

/// What GetPublicKey says of a key that can sign digests.
pub fn described(arn: &str, pair: &KeyPair) -> Value {
    let x509: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    json!({
        "KeyId": arn,
        "KeySpec": format!("RSA_{}", pair.public_modulus_len() * 8),
        "KeyUsage": "SIGN_VERIFY",
        "PublicKey": BASE64.encode(x509.as_ref()),
        "SigningAlgorithms": ["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"],
    })
}

/// The same of a key that is nobody's.
pub fn some_description() -> Value {
    described(&arn(0), &KeyPair::generate(KeySize::Rsa2048).unwrap())
}

pub fn error(status: u16, code: &str) -> Answer {
    Answer::new(status, json!({ "__type": code, "message": "told so" }))
}

fn sign(pair: &KeyPair, hash: &[u8]) -> Vec<u8> {
    let hash = Digest::import_less_safe(hash, &SHA256).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign_digest(&RSA_PKCS1_SHA256, &hash, &mut signature)
        .unwrap();
    signature
}
