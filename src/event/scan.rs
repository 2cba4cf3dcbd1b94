//! One pass over an event's bytes: where its known fields are, how deep it goes, which name it has twice.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{self, Fault, Skipped};

/// The top-level fields whose type or value the daemon looks at (CloudTrail user guide, "record contents", and the Insights schema).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    EventVersion,
    UserIdentity,
    EventTime,
    EventSource,
    EventName,
    AwsRegion,
    SourceIpAddress,
    UserAgent,
    ErrorCode,
    ErrorMessage,
    RequestParameters,
    ResponseElements,
    AdditionalEventData,
    RequestId,
    EventId,
    ReadOnly,
    Resources,
    EventType,
    ApiVersion,
    ManagementEvent,
    RecipientAccountId,
    ServiceEventDetails,
    SharedEventId,
    VpcEndpointId,
    VpcEndpointAccountId,
    EventCategory,
    Addendum,
    SessionCredentialFromConsole,
    EdgeDeviceDetails,
    TlsDetails,
    EventContext,
    InsightDetails,
}

impl Field {
    pub const ALL: [Self; 32] = [
        Self::EventVersion,
        Self::UserIdentity,
        Self::EventTime,
        Self::EventSource,
        Self::EventName,
        Self::AwsRegion,
        Self::SourceIpAddress,
        Self::UserAgent,
        Self::ErrorCode,
        Self::ErrorMessage,
        Self::RequestParameters,
        Self::ResponseElements,
        Self::AdditionalEventData,
        Self::RequestId,
        Self::EventId,
        Self::ReadOnly,
        Self::Resources,
        Self::EventType,
        Self::ApiVersion,
        Self::ManagementEvent,
        Self::RecipientAccountId,
        Self::ServiceEventDetails,
        Self::SharedEventId,
        Self::VpcEndpointId,
        Self::VpcEndpointAccountId,
        Self::EventCategory,
        Self::Addendum,
        Self::SessionCredentialFromConsole,
        Self::EdgeDeviceDetails,
        Self::TlsDetails,
        Self::EventContext,
        Self::InsightDetails,
    ];

    pub(super) fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"eventVersion" => Self::EventVersion,
            b"userIdentity" => Self::UserIdentity,
            b"eventTime" => Self::EventTime,
            b"eventSource" => Self::EventSource,
            b"eventName" => Self::EventName,
            b"awsRegion" => Self::AwsRegion,
            b"sourceIPAddress" => Self::SourceIpAddress,
            b"userAgent" => Self::UserAgent,
            b"errorCode" => Self::ErrorCode,
            b"errorMessage" => Self::ErrorMessage,
            b"requestParameters" => Self::RequestParameters,
            b"responseElements" => Self::ResponseElements,
            b"additionalEventData" => Self::AdditionalEventData,
            b"requestID" => Self::RequestId,
            b"eventID" => Self::EventId,
            b"readOnly" => Self::ReadOnly,
            b"resources" => Self::Resources,
            b"eventType" => Self::EventType,
            b"apiVersion" => Self::ApiVersion,
            b"managementEvent" => Self::ManagementEvent,
            b"recipientAccountId" => Self::RecipientAccountId,
            b"serviceEventDetails" => Self::ServiceEventDetails,
            b"sharedEventID" => Self::SharedEventId,
            b"vpcEndpointId" => Self::VpcEndpointId,
            b"vpcEndpointAccountId" => Self::VpcEndpointAccountId,
            b"eventCategory" => Self::EventCategory,
            b"addendum" => Self::Addendum,
            b"sessionCredentialFromConsole" => Self::SessionCredentialFromConsole,
            b"edgeDeviceDetails" => Self::EdgeDeviceDetails,
            b"tlsDetails" => Self::TlsDetails,
            b"eventContext" => Self::EventContext,
            b"insightDetails" => Self::InsightDetails,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::EventVersion => "eventVersion",
            Self::UserIdentity => "userIdentity",
            Self::EventTime => "eventTime",
            Self::EventSource => "eventSource",
            Self::EventName => "eventName",
            Self::AwsRegion => "awsRegion",
            Self::SourceIpAddress => "sourceIPAddress",
            Self::UserAgent => "userAgent",
            Self::ErrorCode => "errorCode",
            Self::ErrorMessage => "errorMessage",
            Self::RequestParameters => "requestParameters",
            Self::ResponseElements => "responseElements",
            Self::AdditionalEventData => "additionalEventData",
            Self::RequestId => "requestID",
            Self::EventId => "eventID",
            Self::ReadOnly => "readOnly",
            Self::Resources => "resources",
            Self::EventType => "eventType",
            Self::ApiVersion => "apiVersion",
            Self::ManagementEvent => "managementEvent",
            Self::RecipientAccountId => "recipientAccountId",
            Self::ServiceEventDetails => "serviceEventDetails",
            Self::SharedEventId => "sharedEventID",
            Self::VpcEndpointId => "vpcEndpointId",
            Self::VpcEndpointAccountId => "vpcEndpointAccountId",
            Self::EventCategory => "eventCategory",
            Self::Addendum => "addendum",
            Self::SessionCredentialFromConsole => "sessionCredentialFromConsole",
            Self::EdgeDeviceDetails => "edgeDeviceDetails",
            Self::TlsDetails => "tlsDetails",
            Self::EventContext => "eventContext",
            Self::InsightDetails => "insightDetails",
        }
    }
}

