//! Which actions a statement is about.

use super::pattern::Pattern;

/// Actions of one service that there are.
#[derive(Debug, Clone, Copy)]
pub struct Actions<'a> {
    pub service: &'a str,
    pub names: &'a [&'a str],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ActionSet {
    These(Vec<Pattern>),
    AllBut(Vec<Pattern>),
}

impl ActionSet {
    /// Whether `action` is in it, whatever its case.
    pub fn has(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let matches = |pattern: &Pattern| pattern.matches_plainly(&action);
        match self {
            Self::These(patterns) => patterns.iter().any(matches),
            Self::AllBut(patterns) => !patterns.iter().any(matches),
        }
    }
}

/// The pattern of an action as written. One that no known action matches is told why.
pub(super) fn pattern(given: &str, known: &[Actions<'_>]) -> Result<Pattern, String> {
    let pattern = Pattern::any_reach(&given.to_ascii_lowercase());
    let names = known.iter().flat_map(|actions| {
        let named = |name: &&str| format!("{}:{name}", actions.service).to_ascii_lowercase();
        actions.names.iter().map(named)
    });
    if given == "*" || names.into_iter().any(|name| pattern.matches_plainly(&name)) {
        return Ok(pattern);
    }
    let services: Vec<&str> = known.iter().map(|actions| actions.service).collect();
    Err(format!(
        "is no action that traild asks for; it has those of {}",
        services.join(", ")
    ))
}
