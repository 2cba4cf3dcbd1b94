use super::*;

pub(super) fn read(text: &str) -> Result<Loaded, Vec<Mistake>> {
    with(text, &[])
}

pub(super) fn with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<Mistake>> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    check(Source::File("traild.toml".into()), text, environment)
}

pub(super) fn sound(text: &str) -> Loaded {
    read(text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// The example of the contract, without the keys that this version refuses.
const EXAMPLE: &str = r#"
account_id = "111122223333"
region     = "us-east-1"
data_dir   = "./traild-data"

[listen]
api = "127.0.0.1:4580"
ops = "127.0.0.1:4581"
unix = "/run/traild/traild.sock"

[storage]
kind   = "embedded"
listen = "127.0.0.1:4582"

[aws]
endpoint_url = "http://127.0.0.1:4566"
force_path_style = true
checksum = "when_required"

[ingest]
max_body_bytes = "16MiB"
max_event_bytes = "256KiB"
dedup_window = 1_000_000
on_full = "reject"

[journal]
max_bytes = "10GiB"
segment_bytes = "64MiB"

[delivery]
max_age = "60s"
max_bytes = "50MiB"
gzip_level = 6
flush_on_stop = false
stop_timeout = "10s"

[digest]
interval = "1h"
key_dir = "keys"

[history]
enabled = true
retention = "90d"

[sinks]
event_bridge_source = "traild.{service}"
cloudwatch_max_event_bytes = "256KiB"
put_events_max_bytes = "256KiB"

[auth]
mode = "none"

[[inputs.file]]
path = "/var/log/app/audit*.ndjson"

[[trails]]
name = "main"
s3_bucket_name = "audit-logs"
s3_key_prefix = ""
sns_topic_arn = "arn:aws:sns:us-east-1:111122223333:trail"
cloud_watch_logs_log_group_arn = "arn:aws:logs:us-east-1:111122223333:log-group:trail:*"
cloud_watch_logs_role_arn = "arn:aws:iam::111122223333:role/trail"
event_bus = "default"
is_multi_region_trail = true
include_global_service_events = true
is_organization_trail = false
organization_id = "o-exampleorgid"
organization_accounts = ["*"]
enable_log_file_validation = true
kms_key_id = ""
event_selectors = []
advanced_event_selectors = []
"#;

#[test]
fn the_contracts_example_is_read_in_full() {
    let loaded = sound(EXAMPLE);
    let mut expected = Config::embedded_default();
    expected.listen.unix = Some("/run/traild/traild.sock".into());
    expected.aws.endpoint_url = Some("http://127.0.0.1:4566".into());
    expected.aws.force_path_style = true;
    expected.digest.key_dir = Some("keys".into());
    expected.inputs.file = vec![FileInput {
        path: "/var/log/app/audit*.ndjson".into(),
    }];
    let log_group: LogGroup = "arn:aws:logs:us-east-1:111122223333:log-group:trail:*"
        .parse()
        .unwrap();
    expected.trails = vec![TrailConfig {
        name: "main".into(),
        s3_bucket_name: "audit-logs".into(),
        s3_key_prefix: String::new(),
        sns_topic: Some("arn:aws:sns:us-east-1:111122223333:trail".parse().unwrap()),
        cloud_watch_logs: Some(
            log_group.with_role(Some("arn:aws:iam::111122223333:role/trail".into())),
        ),
        event_bus: Some("default".parse().unwrap()),
        selectors: Selectors::default(),
        is_multi_region_trail: true,
        include_global_service_events: true,
        is_organization_trail: false,
        organization_id: Some("o-exampleorgid".into()),
        organization_accounts: Members::Every,
        enable_log_file_validation: true,
        kms_key_id: None,
    }];
    assert_eq!(loaded.config, expected);
    let warned: Vec<&str> = loaded
        .warnings
        .iter()
        .map(|warning| warning.key.as_str())
        .collect();
    assert_eq!(
        warned,
        [
            "aws.endpoint_url",
            "trails[0].organization_id",
            "trails[0].organization_accounts",
        ]
    );
}

#[test]
fn nothing_written_means_the_embedded_default() {
    let loaded = check(Source::EmbeddedDefault, "", []).unwrap();
    assert_eq!(
        loaded,
        Loaded {
            config: Config::embedded_default(),
            source: Source::EmbeddedDefault,
            warnings: vec![]
        }
    );
    assert_eq!(sound("# nothing\n").config, Config::embedded_default());
}

#[test]
fn a_source_of_awss_own_is_warned_of_unless_an_emulator_may_take_it() {
    let warned = |text: &str| -> Vec<String> {
        let warnings = sound(text).warnings.into_iter();
        warnings.map(|warning| warning.key).collect()
    };
    let source = |template: &str| format!("[sinks]\nevent_bridge_source = \"{template}\"\n");
    for own in ["aws.{service}", "{service}"] {
        assert_eq!(warned(&source(own)), ["sinks.event_bridge_source"], "{own}");
    }
    for quiet in ["traild.{service}", "audit", "awsome.{service}"] {
        assert_eq!(warned(&source(quiet)), [""; 0], "{quiet}");
    }
    let emulator = "[aws]\nendpoint_url = \"http://127.0.0.1:4566\"\n";
    let warned = warned(&format!("{}{emulator}", source("aws.{service}")));
    assert!(!warned.contains(&"sinks.event_bridge_source".to_owned()));
}

#[test]
fn a_source_that_makes_no_sense_is_a_mistake_that_says_what_would() {
    let mistakes = read("[sinks]\nevent_bridge_source = \"traild.{servce}\"\n").unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("has braces around other than {service}"));
    assert!(told[0].contains("hint: as in \"traild.{service}\""));
}

#[test]
fn a_log_group_of_another_account_is_warned_of_unless_a_role_is_given() {
    let warned = |account: &str, role: &str| -> Vec<String> {
        let text = format!(
            "account_id = \"111122223333\"\n[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"\n\
             cloud_watch_logs_log_group_arn = \"arn:aws:logs:us-east-1:{account}:log-group:trail:*\"\n\
             cloud_watch_logs_role_arn = \"{role}\"\n"
        );
        let warnings = sound(&text).warnings.into_iter();
        warnings.map(|warning| warning.to_string()).collect()
    };
    let told = warned("444455556666", "");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("trails[0].cloud_watch_logs_log_group_arn: is of account 444455556666")
    );
    assert_eq!(warned("111122223333", ""), [""; 0]);
    let role = "arn:aws:iam::444455556666:role/trail";
    assert_eq!(warned("444455556666", role), [""; 0]);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"acount_id = "111122223333"
account_id = "1234"
region = "-x"
data_dir = ""
colour = "red"
[listen]
api = "localhost:4580"
ops = 4581
[ingest]
max_body_bytes = "16Mib2"
max_event_bytes = "1TiB"
on_full = "drop"
[delivery]
max_age = 60
gzip_level = 13
flush_on_stop = "no"
max_byte = "1MiB"
[digest]
interval = "2h"
[[inputs.file]]
path = "/var/log/[a"
[[trails]]
name = "a"
s3_bucket_name = "Audit_Logs"
s3_key_prefix = "/x"
sns_topic_arn = "arn:aws:sns:us-east-1:111122223333:t.fifo"
is_organization_trail = true
organization_accounts = ["1234"]
[[trails]]
name = "twin"
s3_bucket_name = "logs"
include_global_service_events = false
[[trails]]
name = "twin"
s3_bucket_name = "${MISSING}"
[history]
retention = "90"
days = 90
"#;
    let mistakes = read(text).unwrap_err();
    let found: Vec<(String, &str)> = mistakes
        .iter()
        .map(|m| (m.place.to_string(), m.key.as_str()))
        .collect();
    let line = |line: usize, key: &'static str| (format!("traild.toml:{line}"), key);
    assert_eq!(
        found,
        [
            line(1, "acount_id"),
            line(2, "account_id"),
            line(3, "region"),
            line(4, "data_dir"),
            line(5, "colour"),
            line(7, "listen.api"),
            line(8, "listen.ops"),
            line(10, "ingest.max_body_bytes"),
            line(11, "ingest.max_event_bytes"),
            line(12, "ingest.on_full"),
            line(14, "delivery.max_age"),
            line(15, "delivery.gzip_level"),
            line(16, "delivery.flush_on_stop"),
            line(17, "delivery.max_byte"),
            line(19, "digest.interval"),
            line(21, "inputs.file[0].path"),
            line(23, "trails[0].name"),
            line(24, "trails[0].s3_bucket_name"),
            line(25, "trails[0].s3_key_prefix"),
            line(26, "trails[0].sns_topic_arn"),
            line(27, "trails[0].is_organization_trail"),
            line(28, "trails[0].organization_accounts"),
            line(32, "trails[1].include_global_service_events"),
            line(35, "trails[2].s3_bucket_name"),
            line(37, "history.retention"),
            line(38, "history.days"),
        ]
    );
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told[0],
        "traild.toml:1: acount_id: is not a key traild knows\n  hint: did you mean account_id?"
    );
    assert_eq!(
        told[5],
        "traild.toml:7: listen.api = \"localhost:4580\": is not an address to listen on\n  hint: write \"127.0.0.1:4580\""
    );
    assert_eq!(
        told[10],
        "traild.toml:14: delivery.max_age = 60: is not a time\n  hint: write a time from 10ms to 1d, as in \"60s\""
    );
    assert_eq!(
        told[13],
        "traild.toml:17: delivery.max_byte: is not a key traild knows\n  hint: did you mean delivery.max_bytes?"
    );
    assert!(
        told[23].contains("the environment variable MISSING is not set"),
        "{}",
        told[23]
    );
}

