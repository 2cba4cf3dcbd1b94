//! The keys: which there are, what each may hold, and how they bear on one another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::mistake::{Mistake, Place};
use super::reader::{
    At, Findings, Problem, Section, duration, filled, json, keeping, named, none_or, number,
    one_of, parsed, size, text, texts, truth,
};
use super::tree::{Item, Table};
use super::*;
use crate::auth::Options;
use crate::deliver::bus::source::{self, AwssOwn};
use crate::trail::names;
use crate::trail::selector::InvalidEventSelectors;
use crate::trail::selector::spec::{AdvancedEventSelector, EventSelector};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Reads the whole tree. What is not sound is reported in `findings` and replaced by its default.
pub(super) fn read(table: Table, place: Place, findings: &Findings) -> Config {
    let default = Config::embedded_default();
    let mut root = Section::root(table, place, findings);
    let account = root.take_or(
        "account_id",
        default.account_id,
        parsed("write it in quotes, as in \"111122223333\""),
    );
    let region = root.take_or(
        "region",
        default.region,
        parsed("as in \"us-east-1\"; invented regions are fine"),
    );
    let data_dir = root.take_or("data_dir", default.data_dir, path);
    let (listen, api) = read_listen(root.section("listen"), default.listen);
    let (storage, store) = read_storage(root.section("storage"), default.storage);
    let aws = read_aws(root.section("aws"), default.aws, &storage, findings);
    let ingest = read_ingest(root.section("ingest"), default.ingest, findings);
    let journal = read_journal(root.section("journal"), default.journal, findings);
    let delivery = read_delivery(root.section("delivery"), default.delivery);
    let digest = read_digest(root.section("digest"), default.digest);
    let history = read_history(root.section("history"), default.history);
    let sinks = read_sinks(root.section("sinks"), default.sinks, &aws, findings);
    let auth = auth::read(root.section("auth"), default.auth, account.value, findings);
    let inputs = read_inputs(root.section("inputs"));
    let trails = read_trails(root.tables("trails"), &account.value, findings);
    if storage.kind == StorageKind::S3 {
        if trails.is_empty() && findings.mistakes.borrow().is_empty() {
            findings.mistake(Mistake {
                key: "trails".into(),
                place: root.place.clone(),
                value: None,
                problem: "there is no trail, so nothing would be delivered".into(),
                hint: Some("add [[trails]] with a name and an s3_bucket_name".into()),
            });
        }
        if !account.is_given() {
            findings.warn(account.warning(format!(
                "is not given; events of other accounts than {} are delivered only by organization trails",
                account.value
            )));
        }
    }
    if !auth.allow_anonymous {
        if auth.requests == Options::None {
            refuse_anonymous(
                &api,
                "with auth.mode = \"none\": whoever reaches it could write audit events",
                "listen on 127.0.0.1, write auth.mode = \"sigv4\" with [[auth.credentials]], or write auth.allow_anonymous = true",
                findings,
            );
        }
        if storage.kind == StorageKind::Embedded {
            refuse_anonymous(
                &store,
                "where nobody is asked who they are: whoever reaches it could read and write the buckets",
                "listen on 127.0.0.1, or write auth.allow_anonymous = true",
                findings,
            );
        }
    }
    refuse_shared_addresses(&listen, &storage, findings);
    root.close();
    Config {
        account_id: account.value,
        region: region.value,
        data_dir: data_dir.value,
        listen,
        storage,
        aws,
        ingest,
        journal,
        delivery,
        digest,
        history,
        sinks,
        auth,
        inputs,
        trails,
    }
}

fn read_listen(mut section: Section<'_>, default: Listen) -> (Listen, At<SocketAddr>) {
    let api = section.take_or("api", default.api, address);
    let ops = section.take_or("ops", default.ops, address);
    let unix = section.take("unix", socket_path).and_then(|at| at.value);
    section.unsupported(
        "tls",
        "put a proxy that terminates TLS in front of the api listener",
    );
    section.close();
    (
        Listen {
            api: api.value,
            ops: ops.value,
            unix,
        },
        api,
    )
}

fn read_storage(mut section: Section<'_>, default: Storage) -> (Storage, At<SocketAddr>) {
    let kinds = &[("embedded", StorageKind::Embedded), ("s3", StorageKind::S3)];
    let kind = section.take_or("kind", default.kind, one_of(kinds));
    let listen = section.take_or("listen", default.listen, address);
    section.close();
    (
        Storage {
            kind: kind.value,
            listen: listen.value,
        },
        listen,
    )
}

