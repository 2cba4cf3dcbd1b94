//! Whose events a sender may send.
//!
//! An event names the account it is of; who sends it may be of another. Whoever lets the sender in knows what they may, and is asked once
//! for each account of a request that they may send events of, however many those are.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::event::AccountId;

type Ask = dyn Fn(AccountId) -> Result<(), String> + Send + Sync;

/// The accounts that a sender may send events of.
#[derive(Clone)]
pub struct Accounts(Option<Arc<Ask>>);

impl Accounts {
    pub fn every() -> Self {
        Self(None)
    }

    /// Those that `ask` does not refuse; its error is told to the sender.
    pub fn asking(ask: impl Fn(AccountId) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            ask: self.0.as_deref(),
            last_allowed: None,
            allowed: HashSet::new(),
        }
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Accounts::asking(…)"
        } else {
            "Accounts::every()"
        })
    }
}

/// What was found out for one request.
pub(super) struct Judge<'a> {
    ask: Option<&'a Ask>,
    /// Most requests are about one account, or have the events of one together.
    last_allowed: Option<AccountId>,
    /// Not those that are refused: their messages are many, and their events are not worth the haste.
    allowed: HashSet<AccountId>,
}

impl Judge<'_> {
    pub fn check(&mut self, account: AccountId) -> Result<(), String> {
        let Some(ask) = self.ask else {
            return Ok(());
        };
        if self.last_allowed == Some(account) {
            return Ok(());
        }
        if !self.allowed.contains(&account) {
            ask(account)?;
            self.allowed.insert(account);
        }
        self.last_allowed = Some(account);
        Ok(())
    }
}
