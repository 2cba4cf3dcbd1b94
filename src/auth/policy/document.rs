//! Reads a policy document. Whatever is not understood is refused, with where it stands.

use serde_json::{Map, Value};

use super::actions::{self, ActionSet, Actions};
use super::condition::Condition;
use super::json::Strict;
use super::pattern::Pattern;
use super::principal::Principals;
use super::{Effect, Policy, Resource, Resources, Statement};

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub struct InvalidPolicy {
    place: String,
    problem: String,
}

type Result<T> = std::result::Result<T, InvalidPolicy>;

/// Where in a document: `Statement[0].Action `.
#[derive(Clone)]
struct At(String);

impl At {
    fn below(&self, name: &str) -> Self {
        let Self(path) = self;
        Self(if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        })
    }

    fn wrong(&self, problem: impl Into<String>) -> InvalidPolicy {
        let Self(path) = self;
        InvalidPolicy {
            place: if path.is_empty() {
                String::new()
            } else {
                format!("{path} ")
            },
            problem: problem.into(),
        }
    }
}

/// Whose document it is, which decides what may be in it.
pub(super) enum Kind<'a> {
    /// `known` are the actions that there are.
    OfCredential {
        known: &'a [Actions<'a>],
    },
    OfChannel {
        arn: &'a str,
    },
}

/// All that the policy of a channel may be about.
const PUT_AUDIT_EVENTS: Actions<'static> = Actions {
    service: "cloudtrail-data",
    names: &["PutAuditEvents"],
};

/// Statements of the policy of a channel (API reference, PutResourcePolicy).
const MAX_STATEMENTS: usize = 20;

pub(super) fn parse(text: &str, kind: &Kind<'_>) -> Result<Policy> {
    let root = At(String::new());
    let Strict(value) = serde_json::from_str(text)
        .map_err(|error| root.wrong(format!("is not JSON as a policy is: {error}")))?;
    let mut members = object(value, &root)?;
    let variables = match members.remove("Version") {
        None => false,
        Some(Value::String(version)) if version == "2008-10-17" => false,
        Some(Value::String(version)) if version == "2012-10-17" => true,
        Some(_) => {
            return Err(root
                .below("Version")
                .wrong("is \"2012-10-17\" or \"2008-10-17\""));
        }
    };
    if members.remove("Id").is_some_and(|id| !id.is_string()) {
        return Err(root.below("Id").wrong("is text"));
    }
    let given = members
        .remove("Statement")
        .ok_or_else(|| root.wrong("has no Statement, so it would allow nothing"))?;
    nothing_left(&members, &root)?;
    let given = match given {
        Value::Array(items) => items,
        one => vec![one],
    };
    if given.is_empty() {
        return Err(root.wrong("has no Statement, so it would allow nothing"));
    }
    let count = given.len();
    if matches!(kind, Kind::OfChannel { .. }) && count > MAX_STATEMENTS {
        let problem = format!("has at most {MAX_STATEMENTS} statements, given: {count}");
        return Err(root.wrong(problem));
    }
    let statements = given.into_iter().enumerate();
    let statements = statements.map(|(index, value)| {
        statement(value, &At(format!("Statement[{index}]")), kind, variables)
    });
    Ok(Policy {
        statements: statements.collect::<Result<_>>()?,
    })
}

