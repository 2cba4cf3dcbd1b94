//! AWS's published vectors, taken as whoever is asked takes them: each signed request is verified, and refused when anything in it is other than it was.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderValue, Request, Uri, request};
use serde::Deserialize;

use super::{Claim, Expected, Refused, Rules, SigningKey};
use crate::auth::SecretKey;
use crate::clock::WallMillis;
use crate::event::time::parse_rfc3339;

#[derive(Deserialize)]
struct Context {
    credentials: Credentials,
    /// False: as S3 takes paths.
    normalize: bool,
    service: String,
    timestamp: String,
    #[serde(default)]
    omit_session_token: bool,
}

#[derive(Deserialize)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

struct Vector {
    name: String,
    context: Context,
    head: request::Parts,
    body: String,
}

impl Vector {
    fn now(&self) -> WallMillis {
        WallMillis(parse_rfc3339(self.context.timestamp.as_bytes()).unwrap() * 1000)
    }

    fn verify(&self) -> Result<(), Refused> {
        let Context {
            credentials,
            service,
            ..
        } = &self.context;
        self.verify_as(&credentials.secret_access_key, service, self.now())
    }

    fn verify_as(&self, secret: &str, service: &str, now: WallMillis) -> Result<(), Refused> {
        let claim = Claim::of(&self.head)?;
        claim.check(&self.head.headers, &Rules { service, now })?;
        assert_eq!(claim.access_key_id, self.context.credentials.access_key_id);
        let key = SigningKey::derive(&SecretKey::new(secret.to_owned()), &claim);
        let expected = Expected::new(&self.head, &claim, key)?;
        expected.finish(digest(&SHA256, self.body.as_bytes()).as_ref())
    }

    fn with(&self, change: impl FnOnce(&mut request::Parts, &mut String)) -> Self {
        let context = serde_json::json!({
            "credentials": {
                "access_key_id": self.context.credentials.access_key_id,
                "secret_access_key": self.context.credentials.secret_access_key,
            },
            "normalize": self.context.normalize,
            "service": self.context.service,
            "timestamp": self.context.timestamp,
        });
        let mut changed = Self {
            name: self.name.clone(),
            context: serde_json::from_value(context).unwrap(),
            head: self.head.clone(),
            body: self.body.clone(),
        };
        change(&mut changed.head, &mut changed.body);
        changed
    }
}

