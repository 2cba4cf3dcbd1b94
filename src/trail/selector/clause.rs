//! What selectors come to: clauses, of which one must match.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::spec::{AdvancedFieldSelector, Operator};
use super::values::Values;
use crate::event::scan::Field;
use crate::event::{Category, Fields, Meta, Record};

/// Those that ask the record's head alone stand first: when one of them matches, the JSON is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clauses(Vec<Clause>);

/// Everything asked of an event here must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    pub category: Category,
    /// Takes events that only read.
    pub reads: bool,
    /// Takes events that do not.
    pub writes: bool,
    pub texts: Vec<(Subject, Condition)>,
    pub resource: Option<Wanted>,
}

/// A text in the event's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Field(Field),
    /// A field whose value is `true` or `false`, as a word or as a string.
    Flag(Field),
    /// `userIdentity.arn`.
    IdentityArn,
}

/// What is asked of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// One of these must fit, when there are any.
    pub wanted: Values,
    /// None of these may.
    pub unwanted: Values,
}

/// One of the event's resources must be of this type, and its ARN as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub kind: Box<str>,
    pub arn: Vec<Condition>,
}

impl Clauses {
    pub fn new(mut clauses: Vec<Clause>) -> Self {
        clauses.sort_by_key(|clause| !clause.asks_the_head_alone());
        Self(clauses)
    }

    pub fn select(&self, event: &Record<'_>) -> bool {
        let fields = OnceCell::new();
        self.0
            .iter()
            .filter(|clause| clause.fits(&event.meta))
            .any(|clause| {
                clause.asks_the_head_alone()
                    || clause.matches(fields.get_or_init(|| Fields::of(event.json)).as_ref())
            })
    }
}

impl Clause {
    /// Takes every event of a category.
    pub fn all(category: Category) -> Self {
        Self {
            category,
            reads: true,
            writes: true,
            texts: Vec::new(),
            resource: None,
        }
    }

    fn asks_the_head_alone(&self) -> bool {
        self.texts.is_empty() && self.resource.is_none()
    }

    fn fits(&self, meta: &Meta) -> bool {
        let direction = if meta.read_only {
            self.reads
        } else {
            self.writes
        };
        direction && meta.category == self.category
    }

    fn matches(&self, fields: Option<&Fields<'_>>) -> bool {
        let text = |subject: &Subject| fields.and_then(|fields| subject.text(fields));
        self.texts
            .iter()
            .all(|(subject, condition)| condition.admits(text(subject).as_deref()))
            && self
                .resource
                .as_ref()
                .is_none_or(|wanted| fields.is_some_and(|fields| wanted.is_among(fields)))
    }
}

impl Subject {
    fn text<'a>(self, fields: &Fields<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Field(field) => fields.text(field),
            Self::Flag(field) => match fields.raw(field) {
                Some(b"true") => Some(Cow::Borrowed("true")),
                Some(b"false") => Some(Cow::Borrowed("false")),
                _ => fields.text(field),
            },
            Self::IdentityArn => fields.identity_arn(),
        }
    }
}

impl Condition {
    pub fn of(selector: &AdvancedFieldSelector) -> Self {
        let values = |operator| {
            let values = selector.values(operator).unwrap_or_default();
            values.iter().map(String::as_str)
        };
        Self {
            wanted: Values::new(
                values(Operator::Equals),
                values(Operator::StartsWith),
                values(Operator::EndsWith),
            ),
            unwanted: Values::new(
                values(Operator::NotEquals),
                values(Operator::NotStartsWith),
                values(Operator::NotEndsWith),
            ),
        }
    }

    /// `text` is nothing when the event does not have it.
    fn admits(&self, text: Option<&str>) -> bool {
        match text {
            Some(text) => {
                (self.wanted.is_empty() || self.wanted.fit(text)) && !self.unwanted.fit(text)
            }
            None => self.wanted.is_empty(),
        }
    }
}

impl Wanted {
    fn is_among(&self, fields: &Fields<'_>) -> bool {
        fields
            .resources()
            .filter(|resource| resource.kind.as_deref() == Some(&*self.kind))
            .any(|resource| {
                let arn = resource.arn.or(resource.arn_prefix);
                self.arn
                    .iter()
                    .all(|condition| condition.admits(arn.as_deref()))
            })
    }
}
