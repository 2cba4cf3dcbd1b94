//! What is read of a certificate: its dates and the names of its subject (RFC 5280, 4.1.2.5, 4.1.2.6 and 4.2.1.6).
//!
//! Whether it may be believed is not asked here: that is rustls's, before.

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Error, ErrorKind, Reader, SliceReader, Tag, Tagged};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub names: Names,
}

/// Whom a certificate is for. Text is as the authority wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// Of the subject; nothing when it has none, or more than one.
    pub common_name: Option<String>,
    /// Subject alternative names.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
}

/// Object identifiers, as encoded: 2.5.4.3 and 2.5.29.17.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The tags of a GeneralName.
const DNS_NAME: u32 = 2;
const URI: u32 = 6;

impl Certificate {
    /// Of a certificate in DER.
    pub fn parse(certificate: &[u8]) -> Result<Self, Error> {
        let whole = parts(AnyRef::from_der(certificate)?)?;
        let signed = parts(*whole.first().ok_or_else(malformed)?)?;
        // The version stands in front, and may be left out.
        let has_version = signed
            .first()
            .is_some_and(|first| context(first) == Some(0));
        let mut fields = signed.iter().skip(usize::from(has_version));
        let (_serial, _algorithm, _issuer) = (fields.next(), fields.next(), fields.next());
        let validity = parts(*fields.next().ok_or_else(malformed)?)?;
        let [not_before, not_after] = validity[..] else {
            return Err(malformed());
        };
        let subject = *fields.next().ok_or_else(malformed)?;
        let mut names = Names {
            common_name: common_name(subject)?,
            ..Names::default()
        };
        for extensions in fields.filter(|field| context(field) == Some(3)) {
            for list in parts(*extensions)? {
                for extension in parts(list)? {
                    alternative_names(extension, &mut names)?;
                }
            }
        }
        Ok(Self {
            not_before: time(not_before)?,
            not_after: time(not_after)?,
            names,
        })
    }
}

/// Of a Name: a sequence of sets of pairs.
fn common_name(name: AnyRef<'_>) -> Result<Option<String>, Error> {
    let mut found = Vec::new();
    for set in parts(name)? {
        for attribute in parts(set)? {
            match parts(attribute)?[..] {
                [kind, value] if kind.value() == COMMON_NAME => found.push(text(value)),
                _ => {}
            }
        }
    }
    match &mut found[..] {
        [only] => Ok(only.take()),
        _ => Ok(None),
    }
}

/// Adds those of an extension, if it has any.
fn alternative_names(extension: AnyRef<'_>, names: &mut Names) -> Result<(), Error> {
    let fields = parts(extension)?;
    let (Some(kind), Some(value)) = (fields.first(), fields.last()) else {
        return Err(malformed());
    };
    if kind.value() != SUBJECT_ALTERNATIVE_NAME {
        return Ok(());
    }
    for name in parts(AnyRef::from_der(value.value())?)? {
        let list = match context(&name) {
            Some(DNS_NAME) => &mut names.dns,
            Some(URI) => &mut names.uris,
            _ => continue,
        };
        let text = std::str::from_utf8(name.value()).map_err(|_| malformed())?;
        list.push(text.to_owned());
    }
    Ok(())
}

/// What a constructed value is made of.
fn parts(whole: AnyRef<'_>) -> Result<Vec<AnyRef<'_>>, Error> {
    let mut reader = SliceReader::new(whole.value())?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(AnyRef::decode(&mut reader)?);
    }
    Ok(parts)
}

/// The number of a context-specific tag.
fn context(value: &AnyRef<'_>) -> Option<u32> {
    match value.tag() {
        Tag::ContextSpecific { number, .. } => Some(number.value()),
        _ => None,
    }
}

/// Of the kinds of text that authorities write by now.
fn text(value: AnyRef<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(value.value().to_vec()).ok()
        }
        _ => None,
    }
}

/// Seconds since 1970.
fn time(value: AnyRef<'_>) -> Result<i64, Error> {
    let since_1970 = match value.tag() {
        Tag::UtcTime => value.decode_as::<UtcTime>()?.to_unix_duration(),
        _ => value.decode_as::<GeneralizedTime>()?.to_unix_duration(),
    };
    Ok(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX))
}

fn malformed() -> Error {
    ErrorKind::Failed.into()
}
