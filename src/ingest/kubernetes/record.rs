//! The CloudTrail record of an audit event. Pure.
//!
//! | of the record | from |
//! |---|---|
//! | `eventID` | `auditID` |
//! | `eventTime` | `requestReceivedTimestamp`, in whole seconds |
//! | `eventSource` | `kubernetes.io`, always. By API groups it would be up to whoever may define resources in the cluster, and could be that of an AWS service |
//! | `eventName` | verb, resource and subresource: `CreatePods`, `GetPodsExec`, `DeletecollectionSecrets`; `GetNonResourceURL` where there is no resource |
//! | `readOnly` | true for `get`, `list`, `watch`, `head` and `options`, but for what runs or reaches something by a `get`: `exec`, `attach`, `portforward`, `proxy` |
//! | `userIdentity` | `user`: `principalId` is the uid, else the name; a service account is named by its parts; `impersonatedUser` as it is |
//! | `sourceIPAddress` | the last of `sourceIPs`, which alone the client cannot choose; all of them in `additionalEventData` when there are more |
//! | `errorCode`, `errorMessage` | of a `responseStatus` from 400: its reason, else its code, and its message; `Panic` of that stage |
//! | `requestParameters` | `requestURI`, `verb`, `objectRef`, `requestObject` |
//! | `responseElements` | `responseStatus`, `responseObject` |
//! | `resources` | `objectRef` as an ARN |
//! | `additionalEventData` | cluster, level, stage, both timestamps, annotations |
//!
//! Whatever a client of the cluster may make long, deep or strange is bounded here, so that nobody can have an event refused by it: objects and
//! annotations that are larger than CloudTrail's limits or too deep are left out, with a mark that tells their size; texts are cut.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::event::{Event, ObjectRef, ResponseStatus};
use crate::event::json;
use crate::event::{AccountId, Region};

const EVENT_SOURCE: &str = "kubernetes.io";

/// Bytes of `requestParameters` and of `responseElements` (CloudTrail user guide, "record contents"), and levels of what stands in them.
const MAX_OBJECT_BYTES: usize = 100 << 10;
const MAX_DEPTH: usize = 48;

/// Bytes of `additionalEventData`, most of which are annotations.
const MAX_ANNOTATIONS_BYTES: usize = 28 << 10;

/// Bytes of each list or map that belongs to a user.
const MAX_USER_BYTES: usize = 8 << 10;

/// Characters of texts that clients choose.
const MAX_TEXT_CHARS: usize = 1024;
const MAX_URI_CHARS: usize = 4096;

/// What is added to the record when it is stored takes no more.
const FILLED_BYTES: usize = 512;

/// Where the events are of.
#[derive(Debug)]
pub struct Place {
    pub account: AccountId,
    pub region: Region,
    pub cluster: Option<String>,
    pub max_event_bytes: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    user_identity: Identity<'a>,
    event_time: Cow<'a, str>,
    event_source: &'static str,
    event_name: String,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: &'a str,
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    request_parameters: Parameters<'a>,
    response_elements: Option<Elements<'a>>,
    additional_event_data: Additional<'a>,
    #[serde(rename = "eventID")]
    event_id: String,
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<[Resource; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    r#type: &'static str,
    principal_id: String,
    user_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<ServiceAccount>,
    #[serde(flatten)]
    groups: Part<'a>,
    #[serde(flatten)]
    extra: Part<'a>,
    #[serde(flatten)]
    impersonated_user: Part<'a>,
}

#[derive(Serialize)]
struct ServiceAccount {
    namespace: String,
    name: String,
}

#[derive(Serialize)]
struct Parameters<'a> {
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    #[serde(rename = "objectRef", skip_serializing_if = "Option::is_none")]
    object_ref: Option<Object>,
    #[serde(flatten)]
    request_object: Part<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Elements<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Status<'a>>,
    #[serde(flatten)]
    response_object: Part<'a>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Additional<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a str>,
    level: String,
    stage: &'a str,
    request_received_timestamp: &'a str,
    stage_timestamp: &'a str,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Option::is_none")]
    source_ips: Option<Vec<String>>,
    #[serde(flatten)]
    annotations: Part<'a>,
}

#[derive(Serialize)]
struct Resource {
    r#type: String,
    #[serde(rename = "ARN")]
    arn: String,
    #[serde(rename = "accountId")]
    account: String,
}