fn read_aws(mut section: Section<'_>, default: Aws, storage: &Storage, findings: &Findings) -> Aws {
    let endpoint_url = section.take("endpoint_url", endpoint);
    let force_path_style = section.take_or("force_path_style", default.force_path_style, truth);
    let words = &[
        ("when_required", Checksum::WhenRequired),
        ("when_supported", Checksum::WhenSupported),
    ];
    let checksum = section.take_or("checksum", default.checksum, one_of(words));
    section.close();
    if let Some(url) = endpoint_url
        .as_ref()
        .filter(|url| url.value.is_some() && storage.kind == StorageKind::Embedded)
    {
        findings.warn(url.warning("is not used for log files while storage.kind is \"embedded\""));
    }
    Aws {
        endpoint_url: endpoint_url.and_then(|at| at.value),
        force_path_style: force_path_style.value,
        checksum: checksum.value,
    }
}

fn read_ingest(mut section: Section<'_>, default: Ingest, findings: &Findings) -> Ingest {
    let max_body_bytes = section.take_or(
        "max_body_bytes",
        default.max_body_bytes,
        size(1024..=1024 * MIB),
    );
    let max_event_bytes = section.take_or(
        "max_event_bytes",
        default.max_event_bytes,
        size(1024..=16 * MIB),
    );
    let dedup_window = section.take_or(
        "dedup_window",
        default.dedup_window as u64,
        number(0..=100_000_000),
    );
    let on_full = section.take_or(
        "on_full",
        default.on_full,
        one_of(&[("reject", OnFull::Reject)]),
    );
    section.close();
    if max_event_bytes.value > max_body_bytes.value {
        findings.mistake(at_fault(&max_event_bytes, &max_body_bytes).mistake(
            format!(
                "max_event_bytes ({}) is more than max_body_bytes ({})",
                units::show_size(max_event_bytes.value),
                units::show_size(max_body_bytes.value)
            ),
            "an event must fit the body it comes in: lower ingest.max_event_bytes or raise ingest.max_body_bytes",
        ));
    }
    Ingest {
        max_body_bytes: max_body_bytes.value,
        max_event_bytes: max_event_bytes.value,
        dedup_window: usize::try_from(dedup_window.value).unwrap_or(default.dedup_window),
        on_full: on_full.value,
    }
}

fn read_journal(mut section: Section<'_>, default: Journal, findings: &Findings) -> Journal {
    let max_bytes = section.take_or("max_bytes", default.max_bytes, size(64 * 1024..=1024 * TIB));
    let segment_bytes = section.take_or(
        "segment_bytes",
        default.segment_bytes,
        size(4 * 1024..=4096 * MIB),
    );
    let words = &[
        ("cut_off", JournalOnFull::CutOff),
        ("reject", JournalOnFull::Reject),
    ];
    let on_full = section.take_or("on_full", default.on_full, one_of(words));
    section.close();
    if segment_bytes.value > max_bytes.value {
        findings.mistake(at_fault(&segment_bytes, &max_bytes).mistake(
            format!(
                "segment_bytes ({}) is more than max_bytes ({})",
                units::show_size(segment_bytes.value),
                units::show_size(max_bytes.value)
            ),
            "the journal is freed segment by segment: lower journal.segment_bytes or raise journal.max_bytes",
        ));
    }
    Journal {
        max_bytes: max_bytes.value,
        segment_bytes: segment_bytes.value,
        on_full: on_full.value,
    }
}

/// Of two values that do not go together, the one somebody wrote.
fn at_fault<'a, T>(first: &'a At<T>, second: &'a At<T>) -> &'a At<T> {
    if first.is_given() { first } else { second }
}

