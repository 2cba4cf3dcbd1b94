//! The configuration as written: every value with the place it came from, before anything is known about its meaning.
//!
//! TOML first, then `TRAILD__…` overrides from the environment, then `${VAR}` in strings of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place};

pub(super) type Table = BTreeMap<String, Item>;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub value: Value,
    pub place: Place,
    /// The text as written, for messages: never expanded, so that it shows no secret of the environment.
    pub shown: String,
    /// The whole text of an environment variable: a key that wants text takes this.
    pub raw: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Bool(bool),
    Array(Vec<Item>),
    Table(Table),
    /// Floats and dates, which no key takes.
    Other(&'static str),
    /// Already reported; the reader stays silent about it.
    Broken,
}

impl Item {
    /// Whether something in it was already reported.
    pub fn is_broken(&self) -> bool {
        match &self.value {
            Value::Broken => true,
            Value::Array(items) => items.iter().any(Self::is_broken),
            Value::Table(table) => table.values().any(Self::is_broken),
            Value::Text(_) | Value::Integer(_) | Value::Bool(_) | Value::Other(_) => false,
        }
    }
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
            Self::Broken => "unreadable",
        }
    }
}

/// The file as a tree, or everything TOML finds wrong with it.
pub(super) fn parse(text: &str, file: &str) -> Result<Table, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let source = Source { text, file };
    if errors.is_empty() {
        return Ok(source.table(document.get_ref()));
    }
    let mistake = |error: toml::de::Error| Mistake {
        key: String::new(),
        place: source.place(error.span().unwrap_or(0..0)),
        value: None,
        problem: format!("not TOML: {}", error.message()),
        hint: None,
    };
    Err(errors.into_iter().map(mistake).collect())
}

struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

impl Source<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        let before = self
            .text
            .as_bytes()
            .get(..span.start)
            .unwrap_or(self.text.as_bytes());
        Place::File {
            path: self.file.into(),
            line: Some(1 + memchr::memchr_iter(b'\n', before).count()),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), self.item(value, key.span())))
            .collect()
    }

    /// `name` is the span of the key that holds the value: a table's own span would be its header's or nothing.
    fn item(&self, value: &Spanned<DeValue<'_>>, name: Range<usize>) -> Item {
        let written = self.text.get(value.span()).unwrap_or_default();
        let inner = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => match i128::from_str_radix(digits.as_str(), digits.radix())
            {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number too large"),
            },
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.item(item, item.span()))
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Item {
            value: inner,
            place: self.place(name),
            shown: shorten(written),
            raw: None,
        }
    }
}

/// One line of at most 60 characters.
fn shorten(written: &str) -> String {
    let line = written.lines().next().unwrap_or_default();
    let short: String = line.chars().take(60).collect();
    if short.len() < written.len() {
        format!("{short}…")
    } else {
        short
    }
}

const OVERRIDE: &str = "TRAILD__";

/// Lays `TRAILD__SECTION__KEY` variables over the tree. Shorter names come first, so that a key can refine a table given whole.
pub(super) fn override_from(
    table: &mut Table,
    environment: &BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) {
    let mut overrides: Vec<(&String, Vec<String>, &String)> = environment
        .iter()
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(OVERRIDE)?;
            Some((
                name,
                path.split("__").map(str::to_ascii_lowercase).collect(),
                value,
            ))
        })
        .collect();
    overrides.sort_by_key(|(_, path, _)| path.len());
    for (variable, path, value) in overrides {
        let place = Place::Environment {
            variable: variable.clone(),
        };
        let item = Item {
            value: environment_value(value, &place),
            place: place.clone(),
            shown: shorten(value),
            raw: Some(value.clone()),
        };
        if let Err(problem) = insert(table, &path, item) {
            mistakes.push(Mistake {
                key: path.join("."),
                place,
                value: Some(shorten(value)),
                problem,
                hint: Some("a list is given whole, as TOML: TRAILD__TRAILS='[{ name = \"main\", s3_bucket_name = \"logs\" }]'".into()),
            });
        }
    }
}

/// What the variable holds as TOML when it is TOML, else its text.
fn environment_value(text: &str, place: &Place) -> Value {
    let source = Source { text, file: "" };
    match DeValue::parse(text) {
        Ok(value) => replaced(source.item(&value, 0..0), place).value,
        Err(_) => Value::Text(text.to_owned()),
    }
}