#[test]
fn the_kms_key_of_digests_is_named_as_that_of_a_trail_and_its_public_key_has_a_directory() {
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012";
    for (given, expected) in [
        (arn, Some(arn)),
        ("alias/digests", Some("alias/digests")),
        ("", None),
    ] {
        let text = format!("data_dir = \"d\"\n[digest]\nkms_key_id = \"{given}\"");
        let config = sound(&text).config;
        assert_eq!(config.digest.kms_key_id.as_deref(), expected);
        assert_eq!(config.key_dir(), Path::new("d/keys"));
        let config = sound(&format!("{text}\nkey_dir = \"public\"")).config;
        assert_eq!(config.digest.kms_key_id.as_deref(), expected);
        assert_eq!(config.key_dir(), Path::new("public"));
    }
    let (key, message) = only("[digest]\nkms_key_id = \"my key\"");
    assert_eq!(key, "digest.kms_key_id");
    assert!(
        message.contains("is not a KMS key: a key's id, alias/…"),
        "{message}"
    );
}

/// The only mistake of a text: its key, and the whole message.
#[track_caller]
pub(super) fn only(text: &str) -> (String, String) {
    match read(text) {
        Ok(loaded) => panic!("no mistake in {text:?}: {loaded:?}"),
        Err(mistakes) => {
            assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
            (mistakes[0].key.clone(), mistakes[0].to_string())
        }
    }
}