fn read_delivery(mut section: Section<'_>, default: Delivery) -> Delivery {
    let ages = Duration::from_millis(10)..=Duration::from_secs(86_400);
    let stops = Duration::ZERO..=Duration::from_secs(600);
    let max_age = section.take_or("max_age", default.max_age, duration(ages));
    let max_bytes = section.take_or("max_bytes", default.max_bytes, size(1024..=50 * MIB));
    let gzip_level = section.take_or("gzip_level", u64::from(default.gzip_level), number(1..=12));
    let flush_on_stop = section.take_or("flush_on_stop", default.flush_on_stop, truth);
    let stop_timeout = section.take_or("stop_timeout", default.stop_timeout, duration(stops));
    section.close();
    Delivery {
        max_age: max_age.value,
        max_bytes: max_bytes.value,
        gzip_level: u8::try_from(gzip_level.value).unwrap_or(default.gzip_level),
        flush_on_stop: flush_on_stop.value,
        stop_timeout: stop_timeout.value,
    }
}

fn read_digest(mut section: Section<'_>, default: Digest) -> Digest {
    // AWS has an hour and nothing else; seconds are for trying things out.
    let intervals = Duration::from_secs(1)..=Duration::from_secs(3600);
    let interval = section.take_or("interval", default.interval, duration(intervals));
    let key_dir = section.take("key_dir", path);
    let kms_key = section.take_or("kms_key_id", None, none_or(keeping(names::kms_key)));
    section.close();
    Digest {
        interval: interval.value,
        key_dir: key_dir.map(|at| at.value),
        kms_key_id: kms_key.value,
    }
}

fn read_history(mut section: Section<'_>, default: History) -> History {
    const DAY: u64 = 86_400;
    let retentions = Duration::from_secs(DAY)..=Duration::from_secs(3653 * DAY);
    let enabled = section.take_or("enabled", default.enabled, truth);
    let retention = section.take_or("retention", default.retention, duration(retentions));
    section.close();
    History {
        enabled: enabled.value,
        retention: retention.value,
    }
}

fn read_sinks(mut section: Section<'_>, default: Sinks, aws: &Aws, findings: &Findings) -> Sinks {
    let sizes = || size(1024..=MIB);
    let source = section.take_or("event_bridge_source", default.event_bridge_source, |item| {
        let template = text(item)?;
        let hint = "as in \"traild.{service}\", in which {service} stands for the service that an event is about";
        match source::check(&template) {
            Ok(()) => Ok(template),
            Err(problem) => Err(Problem::hint(problem, hint)),
        }
    });
    let cloudwatch = section.take_or(
        "cloudwatch_max_event_bytes",
        default.cloudwatch_max_event_bytes,
        sizes(),
    );
    let put_events = section.take_or(
        "put_events_max_bytes",
        default.put_events_max_bytes,
        sizes(),
    );
    section.close();
    // An emulator takes what EventBridge refuses (NotAuthorizedForSourceException).
    let warning = match source::awss_own(&source.value) {
        _ if aws.endpoint_url.is_some() => None,
        AwssOwn::Never => None,
        AwssOwn::BySomeEvents => Some(
            "begins with \"aws.\" for an event whose eventSource makes it so, which EventBridge lets only AWS's own services use: \
             such an event will be a dead letter",
        ),
        AwssOwn::Always => Some(
            "begins with \"aws.\", which EventBridge lets only AWS's own services use: it will refuse every event",
        ),
    };
    if let Some(warning) = warning {
        findings.warn(source.warning(warning));
    }
    Sinks {
        event_bridge_source: source.value,
        cloudwatch_max_event_bytes: cloudwatch.value,
        put_events_max_bytes: put_events.value,
    }
}

fn refuse_anonymous(listener: &At<SocketAddr>, because: &str, hint: &str, findings: &Findings) {
    if !listener.value.ip().is_loopback() {
        findings.mistake(listener.mistake(format!("listens beyond this machine {because}"), hint));
    }
}

fn refuse_shared_addresses(listen: &Listen, storage: &Storage, findings: &Findings) {
    let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut listeners = vec![("listen.api", listen.api), ("listen.ops", listen.ops)];
    if storage.kind == StorageKind::Embedded {
        listeners.push(("storage.listen", storage.listen));
    }
    for (key, address) in listeners {
        if address.port() == 0 {
            continue;
        }
        if let Some(other) = taken.insert(address, key) {
            findings.mistake(Mistake {
                key: key.into(),
                place: Place::Default,
                value: Some(address.to_string()),
                problem: format!("is also the address of {other}"),
                hint: Some("give each listener a port of its own".into()),
            });
        }
    }
}

