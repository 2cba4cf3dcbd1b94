//! What a trail is tagged with (API reference, `Tag`; AWS General Reference, "tagging AWS resources").
//!
//! A trail or a channel has at most 50 tags, no two of one key. A key has 1 to 128 characters and does not begin with `aws:`, a value at most 256. Tags
//! are told apart by their keys, upper and lower case apart, and are removed by their keys whatever value is said.

use std::sync::Arc;

use super::{Call, Error, channel, trail};
use crate::event::refusal::shown;
use crate::registry::{Channel, Entry, Tag};
use crate::trail::arn::{Arn, is_of_other_service};

/// CloudTrail user guide, "quotas".
pub const MAX_TAGS: usize = 50;

const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

/// Tags of a request, each of them sound.
pub fn checked(given: Vec<Tag>) -> Result<Vec<Tag>, Error> {
    let mut checked: Vec<Tag> = Vec::new();
    for tag in given {
        check_key(&tag.key)?;
        let value = tag.value.as_deref().unwrap_or_default();
        let chars = value.chars().count();
        if chars > MAX_VALUE_CHARS || value.contains(char::is_control) {
            return Err(Error::InvalidTagParameter(format!(
                "the value of tag '{}' is not valid: it has at most {MAX_VALUE_CHARS} characters and no control characters, given: {chars}",
                tag.key
            )));
        }
        if checked.iter().any(|other| other.key == tag.key) {
            return Err(Error::InvalidTagParameter(format!(
                "the tag '{}' is given twice",
                tag.key
            )));
        }
        checked.push(tag);
    }
    Ok(checked)
}

/// The keys of tags to be removed.
pub fn checked_keys(given: Vec<Tag>) -> Result<Vec<String>, Error> {
    let keys = given.into_iter().map(|tag| {
        check_key(&tag.key)?;
        Ok(tag.key)
    });
    keys.collect()
}

fn check_key(key: &str) -> Result<(), Error> {
    let problem = match key.chars().count() {
        1..=MAX_KEY_CHARS if key.contains(char::is_control) => "it holds a control character",
        1..=MAX_KEY_CHARS if key.to_ascii_lowercase().starts_with("aws:") => {
            "what begins with aws: is AWS's own"
        }
        1..=MAX_KEY_CHARS => return Ok(()),
        _ => "it has 1 to 128 characters",
    };
    Err(Error::InvalidTagParameter(format!(
        "the key of tag '{}' is not valid: {problem}",
        shown(key.as_bytes(), 64)
    )))
}

/// Adds tags to those that are there, the new value for one that is there.
pub fn add(tags: &mut Vec<Tag>, new: Vec<Tag>) -> Result<(), Error> {
    let mut added = tags.clone();
    for tag in new {
        match added.iter_mut().find(|other| other.key == tag.key) {
            Some(other) => *other = tag,
            None => added.push(tag),
        }
    }
    let would_be = added.len();
    if would_be > MAX_TAGS {
        return Err(Error::TagsLimitExceeded {
            most: MAX_TAGS,
            would_be,
        });
    }
    *tags = added;
    Ok(())
}

/// What has tags.
#[derive(Debug)]
pub enum Tagged {
    Trail(Arc<Entry>),
    Channel(Arc<Channel>),
}

impl Tagged {
    pub fn tags(&self) -> &[Tag] {
        match self {
            Self::Trail(entry) => &entry.tags,
            Self::Channel(channel) => &channel.tags,
        }
    }

    /// Changes its tags, if the API may.
    pub async fn change(
        &self,
        call: &Call<'_>,
        change: impl FnOnce(&mut Vec<Tag>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        match self {
            Self::Trail(entry) => {
                trail::of_api(entry)?;
                trail::change_entry(call, entry, |entry| change(&mut entry.tags)).await
            }
            Self::Channel(found) => {
                channel::change(call, found.arn(), |channel| change(&mut channel.tags)).await
            }
        }
    }
}

/// What a tag operation names, by its ARN only: a trail from every region, a channel from its own.
pub fn resource(call: &Call<'_>, given: &str) -> Result<Tagged, Error> {
    let text = || shown(given.as_bytes(), 256);
    let Some(arn) = Arn::regional(given, "cloudtrail") else {
        // What is an ARN of something else has a place in AWS, but no tags here.
        return Err(match is_of_other_service(given, "cloudtrail") {
            true => Error::ResourceTypeNotSupported(text()),
            false => Error::CloudTrailArnInvalid(text()),
        });
    };
    let (kind, id) = arn.resource.split_once('/').unwrap_or((arn.resource, ""));
    let is_id = !id.is_empty()
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    match (kind, is_id) {
        ("trail", _) => match trail::found(call, given) {
            Err(Error::TrailNotFound { .. }) => Err(Error::ResourceNotFound(text())),
            found => found.map(Tagged::Trail),
        },
        ("channel", _) => channel::found(call, given).map(Tagged::Channel),
        ("eventdatastore", true) => Err(Error::EventDataStoreNotFound(text())),
        ("eventdatastore", false) => Err(Error::EventDataStoreArnInvalid(text())),
        _ => Err(Error::ResourceTypeNotSupported(text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag {
            key: key.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    #[test]
    fn tags_are_checked_one_by_one() {
        let long = "é".repeat(257);
        let (key, value) = (&long[..256], &long[..512]);
        let good = vec![tag(key, value), tag("a", ""), tag("A", "b c")];
        assert_eq!(checked(good.clone()).unwrap(), good);
        for bad in [
            vec![tag("", "x")],
            vec![tag(&long[..258], "x")],
            vec![tag("aws:name", "x")],
            vec![tag("AWS:name", "x")],
            vec![tag("a\u{7}", "x")],
            vec![tag("a", &long)],
            vec![tag("a", "\n")],
            vec![tag("a", "1"), tag("b", "2"), tag("a", "3")],
        ] {
            let error = checked(bad.clone()).unwrap_err();
            assert_eq!(error.code(), "InvalidTagParameterException", "{bad:?}");
        }
    }

    #[test]
    fn a_tag_is_replaced_by_its_key_and_no_more_than_fifty_are_kept() {
        let mut tags: Vec<_> = (0..MAX_TAGS).map(|n| tag(&n.to_string(), "old")).collect();
        add(&mut tags, vec![tag("7", "new")]).unwrap();
        assert_eq!((tags.len(), &tags[7]), (MAX_TAGS, &tag("7", "new")));
        let before = tags.clone();
        let error = add(&mut tags, vec![tag("8", "new"), tag("more", "")]).unwrap_err();
        assert_eq!(error.code(), "TagsLimitExceededException");
        assert_eq!(tags, before, "all or nothing");
    }
}
