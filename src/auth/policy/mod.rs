//! IAM policy documents: what a credential may do (IAM user guide, "IAM JSON policy element reference" and "Policy evaluation logic").
//!
//! ```text
//!  Version     "2012-10-17", or "2008-10-17", which is also what a document without one has; that one knows no ${variables}
//!  Statement   Effect Allow | Deny; Action | NotAction; Resource | NotResource; Condition; Sid
//! ```
//!
//! - Denied unless a statement allows; a statement that denies wins over all that allow.
//! - Actions match whatever their case, resources only in theirs. `*` stands for any characters, `?` for one; a `*` that does not end its part of an
//!   ARN does not reach over a colon.
//! - All conditions of a statement must hold; of the values of one condition, one. A key that the request does not have (`aws:SourceIp` at the
//!   unix socket) fails a condition, but for the negated operators, `…IfExists` and `ForAllValues:…`, which hold, and `Null`, which asks for it.
//! - At AWS an account must let others in from its side as well, by the policies of its resources. Here one document decides, so it must say that it means
//!   another account: a statement allows there only by a `Resource` that spells an ARN with an account in it, be it a wildcard, as
//!   `arn:aws:traild:*:*:events`. A bare `*` and `NotResource` allow in the caller's own account only. They deny everywhere.
//!
//! # Policies of resources
//!
//! A channel may have a policy that says who else may send by it ([`ResourcePolicy`]; CloudTrail user guide, "resource-based policy examples for
//! channels"). It has the same elements, and `Principal` besides: 1 to 20 statements, each with 1 to 50 principals, about the one action
//! `cloudtrail-data:PutAuditEvents` and the one resource that it is attached to. A principal is `*`, an account, or the ARN of an account's root or
//! of one of its users; roles and services have no credentials here, so a document that names one is refused.
//!
//! What is not understood is a mistake of the document, never passed over: an unknown element, operator, key or action, a name that is given
//! twice, a value that is none of its key's kind. A policy that does less than it says must not start.
//!
//! No crate does this here: `iam-rs` (0.7), the one that evaluates, passes over elements it does not know, and never matches a wildcard in the service
//! part of an ARN, so that a `Deny` of `arn:aws:*:…` would deny nothing.

mod actions;
mod condition;
mod document;
mod json;
mod key;
mod pattern;
mod principal;

use crate::clock::WallMillis;
use crate::event::AccountId;

use super::Caller;
use actions::ActionSet;
use condition::Condition;
use pattern::Pattern;
use principal::Principals;

pub use actions::Actions;
pub use document::InvalidPolicy;
use document::Kind;

/// A document that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    effect: Effect,
    principals: Principals,
    actions: ActionSet,
    resources: Resources,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Resources {
    These(Vec<Resource>),
    AllBut(Vec<Resource>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    pattern: Pattern,
    /// It spells an ARN as far as the account.
    names_account: bool,
}

/// A document that was understood, of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePolicy(Policy);

impl ResourcePolicy {
    /// Reads the document that is to be attached to the channel of this ARN.
    pub fn parse(text: &str, channel_arn: &str) -> Result<Self, InvalidPolicy> {
        document::parse(text, &Kind::OfChannel { arn: channel_arn }).map(Self)
    }

    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        self.0.decide(asked)
    }
}

/// What is asked of a policy.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As `cloudtrail:GetTrail`.
    pub action: &'a str,
    /// An ARN, or `*`.
    pub resource: &'a str,
    /// That the resource is of.
    pub account: AccountId,
    pub now: WallMillis,
    pub caller: &'a Caller,
    pub principal_arn: &'a str,
    /// What the request says it knows of the resource's owner (IAM user guide, "The confused deputy problem").
    pub external_id: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// By a statement that says so.
    Denied,
    /// By no statement.
    NotAllowed,
}

impl Policy {
    /// Reads a document. `known` are the actions that there are.
    pub fn parse(text: &str, known: &[Actions<'_>]) -> Result<Self, InvalidPolicy> {
        document::parse(text, &Kind::OfCredential { known })
    }

    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        let mut decision = Decision::NotAllowed;
        for statement in self.statements.iter().filter(|one| one.applies(asked)) {
            match statement.effect {
                Effect::Deny => return Decision::Denied,
                Effect::Allow => decision = Decision::Allowed,
            }
        }
        decision
    }
}

impl Statement {
    fn applies(&self, asked: &Asked<'_>) -> bool {
        self.principals.has(asked)
            && self.actions.has(asked.action)
            && self.is_about(asked)
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(asked))
    }

    fn is_about(&self, asked: &Asked<'_>) -> bool {
        let is_foreign = asked.account != asked.caller.account;
        let is_owners = self.principals != Principals::Holder;
        let must_name_account = is_foreign && !is_owners && self.effect == Effect::Allow;
        let matches = |resource: &Resource| resource.pattern.matches(asked.resource, asked);
        match &self.resources {
            Resources::These(these) => these
                .iter()
                .any(|one| (one.names_account || !must_name_account) && matches(one)),
            Resources::AllBut(_) if must_name_account => false,
            Resources::AllBut(these) => !these.iter().any(matches),
        }
    }
}

#[cfg(test)]
mod tests;