#[test]
fn what_this_version_cannot_do_is_said_plainly() {
    let table = [
        (
            "[listen]\ntls = { cert_file = \"a\", key_file = \"b\" }".to_owned(),
            "listen.tls",
        ),
        ("[listen.tls]\ncert_file = \"a\"".to_owned(), "listen.tls"),
    ];
    for (text, key) in table {
        let (found, message) = only(&text);
        assert_eq!(found, key);
        assert!(
            message.contains("not supported by this version of traild"),
            "{message}"
        );
    }
}

const TRAIL: &str = "[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"\n";

#[test]
fn selectors_of_either_kind_are_cloudtrails_json_written_as_toml() {
    let selectors = |text: &str| {
        let loaded = sound(&format!("{TRAIL}{text}"));
        loaded.config.trails[0].selectors.clone()
    };
    let basic = selectors(
        r#"event_selectors = [{ ReadWriteType = "WriteOnly", IncludeManagementEvents = true, DataResources = [
            { Type = "AWS::S3::Object", Values = ["arn:aws:s3:::b/"] }], ExcludeManagementEventSources = ["kms.amazonaws.com"] }, {}]"#,
    );
    let given = serde_json::json!([
        {"ReadWriteType": "WriteOnly", "IncludeManagementEvents": true, "DataResources": [{"Type": "AWS::S3::Object", "Values": ["arn:aws:s3:::b/"]}],
         "ExcludeManagementEventSources": ["kms.amazonaws.com"]},
        {"ReadWriteType": "All", "IncludeManagementEvents": true, "DataResources": [], "ExcludeManagementEventSources": []},
    ]);
    let found = serde_json::to_value(basic.event_selectors()).unwrap();
    assert_eq!(found, given);
    let advanced = selectors(
        r#"
        [[trails.advanced_event_selectors]]
        Name = "writes"
        [[trails.advanced_event_selectors.FieldSelectors]]
        Field = "eventCategory"
        Equals = ["Management"]
        [[trails.advanced_event_selectors.FieldSelectors]]
        Field = "readOnly"
        Equals = ["false"]
        "#,
    );
    let given = serde_json::json!([{"Name": "writes", "FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Management"]}, {"Field": "readOnly", "Equals": ["false"]}]}]);
    let found = serde_json::to_value(advanced.advanced_event_selectors()).unwrap();
    assert_eq!(found, given);
    for none in ["", "event_selectors = []\nadvanced_event_selectors = []"] {
        assert_eq!(selectors(none), Selectors::Everything, "{none}");
    }
    let one_kind = selectors("event_selectors = [{}]\nadvanced_event_selectors = []");
    assert_eq!(one_kind.event_selectors().len(), 1);
    let management =
        r#"[{ FieldSelectors = [{ Field = "eventCategory", Equals = ["Management"] }] }]"#;
    let trails = format!(
        r#"[{{ name = "main", s3_bucket_name = "logs", advanced_event_selectors = {management} }}]"#
    );
    let loaded = with("", &[("TRAILD__TRAILS", trails.as_str())]).unwrap();
    let found = loaded.config.trails[0].selectors.advanced_event_selectors();
    assert_eq!(found.len(), 1);
}