/// `objectRef`, its texts cut.
#[derive(Serialize)]
struct Object(std::collections::BTreeMap<&'static str, String>);

/// A value as it was given, under its name; one that is too large or too deep is left out, and marked by its name with `Omitted` behind it.
struct Part<'a> {
    name: &'static str,
    value: Option<&'a RawValue>,
    most: usize,
}

impl Serialize for Part<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        if let Some(value) = self.value {
            let text = value.get();
            let depth = json::skip_value(text.as_bytes(), 0).map(|skipped| skipped.depth);
            match text.len() <= self.most && depth.is_ok_and(|depth| depth <= MAX_DEPTH) {
                true => map.serialize_entry(self.name, value)?,
                false => {
                    #[derive(Serialize)]
                    struct Omitted {
                        bytes: usize,
                    }
                    let bytes = text.len();
                    map.serialize_entry(&format!("{}Omitted", self.name), &Omitted { bytes })?;
                }
            }
        }
        map.end()
    }
}

/// What becomes of the objects of a request.
#[derive(Clone, Copy)]
struct Objects {
    request: usize,
    response: usize,
}

/// The record, but for what is filled in when it is stored. When both objects make it too large, they are left out, the response's first.
pub fn of(event: &Event<'_>, place: &Place) -> Vec<u8> {
    let tries = [
        (MAX_OBJECT_BYTES, MAX_OBJECT_BYTES),
        (MAX_OBJECT_BYTES, 0),
        (0, 0),
    ];
    let mut made = Vec::new();
    for (request, response) in tries {
        let record = record(event, place, Objects { request, response });
        made = serde_json::to_vec(&record)
            .expect("strings, numbers and JSON as it was read: always JSON");
        if made.len() + FILLED_BYTES <= place.max_event_bytes {
            break;
        }
    }
    made
}

/// Its texts are the event's or made for it.
fn record<'a>(event: &'a Event<'a>, place: &'a Place, objects: Objects) -> Record<'a> {
    let addresses = event.source_ips.as_ref();
    let addresses = addresses.map_or(&[][..], |addresses| &addresses.0);
    let object = event.object_ref.as_ref();
    let status = event.response_status.as_ref();
    let (error_code, error_message) = error(event);
    let is_without_response = status.is_none() && event.response_object.is_none();
    Record {
        user_identity: identity(event),
        event_time: event.time(),
        event_source: EVENT_SOURCE,
        event_name: event_name(&event.verb, object),
        // Of a request that the server made itself.
        source_ip_address: addresses.last().map_or(EVENT_SOURCE, String::as_str),
        user_agent: event
            .user_agent
            .as_deref()
            .map(|agent| cut(agent, MAX_TEXT_CHARS)),
        error_code,
        error_message,
        request_parameters: Parameters {
            request_uri: cut(&event.request_uri, MAX_URI_CHARS),
            verb: cut(&event.verb, 64),
            object_ref: object.map(Object::of),
            request_object: Part {
                name: "requestObject",
                value: event.request_object,
                most: objects.request,
            },
        },
        response_elements: (!is_without_response).then(|| Elements {
            response_status: status.map(Status::of),
            response_object: Part {
                name: "responseObject",
                value: event.response_object,
                most: objects.response,
            },
        }),
        additional_event_data: Additional {
            cluster: place.cluster.as_deref(),
            level: cut(&event.level, 64),
            stage: &event.stage,
            request_received_timestamp: &event.request_received_timestamp,
            stage_timestamp: &event.stage_timestamp,
            source_ips: (addresses.len() > 1)
                .then(|| addresses.iter().map(|address| cut(address, 64)).collect()),
            annotations: Part {
                name: "annotations",
                value: event.annotations,
                most: MAX_ANNOTATIONS_BYTES,
            },
        },
        event_id: cut(&event.audit_id, 256),
        read_only: is_read_only(&event.verb, object),
        resources: object.map(|object| [resource(object, place)]),
        api_version: object.map(|object| cut(&object.api_version, 64)),
    }
}

fn identity<'a>(event: &'a Event<'a>) -> Identity<'a> {
    let user = &event.user;
    let service_account = user
        .username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, name)| ServiceAccount {
            namespace: cut(namespace, MAX_TEXT_CHARS),
            name: cut(name, MAX_TEXT_CHARS),
        });
    let principal = match user.uid.is_empty() {
        true => &user.username,
        false => &user.uid,
    };
    let part = |name, value| Part {
        name,
        value,
        most: MAX_USER_BYTES,
    };
    Identity {
        r#type: match service_account {
            Some(_) => "KubernetesServiceAccount",
            None => "KubernetesUser",
        },
        principal_id: cut(principal, MAX_TEXT_CHARS),
        user_name: cut(&user.username, MAX_TEXT_CHARS),
        service_account,
        groups: part("groups", user.groups),
        extra: part("extra", user.extra),
        impersonated_user: part("impersonatedUser", event.impersonated_user),
    }
}

