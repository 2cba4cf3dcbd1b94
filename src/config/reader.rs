//! Takes values out of the tree key by key, and collects what is wrong instead of stopping at it.
//!
//! A section remembers the keys it was asked for: what is left when it is closed is unknown, and the remembered names are what
//! a misspelt one was probably meant to be.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value as Json;

use super::mistake::{Mistake, Place, Warning};
use super::tree::{Item, Table, Value, is_secret};
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// What is wrong with one value.
pub(super) struct Problem {
    pub problem: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    pub fn hint(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: Some(hint.into()),
        }
    }
}

/// All that was found, and every key that exists.
#[derive(Default)]
pub(super) struct Findings {
    pub mistakes: RefCell<Vec<Mistake>>,
    pub warnings: RefCell<Vec<Warning>>,
    known: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

struct Unknown {
    section: String,
    key: String,
    item: Item,
}

/// A value with its place, for checks that look at several keys.
#[derive(Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub key: String,
    pub place: Place,
    pub shown: Option<String>,
}

impl<T> At<T> {
    pub fn mistake(&self, problem: impl Into<String>, hint: impl Into<String>) -> Mistake {
        Mistake {
            key: self.key.clone(),
            place: self.place.clone(),
            value: self.shown.clone(),
            problem: problem.into(),
            hint: Some(hint.into()),
        }
    }

    pub fn warning(&self, message: impl Into<String>) -> Warning {
        Warning {
            key: self.key.clone(),
            place: self.place.clone(),
            message: message.into(),
        }
    }

    /// Whether someone wrote it, and it is not the default.
    pub fn is_given(&self) -> bool {
        self.shown.is_some()
    }
}

/// One table of the file.
pub(super) struct Section<'a> {
    path: String,
    pub place: Place,
    table: Table,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    pub fn root(table: Table, place: Place, findings: &'a Findings) -> Self {
        Self {
            path: String::new(),
            place,
            table,
            findings,
        }
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn remove(&mut self, key: &str) -> Option<Item> {
        self.findings
            .known
            .borrow_mut()
            .insert(without_indexes(&self.join(key)));
        self.table.remove(key)
    }

    /// The table below `key`, empty when there is none.
    pub fn section(&mut self, key: &str) -> Section<'a> {
        let path = self.join(key);
        let (table, place) = match self.remove(key) {
            None => (Table::new(), self.place.clone()),
            Some(Item {
                value: Value::Table(table),
                place,
                ..
            }) => (table, place),
            Some(item) => {
                self.report(
                    &path,
                    &item,
                    Problem::hint(
                        format!("is {}, not a table", item.value.kind()),
                        format!("write [{path}]"),
                    ),
                );
                (Table::new(), item.place)
            }
        };
        Section {
            path,
            place,
            table,
            findings: self.findings,
        }
    }

    /// The tables of the array below `key`, empty when there is none.
    pub fn tables(&mut self, key: &str) -> Vec<Section<'a>> {
        let path = self.join(key);
        let Some(item) = self.remove(key) else {
            return Vec::new();
        };
        let wrong = |item: &Item| {
            let problem = format!("is {}, not an array of tables", item.value.kind());
            self.report(
                &path,
                item,
                Problem::hint(problem, format!("write [[{path}]]")),
            );
        };
        let Value::Array(items) = item.value else {
            wrong(&item);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item.value {
                Value::Table(table) => {
                    let path = format!("{path}[{index}]");
                    sections.push(Section {
                        path,
                        place: item.place,
                        table,
                        findings: self.findings,
                    });
                }
                _ => wrong(&item),
            }
        }
        sections
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A mistake about a key that need not be there.
    pub fn mistake(&self, key: &str, problem: &str, hint: &str) -> Mistake {
        Mistake {
            key: self.join(key),
            place: self.place.clone(),
            value: None,
            problem: problem.into(),
            hint: Some(hint.into()),
        }
    }

    /// The value of `key` when it is given and sound.
    pub fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Item) -> Result<T, Problem>,
    ) -> Option<At<T>> {
        let path = self.join(key);
        let item = self.remove(key)?;
        if item.is_broken() {
            return None;
        }
        match read(&item) {
            Ok(value) => {
                let shown = if is_secret(&path) {
                    String::new()
                } else {
                    item.shown
                };
                Some(At {
                    value,
                    key: path,
                    place: item.place,
                    shown: Some(shown),
                })
            }
            Err(problem) => {
                self.report(&path, &item, problem);
                None
            }
        }
    }

    /// The value of `key`, or `default` when it is not given (or not sound, which is reported).
    pub fn take_or<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl FnOnce(&Item) -> Result<T, Problem>,
    ) -> At<T> {
        let missing = At {
            value: default,
            key: self.join(key),
            place: self.place.clone(),
            shown: None,
        };
        self.take(key, read).unwrap_or(missing)
    }

    /// The value of a key that must be given.
    pub fn require<T>(
        &mut self,
        key: &str,
        hint: &str,
        read: impl FnOnce(&Item) -> Result<T, Problem>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            let missing = self.mistake(key, "is missing", hint);
            self.findings.mistake(missing);
        }
        self.take(key, read)
    }

    fn report(&self, path: &str, item: &Item, Problem { problem, hint }: Problem) {
        let value = (!is_secret(path)).then(|| item.shown.clone());
        let mistake = Mistake {
            key: path.to_owned(),
            place: item.place.clone(),
            value,
            problem,
            hint,
        };
        self.findings.mistakes.borrow_mut().push(mistake);
    }

    /// Everything not asked for is unknown.
    pub fn close(self) {
        for (key, item) in self.table {
            self.findings.unknown.borrow_mut().push(Unknown {
                section: self.path.clone(),
                key,
                item,
            });
        }
    }
}

