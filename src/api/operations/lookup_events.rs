//! LookupEvents: the management events, or the Insight events, of the caller's account and region, the newest first.
//!
//! A page stands where it stood when new events come: its token names the last event of the page before, and what is newer comes before that. AWS
//! answers two requests a second, traild as many as there are.

use serde::{Deserialize, Serialize};

use crate::api::timestamp::Timestamp;
use crate::api::{Call, Error, Operation, token};
use crate::clock::WallMillis;
use crate::event::refusal::shown;
use crate::event::{Category, Record};
use crate::history::attribute::{MAX_VALUE_CHARS, read_only_text};
use crate::history::part::PartId;
use crate::history::{Attribute, Facts, Place, Query, Scope};

/// Events of one answer.
const MOST: i64 = 50;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LookupEvents {
    lookup_attributes: Option<Vec<LookupAttribute>>,
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    event_category: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LookupAttribute {
    #[serde(default)]
    attribute_key: String,
    #[serde(default)]
    attribute_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    events: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<String>,
    event_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    resources: Vec<Resource>,
    cloud_trail_event: String,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_type: Option<String>,
    resource_name: String,
}

impl Operation for LookupEvents {
    const NAME: &'static str = "LookupEvents";
    type Answer = Answer;

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let category = self.category()?;
        let filter = self.filter(category)?;
        let times = self.times(call.now)?;
        let most = match self.max_results.unwrap_or(MOST) {
            most @ 1..=MOST => usize::try_from(most).unwrap_or_default(),
            other => return Err(Error::InvalidMaxResults(other)),
        };
        let (account, region) = (call.caller.account, call.region);
        let moment = |given: Option<Timestamp>| {
            given.map_or(String::new(), |Timestamp(it)| it.0.to_string())
        };
        let (attribute, value) = filter
            .as_ref()
            .map_or(("", ""), |(attribute, value)| (attribute.name(), value));
        let asked = [
            Self::NAME,
            account.as_str(),
            region.as_str(),
            self.event_category.as_deref().unwrap_or_default(),
            attribute,
            value,
            &moment(self.start_time),
            &moment(self.end_time),
            &most.to_string(),
        ];
        let after = match &self.next_token {
            None => None,
            Some(token) => {
                let place = token::read(&asked, token).map_err(Error::InvalidNextToken)?;
                Some(parsed(&place).ok_or(Error::InvalidNextToken(token::ForeignToken))?)
            }
        };
        let query = Query {
            scope: Scope {
                account,
                region,
                category,
            },
            filter: filter.clone(),
            times,
            after,
            most,
        };
        let page = call.home.history.lookup(query).await?;
        Ok(Answer {
            next_token: page.next.map(|next| token::made(&asked, &written(next))),
            events: page
                .events
                .iter()
                .filter_map(|frame| event(frame))
                .collect(),
        })
    }
}

impl LookupEvents {
    fn category(&self) -> Result<Category, Error> {
        match self.event_category.as_deref() {
            None => Ok(Category::Management),
            Some("insight") => Ok(Category::Insight),
            Some(other) => Err(Error::InvalidEventCategory(shown(other.as_bytes(), 64))),
        }
    }

    /// The one attribute that there may be.
    fn filter(&self, category: Category) -> Result<Option<(Attribute, String)>, Error> {
        let invalid = |problem: String| Err(Error::InvalidLookupAttributes(problem));
        let LookupAttribute {
            attribute_key,
            attribute_value,
        } = match self.lookup_attributes.as_deref() {
            None | Some([]) => return Ok(None),
            Some([attribute]) => attribute,
            Some(more) => {
                return invalid(format!(
                    "LookupAttributes has {} attributes, it may have one",
                    more.len()
                ));
            }
        };
        let Some(attribute) = Attribute::named(attribute_key) else {
            let names = Attribute::ALL.map(Attribute::name).join(", ");
            return invalid(format!(
                "AttributeKey '{}' is none of {names}",
                shown(attribute_key.as_bytes(), 64)
            ));
        };
        if category == Category::Insight && !attribute.is_of_insights() {
            return invalid(format!(
                "Insight events are not looked up by {attribute_key}, but by EventId, EventName and EventSource"
            ));
        }
        let characters = attribute_value.chars().count();
        if !(1..=MAX_VALUE_CHARS).contains(&characters) {
            return invalid(format!(
                "AttributeValue has {characters} characters; it has 1 to {MAX_VALUE_CHARS}"
            ));
        }
        if attribute == Attribute::ReadOnly
            && ![true, false]
                .map(read_only_text)
                .contains(&attribute_value.as_str())
        {
            return invalid(format!(
                "ReadOnly is 'true' or 'false', not '{}'",
                shown(attribute_value.as_bytes(), 64)
            ));
        }
        Ok(Some((attribute, attribute_value.clone())))
    }

