use http::{Request, request};
use proptest::prelude::*;

use super::*;
use crate::auth::SecretKey;

const NOW: WallMillis = WallMillis(1_777_594_354_000); // 20260501T001234Z

const RULES: Rules<'static> = Rules {
    service: "cloudtrail",
    now: NOW,
};

fn head(target: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::post(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// A sound header, with these of its words replaced.
fn signed(replaced: &[(&str, &str)]) -> request::Parts {
    let header = "AWS4-HMAC-SHA256 Credential=AKID/20260501/us-east-1/cloudtrail/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";
    let (mut header, mut date) = (header.to_owned(), "20260501T001234Z".to_owned());
    for (from, to) in replaced {
        header = header.replace(from, to);
        date = date.replace(from, to);
    }
    head(
        "/",
        &[
            ("host", "localhost"),
            ("x-amz-date", &date),
            ("authorization", &header),
        ],
    )
}

fn presigned(replaced: &[(&str, &str)]) -> request::Parts {
    let query = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260501%2Fus-east-1%2Fcloudtrail%2Faws4_request\
                 &X-Amz-Date=20260501T001234Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00";
    let mut query = query.to_owned();
    for (from, to) in replaced {
        query = query.replace(from, to);
    }
    head(&query, &[("host", "localhost")])
}

/// As far as the signature, which is not looked at.
fn judge(head: &request::Parts) -> Result<Claim, Refused> {
    let claim = Claim::of(head)?;
    claim.check(&head.headers, &RULES)?;
    Payload::of(head, &claim)?;
    Ok(claim)
}

#[test]
fn what_is_wrong_with_a_signature_is_told_by_awss_name() {
    enum Is {
        Sound,
        Missing,
        Incomplete,
        Invalid,
    }
    use Is::{Incomplete, Invalid, Missing, Sound};
    let mut with_target = signed(&[]);
    with_target
        .headers
        .insert("x-amz-target", "A.B".parse().unwrap());
    let mut with_agent = signed(&[]);
    with_agent
        .headers
        .insert("x-amz-user-agent", "php".parse().unwrap());
    with_agent
        .headers
        .insert("content-type", "text/plain".parse().unwrap());
    let mut twice = signed(&[]);
    twice
        .headers
        .append("authorization", "AWS4-HMAC-SHA256 x".parse().unwrap());
    let mut both = presigned(&[]);
    both.headers = signed(&[]).headers;
    let mut two_dates = signed(&[]);
    two_dates
        .headers
        .append("x-amz-date", "20260501T001234Z".parse().unwrap());
    let payload = |value: &str| {
        let mut head = signed(&[("x-amz-date,", "x-amz-date;x-amz-content-sha256,")]);
        head.headers
            .insert("x-amz-content-sha256", value.parse().unwrap());
        head
    };
    for (head, is, message) in [
        (signed(&[]), Sound, ""),
        (presigned(&[]), Sound, ""),
        (with_agent, Sound, ""),
        (payload(&"0a".repeat(32)), Sound, ""),
        (head("/", &[]), Missing, "missing Authentication Token"),
        (head("/", &[("authorization", "Bearer x")]), Missing, ""),
        (
            head("/", &[("authorization", "AWS4-HMAC-SHA256")]),
            Incomplete,
            "requires 'Credential' parameter. Authorization header requires 'Signature'",
        ),
        (
            signed(&[("Signature=00", "Signature")]),
            Incomplete,
            "not a valid key=value pair",
        ),
        (
            signed(&[("Signature=00", "Signature=")]),
            Incomplete,
            "requires 'Signature' parameter",
        ),
        (
            signed(&[("Signature=00", "Signature=0, Signature=1")]),
            Incomplete,
            "'Signature' twice",
        ),
        (
            signed(&[("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")]),
            Incomplete,
            "Unsupported AWS 'algorithm'",
        ),
        (
            signed(&[("AKID/", "")]),
            Incomplete,
            "exactly 5 slash-delimited elements",
        ),
        (
            signed(&[("host;x", "host;X")]),
            Incomplete,
            "names in lower case",
        ),
        (
            signed(&[("20260501T001234Z", "2026-05-01T00:12:34Z")]),
            Incomplete,
            "ISO-8601 'basic format'",
        ),
        (
            signed(&[("20260501T001234Z", "20260532T001234Z")]),
            Incomplete,
            "ISO-8601 'basic format'",
        ),
        (twice, Incomplete, "signed once"),
        (both, Incomplete, "signed once"),
        (two_dates, Incomplete, "'x-amz-date' is given twice"),
        (signed(&[("001234Z", "002734Z")]), Sound, ""),
        (
            signed(&[("001234Z", "002735Z")]),
            Invalid,
            "Signature not yet current: 20260501T002735Z is still later than 20260501T002734Z (20260501T001234Z + 15 min.)",
        ),
        (
            signed(&[
                ("20260501T001234Z", "20260430T235734Z"),
                ("20260501", "20260430"),
            ]),
            Sound,
            "",
        ),
        (
            signed(&[
                ("20260501T001234Z", "20260430T235733Z"),
                ("20260501", "20260430"),
            ]),
            Invalid,
            "Signature expired: 20260430T235733Z is now earlier than 20260430T235734Z (20260501T001234Z - 15 min.)",
        ),
        (
            signed(&[("/20260501/", "/20260430/")]),
            Invalid,
            "'20260430' != '20260501', from '20260501T001234Z'",
        ),
        (
            signed(&[("host;", "")]),
            Invalid,
            "'Host' must be a 'SignedHeader'",
        ),
        (
            signed(&[(";x-amz-date", "")]),
            Invalid,
            "'x-amz-date' must be a 'SignedHeader'",
        ),
        (
            with_target,
            Invalid,
            "'x-amz-target' must be a 'SignedHeader'",
        ),
        (
            signed(&[("cloudtrail", "s3")]),
            Invalid,
            "Credential should be scoped to correct service: 'cloudtrail'.",
        ),
        (
            signed(&[("us-east-1", "US")]),
            Invalid,
            "Credential should be scoped to a valid region, not 'US'.",
        ),
        (
            signed(&[("aws4_request", "aws5")]),
            Invalid,
            "valid terminator: 'aws4_request', not 'aws5'",
        ),
        (
            payload("UNSIGNED-PAYLOAD"),
            Invalid,
            "the payload must be signed",
        ),
        (
            payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            Invalid,
            "the payload must be signed",
        ),
        (
            presigned(&[("&X-Amz-Expires=60", "")]),
            Incomplete,
            "must include 'X-Amz-Expires'",
        ),
        (presigned(&[("Expires=60", "Expires=604800")]), Sound, ""),
        (
            presigned(&[("Expires=60", "Expires=604801")]),
            Incomplete,
            "from 1 to 604800",
        ),
        (
            presigned(&[("Expires=60", "Expires=0")]),
            Incomplete,
            "from 1 to 604800",
        ),
        (
            presigned(&[("Expires=60", "Expires=-60")]),
            Incomplete,
            "from 1 to 604800",
        ),
        (presigned(&[("T001234Z", "T001134Z")]), Sound, ""),
        (
            presigned(&[("T001234Z", "T001133Z")]),
            Invalid,
            "Signature expired: 20260501T001133Z is now earlier than 20260501T001134Z (20260501T001234Z - 60 sec.)",
        ),
        (
            presigned(&[("Date=2026", "Date=2026&X-Amz-Date=2026")]),
            Incomplete,
            "'X-Amz-Date' is given twice",
        ),
        (
            presigned(&[(
                "&X-Amz-Signature=00",
                "&X-Amz-Signature=00&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD",
            )]),
            Invalid,
            "the payload must be signed",
        ),
    ] {
        let outcome = judge(&head);
        let as_expected = match is {
            Sound => outcome.is_ok(),
            Missing => outcome == Err(Refused::Missing),
            Incomplete => matches!(outcome, Err(Refused::Incomplete(_))),
            Invalid => matches!(outcome, Err(Refused::Invalid(_))),
        };
        let said = outcome
            .as_ref()
            .err()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            as_expected && said.contains(message),
            "{head:?}: {outcome:?}"
        );
    }
}

/// The signature of a request, made as its sender would.
fn sign(head: &request::Parts, claim: &Claim, key: &SigningKey, payload_hash: &str) -> String {
    let mut canonical = canonical::before_payload(head, &claim.signed_headers);
    canonical.extend_from_slice(payload_hash.as_bytes());
    let hash = crate::digest::Sha256::of(&canonical);
    let scope = format!(
        "{}/{}/{}/aws4_request",
        claim.date, claim.region, claim.service
    );
    key.sign(&format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        claim.at,
        hex::encode(hash.0)
    ))
}

