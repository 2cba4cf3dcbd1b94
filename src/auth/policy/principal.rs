//! Whom a statement is about (IAM user guide, "AWS JSON policy elements: Principal").

use serde_json::{Map, Value};

use super::Asked;
use crate::event::AccountId;
use crate::event::refusal::shown;
use crate::trail::arn::Arn;

/// Of one statement (API reference, PutResourcePolicy).
const MAX_PRINCIPALS: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principals {
    /// Whoever the document belongs to.
    Holder,
    These(Vec<Principal>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    Everyone,
    /// Everybody of the account: at AWS the account says which of them; here each has a policy of their own, too.
    Account(AccountId),
    /// By the ARN.
    User(String),
}

impl Principals {
    /// `Principal` as it stands in a statement. The error finishes "Principal …".
    pub fn read(given: Option<Value>) -> Result<Self, String> {
        let given = match given {
            Some(Value::String(text)) if text == "*" => vec![Value::String(text)],
            Some(Value::Object(members)) => of_aws(members)?,
            _ => return Err("is \"*\", or an object with \"AWS\"".to_owned()),
        };
        let count = given.len();
        if !(1..=MAX_PRINCIPALS).contains(&count) {
            return Err(format!(
                "has 1 to {MAX_PRINCIPALS} principals, given: {count}"
            ));
        }
        let read = given.iter().map(Principal::read);
        read.collect::<Result<_, _>>().map(Self::These)
    }

    pub fn has(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Holder => true,
            Self::These(these) => these.iter().any(|one| one.is(asked)),
        }
    }
}

fn of_aws(mut members: Map<String, Value>) -> Result<Vec<Value>, String> {
    let aws = members.remove("AWS");
    match (aws, members.keys().next()) {
        (_, Some(other)) => Err(format!(
            "has {}, which cannot send to a channel here: \"AWS\" can",
            shown(other.as_bytes(), 64)
        )),
        (Some(Value::Array(items)), None) => Ok(items),
        (Some(one), None) => Ok(vec![one]),
        (None, None) => Err("is empty".to_owned()),
    }
}

impl Principal {
    fn read(given: &Value) -> Result<Self, String> {
        let wrong = || {
            let given = shown(given.to_string().as_bytes(), 128);
            format!(
                "{given} is no principal that traild has: \"*\", an account of twelve digits, arn:aws:iam::111122223333:root, or the ARN of a user"
            )
        };
        let text = given.as_str().ok_or_else(wrong)?;
        if text == "*" {
            return Ok(Self::Everyone);
        }
        if let Ok(account) = text.parse() {
            return Ok(Self::Account(account));
        }
        match Arn::global_resource(text, "iam").ok_or_else(wrong)? {
            "root" => {
                let account = text.split(':').nth(4).and_then(|text| text.parse().ok());
                account.map(Self::Account).ok_or_else(wrong)
            }
            // A wildcard in an ARN stands for nothing here, as at AWS.
            user if user.starts_with("user/") && !user.contains(['*', '?']) => {
                Ok(Self::User(text.to_owned()))
            }
            _ => Err(wrong()),
        }
    }

    fn is(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Account(account) => asked.caller.account == *account,
            Self::User(arn) => asked.principal_arn == arn,
        }
    }
}