/// The code and the message of a request that failed.
fn error(event: &Event<'_>) -> (Option<String>, Option<String>) {
    let none = ResponseStatus::default();
    let ResponseStatus {
        message,
        reason,
        code,
        ..
    } = event.response_status.as_ref().unwrap_or(&none);
    let is_panic = event.stage == "Panic";
    if !is_panic && !code.is_some_and(|code| code >= 400) {
        return (None, None);
    }
    let reason = reason.as_deref().filter(|reason| !reason.is_empty());
    let name = match (reason, code) {
        _ if is_panic => "Panic".to_owned(),
        (Some(reason), _) => cut(reason, 128),
        (None, Some(code)) => code.to_string(),
        (None, None) => "Unknown".to_owned(),
    };
    let message = message.as_deref().filter(|message| !message.is_empty());
    (
        Some(name),
        message.map(|message| cut(message, MAX_TEXT_CHARS)),
    )
}

/// `CreatePodsExec`.
fn event_name(verb: &str, object: Option<&ObjectRef>) -> String {
    let mut name = String::new();
    let mut add = |text: &str| {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
            let mut letters = word.chars().take(64);
            name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            name.extend(letters);
        }
    };
    add(verb);
    match object {
        Some(object) => {
            add(&object.resource);
            add(&object.subresource);
        }
        None => add("NonResourceURL"),
    }
    match name.is_empty() {
        true => "Unknown".to_owned(),
        false => name.chars().take(128).collect(),
    }
}

fn is_read_only(verb: &str, object: Option<&ObjectRef>) -> bool {
    let reaches = object.is_some_and(|object| {
        matches!(
            object.subresource.as_str(),
            "exec" | "attach" | "portforward" | "proxy"
        )
    });
    matches!(verb, "get" | "list" | "watch" | "head" | "options") && !reaches
}

fn resource(object: &ObjectRef, place: &Place) -> Resource {
    let ObjectRef {
        resource,
        namespace,
        name,
        api_group,
        api_version,
        subresource,
        ..
    } = object;
    let (account, region) = (place.account, place.region);
    let cluster = place.cluster.as_deref().unwrap_or("cluster");
    let mut arn = format!("arn:aws:traild:{region}:{account}:kubernetes/{cluster}");
    let root = if api_group.is_empty() { "api" } else { "apis" };
    let in_namespace = if namespace.is_empty() {
        ""
    } else {
        "namespaces"
    };
    for part in [
        root,
        api_group,
        api_version,
        in_namespace,
        namespace,
        resource,
        name,
        subresource,
    ] {
        if !part.is_empty() {
            arn.push('/');
            arn.push_str(&cut(part, 256));
        }
    }
    let group = if api_group.is_empty() {
        "core"
    } else {
        api_group
    };
    Resource {
        r#type: format!("Kubernetes::{}::{}", cut(group, 256), cut(resource, 128)),
        arn,
        account: account.to_string(),
    }
}

impl Object {
    fn of(object: &ObjectRef) -> Self {
        let ObjectRef {
            resource,
            namespace,
            name,
            uid,
            api_group,
            api_version,
            resource_version,
            subresource,
        } = object;
        let members = [
            ("resource", resource),
            ("namespace", namespace),
            ("name", name),
            ("uid", uid),
            ("apiGroup", api_group),
            ("apiVersion", api_version),
            ("resourceVersion", resource_version),
            ("subresource", subresource),
        ];
        let given = members.into_iter().filter(|(_, text)| !text.is_empty());
        Self(
            given
                .map(|(name, text)| (name, cut(text, MAX_TEXT_CHARS)))
                .collect(),
        )
    }
}

impl<'a> Status<'a> {
    /// Its message stands in `errorMessage`.
    fn of(status: &'a ResponseStatus) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().filter(|text| text.len() <= 256);
        Self {
            status: text(&status.status),
            reason: text(&status.reason),
            code: status.code,
        }
    }
}

/// At most so many characters, with an ellipsis when some are missing.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
