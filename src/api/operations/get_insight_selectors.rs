//! GetInsightSelectors: which Insights events a trail gets.

use serde::Deserialize;

pub use super::put_insight_selectors::Answer;
use super::put_insight_selectors::Of;
use crate::api::{Call, Error, Operation, trail};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GetInsightSelectors {
    #[serde(flatten)]
    of: Of,
}

impl Operation for GetInsightSelectors {
    const NAME: &'static str = "GetInsightSelectors";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        self.of.resources(call)
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let entry = trail::found(call, &self.of.trail()?)?;
        let insight_selectors = entry.insight_selectors.clone();
        if insight_selectors.is_empty() {
            return Err(Error::InsightNotEnabled(entry.trail.name.to_string()));
        }
        Ok(Answer {
            trail_arn: entry.trail.arn(),
            insight_selectors,
        })
    }
}