fn read_inputs(mut section: Section<'_>) -> Inputs {
    let mut file = Vec::new();
    for mut input in section.tables("file") {
        let hint = "name the file to follow, as in path = \"/var/log/app/audit*.ndjson\"";
        let path = input.require("path", hint, |item| {
            let path = filled(item)?;
            match glob::Pattern::new(&path) {
                Ok(_) => Ok(path),
                Err(error) => Err(Problem::new(format!(
                    "is not a sound pattern: {} at character {}",
                    error.msg, error.pos
                ))),
            }
        });
        input.close();
        file.extend(path.map(|path| FileInput { path: path.value }));
    }
    section.close();
    Inputs { file }
}

fn read_trails(
    sections: Vec<Section<'_>>,
    account: &AccountId,
    findings: &Findings,
) -> Vec<TrailConfig> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut trails = Vec::new();
    for section in sections {
        let Some((name, trail)) = read_trail(section, account, findings) else {
            continue;
        };
        match seen.get(&trail.name) {
            Some(first) => findings.mistake(name.mistake(
                format!("is also the name of {first}"),
                "give each trail a name of its own",
            )),
            None => {
                seen.insert(
                    trail.name.clone(),
                    name.key.trim_end_matches(".name").to_owned(),
                );
                trails.push(trail);
            }
        }
    }
    trails
}

fn read_trail(
    mut section: Section<'_>,
    account: &AccountId,
    findings: &Findings,
) -> Option<(At<String>, TrailConfig)> {
    let name = section.require(
        "name",
        "every trail has a name, as in name = \"main\"",
        named(names::trail_name),
    );
    let bucket_hint = "name the bucket, as in s3_bucket_name = \"audit-logs\"";
    let bucket = section.require("s3_bucket_name", bucket_hint, named(names::bucket));
    let prefix = section.take_or("s3_key_prefix", String::new(), named(names::key_prefix));
    let topic = section.take_or("sns_topic_arn", None, none_or(str::parse::<Topic>));
    let log_group = section.take_or(
        "cloud_watch_logs_log_group_arn",
        None,
        none_or(str::parse::<LogGroup>),
    );
    let role = section.take_or(
        "cloud_watch_logs_role_arn",
        None,
        none_or(keeping(names::role_arn)),
    );
    if role.value.is_some() && log_group.value.is_none() && !log_group.is_given() {
        findings.warn(role.warning("has no effect without cloud_watch_logs_log_group_arn"));
    }
    if let (Some(group), None) = (&log_group.value, &role.value)
        && group.account() != account
    {
        findings.warn(log_group.warning(format!(
            "is of account {}, but PutLogEvents names no account: the daemon's own credentials write to the group of this name in their own \
             account; give a cloud_watch_logs_role_arn of account {0}, unless they are of that account",
            group.account()
        )));
    }
    let bus = section.take_or("event_bus", None, none_or(str::parse::<EventBus>));
    let all_regions = section.take_or("is_multi_region_trail", true, truth);
    let global = section.take_or("include_global_service_events", true, truth);
    if all_regions.value && !global.value {
        findings.mistake(global.mistake(
            "does not go with is_multi_region_trail = true",
            "a trail of all regions records global services too: write is_multi_region_trail = false, or leave this key out",
        ));
    }
    let organization = section.take_or("is_organization_trail", false, truth);
    let organization_id = section.take_or(
        "organization_id",
        None,
        none_or(keeping(names::organization_id)),
    );
    let accounts = section.take_or(
        "organization_accounts",
        Members::Every,
        organization_accounts,
    );
    if organization.value && organization_id.value.is_none() && !organization_id.is_given() {
        findings.mistake(organization.mistake(
            "needs an organization_id",
            "add organization_id = \"o-exampleorgid\"",
        ));
    }
    if !organization.value {
        let given = [
            organization_id
                .is_given()
                .then(|| organization_id.warning("")),
            accounts.is_given().then(|| accounts.warning("")),
        ];
        for mut warning in given.into_iter().flatten() {
            warning.message = "has no effect while is_organization_trail is false".into();
            findings.warn(warning);
        }
    }
    let validation = section.take_or("enable_log_file_validation", true, truth);
    let kms_key = section.take_or("kms_key_id", None, none_or(keeping(names::kms_key)));
    let selectors = read_selectors(&mut section, findings);
    section.close();
    let (name, bucket) = (name?, bucket?);
    let trail = TrailConfig {
        name: name.value.clone(),
        s3_bucket_name: bucket.value,
        s3_key_prefix: prefix.value,
        sns_topic: topic.value,
        cloud_watch_logs: log_group.value.map(|group| group.with_role(role.value)),
        event_bus: bus.value,
        selectors,
        is_multi_region_trail: all_regions.value,
        include_global_service_events: global.value,
        is_organization_trail: organization.value,
        organization_id: organization_id.value,
        organization_accounts: accounts.value,
        enable_log_file_validation: validation.value,
        kms_key_id: kms_key.value,
    };
    Some((name, trail))
}

