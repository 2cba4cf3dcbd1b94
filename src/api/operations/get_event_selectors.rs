//! GetEventSelectors: the selectors of a trail, of the kind that is in force.

use serde::Deserialize;

pub use super::put_event_selectors::Answer;
use crate::api::{Call, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetEventSelectors {
    #[serde(default)]
    trail_name: String,
}

impl Operation for GetEventSelectors {
    const NAME: &'static str = "GetEventSelectors";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.trail_name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let entry = trail::found(call, &self.trail_name)?;
        Ok(Answer::new(entry.trail.arn(), &entry.trail.selectors))
    }
}
