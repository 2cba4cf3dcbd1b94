//! Resource policies: which resources of the API have one, and what one may say (CloudTrail user guide, "resource-based policy examples for
//! channels"; the rules of the documents are [`ResourcePolicy`]'s).

use std::sync::Arc;

use serde::Serialize;

use super::{Call, Error};
use crate::auth::ResourcePolicy;
use crate::event::refusal::shown;
use crate::registry::Channel;
use crate::trail::arn::{Arn, is_of_other_service};

/// API reference, `ResourcePolicy`.
const MAX_CHARS: usize = 8192;

/// A policy with what it is attached to, as GetResourcePolicy and PutResourcePolicy answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attached {
    resource_arn: String,
    resource_policy: String,
}

impl Attached {
    pub fn new(resource_arn: String, resource_policy: String) -> Self {
        Self {
            resource_arn,
            resource_policy,
        }
    }
}

/// The channel that an operation on policies names, by its ARN only.
pub fn channel(call: &Call<'_>, given: &str) -> Result<Arc<Channel>, Error> {
    let text = || shown(given.as_bytes(), 256);
    let resource = match Arn::regional(given, "cloudtrail") {
        Some(arn) => arn.resource,
        // An ARN of something else is one, of a type that has no policy here.
        None if is_of_other_service(given, "cloudtrail") => {
            return Err(Error::ResourceTypeWithoutPolicy(text()));
        }
        None => return Err(Error::ResourceArnNotValid(text())),
    };
    match resource.split_once('/') {
        Some(("channel", _)) => super::channel::found(call, given).map_err(|error| match error {
            Error::ChannelArnInvalid(arn) => Error::ResourceArnNotValid(arn),
            error => gone(error),
        }),
        Some(("eventdatastore" | "dashboard", id)) if !id.is_empty() => {
            Err(Error::ResourceNotFound(text()))
        }
        Some(("trail", _)) => Err(Error::ResourceTypeWithoutPolicy(text())),
        _ => Err(Error::ResourceArnNotValid(text())),
    }
}

/// A channel that is not there, as these operations call it.
pub fn gone(error: Error) -> Error {
    match error {
        Error::ChannelNotFound(arn) => Error::ResourceNotFound(arn),
        error => error,
    }
}

/// That a document can be the policy of the channel of this ARN.
pub fn check(document: &str, channel_arn: &str) -> Result<(), Error> {
    let chars = document.chars().count();
    if !(1..=MAX_CHARS).contains(&chars) {
        return Err(Error::ResourcePolicyNotValid(format!(
            "it has 1 to {MAX_CHARS} characters, given: {chars}"
        )));
    }
    let parsed = ResourcePolicy::parse(document, channel_arn);
    // What it quotes is the caller's own text.
    let parsed = parsed.map_err(|wrong| shown(wrong.to_string().as_bytes(), 512));
    parsed.map(drop).map_err(Error::ResourcePolicyNotValid)
}