/// A trail that is given no selectors of either kind records every event.
fn read_selectors(section: &mut Section<'_>, findings: &Findings) -> Selectors {
    let basic = section.take_or("event_selectors", Selectors::Everything, |item| {
        selectors(item, EventSelector::list, Selectors::basic)
    });
    let advanced = section.take_or("advanced_event_selectors", Selectors::Everything, |item| {
        selectors(item, AdvancedEventSelector::list, Selectors::advanced)
    });
    match (basic.value, &advanced.value) {
        (basic, Selectors::Everything) => basic,
        (Selectors::Everything, _) => advanced.value,
        _ => {
            findings.mistake(advanced.mistake(
                "does not go with event_selectors: a trail has selectors of one kind",
                "leave one of the two out",
            ));
            advanced.value
        }
    }
}

fn selectors<S>(
    item: &Item,
    list: fn(Json) -> Result<Vec<S>, InvalidEventSelectors>,
    compile: fn(Vec<S>) -> Result<Selectors, InvalidEventSelectors>,
) -> Result<Selectors, Problem> {
    let refused = |error: InvalidEventSelectors| {
        let hint = "write CloudTrail's JSON of PutEventSelectors as TOML, as in [{ ReadWriteType = \"WriteOnly\" }] or \
                    [{ FieldSelectors = [{ Field = \"eventCategory\", Equals = [\"Management\"] }] }]";
        Problem::hint(format!("is not sound: {error}"), hint)
    };
    let given = list(json(item)?).map_err(refused)?;
    if given.is_empty() {
        return Ok(Selectors::Everything);
    }
    compile(given).map_err(refused)
}

fn organization_accounts(item: &Item) -> Result<Members, Problem> {
    let hint = "write [\"*\"] for all accounts, or the twelve digits of each in quotes";
    let mut accounts = BTreeSet::new();
    let given = texts(item)?;
    if given.is_empty() {
        return Err(Problem::hint(
            "is empty, so the trail would record nothing",
            hint,
        ));
    }
    for account in &given {
        if account == "*" {
            return Ok(Members::Every);
        }
        let account = account.parse().map_err(|_| {
            Problem::hint(
                format!("holds \"{account}\", which is not an account"),
                hint,
            )
        })?;
        accounts.insert(account);
    }
    Ok(Members::Listed(accounts))
}

fn address(item: &Item) -> Result<SocketAddr, Problem> {
    let text = text(item)?;
    text.parse().map_err(|_| {
        let hint = match text.rsplit_once(':') {
            Some(("localhost", port)) => format!("write \"127.0.0.1:{port}\""),
            Some(("", port)) => {
                format!("write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all interfaces")
            }
            _ => "write an IP address and a port, as in \"127.0.0.1:4580\"".into(),
        };
        Problem::hint("is not an address to listen on", hint)
    })
}

pub(super) fn path(item: &Item) -> Result<PathBuf, Problem> {
    filled(item).map(PathBuf::from)
}

/// A socket's path must fit the kernel's `sockaddr_un`: 107 bytes and a zero.
fn socket_path(item: &Item) -> Result<Option<PathBuf>, Problem> {
    let text = text(item)?;
    if text.len() > 107 {
        return Err(Problem::hint(
            format!(
                "is {} bytes long, a unix socket's path has at most 107",
                text.len()
            ),
            "choose a shorter path",
        ));
    }
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

fn endpoint(item: &Item) -> Result<Option<String>, Problem> {
    let text = text(item)?;
    if text.is_empty() {
        return Ok(None);
    }
    let sound = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if sound {
        Ok(Some(text))
    } else {
        Err(Problem::hint(
            "is not an http or https URL",
            "as in \"http://127.0.0.1:4566\"",
        ))
    }
}
