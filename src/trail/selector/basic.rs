//! Basic event selectors: their rules and what they come to (CloudTrail API reference, `EventSelector` and `DataResource`).
//!
//! A value of `DataResources` is matched as its type has it:
//!
//! - `AWS::S3::Object`: `arn:aws:s3` and `arn:aws:s3:::` are all objects, `arn:aws:s3:::bucket/` those of a bucket, and what follows the
//!   slash is the beginning of their keys
//! - `AWS::Lambda::Function`: `arn:aws:lambda` is all functions, else it is the ARN of one
//! - `AWS::DynamoDB::Table`: `arn:aws:dynamodb` is all tables, else it is the ARN of one

use super::clause::{Clause, Clauses, Condition, Subject, Wanted};
use super::spec::{DataResource, EventSelector, ReadWriteType};
use super::values::Values;
use super::{InvalidEventSelectors, each, shown};
use crate::event::Category;
use crate::event::scan::Field;

/// Basic selectors of one trail (CloudTrail user guide, "quotas").
const MAX_SELECTORS: usize = 5;

/// Values of all data resources of one trail, not counting those that stand for all of a type (CloudTrail user guide, "quotas").
const MAX_DATA_RESOURCES: usize = 250;

/// Services whose management events a basic selector, or an advanced one of a trail, can leave out.
pub const EXCLUDABLE_SOURCES: &[&str] = &["kms.amazonaws.com", "rdsdata.amazonaws.com"];

pub fn compile(given: &[EventSelector]) -> Result<Clauses, InvalidEventSelectors> {
    if given.is_empty() || given.len() > MAX_SELECTORS {
        return Err(InvalidEventSelectors(format!(
            "a trail has 1 to {MAX_SELECTORS} event selectors, given: {}",
            given.len()
        )));
    }
    let compiled = each("event selector", given, |_| None, clauses)?;
    let values: usize = compiled.iter().map(|(_, values)| values).sum();
    if values > MAX_DATA_RESOURCES {
        return Err(InvalidEventSelectors(format!(
            "the DataResources of a trail's event selectors have at most {MAX_DATA_RESOURCES} values together, given: {values}"
        )));
    }
    let clauses = compiled.into_iter().flat_map(|(clauses, _)| clauses);
    Ok(Clauses::new(clauses.collect()))
}

/// What a selector comes to, and how many of its values count.
fn clauses(selector: &EventSelector) -> Result<(Vec<Clause>, usize), String> {
    let EventSelector {
        read_write_type,
        include_management_events,
        data_resources,
        exclude_management_event_sources: excluded,
    } = selector;
    let mut clauses = Vec::new();
    let mut counted = 0;
    let of = |category| Clause {
        reads: *read_write_type != ReadWriteType::WriteOnly,
        writes: *read_write_type != ReadWriteType::ReadOnly,
        ..Clause::all(category)
    };
    if !excluded.is_empty() && !include_management_events {
        return Err(
            "ExcludeManagementEventSources needs IncludeManagementEvents to be true".to_owned(),
        );
    }
    if let Some(source) = excluded
        .iter()
        .find(|source| !EXCLUDABLE_SOURCES.contains(&source.as_str()))
    {
        return Err(format!(
            "ExcludeManagementEventSources takes {}, given: {}",
            EXCLUDABLE_SOURCES.join(" and "),
            shown(source)
        ));
    }
    if *include_management_events {
        let mut clause = of(Category::Management);
        if !excluded.is_empty() {
            let unwanted = Values::new(excluded.iter().map(String::as_str), [], []);
            let condition = Condition {
                wanted: Values::default(),
                unwanted,
            };
            clause
                .texts
                .push((Subject::Field(Field::EventSource), condition));
        }
        clauses.push(clause);
    }
    for resource in data_resources {
        let (arn, values) = arns(resource)?;
        counted += values;
        if !resource.values.is_empty() {
            clauses.push(Clause {
                resource: Some(Wanted {
                    kind: resource.r#type.as_str().into(),
                    arn,
                }),
                ..of(Category::Data)
            });
        }
    }
    if clauses.is_empty() {
        return Err(
            "it selects nothing: set IncludeManagementEvents to true, or give DataResources"
                .to_owned(),
        );
    }
    Ok((clauses, counted))
}

/// What a value stands for.
enum Arns<'a> {
    All,
    Beginning(&'a str),
    One(&'a str),
}

/// The condition on the ARN of a resource of this type, none when there is no restriction; and how many of the values count.
fn arns(resource: &DataResource) -> Result<(Vec<Condition>, usize), String> {
    let DataResource { r#type, values } = resource;
    let (read, takes): (fn(&str) -> Option<Arns<'_>>, &str) = match r#type.as_str() {
        "AWS::S3::Object" => (
            s3,
            "arn:aws:s3 for all, arn:aws:s3:::bucket/ with its slash, or that and the beginning of a key",
        ),
        "AWS::Lambda::Function" => (lambda, "arn:aws:lambda for all, or the ARN of a function"),
        "AWS::DynamoDB::Table" => (dynamodb, "arn:aws:dynamodb for all, or the ARN of a table"),
        _ => {
            return Err(format!(
                "Type of DataResources is AWS::S3::Object, AWS::Lambda::Function or AWS::DynamoDB::Table (advanced event selectors take others), given: {}",
                shown(r#type)
            ));
        }
    };
    let (mut all, mut starts, mut equals) = (false, Vec::new(), Vec::new());
    for value in values {
        match read(value) {
            Some(Arns::All) => all = true,
            Some(Arns::Beginning(arn)) => starts.push(arn),
            Some(Arns::One(arn)) => equals.push(arn),
            None => {
                return Err(format!(
                    "Values of {type} in DataResources takes {takes}, given: {}",
                    shown(value)
                ));
            }
        }
    }
    let counted = starts.len() + equals.len();
    let condition = Condition {
        wanted: Values::new(equals, starts, []),
        unwanted: Values::default(),
    };
    Ok((if all { vec![] } else { vec![condition] }, counted))
}

fn s3(value: &str) -> Option<Arns<'_>> {
    match after_partition(value)? {
        "s3" | "s3:::" => Some(Arns::All),
        rest => {
            let (bucket, _) = rest.strip_prefix("s3:::")?.split_once('/')?;
            (!bucket.is_empty()).then_some(Arns::Beginning(value))
        }
    }
}

fn lambda(value: &str) -> Option<Arns<'_>> {
    one_of(value, "lambda", "function:")
}

fn dynamodb(value: &str) -> Option<Arns<'_>> {
    one_of(value, "dynamodb", "table/")
}

/// All of a service's, or one: `arn:<partition>:<service>:<region>:<account>:<kind><name>`.
fn one_of<'a>(value: &'a str, service: &str, kind: &str) -> Option<Arns<'a>> {
    let rest = after_partition(value)?.strip_prefix(service)?;
    if rest.is_empty() {
        return Some(Arns::All);
    }
    let mut parts = rest.strip_prefix(':')?.splitn(3, ':');
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let name = resource.strip_prefix(kind)?;
    (!region.is_empty() && !account.is_empty() && !name.is_empty()).then_some(Arns::One(value))
}

/// What follows `arn:aws:`, or that of another partition (`aws-cn`, `aws-us-gov`).
fn after_partition(value: &str) -> Option<&str> {
    let (partition, rest) = value.strip_prefix("arn:")?.split_once(':')?;
    (partition == "aws" || partition.starts_with("aws-")).then_some(rest)
}