/// Every signed request of the suite. Nothing for one that HTTP itself refuses.
fn vectors() -> Vec<(String, Option<Vector>)> {
    let suite = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sigv4");
    let mut found = Vec::new();
    for directory in std::fs::read_dir(suite).unwrap() {
        let directory = directory.unwrap().path();
        let Ok(context) = std::fs::read_to_string(directory.join("context.json")) else {
            continue;
        };
        for kind in ["header", "query"] {
            let name = format!(
                "{} ({kind})",
                directory.file_name().unwrap().to_str().unwrap()
            );
            let signed = directory.join(format!("{kind}-signed-request.txt"));
            let Ok(signed) = std::fs::read_to_string(signed) else {
                continue;
            };
            let context = serde_json::from_str(&context).unwrap();
            let vector = read(&signed).map(|(head, body)| Vector {
                name: name.clone(),
                context,
                head,
                body,
            });
            found.push((name, vector));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// A request of the suite. A line that begins with blanks goes on with the header before it.
fn read(signed: &str) -> Option<(request::Parts, String)> {
    let (head, body) = signed.split_once("\n\n").unwrap_or((signed, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let target = target.strip_suffix(" HTTP/1.1").unwrap_or(target);
    let uri = target.parse::<Uri>().ok()?;
    let (mut head, ()) = Request::builder()
        .method(method)
        .uri(uri)
        .body(())
        .unwrap()
        .into_parts();
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        match (line.starts_with(' '), headers.last_mut()) {
            (true, Some((_, value))) => *value += line,
            _ => {
                let (name, value) = line.split_once(':').unwrap();
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        head.headers
            .append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    Some((head, body.to_owned()))
}

#[test]
fn awss_vectors_are_verified() {
    let (mut verified, mut not_ours) = (0, Vec::new());
    for (name, vector) in vectors() {
        let outcome = vector.as_ref().map(Vector::verify);
        match (&vector, outcome) {
            (Some(_), Some(Ok(()))) => verified += 1,
            // A blank in a request's target: it never comes over HTTP.
            (None, _) => not_ours.push(name),
            // Paths as S3 takes them, and tokens that were put there after signing, as IoT takes them.
            (Some(vector), Some(Err(_)))
                if !vector.context.normalize || vector.context.omit_session_token =>
            {
                not_ours.push(name);
            }
            (_, outcome) => panic!("{name}: {outcome:?}"),
        }
    }
    let expected = [
        "get-relative-relative-unnormalized",
        "get-relative-unnormalized",
        "get-slash-dot-slash-unnormalized",
        "get-slash-pointless-dot-unnormalized",
        "get-slash-unnormalized",
        "get-slashes-unnormalized",
        "get-space-normalized",
        "get-space-unnormalized",
        "post-sts-header-after",
    ];
    let expected: Vec<String> = expected
        .iter()
        .flat_map(|name| [format!("{name} (header)"), format!("{name} (query)")])
        .collect();
    assert_eq!(not_ours, expected);
    assert_eq!(verified, 60);
}

#[test]
fn a_vector_with_anything_changed_is_refused() {
    type Change = fn(&mut request::Parts, &mut String);
    let changes: [(&str, Change); 7] = [
        ("method", |head, _| {
            head.method = if head.method == "GET" { "POST" } else { "GET" }
                .parse()
                .unwrap();
        }),
        ("path", |head, _| {
            let query = head
                .uri
                .query()
                .map(|query| format!("?{query}"))
                .unwrap_or_default();
            head.uri = format!("{}x{query}", head.uri.path()).parse().unwrap();
        }),
        ("query", |head, _| {
            let query = head
                .uri
                .query()
                .map(|query| format!("{query}&"))
                .unwrap_or_default();
            head.uri = format!("{}?{query}more=1", head.uri.path())
                .parse()
                .unwrap();
        }),
        ("host", |head, _| {
            head.headers
                .insert("host", HeaderValue::from_static("example.com"));
        }),
        ("signature", |head, _| {
            let flip = |text: &str| {
                let at = text.rfind("Signature=").unwrap() + "Signature=".len();
                let other = if text.as_bytes()[at] == b'0' {
                    "1"
                } else {
                    "0"
                };
                format!("{}{other}{}", &text[..at], &text[at + 1..])
            };
            match head.headers.get("authorization").cloned() {
                Some(header) => {
                    let flipped = flip(header.to_str().unwrap()).parse().unwrap();
                    head.headers.insert("authorization", flipped);
                }
                None => head.uri = flip(&head.uri.to_string()).parse().unwrap(),
            }
        }),
        ("body", |_, body| body.push('x')),
        ("unsigned x-amz header", |head, _| {
            head.headers
                .insert("x-amz-target", HeaderValue::from_static("Other"));
        }),
    ];
    let mut refused = 0;
    for vector in vectors().into_iter().filter_map(|(_, vector)| vector) {
        if vector.verify().is_err() {
            continue;
        }
        for (what, change) in changes {
            let changed = vector.with(change);
            assert!(
                matches!(changed.verify(), Err(Refused::Invalid(_))),
                "{}: {what}: {:?}",
                vector.name,
                changed.verify()
            );
            refused += 1;
        }
        let Context {
            credentials,
            service,
            ..
        } = &vector.context;
        let secret = &credentials.secret_access_key;
        let late = WallMillis(vector.now().0 + 3_601_000);
        for (what, outcome) in [
            ("secret", vector.verify_as("other", service, vector.now())),
            ("service", vector.verify_as(secret, "s3", vector.now())),
            ("time", vector.verify_as(secret, service, late)),
        ] {
            assert!(
                matches!(outcome, Err(Refused::Invalid(_))),
                "{}: {what}: {outcome:?}",
                vector.name
            );
            refused += 1;
        }
    }
    assert_eq!(refused, 60 * 10);
}