/// What a pass over one object found. Positions count from the object's `{`.
#[derive(Debug)]
pub struct Scanned {
    /// The length of the object.
    pub len: usize,
    /// Objects and arrays within one another, this object included.
    pub depth: usize,
    /// `userIdentity.accountId`'s value.
    pub identity_account: Option<Range<usize>>,
    /// A name that stands twice in the event, or twice in its `userIdentity`.
    pub duplicate: Option<String>,
    values: [Range<usize>; Field::ALL.len()],
}

impl Scanned {
    /// Where the value of `field` is, when the event has it.
    pub fn value(&self, field: Field) -> Option<Range<usize>> {
        let value = &self.values[field as usize];
        (value.end > 0).then(|| value.clone())
    }

    pub fn has(&self, field: Field) -> bool {
        self.values[field as usize].end > 0
    }
}

/// Walks the object that begins at the first byte of `bytes`, which may go on after it.
pub fn scan(bytes: &[u8]) -> Result<Scanned, Fault> {
    let mut found = Scanned {
        len: 0,
        depth: 1,
        identity_account: None,
        duplicate: None,
        values: [const { 0..0 }; Field::ALL.len()],
    };
    let mut unknown_names = Names::default();
    found.len = walk_object(bytes, 0, &mut |name, at| {
        let field = Field::of(&name);
        let value = match field {
            Some(Field::UserIdentity) if bytes.get(at) == Some(&b'{') => {
                scan_identity(bytes, at, &mut found)?
            }
            _ => json::skip_value(bytes, at)?,
        };
        found.depth = found.depth.max(1 + value.depth);
        match field {
            Some(field) if found.has(field) => found.duplicate = Some(field.name().to_owned()),
            Some(field) => found.values[field as usize] = at..value.end,
            None => unknown_names.add(name),
        }
        Ok(value.end)
    })?;
    if found.duplicate.is_none() {
        found.duplicate = unknown_names.duplicate();
    }
    Ok(found)
}

/// Walks `userIdentity`, whose `accountId` may name the event's account.
fn scan_identity(bytes: &[u8], at: usize, found: &mut Scanned) -> Result<Skipped, Fault> {
    let mut depth = 1;
    let mut names = Names::default();
    let end = walk_object(bytes, at, &mut |name, at| {
        let value = json::skip_value(bytes, at)?;
        depth = depth.max(1 + value.depth);
        if name.as_ref() == b"accountId" {
            found.identity_account = Some(at..value.end);
        }
        names.add(name);
        Ok(value.end)
    })?;
    if let Some(name) = names.duplicate() {
        found.duplicate = Some(format!("userIdentity.{name}"));
    }
    Ok(Skipped { end, depth })
}

/// Steps over the object whose `{` is at `at`. `member` is given each name, without its escapes, and where the value begins, and answers
/// where the value ends.
pub fn walk_object<'a>(
    bytes: &'a [u8],
    at: usize,
    member: &mut impl FnMut(Cow<'a, [u8]>, usize) -> Result<usize, Fault>,
) -> Result<usize, Fault> {
    let mut at = json::skip_whitespace(bytes, at + 1);
    if bytes.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        if bytes.get(at) != Some(&b'"') {
            return Err(Fault {
                at,
                what: "a name in quotes is expected",
            });
        }
        let text = json::skip_string(bytes, at)?;
        let name = unescaped(&bytes[at..text.end], text.escaped);
        at = member(name, json::skip_colon(bytes, text.end)?)?;
        at = json::skip_whitespace(bytes, at);
        match bytes.get(at) {
            Some(b',') => at = json::skip_whitespace(bytes, at + 1),
            Some(b'}') => return Ok(at + 1),
            Some(_) => {
                return Err(Fault {
                    at,
                    what: "',' or '}' is expected",
                });
            }
            None => {
                return Err(Fault {
                    at,
                    what: "the text ends inside an object",
                });
            }
        }
    }
}

