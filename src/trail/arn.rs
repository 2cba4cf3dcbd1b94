//! ARNs, taken apart: `arn:<partition>:<service>:<region>:<account>:<resource>` (IAM user guide, "Amazon Resource Names (ARNs)").

use super::destination::Invalid;
use crate::event::{AccountId, Region};

/// An ARN of a service that has regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    pub region: Region,
    pub account: AccountId,
    /// What follows the account: it may hold colons and slashes.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// An ARN of this service, with a region. Nothing when it is none.
    pub fn regional(text: &'a str, service: &str) -> Option<Self> {
        let (region, account, resource) = parts(text, service)?;
        Some(Self {
            region: region.parse().ok()?,
            account: account.parse().ok()?,
            resource,
        })
    }

    /// The resource of an ARN of this service, which has no regions, as IAM has none. Nothing when it is none.
    pub fn global_resource(text: &'a str, service: &str) -> Option<&'a str> {
        let (region, account, resource) = parts(text, service)?;
        let is_global = region.is_empty() && account.parse::<AccountId>().is_ok();
        is_global.then_some(resource)
    }
}

/// Whether this is an ARN, and one of another service than this.
pub fn is_of_other_service(text: &str, service: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    parts.next() == Some("arn") && parts.nth(1) != Some(service) && parts.count() == 3
}

/// Region, account and resource.
fn parts<'a>(text: &'a str, service: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut parts = text.splitn(6, ':');
    let (arn, partition, given) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let is_partition = partition == "aws" || partition.starts_with("aws-");
    (arn == "arn" && is_partition && given == service).then_some((region, account, resource))
}

/// `what` is what an ARN was asked of, as in "an SNS topic"; the example is one.
pub fn not_an_arn(what: &str, example: &str) -> Invalid {
    Invalid(format!("is not the ARN of {what}, as in {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_taken_apart_and_its_parts_are_checked() {
        let arn = Arn::regional("arn:aws-cn:logs:cn-north-1:111122223333:a:b/c", "logs").unwrap();
        assert_eq!(
            (arn.region.as_str(), arn.account.as_str(), arn.resource),
            ("cn-north-1", "111122223333", "a:b/c")
        );
        let role = "arn:aws:iam::111122223333:role/x";
        assert_eq!(Arn::global_resource(role, "iam"), Some("role/x"));
    }

    #[test]
    fn an_arn_of_something_else_is_still_one() {
        for (text, is_other) in [
            ("arn:aws:s3:::bucket", true),
            ("arn:aws:sns:us-east-1:111122223333:a:b", true),
            ("arn:aws:logs:us-east-1:111122223333:x", false),
            ("arn:aws-cn:logs:cn-north-1:1234:x", false),
            ("urn:aws:s3:::bucket", false),
            ("arn:aws:s3::bucket", false),
            ("bucket", false),
            ("", false),
        ] {
            assert_eq!(is_of_other_service(text, "logs"), is_other, "{text}");
        }
    }

    #[test]
    fn what_is_no_arn_of_the_service_is_nothing() {
        for text in [
            "",
            "arn",
            "arn:aws:logs:us-east-1:111122223333",
            "arn:aws:sns:us-east-1:111122223333:x",
            "arn:azure:logs:us-east-1:111122223333:x",
            "urn:aws:logs:us-east-1:111122223333:x",
            "arn:aws:logs::111122223333:x",
            "arn:aws:logs:us-east-1:1234:x",
            "arn:aws:logs:us-east-1::x",
        ] {
            assert_eq!(Arn::regional(text, "logs"), None, "{text}");
        }
        for text in [
            "arn:aws:iam:us-east-1:111122223333:role/x",
            "arn:aws:iam:::role/x",
            "arn:aws:sts::111122223333:role/x",
        ] {
            assert_eq!(Arn::global_resource(text, "iam"), None, "{text}");
        }
    }
}