#[test]
fn selectors_at_fault_are_mistakes_that_say_what_is_allowed() {
    let management = r#"[{ Name = "m", FieldSelectors = [{ Field = "eventCategory", Equals = ["Management"] }] }]"#;
    let table: [(&str, &str, &[&str]); 9] = [
        (
            "event_selectors = 1",
            "event_selectors",
            &["event selectors are a list"],
        ),
        (
            "event_selectors = [{ ReadWriteTyp = \"All\" }]",
            "event_selectors",
            &["event selector 1: unknown field `ReadWriteTyp`", "hint: "],
        ),
        (
            "event_selectors = [{ ReadWriteType = 7 }]",
            "event_selectors",
            &["event selector 1: "],
        ),
        (
            "event_selectors = [{ ReadWriteType = 7.5 }]",
            "event_selectors",
            &["holds a fraction"],
        ),
        (
            "event_selectors = [{}, { DataResources = [{ Type = \"AWS::S3::Object\", Values = [\"arn:aws:s3:::b\"] }] }]",
            "event_selectors",
            &["event selector 2: ", "with its slash"],
        ),
        (
            "[[trails.advanced_event_selectors]]\nName = \"x\"",
            "advanced_event_selectors",
            &["advanced event selector 1 \"x\": missing field `FieldSelectors`"],
        ),
        (
            "advanced_event_selectors = [{ FieldSelectors = [{ Field = \"eventCategory\", Equals = [\"All\"] }] }]",
            "advanced_event_selectors",
            &["Management, Data, NetworkActivity or ActivityAuditLog, given: All"],
        ),
        (
            "advanced_event_selectors = [{ FieldSelectors = [{ Field = \"eventCategory\", Equals = [\"${NOT_SET}\"] }] }]",
            "trails[0].advanced_event_selectors[0].FieldSelectors[0].Equals[0]",
            &["NOT_SET is not set"],
        ),
        (
            "event_selectors = [{}]\nadvanced_event_selectors = @",
            "advanced_event_selectors",
            &[
                "does not go with event_selectors",
                "hint: leave one of the two out",
            ],
        ),
    ];
    for (text, key, words) in table {
        let (found, message) = only(&format!("{TRAIL}{}", text.replace('@', management)));
        assert!(found.ends_with(key), "{found}: {message}");
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }
}