fn statement(value: Value, at: &At, kind: &Kind<'_>, variables: bool) -> Result<Statement> {
    let mut members = object(value, at)?;
    if members.remove("Sid").is_some_and(|sid| !sid.is_string()) {
        return Err(at.below("Sid").wrong("is text"));
    }
    let (known, principals) = match kind {
        Kind::OfCredential { known } => {
            for name in ["Principal", "NotPrincipal"] {
                if members.contains_key(name) {
                    return Err(at.below(name).wrong(
                        "has no place here: the document is its credential's own, leave it out",
                    ));
                }
            }
            (*known, Principals::Holder)
        }
        Kind::OfChannel { .. } => {
            let principals = Principals::read(members.remove("Principal"));
            let principals = principals.map_err(|why| at.below("Principal").wrong(why))?;
            (&[PUT_AUDIT_EVENTS][..], principals)
        }
    };
    let effect = match members.remove("Effect").as_ref().and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return Err(at.below("Effect").wrong("is \"Allow\" or \"Deny\"")),
    };
    let (name, is_not, given) = one_of_two(&mut members, "Action", "NotAction", at)?;
    if matches!(kind, Kind::OfChannel { .. }) {
        let is_it = |action: &String| action.eq_ignore_ascii_case("cloudtrail-data:PutAuditEvents");
        if is_not || given.len() != 1 || !given.iter().all(is_it) {
            return Err(at
                .below(name)
                .wrong("is about one action alone, cloudtrail-data:PutAuditEvents"));
        }
    }
    let patterns = given.iter().map(|action| {
        actions::pattern(action, known)
            .map_err(|why| at.below(name).wrong(format!("\"{action}\" {why}")))
    });
    let patterns = patterns.collect::<Result<_>>()?;
    let actions = if is_not {
        ActionSet::AllBut(patterns)
    } else {
        ActionSet::These(patterns)
    };
    let (name, is_not, given) = one_of_two(&mut members, "Resource", "NotResource", at)?;
    if let Kind::OfChannel { arn } = kind
        && (is_not || given.iter().any(|given| given != arn))
    {
        let problem = format!("is the channel that the policy is attached to, {arn}");
        return Err(at.below(name).wrong(problem));
    }
    let resources = given
        .iter()
        .map(|given| resource(given, &at.below(name), variables));
    let resources = resources.collect::<Result<_>>()?;
    let resources = if is_not {
        Resources::AllBut(resources)
    } else {
        Resources::These(resources)
    };
    let conditions = match members.remove("Condition") {
        None => Vec::new(),
        Some(value) => conditions(value, &at.below("Condition"), variables)?,
    };
    nothing_left(&members, at)?;
    Ok(Statement {
        effect,
        principals,
        actions,
        resources,
        conditions,
    })
}

fn resource(given: &str, at: &At, variables: bool) -> Result<Resource> {
    if given != "*" && !given.starts_with("arn:") {
        return Err(at.wrong(format!("\"{given}\" is neither an ARN nor \"*\"")));
    }
    if given.contains("${") && !variables {
        return Err(at.wrong("has a variable, which only documents of Version \"2012-10-17\" have"));
    }
    let pattern = Pattern::with_variables(given, true);
    let pattern = pattern.map_err(|why| at.wrong(format!("\"{given}\" {why}")))?;
    Ok(Resource {
        names_account: pattern.colons() >= 5,
        pattern: pattern.within_parts(),
    })
}

fn conditions(value: Value, at: &At, variables: bool) -> Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    for (operator, keys) in object(value, at)? {
        let at = at.below(&operator);
        for (key, values) in object(keys, &at)? {
            let at = at.below(&key);
            let values = texts(values, &at)?;
            let condition = Condition::new(&operator, &key, &values, variables);
            conditions.push(condition.map_err(|why| at.wrong(why))?);
        }
    }
    Ok(conditions)
}

/// Exactly one of an element and its negation: its name, whether it is the negation, and its texts.
fn one_of_two(
    members: &mut Map<String, Value>,
    plain: &'static str,
    negation: &'static str,
    at: &At,
) -> Result<(&'static str, bool, Vec<String>)> {
    let (name, value) = match (members.remove(plain), members.remove(negation)) {
        (Some(value), None) => (plain, value),
        (None, Some(value)) => (negation, value),
        (None, None) => return Err(at.wrong(format!("has neither {plain} nor {negation}"))),
        (Some(_), Some(_)) => return Err(at.wrong(format!("has both {plain} and {negation}"))),
    };
    Ok((name, name == negation, texts(value, &at.below(name))?))
}

fn object(value: Value, at: &At) -> Result<Map<String, Value>> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(at.wrong("is not a JSON object")),
    }
}

/// A text, or an array of them. Truths may go without quotes.
fn texts(value: Value, at: &At) -> Result<Vec<String>> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(at.wrong("is not text or an array of texts")),
    };
    match value {
        Value::Array(items) if items.is_empty() => Err(at.wrong("is empty")),
        Value::Array(items) => items.into_iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

fn nothing_left(members: &Map<String, Value>, at: &At) -> Result<()> {
    match members.keys().next() {
        None => Ok(()),
        Some(name) => Err(at
            .below(name)
            .wrong("is no element of a policy that traild knows")),
    }
}
