//! A channel in the API's words: how requests name one, what may be asked of it, and how its ingestion goes (API reference, `GetChannel`).
//!
//! A channel is at home in one account and one region, and seen from nowhere else, but for those whom its resource policy lets in
//! ([`super::audit_events`]). Where its events go is kept and told as it was given: there are no event data stores here, and what comes by a
//! channel goes to the trails that select it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use uuid::Uuid;

use super::timestamp::Timestamp;
use super::{Call, Error};
use crate::clock::WallMillis;
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::registry::channels::{self, Channel, Destination};
use crate::trail::arn::Arn;

/// API reference, `ChannelName`, `Source`, `ChannelArn`, `Location` and `Destinations`.
const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=128;
const MAX_SOURCE_CHARS: usize = 256;
const MAX_ARN_CHARS: usize = 256;
const MAX_LOCATION_CHARS: usize = 1024;
const MAX_DESTINATIONS: usize = 200;

/// What a channel of one's own applications has for a source.
const CUSTOM: &str = "Custom";

/// The ARN of the channel that is given by its ARN or by its id, which is one of this account and region; nothing when it can name none.
pub fn arn_of(given: &str, account: AccountId, region: Region) -> Option<String> {
    let is_id = |id: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (3..=128).contains(&id.len()) && id.bytes().all(allowed)
    };
    if !given.starts_with("arn:") {
        return is_id(given).then(|| channels::arn(account, region, given));
    }
    let arn = Arn::regional(given, "cloudtrail")?;
    let id = arn.resource.strip_prefix("channel/")?;
    (given.len() <= MAX_ARN_CHARS && is_id(id)).then(|| given.to_owned())
}

/// The channel that a request names, of the caller's account and the request's region.
pub fn found(call: &Call<'_>, given: &str) -> Result<Arc<Channel>, Error> {
    let (account, region) = (call.caller.account, call.region);
    let arn = arn_of(given, account, region)
        .ok_or_else(|| Error::ChannelArnInvalid(shown(given.as_bytes(), 256)))?;
    let book = call.home.registry.book();
    let own = |channel: &&Arc<Channel>| channel.account == account && channel.region == region;
    let mut own = book.channels.iter().filter(own);
    own.find(|channel| channel.arn() == arn)
        .cloned()
        .ok_or_else(|| not_found(given))
}

pub fn not_found(given: &str) -> Error {
    Error::ChannelNotFound(shown(given.as_bytes(), 256))
}

/// Changes this channel, if it is still there.
pub async fn change<T: Send + 'static>(
    call: &Call<'_>,
    arn: String,
    change: impl FnOnce(&mut Channel) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let changed = call.home.registry.change(move |book| {
        let channel = book.channels.get_mut(&arn);
        change(channel.ok_or_else(|| not_found(&arn))?)
    });
    changed.await
}

/// What a policy is asked about: the ARN of the channel that a request names.
pub fn resource(given: &str, call: &Call<'_>) -> String {
    let named = arn_of(given, call.caller.account, call.region);
    named.unwrap_or_else(|| "*".to_owned())
}

pub fn check_name(given: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match NAME_CHARS.contains(&given.len()) && given.bytes().all(allowed) {
        true => Ok(()),
        false => Err(Error::InvalidParameter(format!(
            "the name of a channel has 3 to 128 letters, digits, '.', '_' and '-', given: {}",
            shown(given.as_bytes(), 128)
        ))),
    }
}

/// `Custom`, or a name as partners' sources have: a letter, then letters, digits, '.', '_' and '-'. CloudTrail knows its partners by name; traild
/// takes any.
pub fn check_source(given: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let is_name = (1..=MAX_SOURCE_CHARS).contains(&given.len())
        && given.bytes().all(allowed)
        && given.as_bytes()[0].is_ascii_alphabetic();
    // One that differs in its case alone was meant to be it.
    let is_misspelt = given != CUSTOM && given.eq_ignore_ascii_case(CUSTOM);
    match is_name && !is_misspelt {
        true => Ok(()),
        false => Err(Error::InvalidSource(shown(given.as_bytes(), 128))),
    }
}

