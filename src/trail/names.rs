//! The rules of names that AWS would enforce: trails, buckets, prefixes, ARNs (CLOUDTRAIL: "ARNs and names"; S3: "bucket naming rules").
//!
//! Each check answers what is wrong, in words that finish the sentence "this …".

use std::net::Ipv4Addr;

use super::TrailName;
use super::arn::{Arn, not_an_arn};

/// CloudTrail's rules for trails, which the type knows.
pub fn trail_name(name: &str) -> Result<(), String> {
    name.parse::<TrailName>()
        .map(|_| ())
        .map_err(|rule| format!("cannot be a trail's: {rule}"))
}

/// S3's rules for general purpose buckets.
pub fn bucket(name: &str) -> Result<(), String> {
    let bytes = name.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        return Err(format!(
            "is {} characters long, a bucket's name has 3 to 63",
            name.chars().count()
        ));
    }
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes
        .iter()
        .all(|b| alphanumeric(b) || matches!(b, b'.' | b'-'))
    {
        return Err("may hold only lower-case letters, digits, '.' and '-'".into());
    }
    if !alphanumeric(&bytes[0]) || !alphanumeric(&bytes[bytes.len() - 1]) {
        return Err("must begin and end with a lower-case letter or digit".into());
    }
    if name.contains("..") || name.contains(".-") || name.contains("-.") {
        return Err("has a '.' beside another '.' or '-'".into());
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err("looks like an IP address".into());
    }
    if name.starts_with("xn--")
        || name.starts_with("sthree-")
        || name.ends_with("-s3alias")
        || name.ends_with("--ol-s3")
    {
        return Err("uses a prefix or suffix that S3 keeps for itself".into());
    }
    Ok(())
}

/// CloudTrail: at most 200 characters. It is followed by `/AWSLogs/`, so slashes at its ends would make empty path elements.
pub fn key_prefix(prefix: &str) -> Result<(), String> {
    let length = prefix.chars().count();
    if length > 200 {
        return Err(format!(
            "is {length} characters long, a prefix has at most 200"
        ));
    }
    if prefix.starts_with('/') || prefix.ends_with('/') {
        return Err(
            "begins or ends with '/', which makes an empty element in every object's key".into(),
        );
    }
    if prefix.contains("//") {
        return Err("holds an empty element ('//')".into());
    }
    if prefix
        .split('/')
        .any(|element| element == "." || element == "..")
    {
        return Err("holds '.' or '..' as an element".into());
    }
    if prefix.chars().any(char::is_control) {
        return Err("holds a control character".into());
    }
    Ok(())
}

/// Organizations: `o-` and 10–32 of `[a-z0-9]`.
pub fn organization_id(id: &str) -> Result<(), String> {
    let rest = id.strip_prefix("o-").unwrap_or_default();
    let well_formed = (10..=32).contains(&rest.len())
        && rest
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if well_formed {
        Ok(())
    } else {
        Err("is not an organization's id: 'o-' and 10 to 32 of a-z and 0-9".into())
    }
}

pub fn role_arn(arn: &str) -> Result<(), String> {
    let wrong = || not_an_arn("an IAM role", "arn:aws:iam::111122223333:role/trail").0;
    let resource = Arn::global_resource(arn, "iam").ok_or_else(wrong)?;
    match resource.strip_prefix("role/") {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(wrong()),
    }
}

/// KMS: a key's id, its ARN, `alias/…` or an alias's ARN (CloudTrail, CreateTrail, KmsKeyId).
pub fn kms_key(key: &str) -> Result<(), String> {
    let resource = if key.starts_with("arn:") {
        let wrong = || {
            not_an_arn(
                "a KMS key",
                "arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012",
            )
            .0
        };
        Arn::regional(key, "kms").ok_or_else(wrong)?.resource
    } else if key.starts_with("alias/") {
        key
    } else {
        return if is_key_id(key) {
            Ok(())
        } else {
            Err(NOT_A_KEY.into())
        };
    };
    let alias = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b))
    };
    let well_formed = match (
        resource.strip_prefix("key/"),
        resource.strip_prefix("alias/"),
    ) {
        (Some(id), _) => is_key_id(id),
        (_, Some(name)) => alias(name),
        _ => false,
    };
    if well_formed {
        Ok(())
    } else {
        Err(NOT_A_KEY.into())
    }
}

const NOT_A_KEY: &str = "is not a KMS key: a key's id, alias/…, or the ARN of either";

fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || b == b'-' || b"mrk".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Ok(()), "{name}");
        }
        for name in bad {
            assert!(rule(name).is_err(), "{name} passed");
        }
    }

    #[test]
    fn names_follow_the_rules_of_aws() {
        let long = "a".repeat(129);
        check(
            trail_name,
            &["main", "a.b_c-d", "abc", &long[..128]],
            &[
                "",
                "ab",
                &long,
                "-abc",
                "abc.",
                "a..b",
                "a._b",
                "192.168.0.1",
                "a b",
                "naïve",
                "a/b",
            ],
        );
        check(
            bucket,
            &["audit-logs", "a.b.c", "123", &long[..63]],
            &[
                "",
                "ab",
                &long[..64],
                "Audit",
                "a_b",
                "-ab",
                "ab-",
                "a..b",
                "a.-b",
                "10.0.0.1",
                "xn--abc",
                "../..",
                "abc-s3alias",
            ],
        );
        check(
            key_prefix,
            &["", "a", "a/b", "ünï", &"a".repeat(200)],
            &["/a", "a/", "a//b", "a/../b", "..", "a\nb", &"a".repeat(201)],
        );
        check(
            organization_id,
            &["o-exampleorgid", "o-0123456789"],
            &["", "o-short", "x-exampleorgid", "o-ExampleOrgId"],
        );
    }

    #[test]
    fn arns_are_checked_part_by_part() {
        check(
            role_arn,
            &["arn:aws:iam::111122223333:role/service/x"],
            &[
                "arn:aws:iam::111122223333:user/x",
                "arn:aws:iam:us-east-1:111122223333:role/x",
            ],
        );
        check(
            kms_key,
            &[
                "alias/trail",
                "12345678-1234-1234-1234-123456789012",
                "mrk-1234abcd12ab34cd56ef1234567890ab",
                "arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012",
                "arn:aws:kms:us-east-1:111122223333:alias/trail",
            ],
            &[
                "my key",
                "alias/",
                "arn:aws:kms:us-east-1:111122223333:thing/x",
            ],
        );
    }
}
