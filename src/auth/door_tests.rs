use std::pin::pin;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, Full};

use super::super::sigv4::Signer;
use super::super::{SecretKey, SignedBody};
use super::*;

const NOW: WallMillis = WallMillis(1_777_594_354_000); // 20260501T001234Z
const UNIX: Peer = Peer::Unix {
    pid: Some(7),
    uid: 1000,
};

fn tcp() -> Peer {
    Peer::Tcp("192.0.2.7:40000".parse().unwrap())
}

fn door(options: Options) -> Door {
    knowing(options, Vec::new())
}

fn knowing(options: Options, certificates: Vec<KnownCertificate>) -> Door {
    Door::new(
        "999988887777".parse().unwrap(),
        "eu-central-1".parse().unwrap(),
        options,
        certificates,
    )
}

fn signed_only() -> Door {
    door(Options::SigV4(vec![Credential {
        access_key_id: "AKID".to_owned(),
        secret: SecretKey::new("secret".to_owned()),
        account: "111122223333".parse().unwrap(),
        policy: None,
    }]))
}

fn head(authorization: Option<&str>, token: Option<&str>) -> request::Parts {
    let mut request = Request::post("/v1/events")
        .header("host", "localhost")
        .header("x-amz-date", "20260501T001234Z");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if let Some(token) = token {
        request = request.header("x-amz-security-token", token);
    }
    request.body(()).unwrap().into_parts().0
}

fn header(key: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={key}/20260501/us-east-1/traild/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-security-token, Signature={signature}"
    )
}

/// A request with this body, signed.
fn signed(body: &[u8]) -> request::Parts {
    let signer = Signer {
        access_key_id: "AKID".to_owned(),
        secret: SecretKey::new("secret".to_owned()),
        session_token: None,
        region: "us-east-1".parse().unwrap(),
        service: "traild",
    };
    let mut head = head(None, None);
    signer.sign(&mut head, body, NOW).unwrap();
    head
}

#[test]
fn with_mode_none_an_unverified_signature_names_account_and_region() {
    let scope = |key: &str, region: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={key}/20260501/{region}/cloudtrail/aws4_request, SignedHeaders=host, Signature=00"
        )
    };
    let (home, home_region) = ("999988887777", "eu-central-1");
    let door = door(Options::None);
    for (authorization, account, region) in [
        (
            scope("111122223333", "ap-south-1"),
            "111122223333",
            "ap-south-1",
        ),
        (scope("AKIDEXAMPLE", "ap-south-1"), home, "ap-south-1"),
        (scope("AKID/WITH/SLASHES", "ap-south-1"), home, "ap-south-1"),
        ("Bearer token".to_owned(), home, home_region),
        (
            "AWS4-HMAC-SHA256 Credential=nonsense".to_owned(),
            home,
            home_region,
        ),
    ] {
        let admitted = door.admit(&head(Some(&authorization), None), &tcp(), "traild", NOW);
        let Admitted { caller, pending } = admitted.unwrap();
        assert!(pending.is_none() && caller.may_do_everything());
        assert_eq!(
            (caller.account.as_str(), caller.region.as_str()),
            (account, region),
            "{authorization}"
        );
        assert_eq!(
            caller.principal_arn(),
            format!("arn:aws:iam::{account}:root")
        );
    }
    for region in ["..", "us_east", "-", "", &"a".repeat(3000)] {
        let refused = door.admit(
            &head(Some(&scope("111122223333", region)), None),
            &tcp(),
            "traild",
            NOW,
        );
        assert_eq!(
            refused.unwrap_err().code(),
            "InvalidSignatureException",
            "{region}"
        );
    }
}

#[test]
fn with_mode_sigv4_only_signed_requests_are_let_in_but_for_the_unix_socket() {
    let door = signed_only();
    let admit = |head: &request::Parts, peer: &Peer| door.admit(head, peer, "traild", NOW);
    let code = |head: &request::Parts, peer: &Peer| admit(head, peer).unwrap_err().code();
    let unsigned = head(None, None);
    assert_eq!(
        code(&unsigned, &tcp()),
        "MissingAuthenticationTokenException"
    );
    let caller = admit(&unsigned, &UNIX).unwrap().caller;
    assert_eq!(caller.principal, Principal::Process { uid: 1000 });
    assert_eq!(
        caller.principal_arn(),
        "arn:aws:iam::999988887777:user/uid-1000"
    );
    assert!(caller.may_do_everything() && caller.source_ip.is_none());

    // Whoever signs is held to it, there too.
    for peer in &[tcp(), UNIX] {
        let Admitted { caller, pending } = admit(&signed(b"x"), peer).unwrap();
        assert!(pending.is_some() && !caller.may_do_everything());
        assert_eq!(caller.account.as_str(), "111122223333");
        assert_eq!(
            caller.principal_arn(),
            "arn:aws:iam::111122223333:user/AKID"
        );
        assert_eq!(
            code(&head(Some(&header("OTHER", "00")), None), peer),
            "UnrecognizedClientException"
        );
        assert_eq!(
            code(&head(Some(&header("AKID", "00")), Some("token")), peer),
            "UnrecognizedClientException"
        );
        assert_eq!(
            code(&head(Some("AWS4-HMAC-SHA256 x=y"), None), peer),
            "IncompleteSignatureException"
        );
    }
}