/// The text of a JSON string with its quotes, known to be well formed.
pub fn unescaped(quoted: &[u8], escaped: bool) -> Cow<'_, [u8]> {
    if escaped && let Ok(text) = serde_json::from_slice::<String>(quoted) {
        return Cow::Owned(text.into_bytes());
    }
    // Not escaped; or not UTF-8, which will be refused for that.
    Cow::Borrowed(&quoted[1..quoted.len() - 1])
}

/// Names seen in one object. The first few are compared one by one, which costs less than hashing; a multitude is sorted at the end.
#[derive(Default)]
struct Names<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Names<'a> {
    fn add(&mut self, name: Cow<'a, [u8]>) {
        if self.0.capacity() == 0 {
            self.0.reserve(8);
        }
        self.0.push(name);
    }

    fn duplicate(mut self) -> Option<String> {
        self.0.sort_unstable();
        let twice = self.0.windows(2).find(|two| two[0] == two[1])?;
        Some(super::refusal::shown(&twice[0], 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> Scanned {
        scan(text.as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_numbered_as_listed_and_found_by_name() {
        for (number, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, number);
            assert_eq!(Field::of(field.name().as_bytes()), Some(field));
        }
        assert_eq!(Field::of(b"eventId"), None);
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let text = r#"{ "eventName" : "A\"b" ,"other":[{}], "userIdentity":{"accountId":"1","x":{"y":[]}},"eventTime":null}, more"#;
        let found = scanned(text);
        let value = |field| found.value(field).map(|range| &text[range]);
        assert_eq!(value(Field::EventName), Some(r#""A\"b""#));
        assert_eq!(value(Field::EventTime), Some("null"));
        assert_eq!(value(Field::EventId), None);
        assert_eq!(
            found.identity_account.clone().map(|range| &text[range]),
            Some("\"1\"")
        );
        assert_eq!(found.depth, 4);
        assert_eq!(&text[found.len..], ", more");
        assert_eq!(found.duplicate, None);
    }

    #[test]
    fn a_name_twice_is_noticed_however_it_is_spelt() {
        let cases = [
            (r#"{"eventName":"a","eventName":"b"}"#, Some("eventName")),
            (
                r#"{"eventName":"a","event\u004eame":"b"}"#,
                Some("eventName"),
            ),
            (r#"{"x":1,"y":2,"x":3}"#, Some("x")),
            (r#"{"x":1,"\u0078":3}"#, Some("x")),
            (
                r#"{"userIdentity":{"accountId":"1","accountId":"2"}}"#,
                Some("userIdentity.accountId"),
            ),
            (r#"{"requestParameters":{"a":1,"a":2},"a":1}"#, None),
        ];
        for (text, duplicate) in cases {
            assert_eq!(scanned(text).duplicate.as_deref(), duplicate, "{text}");
        }
    }

    #[test]
    fn a_multitude_of_names_is_no_trouble() {
        let mut text: String = (0..200_000).map(|n| format!("\"n{n}\":0,")).collect();
        text.push_str("\"n7\":1}");
        let started = std::time::Instant::now();
        assert_eq!(
            scanned(&format!("{{{text}")).duplicate.as_deref(),
            Some("n7")
        );
        assert!(
            started.elapsed().as_secs() < 20,
            "quadratic in the number of names"
        );
    }

    #[test]
    fn what_is_broken_is_refused_at_its_place() {
        for (text, at) in [
            ("{", 1),
            ("{\"a\"", 4),
            ("{\"a\":", 5),
            ("{\"a\":1", 6),
            ("{\"a\":1,}", 7),
            ("{1:2}", 1),
            ("{\"a\":{\"b\":1]}", 11),
        ] {
            assert_eq!(scan(text.as_bytes()).unwrap_err().at, at, "{text}");
        }
    }
}
