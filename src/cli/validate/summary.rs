//! What a sound configuration comes to, in lines for people.

use std::fmt::Write;

use crate::auth::Options;
use crate::cli::counted;
use crate::config::units::{show_duration, show_size};
use crate::config::{Config, Loaded, StorageKind, TrailConfig};
use crate::trail::selector::spec::AdvancedEventSelector;
use crate::trail::{Members, Selectors};

/// What was loaded, and of each trail what it selects and where it sends to.
pub fn of(Loaded { config, source, .. }: &Loaded) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!("{source}: ok"));
    line(format!(
        "account   {} in {}",
        config.account_id, config.region
    ));
    line(format!("data_dir  {}", config.data_dir.display()));
    let unix = config
        .listen
        .unix
        .as_ref()
        .map(|path| format!(" and unix:{}", path.display()))
        .unwrap_or_default();
    line(format!("api       http://{}{unix}", config.listen.api));
    line(match &config.auth.requests {
        Options::None => "auth      none: nobody is asked who they are".to_owned(),
        Options::SigV4(credentials) => {
            let with_policy = credentials.iter().filter(|one| one.policy.is_some());
            format!(
                "auth      signed requests, {}, {} with a policy",
                counted(credentials.len(), "credential"),
                with_policy.count()
            )
        }
    });
    line(format!("ops       http://{}", config.listen.ops));
    line(match (config.storage.kind, &config.aws.endpoint_url) {
        (StorageKind::Embedded, _) => {
            format!("storage   embedded, http://{}", config.storage.listen)
        }
        (StorageKind::S3, Some(url)) => format!("storage   S3 at {url}"),
        (StorageKind::S3, None) => "storage   S3".into(),
    });
    line(format!(
        "delivery  after {} or {}, gzip level {}",
        show_duration(config.delivery.max_age),
        show_size(config.delivery.max_bytes),
        config.delivery.gzip_level
    ));
    line(digests(config));
    line(match config.history.enabled {
        true => format!("history   {}", show_duration(config.history.retention)),
        false => "history   none is kept".to_owned(),
    });
    line(match config.trails.len() {
        0 => "trails    none given, the daemon's own default".to_owned(),
        count => format!("trails    {count}"),
    });
    for trail in &config.trails {
        lines_of(config, trail).into_iter().for_each(&mut line);
    }
    out
}

/// How often digests are written, who signs them, and where their public keys are.
fn digests(config: &Config) -> String {
    let interval = show_duration(config.digest.interval);
    let directory = config.key_dir();
    let directory = directory.display();
    match &config.digest.kms_key_id {
        Some(key) => {
            format!(
                "digests   every {interval}, signed by AWS KMS with {key}, public keys in {directory}"
            )
        }
        None => format!("digests   every {interval}, signed with keys in {directory}"),
    }
}

/// What a trail takes, and where it goes.
fn lines_of(config: &Config, trail: &TrailConfig) -> Vec<String> {
    let slash = if trail.s3_key_prefix.is_empty() {
        ""
    } else {
        "/"
    };
    let accounts = match (&trail.organization_id, &trail.organization_accounts) {
        (Some(id), Members::Every) if trail.is_organization_trail => {
            format!("all accounts of {id}")
        }
        (Some(id), Members::Listed(some)) if trail.is_organization_trail => {
            format!("{} of {id}", counted(some.len(), "account"))
        }
        _ => format!("account {}", config.account_id),
    };
    let regions = if trail.is_multi_region_trail {
        "all regions".to_owned()
    } else {
        config.region.to_string()
    };
    let mut lines = vec![
        format!(
            "  {}: {accounts}, {regions} -> s3://{}{slash}{}",
            trail.name, trail.s3_bucket_name, trail.s3_key_prefix
        ),
        format!("    selects  {}", selected(&trail.selectors)),
    ];
    if let Some(topic) = &trail.sns_topic {
        lines.push(format!("    sns      {}", topic.arn()));
    }
    if let Some(group) = &trail.cloud_watch_logs {
        let role = group
            .role_arn()
            .map(|role| format!(", as {role}"))
            .unwrap_or_default();
        lines.push(format!("    logs     {}{role}", group.arn()));
    }
    if let Some(bus) = &trail.event_bus {
        let source = &config.sinks.event_bridge_source;
        lines.push(format!("    bus      {bus}, as source {source}"));
    }
    lines
}

fn selected(selectors: &Selectors) -> String {
    match selectors {
        Selectors::Everything => "every event".to_owned(),
        Selectors::Basic(_) => counted(selectors.event_selectors().len(), "event selector"),
        Selectors::Advanced(_) => {
            let given = selectors.advanced_event_selectors();
            let count = counted(given.len(), "advanced event selector");
            let names: Vec<_> = given.iter().filter_map(name).collect();
            if names.is_empty() {
                count
            } else {
                format!("{count}: {}", names.join(", "))
            }
        }
    }
}

fn name(selector: &AdvancedEventSelector) -> Option<String> {
    selector.name.as_ref().map(|name| format!("{name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Source};

    #[test]
    fn who_signs_digests_is_said_with_where_the_public_keys_are() {
        for (key, expected) in [
            (
                "",
                "digests   every 1h, signed with keys in ./traild-data/keys\n",
            ),
            (
                "kms_key_id = \"alias/digests\"",
                "digests   every 1h, signed by AWS KMS with alias/digests, public keys in ./traild-data/keys\n",
            ),
        ] {
            let text = format!("[digest]\n{key}");
            let loaded = config::check(Source::EmbeddedDefault, &text, []).unwrap();
            let summary = of(&loaded);
            assert!(summary.contains(expected), "{summary}");
        }
    }

    #[test]
    fn each_trail_says_what_it_selects_and_where_it_sends_to() {
        let text = r#"
            [[trails]]
            name = "all"
            s3_bucket_name = "logs"
            [[trails]]
            name = "some"
            s3_bucket_name = "logs"
            s3_key_prefix = "prod"
            is_multi_region_trail = false
            sns_topic_arn = "arn:aws:sns:eu-west-1:111122223333:news"
            cloud_watch_logs_log_group_arn = "arn:aws:logs:eu-west-1:111122223333:log-group:trail:*"
            cloud_watch_logs_role_arn = "arn:aws:iam::111122223333:role/writer"
            event_bus = "audit"
            advanced_event_selectors = [{ Name = "writes", FieldSelectors = [
                { Field = "eventCategory", Equals = ["Management"] },
                { Field = "readOnly", Equals = ["false"] } ] }]
        "#;
        let loaded = config::check(Source::EmbeddedDefault, text, []).unwrap();
        let summary = of(&loaded);
        let (_, trails) = summary.split_once("trails    2\n").unwrap();
        assert_eq!(
            trails,
            "  all: account 111122223333, all regions -> s3://logs
    selects  every event
  some: account 111122223333, us-east-1 -> s3://logs/prod
    selects  1 advanced event selector: \"writes\"
    sns      arn:aws:sns:eu-west-1:111122223333:news
    logs     arn:aws:logs:eu-west-1:111122223333:log-group:trail:*, as arn:aws:iam::111122223333:role/writer
    bus      audit, as source traild.{service}
"
        );
    }
}