#[test]
fn values_that_do_not_go_together_are_mistakes() {
    let trail = "[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"\n";
    let table = [
        (
            "[journal]\nmax_bytes = \"1MiB\"".to_owned(),
            "journal.max_bytes",
            "segment_bytes (64MiB) is more than max_bytes (1MiB)",
        ),
        (
            "[ingest]\nmax_body_bytes = \"4KiB\"".to_owned(),
            "ingest.max_body_bytes",
            "an event must fit",
        ),
        (
            "[listen]\napi = \"0.0.0.0:4580\"".to_owned(),
            "listen.api",
            "auth.allow_anonymous = true",
        ),
        (
            "[storage]\nlisten = \"[::]:4582\"".to_owned(),
            "storage.listen",
            "auth.allow_anonymous = true",
        ),
        (
            "[listen]\nops = \"127.0.0.1:4580\"".to_owned(),
            "listen.ops",
            "also the address of listen.api",
        ),
        (
            "[storage]\nkind = \"s3\"".to_owned(),
            "trails",
            "there is no trail",
        ),
        (
            format!("{trail}is_organization_trail = true"),
            "trails[0].is_organization_trail",
            "needs an organization_id",
        ),
        (
            format!("{trail}{trail}"),
            "trails[1].name",
            "is also the name of trails[0]",
        ),
        (
            "[[trails]]\nname = \"main\"".to_owned(),
            "trails[0].s3_bucket_name",
            "is missing",
        ),
        ("trails = 1".to_owned(), "trails", "write [[trails]]"),
        ("listen = 1".to_owned(), "listen", "write [listen]"),
        ("listen = ".to_owned(), "", "not TOML"),
    ];
    for (text, key, part) in table {
        let (found, message) = only(&text);
        assert_eq!(found, key, "{message}");
        assert!(message.contains(part), "{message}");
    }
    assert!(read("[listen]\napi = \"0.0.0.0:4580\"\n[auth]\nallow_anonymous = true").is_ok());
    assert!(read("[listen]\napi = \"127.0.0.1:0\"\nops = \"127.0.0.1:0\"").is_ok());
    assert!(read("[storage]\nkind = \"s3\"\nlisten = \"0.0.0.0:1\"\n[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"").is_ok());
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = [
        ("TRAILD__ACCOUNT_ID", "012345678901"),
        ("TRAILD__REGION", "\"eu-west-1\""),
        ("TRAILD__LISTEN__API", "127.0.0.1:7000"),
        ("TRAILD__DELIVERY__MAX_AGE", "1s"),
        ("TRAILD__DELIVERY__GZIP_LEVEL", "9"),
        ("TRAILD__DELIVERY__FLUSH_ON_STOP", "true"),
        ("TRAILD__JOURNAL__SEGMENT_BYTES", "1048576"),
        ("TRAILD__INGEST", "{ dedup_window = 5 }"),
        ("TRAILD__INGEST__MAX_EVENT_BYTES", "64KiB"),
        ("TRAILD__DATA_DIR", "/tmp/${HOME}"),
        (
            "TRAILD__TRAILS",
            "[{ name = \"other\", s3_bucket_name = \"logs\" }]",
        ),
        ("TRAILD_LOG", "debug"),
        ("HOME", "/root"),
    ];
    let config = with(EXAMPLE, &environment).unwrap().config;
    assert_eq!(config.account_id.as_str(), "012345678901");
    assert_eq!(config.region.as_str(), "eu-west-1");
    assert_eq!(config.listen.api.port(), 7000);
    assert_eq!(config.delivery.max_age, Duration::from_secs(1));
    assert_eq!(config.delivery.gzip_level, 9);
    assert!(config.delivery.flush_on_stop);
    assert_eq!(config.journal.segment_bytes, 1 << 20);
    assert_eq!(config.ingest.dedup_window, 5);
    assert_eq!(config.ingest.max_event_bytes, 64 << 10);
    assert_eq!(config.data_dir, Path::new("/tmp/${HOME}"));
    assert_eq!(config.trails.len(), 1);
    assert_eq!(config.trails[0].name, "other");
    // An account of digits alone is a number to TOML, and text here.
    assert_eq!(
        with("", &[("TRAILD__ACCOUNT_ID", "999988887777")])
            .unwrap()
            .config
            .account_id
            .as_str(),
        "999988887777"
    );
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let mistakes = with(
        "",
        &[
            ("TRAILD__DELIVERY__MAX_AEG", "1s"),
            ("TRAILD__DELIVERY__MAX_AGE", "soon"),
            ("TRAILD__REGION__NAME", "x"),
            ("TRAILD__TRAILS__0__NAME", "x"),
            ("TRAILD__", "x"),
        ],
    )
    .unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told[0].starts_with("TRAILD__: "), "{told:#?}");
    assert!(
        told[1].contains("did you mean TRAILD__DELIVERY__MAX_AGE?"),
        "{told:#?}"
    );
    assert!(
        told[2].starts_with("TRAILD__DELIVERY__MAX_AGE: delivery.max_age = soon: is not a time"),
        "{told:#?}"
    );
    assert!(
        told[3].starts_with("TRAILD__REGION__NAME: region"),
        "{told:#?}"
    );
    assert!(
        told[4].starts_with("TRAILD__TRAILS__0__NAME: trails"),
        "{told:#?}"
    );
}

#[test]
fn variables_are_expanded_in_strings_of_the_file() {
    let text = "data_dir = \"${BASE}/traild\"\n[[trails]]\nname = \"${NAME}\"\ns3_bucket_name = \"logs\"\ns3_key_prefix = \"$${x}\"";
    let config = with(text, &[("BASE", "/srv"), ("NAME", "main")])
        .unwrap()
        .config;
    assert_eq!(config.data_dir, Path::new("/srv/traild"));
    assert_eq!(config.trails[0].s3_key_prefix, "${x}");
    assert_eq!(config.trails[0].name, "main");
    // What a variable held is never shown.
    let mistakes = with("region = \"${SECRET}\"", &[("SECRET", "Hunter2")]).unwrap_err();
    assert!(mistakes[0].to_string().contains("region = \"${SECRET}\""));
    assert!(!mistakes[0].to_string().contains("Hunter2"));
}

#[test]
fn toml_errors_are_all_told() {
    let mistakes = read("a = \nb = ]\n[c\n").unwrap_err();
    assert!(mistakes.len() >= 3, "{mistakes:#?}");
    assert!(
        mistakes
            .iter()
            .all(|mistake| mistake.problem.starts_with("not TOML"))
    );
}

#[test]
fn files_are_looked_for_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let [named, first, second] =
        ["named.toml", "first.toml", "second.toml"].map(|name| directory.path().join(name));
    let find = |path: Option<&Path>| find(path, &[&first, &second]).map(|(source, _)| source);
    assert_eq!(find(None), Ok(Source::EmbeddedDefault));
    std::fs::write(&second, "").unwrap();
    assert_eq!(find(None), Ok(Source::File(second.clone())));
    std::fs::write(&first, "").unwrap();
    assert_eq!(find(None), Ok(Source::File(first.clone())));
    let missing = find(Some(&named)).unwrap_err()[0].to_string();
    assert!(
        missing.contains("named.toml: cannot read the configuration"),
        "{missing}"
    );
    std::fs::write(&named, "").unwrap();
    assert_eq!(find(Some(&named)), Ok(Source::File(named.clone())));
    std::fs::write(&first, [0xff]).unwrap();
    assert!(find(None).is_err());
}