#[test]
fn a_body_is_held_to_the_hash_that_was_signed() {
    let (hash, other) = ([7; 32], [8; 32]);
    let mut head = signed(&[("x-amz-date,", "x-amz-content-sha256;x-amz-date,")]);
    head.headers
        .insert("x-amz-content-sha256", hex::encode(hash).parse().unwrap());
    let claim = judge(&head).unwrap();
    let key = SigningKey::derive(&SecretKey::new("secret".to_owned()), &claim);
    // A wrong signature shows before the body is there.
    assert!(matches!(
        Expected::new(&head, &claim, key.clone()),
        Err(Refused::Invalid(_))
    ));
    let signature = sign(&head, &claim, &key, &hex::encode(hash));
    let sound = head.headers["authorization"]
        .to_str()
        .unwrap()
        .replace("=00", &format!("={signature}"));
    head.headers.insert("authorization", sound.parse().unwrap());
    let expected = Expected::new(&head, &Claim::of(&head).unwrap(), key).unwrap();
    assert_eq!(expected.finish(&hash), Ok(()));
    let said = expected.finish(&other).unwrap_err().to_string();
    assert!(said.contains("x-amz-content-sha256"), "{said}");
}

#[test]
fn what_is_signed_here_is_verified_here() {
    let signer = |session_token: Option<&str>| Signer {
        access_key_id: "AKID".to_owned(),
        secret: SecretKey::new("secret".to_owned()),
        session_token: session_token.map(str::to_owned),
        region: "us-east-1".parse().unwrap(),
        service: "cloudtrail",
    };
    let mut head = head(
        "/v1/events?b=2&a=%20",
        &[
            ("host", "localhost:4580"),
            ("content-type", "text/plain"),
            ("x-amz-target", "A.B"),
        ],
    );
    // Again, as when a request is sent again later.
    for (now, token) in [(WallMillis(0), Some("old")), (NOW, Some("token"))] {
        signer(token).sign(&mut head, b"body", now).unwrap();
    }
    let claim = judge(&head).unwrap();
    assert_eq!(claim.session_token.as_deref(), Some("token"));
    assert_eq!(
        claim.signed_headers,
        "content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-target"
    );
    let key = SigningKey::derive(&SecretKey::new("secret".to_owned()), &claim);
    let expected = Expected::new(&head, &claim, key).unwrap();
    assert_eq!(
        expected.finish(&crate::digest::Sha256::of(b"body").0),
        Ok(())
    );
    assert!(
        expected
            .finish(&crate::digest::Sha256::of(b"other").0)
            .is_err()
    );
}

