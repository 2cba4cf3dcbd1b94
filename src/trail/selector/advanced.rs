//! Advanced event selectors: their rules and what they come to (CloudTrail API reference, `AdvancedEventSelector` and
//! `AdvancedFieldSelector`; user guide, the pages on filtering).
//!
//! What follows holds for trails; event data stores take more fields and categories, and fewer selectors. CloudTrail has `ActivityAuditLog`, the
//! events of other sources than AWS, for event data stores only; that trails take it, too, is traild's own addition.

use super::basic::EXCLUDABLE_SOURCES;
use super::clause::{Clause, Clauses, Condition, Subject, Wanted};
use super::spec::{AdvancedEventSelector, AdvancedFieldSelector, Operator};
use super::{InvalidEventSelectors, each, shown};
use crate::event::Category;
use crate::event::scan::Field;

/// Values of all conditions of all of a trail's selectors (CloudTrail user guide, "quotas").
const MAX_VALUES: usize = 500;

/// Characters of a value (API reference, `OperatorValue`).
const MAX_VALUE_CHARS: usize = 2048;

/// Characters of a selector's name (API reference, `SelectorName`).
const MAX_NAME_CHARS: usize = 1000;

pub fn compile(given: &[AdvancedEventSelector]) -> Result<Clauses, InvalidEventSelectors> {
    if given.is_empty() {
        return Err(InvalidEventSelectors(
            "a trail has at least 1 advanced event selector, given: 0".to_owned(),
        ));
    }
    let name =
        |selector: &&AdvancedEventSelector| selector.name.clone().filter(|name| !name.is_empty());
    let clauses = each("advanced event selector", given, name, clause)?;
    let fields = given.iter().flat_map(|selector| &selector.field_selectors);
    let values: usize = fields
        .flat_map(AdvancedFieldSelector::conditions)
        .map(|(_, values)| values.len())
        .sum();
    if values > MAX_VALUES {
        return Err(InvalidEventSelectors(format!(
            "the advanced event selectors of a trail have at most {MAX_VALUES} values together, given: {values}"
        )));
    }
    Ok(Clauses::new(clauses))
}

/// What a field is for.
#[derive(Clone, Copy)]
enum Role {
    Category,
    ReadOnly,
    ResourceType,
    ResourceArn,
    Text(Subject),
}

/// What events of a category can be asked about one field.
struct Rule {
    field: &'static str,
    role: Role,
    operators: &'static [Operator],
    /// The only values taken; empty when all are.
    values: &'static [&'static str],
    required: bool,
}

const CATEGORIES: &str = "Management, Data, NetworkActivity or ActivityAuditLog";
const ANY: &[Operator] = &Operator::ALL;
const EQUALS: &[Operator] = &[Operator::Equals];

const CATEGORY: Rule = Rule {
    required: true,
    ..rule("eventCategory", Role::Category, EQUALS, &[])
};
const READ_ONLY: Rule = rule("readOnly", Role::ReadOnly, EQUALS, &["true", "false"]);
const IDENTITY_ARN: Rule = text("userIdentity.arn", Subject::IdentityArn, ANY, &[]);
const EVENT_NAME: Rule = text("eventName", Subject::Field(Field::EventName), ANY, &[]);

const MANAGEMENT: &[Rule] = &[
    CATEGORY,
    READ_ONLY,
    text(
        "eventSource",
        Subject::Field(Field::EventSource),
        &[Operator::NotEquals],
        EXCLUDABLE_SOURCES,
    ),
];

const DATA: &[Rule] = &[
    CATEGORY,
    Rule {
        required: true,
        ..rule("resources.type", Role::ResourceType, EQUALS, &[])
    },
    READ_ONLY,
    EVENT_NAME,
    rule("resources.ARN", Role::ResourceArn, ANY, &[]),
    text("eventSource", Subject::Field(Field::EventSource), ANY, &[]),
    text("eventType", Subject::Field(Field::EventType), ANY, &[]),
    IDENTITY_ARN,
    text(
        "sessionCredentialFromConsole",
        Subject::Flag(Field::SessionCredentialFromConsole),
        &[Operator::Equals, Operator::NotEquals],
        &["true"],
    ),
];

const NETWORK_ACTIVITY: &[Rule] = &[
    CATEGORY,
    Rule {
        required: true,
        ..text(
            "eventSource",
            Subject::Field(Field::EventSource),
            EQUALS,
            &[],
        )
    },
    EVENT_NAME,
    text(
        "errorCode",
        Subject::Field(Field::ErrorCode),
        EQUALS,
        &["VpceAccessDenied"],
    ),
    text(
        "vpcEndpointId",
        Subject::Field(Field::VpcEndpointId),
        ANY,
        &[],
    ),
    IDENTITY_ARN,
];

const ACTIVITY: &[Rule] = &[
    CATEGORY,
    EVENT_NAME,
    text("eventSource", Subject::Field(Field::EventSource), ANY, &[]),
];

