//! Event selectors as PutEventSelectors takes and GetEventSelectors gives them: CloudTrail's JSON (API reference, `EventSelector`,
//! `DataResource`, `AdvancedEventSelector`, `AdvancedFieldSelector`). A member that CloudTrail does not know is refused.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{InvalidEventSelectors, each};
use crate::event::refusal::shown;

/// A basic selector. The default is what CloudTrail gives a new trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct EventSelector {
    pub read_write_type: ReadWriteType,
    pub include_management_events: bool,
    pub data_resources: Vec<DataResource>,
    pub exclude_management_event_sources: Vec<String>,
}

impl Default for EventSelector {
    fn default() -> Self {
        Self {
            read_write_type: ReadWriteType::All,
            include_management_events: true,
            data_resources: Vec::new(),
            exclude_management_event_sources: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadWriteType {
    ReadOnly,
    WriteOnly,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DataResource {
    pub r#type: String,
    /// ARNs, or their beginnings.
    #[serde(default)]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AdvancedEventSelector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub field_selectors: Vec<AdvancedFieldSelector>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AdvancedFieldSelector {
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_equals: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_starts_with: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ends_with: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equals,
    StartsWith,
    EndsWith,
    NotEquals,
    NotStartsWith,
    NotEndsWith,
}

impl Operator {
    pub const ALL: [Self; 6] = [
        Self::Equals,
        Self::StartsWith,
        Self::EndsWith,
        Self::NotEquals,
        Self::NotStartsWith,
        Self::NotEndsWith,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Equals => "Equals",
            Self::StartsWith => "StartsWith",
            Self::EndsWith => "EndsWith",
            Self::NotEquals => "NotEquals",
            Self::NotStartsWith => "NotStartsWith",
            Self::NotEndsWith => "NotEndsWith",
        }
    }
}

impl EventSelector {
    /// Reads the list `EventSelectors`.
    pub fn list(json: Value) -> Result<Vec<Self>, InvalidEventSelectors> {
        list("event selector", json)
    }
}

impl AdvancedEventSelector {
    /// Reads the list `AdvancedEventSelectors`.
    pub fn list(json: Value) -> Result<Vec<Self>, InvalidEventSelectors> {
        list("advanced event selector", json)
    }
}

impl AdvancedFieldSelector {
    /// The values of an operator, when it is given.
    pub fn values(&self, operator: Operator) -> Option<&[String]> {
        match operator {
            Operator::Equals => self.equals.as_deref(),
            Operator::StartsWith => self.starts_with.as_deref(),
            Operator::EndsWith => self.ends_with.as_deref(),
            Operator::NotEquals => self.not_equals.as_deref(),
            Operator::NotStartsWith => self.not_starts_with.as_deref(),
            Operator::NotEndsWith => self.not_ends_with.as_deref(),
        }
    }

    /// The operators that are given, with their values.
    pub fn conditions(&self) -> impl Iterator<Item = (Operator, &[String])> {
        Operator::ALL
            .into_iter()
            .filter_map(|operator| Some((operator, self.values(operator)?)))
    }
}

fn list<S: DeserializeOwned>(kind: &str, json: Value) -> Result<Vec<S>, InvalidEventSelectors> {
    let Value::Array(items) = json else {
        return Err(InvalidEventSelectors(format!("{kind}s are a list")));
    };
    each(
        kind,
        items,
        |item| item.get("Name")?.as_str().map(str::to_owned),
        |item| {
            serde_json::from_value(item).map_err(|error| shown(error.to_string().as_bytes(), 500))
        },
    )
}