#[test]
fn only_keys_of_good_signatures_are_remembered_and_not_without_end() {
    let keys = SigningKeys::default();
    let secret = SecretKey::new("secret".to_owned());
    for number in 0..3000 {
        let claim = judge(&signed(&[("us-east-1", &format!("region-{number}"))])).unwrap();
        let key = keys.of(&claim, &secret);
        assert!(keys.count() <= number.min(1024));
        keys.remember(&claim, &key);
    }
    assert!((1..=1024).contains(&keys.count()));
    assert!(!format!("{keys:?}{secret:?}").contains("\"secret\""));
}

proptest! {
    #[test]
    fn any_header_and_query_is_read_or_refused(header in "\\PC*", query in "[!-~]*") {
        let target = format!("/?{query}");
        prop_assume!(target.parse::<http::Uri>().is_ok());
        let mut request = head(&target, &[("host", "h")]);
        if let Ok(value) = http::HeaderValue::from_str(&format!("AWS4-HMAC-SHA256 {header}")) {
            let _ = judge(&head(&target, &[("authorization", value.to_str().unwrap_or_default())]));
            request.headers.insert("authorization", value);
        }
        let _ = judge(&request);
        let _ = canonical::before_payload(&request, &header);
    }

    /// However a query is written, it is the same request.
    #[test]
    fn the_order_and_spelling_of_a_query_do_not_matter(mut pairs in prop::collection::vec(("[a-z ]{0,3}", "[a-z/ ]{0,3}"), 0..6)) {
        let all: fn(&u8) -> String = |byte| format!("%{byte:02x}");
        let few: fn(&u8) -> String = |byte| match byte {
            b' ' => "%20".to_owned(),
            byte => char::from(*byte).to_string(),
        };
        let written = |pairs: &[(String, String)], spell: fn(&u8) -> String| {
            let text = |text: &String| text.as_bytes().iter().map(spell).collect::<String>();
            let pairs = pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
            format!("/?{}", pairs.collect::<Vec<_>>().join("&"))
        };
        let one = canonical::before_payload(&head(&written(&pairs, few), &[]), "host");
        pairs.reverse();
        let other = canonical::before_payload(&head(&written(&pairs, all), &[]), "host");
        prop_assert_eq!(one, other);
    }
}