pub fn check_destinations(given: &[Destination], account: AccountId) -> Result<(), Error> {
    let count = given.len();
    if !(1..=MAX_DESTINATIONS).contains(&count) {
        return Err(Error::InvalidParameter(format!(
            "a channel has 1 to {MAX_DESTINATIONS} destinations, given: {count}"
        )));
    }
    for (index, Destination { kind, location }) in given.iter().enumerate() {
        if kind != "EVENT_DATA_STORE" {
            return Err(Error::InvalidParameter(format!(
                "the Type of a destination is EVENT_DATA_STORE (AWS_SERVICE is for channels that AWS services make), given: {}",
                shown(kind.as_bytes(), 64)
            )));
        }
        if !is_event_data_store(location, account) {
            let location = shown(location.as_bytes(), 256);
            return Err(Error::EventDataStoreArnInvalid(location));
        }
        if given[..index]
            .iter()
            .any(|other| other.location == *location)
        {
            return Err(Error::InvalidParameter(format!(
                "the destination {location} is given twice"
            )));
        }
    }
    Ok(())
}

/// Whether this is the ARN of an event data store of this account, or the id of one.
fn is_event_data_store(given: &str, account: AccountId) -> bool {
    if given.len() > MAX_LOCATION_CHARS {
        return false;
    }
    let is_id = |id: &str| Uuid::try_parse(id).is_ok() && id.len() == 36;
    match Arn::regional(given, "cloudtrail") {
        None => is_id(given),
        Some(arn) => {
            let id = arn.resource.strip_prefix("eventdatastore/");
            arn.account == account && id.is_some_and(is_id)
        }
    }
}

/// What a channel is set to, as CreateChannel, GetChannel and UpdateChannel answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    pub channel_arn: String,
    name: String,
    source: String,
    destinations: Vec<Destination>,
}

impl Settings {
    pub fn new(channel: &Channel) -> Self {
        Self {
            channel_arn: channel.arn(),
            name: channel.name.clone(),
            source: channel.source.clone(),
            destinations: channel.destinations.clone(),
        }
    }
}

/// What came by each channel last, since the daemon started. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ingestions(Arc<Mutex<HashMap<String, Ingestion>>>);

/// How a channel's ingestion went last (API reference, `IngestionStatus`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ingestion {
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_ingestion_success_time: Option<Timestamp>,
    #[serde(
        rename = "LatestIngestionSuccessEventID",
        skip_serializing_if = "Option::is_none"
    )]
    latest_ingestion_success_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_ingestion_error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_ingestion_attempt_time: Option<Timestamp>,
    #[serde(
        rename = "LatestIngestionAttemptEventID",
        skip_serializing_if = "Option::is_none"
    )]
    latest_ingestion_attempt_event_id: Option<String>,
}

impl Ingestions {
    /// Of the channel of this ARN; nothing when nothing has come yet.
    pub fn of(&self, arn: &str) -> Option<Ingestion> {
        self.lock().get(arn).cloned()
    }

    /// A request has come by a channel: the last of its events that was taken, and the last that was tried, if their ids are known; and the code
    /// of the last that was refused.
    pub fn tell(
        &self,
        arn: &str,
        now: WallMillis,
        taken: Option<Uuid>,
        tried: Option<Uuid>,
        refused: Option<&'static str>,
    ) {
        let mut all = self.lock();
        let ingestion = all.entry(arn.to_owned()).or_default();
        ingestion.latest_ingestion_attempt_time = Some(Timestamp(now));
        ingestion.latest_ingestion_attempt_event_id = tried.map(|id| id.to_string());
        if let Some(id) = taken {
            ingestion.latest_ingestion_success_time = Some(Timestamp(now));
            ingestion.latest_ingestion_success_event_id = Some(id.to_string());
        }
        if refused.is_some() {
            ingestion.latest_ingestion_error_code = refused;
        }
    }