    /// Whole seconds, both included: event times have no fractions.
    fn times(&self, now: WallMillis) -> Result<(i64, i64), Error> {
        let Self {
            start_time,
            end_time,
            ..
        } = self;
        if start_time.is_some_and(|Timestamp(start)| start > now) {
            return Err(Error::InvalidLookupTimes("StartTime is in the future"));
        }
        if let (Some(start), Some(end)) = (start_time, end_time)
            && start > end
        {
            return Err(Error::InvalidLookupTimes("StartTime is after EndTime"));
        }
        // Up to the next whole second, and down to the last one.
        let from = start_time.map(|Timestamp(start)| -((-start.0).div_euclid(1000)));
        let to = end_time.map(|Timestamp(end)| end.unix_seconds());
        Ok((from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)))
    }
}

/// A place as tokens have it.
fn written(place: Place) -> String {
    let Place { time, part, at } = place;
    format!("{time} {} {} {at}", part.day, part.number)
}

fn parsed(text: &str) -> Option<Place> {
    let mut parts = text.split(' ');
    let mut next = || parts.next();
    let time = next()?.parse().ok()?;
    let (day, number) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let at = next()?.parse().ok()?;
    Some(Place {
        time,
        part: PartId { day, number },
        at,
    })
}

/// An event as the API tells it.
fn event(frame: &[u8]) -> Option<Event> {
    let record = Record::decode(frame).ok()?;
    let Facts {
        event_id,
        event_name,
        event_source,
        read_only,
        access_key_id,
        username,
        resources,
    } = Facts::of(&record);
    let owned = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| text.into_owned());
    let resources = resources.into_iter().map(|resource| Resource {
        resource_type: owned(resource.kind),
        resource_name: resource.name.into_owned(),
    });
    Some(Event {
        event_id: owned(event_id),
        event_name: owned(event_name),
        read_only: read_only.map(read_only_text),
        access_key_id: owned(access_key_id),
        event_time: Timestamp(WallMillis(record.meta.event_time.saturating_mul(1000))),
        event_source: owned(event_source),
        username: owned(username),
        resources: resources.collect(),
        cloud_trail_event: std::str::from_utf8(record.json).ok()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            time: 1_777_594_741,
            part: PartId {
                day: 20_574,
                number: 3,
            },
            at: 77 << 20 | 5,
        }
    }

    #[test]
    fn a_place_reads_back_as_written() {
        assert_eq!(parsed(&written(place())), Some(place()));
        for other in ["", "1 2 3", "a 1 2 3", "1 2 -3 4"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn times_are_whole_seconds_within_what_is_asked() {
        let asked = |start: Option<i64>, end: Option<i64>| {
            let moment = |millis: Option<i64>| millis.map(|it| Timestamp(WallMillis(it)));
            let request = LookupEvents {
                lookup_attributes: None,
                start_time: moment(start),
                end_time: moment(end),
                event_category: None,
                max_results: None,
                next_token: None,
            };
            request.times(WallMillis(10_000)).ok()
        };
        assert_eq!(asked(None, None), Some((i64::MIN, i64::MAX)));
        assert_eq!(asked(Some(2000), Some(2000)), Some((2, 2)));
        assert_eq!(asked(Some(2001), Some(3999)), Some((3, 3)));
        assert_eq!(asked(Some(-1500), Some(-1)), Some((-1, -1)));
        assert_eq!(asked(Some(10_000), None), Some((10, i64::MAX)));
        assert_eq!(asked(Some(10_001), None), None, "in the future");
        assert_eq!(asked(Some(3000), Some(2999)), None);
    }
}