impl Findings {
    pub fn mistake(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }

    pub fn warn(&self, warning: Warning) {
        self.warnings.borrow_mut().push(warning);
    }

    /// All mistakes, in the order of the file, and all warnings.
    pub fn into_parts(self) -> (Vec<Mistake>, Vec<Warning>) {
        let known = self.known.into_inner();
        let mut mistakes = self.mistakes.into_inner();
        for Unknown { section, key, item } in self.unknown.into_inner() {
            let path = if section.is_empty() {
                key.clone()
            } else {
                format!("{section}.{key}")
            };
            let hint = meant(&known, &without_indexes(&section), &key);
            let problem = "is not a key traild knows".to_owned();
            let hint = hint.map(|meant| match &item.place {
                Place::Environment { .. } => format!(
                    "did you mean TRAILD__{}?",
                    meant.to_ascii_uppercase().replace('.', "__")
                ),
                _ => format!("did you mean {meant}?"),
            });
            mistakes.push(Mistake {
                key: path,
                place: item.place,
                value: None,
                problem,
                hint,
            });
        }
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        (mistakes, self.warnings.into_inner())
    }
}

/// `trails[3].name` as `trails.name`: what the keys of all elements have in common.
fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// The known key that `key` in `section` was probably meant to be: the nearest name there, else the same name elsewhere.
fn meant<'a>(known: &'a BTreeSet<String>, section: &str, key: &str) -> Option<&'a String> {
    let split = |path: &'a str| path.rsplit_once('.').unwrap_or(("", path));
    let allowed = (key.len() / 3).clamp(1, 3);
    let normal = key.replace('-', "_").to_ascii_lowercase();
    let here = known.iter().filter(|path| split(path).0 == section);
    let nearest = here
        .map(|path| (distance(&normal, split(path).1), path))
        .min_by_key(|(distance, _)| *distance);
    if let Some((distance, path)) = nearest
        && distance <= allowed
    {
        return Some(path);
    }
    known.iter().find(|path| split(path).1 == normal)
}

/// Insertions, removals, replacements and swaps of neighbours that lead from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

// What keys hold. Each of these reads one item.

pub(super) fn text(item: &Item) -> Result<String, Problem> {
    match (&item.value, &item.raw) {
        (Value::Text(text), _) => Ok(text.clone()),
        // TRAILD__ACCOUNT_ID=111122223333 is a number to TOML and text to us.
        (Value::Integer(_) | Value::Bool(_) | Value::Other(_), Some(raw)) => Ok(raw.clone()),
        (other, _) => Err(Problem::hint(
            format!("is {}, not text", other.kind()),
            "put it in quotes",
        )),
    }
}

/// Text that may not be empty.
pub(super) fn filled(item: &Item) -> Result<String, Problem> {
    let text = text(item)?;
    if text.is_empty() {
        Err(Problem::new("is empty"))
    } else {
        Ok(text)
    }
}

/// Text that keeps a rule of `names`.
pub(super) fn named(
    rule: fn(&str) -> Result<(), String>,
) -> impl Fn(&Item) -> Result<String, Problem> {
    move |item| keeping(rule)(&text(item)?).map_err(Problem::new)
}

/// A rule of `names` as one makes a value of text: the text itself, when it keeps the rule.
pub(super) fn keeping(
    rule: fn(&str) -> Result<(), String>,
) -> impl Fn(&str) -> Result<String, String> {
    move |text| rule(text).map(|()| text.to_owned())
}