const fn rule(
    field: &'static str,
    role: Role,
    operators: &'static [Operator],
    values: &'static [&'static str],
) -> Rule {
    Rule {
        field,
        role,
        operators,
        values,
        required: false,
    }
}

const fn text(
    field: &'static str,
    subject: Subject,
    operators: &'static [Operator],
    values: &'static [&'static str],
) -> Rule {
    rule(field, Role::Text(subject), operators, values)
}

fn clause(selector: &AdvancedEventSelector) -> Result<Clause, String> {
    let AdvancedEventSelector {
        name,
        field_selectors,
    } = selector;
    let name_chars = name.as_ref().map_or(0, |name| name.chars().count());
    if name_chars > MAX_NAME_CHARS {
        return Err(format!(
            "Name has at most {MAX_NAME_CHARS} characters, given: {name_chars}"
        ));
    }
    let (category, events, rules) = match only_value(field_selectors, "eventCategory")? {
        "Management" => (Category::Management, "management", MANAGEMENT),
        "Data" => (Category::Data, "data", DATA),
        "NetworkActivity" => (
            Category::NetworkActivity,
            "network activity",
            NETWORK_ACTIVITY,
        ),
        "ActivityAuditLog" => (Category::ActivityAuditLog, "activity", ACTIVITY),
        other => {
            return Err(format!(
                "eventCategory of a trail's selector is {CATEGORIES}, given: {}",
                shown(other)
            ));
        }
    };
    let mut clause = Clause::all(category);
    let mut arn = Vec::new();
    for field_selector in field_selectors {
        let rule = rules
            .iter()
            .find(|rule| rule.field == field_selector.field)
            .ok_or_else(|| {
                let fields: Vec<&str> = rules.iter().map(|rule| rule.field).collect();
                format!(
                    "Field of a trail's selector of {events} events is one of {}, given: {}",
                    fields.join(", "),
                    shown(&field_selector.field)
                )
            })?;
        rule.check(field_selector, events)?;
        match rule.role {
            Role::Category | Role::ResourceType => {}
            Role::ReadOnly => {
                let takes = |word: &str| {
                    let mut values = field_selector.equals.iter().flatten();
                    values.any(|value| value == word)
                };
                clause.reads &= takes("true");
                clause.writes &= takes("false");
            }
            Role::ResourceArn => arn.push(Condition::of(field_selector)),
            Role::Text(subject) => clause.texts.push((subject, Condition::of(field_selector))),
        }
    }
    if !clause.reads && !clause.writes {
        return Err("readOnly cannot be both true and false: it would select nothing".to_owned());
    }
    for rule in rules.iter().filter(|rule| rule.required) {
        if !field_selectors
            .iter()
            .any(|given| given.field == rule.field)
        {
            return Err(format!(
                "{} is missing, which a selector of {events} events needs",
                rule.field
            ));
        }
    }
    if category == Category::Data {
        let kind = only_value(field_selectors, "resources.type")?.into();
        clause.resource = Some(Wanted { kind, arn });
    }
    Ok(clause)
}

/// The value of a field that a selector must have once, with `Equals` and one value.
fn only_value<'a>(given: &'a [AdvancedFieldSelector], field: &str) -> Result<&'a str, String> {
    let mut values = given
        .iter()
        .filter(|selector| selector.field == field)
        .map(|selector| selector.equals.as_deref().unwrap_or_default());
    match (values.next(), values.next()) {
        (None, _) => Err(format!("{field} is missing, which every selector needs")),
        (Some([value]), None) => Ok(value),
        _ => Err(format!(
            "{field} stands once in a selector, with Equals and exactly one value"
        )),
    }
}

impl Rule {
    fn check(&self, given: &AdvancedFieldSelector, events: &str) -> Result<(), String> {
        let Self {
            field, operators, ..
        } = self;
        if given.conditions().next().is_none() {
            return Err(format!(
                "{field} has no operator, it takes {}",
                self.operator_names()
            ));
        }
        for (operator, values) in given.conditions() {
            let name = operator.name();
            if !operators.contains(&operator) {
                return Err(format!(
                    "{field} of {events} events takes {}, given: {name}",
                    self.operator_names()
                ));
            }
            if values.is_empty() {
                return Err(format!("{name} of {field} has no value"));
            }
            for value in values {
                let chars = value.chars().count();
                if !(1..=MAX_VALUE_CHARS).contains(&chars) {
                    return Err(format!(
                        "a value of {name} of {field} has 1 to {MAX_VALUE_CHARS} characters, given: {chars}"
                    ));
                }
                if !self.values.is_empty() && !self.values.contains(&value.as_str()) {
                    return Err(format!(
                        "{name} of {field} of {events} events takes {}, given: {}",
                        self.values.join(" or "),
                        shown(value)
                    ));
                }
            }
        }
        Ok(())
    }

    fn operator_names(&self) -> String {
        let names: Vec<&str> = self.operators.iter().map(|one| one.name()).collect();
        names.join(", ")
    }
}
