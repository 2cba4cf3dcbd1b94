//! PutEventSelectors: what a trail records, by selectors of either kind, which take the place of those it had.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::trail::{self, changeable};
use crate::api::{Call, Error, Operation};
use crate::trail::Selectors;
use crate::trail::selector::spec::{AdvancedEventSelector, EventSelector};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutEventSelectors {
    #[serde(default)]
    trail_name: String,
    event_selectors: Option<Value>,
    advanced_event_selectors: Option<Value>,
}

/// Of the kind that is in force.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    #[serde(rename = "TrailARN")]
    trail_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_selectors: Option<Vec<EventSelector>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advanced_event_selectors: Option<Vec<AdvancedEventSelector>>,
}

impl Answer {
    /// A trail of the configuration may have no selectors at all, and record every event: its list is empty, as nothing of the API says that.
    pub fn new(trail_arn: String, selectors: &Selectors) -> Self {
        let (basic, advanced) = match selectors {
            Selectors::Advanced(_) => (None, Some(selectors.advanced_event_selectors().to_vec())),
            Selectors::Basic(_) | Selectors::Everything => {
                (Some(selectors.event_selectors().to_vec()), None)
            }
        };
        Self {
            trail_arn,
            event_selectors: basic,
            advanced_event_selectors: advanced,
        }
    }
}

impl Operation for PutEventSelectors {
    const NAME: &'static str = "PutEventSelectors";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.trail_name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let Self {
            trail_name,
            event_selectors,
            advanced_event_selectors,
        } = self;
        let entry = changeable(call, &trail_name)?;
        let selectors = chosen(event_selectors, advanced_event_selectors)?;
        let answer = Answer::new(entry.trail.arn(), &selectors);
        let changed = trail::change_entry(call, &entry, move |entry| {
            entry.trail_mut().selectors = selectors;
            Ok(())
        });
        changed.await?;
        Ok(answer)
    }
}

fn chosen(basic: Option<Value>, advanced: Option<Value>) -> Result<Selectors, Error> {
    let is_given = |list: &Value| list.as_array().is_none_or(|list| !list.is_empty());
    match (basic.filter(is_given), advanced.filter(is_given)) {
        (Some(basic), None) => Ok(Selectors::basic(EventSelector::list(basic)?)?),
        (None, Some(advanced)) => {
            let given = AdvancedEventSelector::list(advanced)?;
            Ok(Selectors::advanced(given)?)
        }
        (Some(_), Some(_)) => Err(Error::EventSelectorsOfTwoKinds(
            "a trail has EventSelectors or AdvancedEventSelectors, not both",
        )),
        (None, None) => Err(Error::EventSelectorsOfTwoKinds(
            "give EventSelectors or AdvancedEventSelectors, at least one of them",
        )),
    }
}