/// Text that may be empty, which means none; otherwise what `parse` makes of it. Its error finishes the sentence "this …".
pub(super) fn none_or<T, E: std::fmt::Display>(
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&Item) -> Result<Option<T>, Problem> {
    move |item| match text(item)?.as_str() {
        "" => Ok(None),
        given => match parse(given) {
            Ok(value) => Ok(Some(value)),
            Err(invalid) => Err(Problem::new(invalid.to_string())),
        },
    }
}

/// Text that parses as a `T` whose error says what it should be.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    hint: &str,
) -> impl Fn(&Item) -> Result<T, Problem> {
    move |item| {
        text(item)?
            .parse()
            .map_err(|error| Problem::hint(format!("is not sound: {error}"), hint))
    }
}

pub(super) fn truth(item: &Item) -> Result<bool, Problem> {
    match item.value {
        Value::Bool(truth) => Ok(truth),
        _ => Err(Problem::hint(
            format!("is {}", item.value.kind()),
            "write true or false, without quotes",
        )),
    }
}

/// Text that is one of these words.
pub(super) fn one_of<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Item) -> Result<T, Problem> {
    move |item| {
        let text = text(item)?;
        let names: Vec<String> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            Problem::hint(
                "is not one of the words this key takes",
                format!("write {}", names.join(" or ")),
            )
        })
    }
}

pub(super) fn number(range: RangeInclusive<u64>) -> impl Fn(&Item) -> Result<u64, Problem> {
    move |item| {
        let hint = format!(
            "write a whole number from {} to {}",
            range.start(),
            range.end()
        );
        let Value::Integer(number) = item.value else {
            return Err(Problem::hint(
                format!("is {}, not a number", item.value.kind()),
                hint,
            ));
        };
        let within = u64::try_from(number)
            .ok()
            .filter(|number| range.contains(number));
        within.ok_or_else(|| Problem::hint("is out of range", hint))
    }
}

pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Item) -> Result<u64, Problem> {
    move |item| {
        let hint = format!(
            "write a size from {} to {}, as in \"16MiB\"",
            show_size(*range.start()),
            show_size(*range.end())
        );
        let bytes = match &item.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => parse_size(text),
            _ => None,
        };
        let bytes = bytes.ok_or_else(|| Problem::hint("is not a size", &hint))?;
        if range.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(Problem::hint("is out of range", hint))
        }
    }
}

pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Item) -> Result<Duration, Problem> {
    move |item| {
        let hint = format!(
            "write a time from {} to {}, as in \"60s\"",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        let time = match &item.value {
            Value::Text(text) => parse_duration(text),
            _ => None,
        };
        let time = time.ok_or_else(|| Problem::hint("is not a time", &hint))?;
        if range.contains(&time) {
            Ok(time)
        } else {
            Err(Problem::hint("is out of range", hint))
        }
    }
}

/// An array of texts.
pub(super) fn texts(item: &Item) -> Result<Vec<String>, Problem> {
    match &item.value {
        Value::Array(items) => items.iter().map(text).collect(),
        other => Err(Problem::hint(
            format!("is {}, not an array", other.kind()),
            "write [\"…\", \"…\"]",
        )),
    }
}

/// What was written, as JSON.
pub(super) fn json(item: &Item) -> Result<Json, Problem> {
    Ok(match &item.value {
        Value::Text(text) => text.as_str().into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Integer(number) => Json::Number(
            serde_json::Number::from_i128(*number)
                .ok_or_else(|| Problem::new("holds a number too large"))?,
        ),
        Value::Array(items) => items.iter().map(json).collect::<Result<_, _>>()?,
        Value::Table(table) => table
            .iter()
            .map(|(key, item)| Ok((key.clone(), json(item)?)))
            .collect::<Result<_, _>>()?,
        Value::Other(kind) => return Err(Problem::new(format!("holds {kind}"))),
        Value::Broken => Json::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        let known: BTreeSet<String> = [
            "account_id",
            "delivery.max_age",
            "delivery.max_bytes",
            "journal.max_bytes",
            "trails.name",
        ]
        .map(String::from)
        .into();
        let table = [
            ("delivery", "max_aeg", Some("delivery.max_age")),
            ("delivery", "max-age", Some("delivery.max_age")),
            ("delivery", "MaxAge", Some("delivery.max_age")),
            ("", "max_age", Some("delivery.max_age")),
            ("", "accountid", Some("account_id")),
            ("trails", "nmae", Some("trails.name")),
            ("delivery", "colour", None),
        ];
        for (section, key, expected) in table {
            assert_eq!(
                meant(&known, section, key).map(String::as_str),
                expected,
                "{section}.{key}"
            );
        }
        assert_eq!(without_indexes("trails[12].name"), "trails.name");
    }
}
