//! PutInsightSelectors: which Insights events a trail gets. They take the place of those it had; none turn Insights off.
//!
//! They are kept and told. Event data stores, which the operation also takes, are nothing that traild has.

use serde::{Deserialize, Serialize};

use crate::api::{Call, Error, Operation, trail};
use crate::event::refusal::shown;
use crate::registry::InsightSelector;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PutInsightSelectors {
    #[serde(flatten)]
    of: Of,
    #[serde(default)]
    insight_selectors: Vec<InsightSelector>,
    insights_destination: Option<String>,
}

/// What Insights are of, as PutInsightSelectors and GetInsightSelectors name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Of {
    trail_name: Option<String>,
    event_data_store: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    #[serde(rename = "TrailARN")]
    pub trail_arn: String,
    pub insight_selectors: Vec<InsightSelector>,
}

impl Of {
    pub fn resources(&self, call: &Call<'_>) -> Vec<String> {
        let given = self.trail_name.iter();
        given.map(|given| trail::resource(given, call)).collect()
    }

    /// The trail's name or ARN.
    pub fn trail(self) -> Result<String, Error> {
        match (self.trail_name, self.event_data_store) {
            (Some(trail), None) => Ok(trail),
            (Some(_), Some(_)) => Err(Error::InvalidParameterCombination(
                "TrailName and EventDataStore cannot be given together",
            )),
            (None, Some(_)) => Err(Error::InvalidParameter(
                "EventDataStore names none: traild has no event data stores, give a TrailName"
                    .to_owned(),
            )),
            (None, None) => Err(Error::InvalidParameter("TrailName is not given".to_owned())),
        }
    }
}

impl Operation for PutInsightSelectors {
    const NAME: &'static str = "PutInsightSelectors";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        self.of.resources(call)
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let trail = self.of.trail()?;
        if self.insights_destination.is_some() {
            return Err(Error::InvalidParameterCombination(
                "InsightsDestination goes with EventDataStore, not with TrailName",
            ));
        }
        let entry = trail::changeable(call, &trail)?;
        check(&self.insight_selectors)?;
        let selectors = self.insight_selectors.clone();
        let changed = trail::change_entry(call, &entry, move |entry| {
            entry.insight_selectors = selectors;
            Ok(())
        });
        changed.await?;
        Ok(Answer {
            trail_arn: entry.trail.arn(),
            insight_selectors: self.insight_selectors,
        })
    }
}

/// Each type once, of categories that there are.
fn check(selectors: &[InsightSelector]) -> Result<(), Error> {
    const TYPES: [&str; 2] = ["ApiCallRateInsight", "ApiErrorRateInsight"];
    const CATEGORIES: [&str; 2] = ["Management", "Data"];
    let refused = |given: &str, allowed: [&str; 2], what: &str| {
        Error::InvalidInsightSelectors(format!(
            "{what} of an insight selector is {}, given: {}",
            allowed.join(" or "),
            shown(given.as_bytes(), 64)
        ))
    };
    for (index, selector) in selectors.iter().enumerate() {
        let InsightSelector {
            insight_type,
            event_categories,
        } = selector;
        if !TYPES.contains(&insight_type.as_str()) {
            return Err(refused(insight_type, TYPES, "InsightType"));
        }
        if let Some(categories) = event_categories {
            let unknown = categories
                .iter()
                .find(|category| !CATEGORIES.contains(&category.as_str()));
            if let Some(unknown) = unknown {
                return Err(refused(unknown, CATEGORIES, "EventCategories"));
            }
            if categories.is_empty() {
                return Err(refused("none", CATEGORIES, "EventCategories"));
            }
        }
        let is_again = selectors[..index]
            .iter()
            .any(|other| other.insight_type == *insight_type);
        if is_again {
            return Err(Error::InvalidInsightSelectors(format!(
                "InsightType {insight_type} is given twice"
            )));
        }
    }
    Ok(())
}
