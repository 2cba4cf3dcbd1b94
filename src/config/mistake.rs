//! What is wrong with a configuration, or only doubtful, told so that the reader can mend it.

use std::fmt;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    File {
        path: String,
        line: Option<usize>,
    },
    Environment {
        variable: String,
    },
    /// Nowhere: the embedded default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{path}:{line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Environment { variable } => f.write_str(variable),
            Self::Default => f.write_str("embedded default"),
        }
    }
}

/// One thing that must be changed before the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key's path, as `delivery.max_age` or `trails[0].name`; empty when the whole file is meant.
    pub key: String,
    pub place: Place,
    /// As written.
    pub value: Option<String>,
    pub problem: String,
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match (self.key.as_str(), &self.value) {
            ("", _) => {}
            (key, Some(value)) if !value.is_empty() => write!(f, "{key} = {value}: ")?,
            (key, _) => write!(f, "{key}: ")?,
        }
        f.write_str(&self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Something the configuration asks for that will not happen, though the daemon can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub place: Place,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.message)
    }
}