    /// The channel is gone.
    pub fn forget(&self, arn: &str) {
        self.lock().remove(arn);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Ingestion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "111122223333";

    fn named(given: &str) -> Option<String> {
        arn_of(given, OWN.parse().unwrap(), "us-east-1".parse().unwrap())
    }

    #[test]
    fn a_channel_is_named_by_its_arn_or_its_id() {
        let arn = "arn:aws:cloudtrail:us-east-1:111122223333:channel/6464f5be-705b-4c51-b64c-d46643ff96dc";
        assert_eq!(named(arn).as_deref(), Some(arn));
        let id = arn.rsplit('/').next().unwrap();
        assert_eq!(named(id).as_deref(), Some(arn));
        for bad in [
            "",
            "ab",
            "a b c",
            "channel/abc",
            "arn:",
            "arn:aws:cloudtrail:us-east-1:111122223333:channel/",
            "arn:aws:cloudtrail:us-east-1:111122223333:channel/a/b/c",
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/abc",
            "arn:aws:s3:us-east-1:111122223333:channel/abc",
            "arn:aws:cloudtrail:us-east-1:1234:channel/abc",
            &format!(
                "arn:aws:cloudtrail:us-east-1:111122223333:channel/{}",
                "a".repeat(250)
            ),
            &"a".repeat(129),
        ] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_and_sources_are_what_the_reference_says() {
        let longest = "n".repeat(128);
        for good in ["wiki", "A.b_c-1", "123", "...", &longest] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a b", "a/b", "été", &format!("{longest}n")] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let longest = "s".repeat(256);
        for good in ["Custom", "Okta", "LaunchDarkly", "One_Identity.1", &longest] {
            assert!(check_source(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "custom",
            "CUSTOM",
            "1Okta",
            "Ok ta",
            "-",
            "été",
            &format!("{longest}s"),
        ] {
            assert!(check_source(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations_are_event_data_stores_of_the_account() {
        const ID: &str = "8fb8a0e9-0f1f-4a85-9664-d50a3c0ffee1";
        let of = |kind: &str, location: &str| Destination {
            kind: kind.to_owned(),
            location: location.to_owned(),
        };
        let store = |location: &str| of("EVENT_DATA_STORE", location);
        let arn = format!("arn:aws:cloudtrail:eu-west-1:{OWN}:eventdatastore/{ID}");
        let check = |given: &[Destination]| {
            let outcome = check_destinations(given, OWN.parse().unwrap());
            outcome.map_err(|error| error.code())
        };
        assert_eq!(check(&[store(&arn), store(ID)]), Ok(()));
        let many: Vec<_> = (0..201)
            .map(|n| store(&format!("{n:08x}{}", &ID[8..])))
            .collect();
        assert_eq!(check(&many[..200]), Ok(()));
        for (bad, code) in [
            (vec![], "InvalidParameterException"),
            (many, "InvalidParameterException"),
            (vec![store(ID), store(ID)], "InvalidParameterException"),
            (vec![of("AWS_SERVICE", "wiki")], "InvalidParameterException"),
            (vec![of("", ID)], "InvalidParameterException"),
            (vec![store("")], "EventDataStoreARNInvalidException"),
            (vec![store("wiki")], "EventDataStoreARNInvalidException"),
            (
                vec![store(&arn.replace(OWN, "444455556666"))],
                "EventDataStoreARNInvalidException",
            ),
            (
                vec![store(&arn.replace("eventdatastore", "channel"))],
                "EventDataStoreARNInvalidException",
            ),
            (vec![store(&arn[..40])], "EventDataStoreARNInvalidException"),
        ] {
            assert_eq!(check(&bad), Err(code), "{bad:?}");
        }
    }

    #[test]
    fn what_came_last_is_told_until_the_channel_is_gone() {
        let ingestions = Ingestions::default();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        ingestions.tell("a", WallMillis(1000), Some(first), Some(first), None);
        ingestions.tell(
            "a",
            WallMillis(2000),
            None,
            Some(second),
            Some("InvalidData"),
        );
        assert_eq!(
            serde_json::to_value(ingestions.of("a")).unwrap(),
            serde_json::json!({
                "LatestIngestionSuccessTime": 1, "LatestIngestionSuccessEventID": first.to_string(),
                "LatestIngestionErrorCode": "InvalidData",
                "LatestIngestionAttemptTime": 2, "LatestIngestionAttemptEventID": second.to_string(),
            })
        );
        ingestions.forget("a");
        assert_eq!(ingestions.of("a"), None);
    }
}