#[tokio::test]
async fn a_body_ends_well_only_when_it_is_what_was_signed() {
    let door = signed_only();
    for (signed_body, sent, sound) in [
        (&b"events"[..], &b"events"[..], true),
        (b"events", b"event", false),
        (b"events", b"events ", false),
        (b"events", b"", false),
        (b"", b"", true),
        (b"", b"events", false),
    ] {
        let admitted = door
            .admit(&signed(signed_body), &tcp(), "traild", NOW)
            .unwrap();
        let (body, verdict) =
            SignedBody::new(Full::new(Bytes::from_static(sent)), admitted.pending);
        assert!(!body.is_end_stream());
        let read = pin!(body).collect().await;
        assert_eq!(read.is_ok(), sound, "{signed_body:?} {sent:?}");
        let refused = verdict.refused().map(|refused| refused.code());
        assert_eq!(refused, (!sound).then_some("InvalidSignatureException"));

        let admitted = door
            .admit(&signed(signed_body), &tcp(), "traild", NOW)
            .unwrap();
        let outcome = admitted.pending.unwrap().without_body();
        assert_eq!(outcome.is_ok(), signed_body.is_empty());
    }
}

fn shows(common_name: &str) -> Peer {
    let names = crate::server::certificate::Names {
        common_name: Some(common_name.to_owned()),
        ..Default::default()
    };
    let secured = crate::server::tls::Secured {
        version: "TLSv1.3",
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        certificate: Some(names),
    };
    Peer::Tls("192.0.2.7:40000".parse().unwrap(), Arc::new(secured))
}

fn collector() -> KnownCertificate {
    KnownCertificate {
        name: certificates::CertificateName::CommonName("collector".to_owned()),
        user_name: "ns/audit/collector".into(),
        account: "444455556666".parse().unwrap(),
        policy: None,
    }
}

#[test]
fn a_known_certificate_need_not_sign_and_is_held_to_its_signature_when_it_does() {
    let credential = Credential {
        access_key_id: "AKID".to_owned(),
        secret: SecretKey::new("secret".to_owned()),
        account: "111122223333".parse().unwrap(),
        policy: None,
    };
    let door = knowing(Options::SigV4(vec![credential]), vec![collector()]);
    let admit = |head: &request::Parts, peer: &Peer| door.admit(head, peer, "traild", NOW);
    let code = |head: &request::Parts, peer: &Peer| admit(head, peer).unwrap_err().code();
    let Admitted { caller, pending } = admit(&head(None, None), &shows("collector")).unwrap();
    assert!(pending.is_none() && caller.tls.is_some() && !caller.may_do_everything());
    assert_eq!(
        (caller.account.as_str(), caller.region.as_str()),
        ("444455556666", "eu-central-1")
    );
    assert_eq!(
        caller.principal_arn(),
        "arn:aws:iam::444455556666:user/ns/audit/collector"
    );
    assert!(caller.authorize("cloudtrail:GetTrail", "*", NOW).is_ok());
    let foreign = "arn:aws:cloudtrail:us-east-1:111122223333:trail/main";
    assert!(
        caller
            .authorize("cloudtrail:GetTrail", foreign, NOW)
            .is_err()
    );

    let Admitted { caller, pending } = admit(&signed(b"x"), &shows("collector")).unwrap();
    assert!(pending.is_some() && caller.tls.is_some());
    assert_eq!(
        caller.principal_arn(),
        "arn:aws:iam::111122223333:user/AKID"
    );
    let bad = head(Some(&header("OTHER", "00")), None);
    assert_eq!(
        code(&bad, &shows("collector")),
        "UnrecognizedClientException"
    );
    // A name that is not known proves nothing by itself.
    assert_eq!(
        code(&head(None, None), &shows("other")),
        "MissingAuthenticationTokenException"
    );
    assert!(admit(&signed(b"x"), &shows("other")).is_ok());
}

#[test]
fn with_mode_none_certificates_that_are_known_let_in_nobody_else() {
    let admit = |certificates: Vec<KnownCertificate>, peer: &Peer| {
        let door = knowing(Options::None, certificates);
        let admitted = door.admit(&head(None, None), peer, "traild", NOW);
        admitted.map(|admitted| admitted.caller)
    };
    let caller = admit(vec![collector()], &shows("collector")).unwrap();
    assert_eq!(caller.account.as_str(), "444455556666");
    assert!(!caller.may_do_everything());
    let refused = admit(vec![collector()], &shows("other")).unwrap_err();
    assert_eq!(refused.code(), "UnrecognizedClientException");
    for (certificates, peer) in [
        (vec![], shows("other")),
        (vec![collector()], UNIX),
        (vec![], tcp()),
    ] {
        assert!(admit(certificates, &peer).unwrap().may_do_everything());
    }
}