/// The item with every place in it replaced.
fn replaced(mut item: Item, place: &Place) -> Item {
    item.place = place.clone();
    match &mut item.value {
        Value::Array(items) => {
            *items = std::mem::take(items)
                .into_iter()
                .map(|inner| replaced(inner, place))
                .collect();
        }
        Value::Table(table) => {
            *table = std::mem::take(table)
                .into_iter()
                .map(|(key, inner)| (key, replaced(inner, place)))
                .collect();
        }
        _ => {}
    }
    item
}

fn insert(table: &mut Table, path: &[String], item: Item) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if key.is_empty() {
        return Err("has an empty name between its underscores".into());
    }
    if rest.is_empty() {
        table.insert(key.clone(), item);
        return Ok(());
    }
    let inner = table.entry(key.clone()).or_insert_with(|| Item {
        value: Value::Table(Table::new()),
        place: item.place.clone(),
        shown: String::new(),
        raw: None,
    });
    match &mut inner.value {
        Value::Table(below) => insert(below, rest, item),
        other => Err(format!(
            "'{key}' is {}, it has no keys to set",
            other.kind()
        )),
    }
}

/// Expands `${VAR}` in every string of the file. `$${` stands for `${`; a `$` before anything else is itself.
pub(super) fn expand(
    table: &mut Table,
    environment: &BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) {
    for (key, item) in table {
        expand_item(item, key, environment, mistakes);
    }
}

fn expand_item(
    item: &mut Item,
    path: &str,
    environment: &BTreeMap<String, String>,
    mistakes: &mut Vec<Mistake>,
) {
    match &mut item.value {
        // What came from the environment has been through a shell already.
        _ if item.raw.is_some() => {}
        Value::Text(text) => match expanded(text, environment) {
            Ok(result) => *text = result,
            Err((problem, hint)) => {
                mistakes.push(Mistake {
                    key: path.to_owned(),
                    place: item.place.clone(),
                    value: (!is_secret(path)).then(|| item.shown.clone()),
                    problem,
                    hint: Some(hint),
                });
                item.value = Value::Broken;
            }
        },
        Value::Array(items) => {
            for (index, inner) in items.iter_mut().enumerate() {
                expand_item(inner, &format!("{path}[{index}]"), environment, mistakes);
            }
        }
        Value::Table(table) => {
            for (key, inner) in table {
                expand_item(inner, &format!("{path}.{key}"), environment, mistakes);
            }
        }
        _ => {}
    }
}

/// Whether what was written there is never shown: a secret, and what one may have been written into by mistake.
pub(super) fn is_secret(path: &str) -> bool {
    let leaf = path.rsplit_once('.').map_or(path, |(_, leaf)| leaf);
    path == "auth" || leaf == "secret_access_key" || leaf.starts_with("credentials")
}

fn expanded(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let named = &rest[at + 2..];
        let end = named
            .find('}')
            .ok_or_else(|| ("has '${' without '}'".to_owned(), LITERAL.to_owned()))?;
        let name = &named[..end];
        let well_formed = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !well_formed {
            return Err((
                format!("'{name}' is not the name of an environment variable"),
                LITERAL.to_owned(),
            ));
        }
        let value = environment.get(name).ok_or_else(|| {
            (
                format!("the environment variable {name} is not set"),
                format!("set {name}, or write $${{ for a literal ${{"),
            )
        })?;
        out.push_str(value);
        rest = &named[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

const LITERAL: &str = "write $${ for a literal ${";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_and_escaped() {
        let environment = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("B_2".to_owned(), "${A}".to_owned()),
        ]);
        let table = [
            ("", Ok("")),
            ("plain $ and $A", Ok("plain $ and $A")),
            ("${A}", Ok("x")),
            ("<${A}${B_2}>", Ok("<x${A}>")),
            ("$${A}", Ok("${A}")),
            ("$$${A}", Ok("$${A}")),
            ("${A", Err(())),
            ("${}", Err(())),
            ("${1A}", Err(())),
            ("${A:-y}", Err(())),
            ("${MISSING}", Err(())),
        ];
        for (text, expected) in table {
            let result = expanded(text, &environment).map_err(|_| ());
            assert_eq!(result.as_deref(), expected.as_ref().map(|s| *s), "{text}");
        }
    }
}
