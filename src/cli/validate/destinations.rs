//! Whether what the trails send to is there: bucket, topic, log group and event bus, all looked at at the same time.
//!
//! A destination that does not exist is a mistake. That one may not be looked at is none: sending needs less than looking does. The bucket
//! must also be within reach, for a trail without it delivers nothing; what cannot be told of the others is a warning.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::error::SdkError;
use futures::future::{BoxFuture, FutureExt, join_all};

use super::Findings;
use crate::aws;
use crate::config::{Config, StorageKind};
use crate::deliver::failure::Failure;
use crate::trail::{EventBus, LogGroup, Topic};

/// For each answer, and for the credentials that its question needs.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Mistake { problem: String, hint: String },
    Warning(String),
}

/// A look at what a key names.
struct Look<'a> {
    key: String,
    value: &'a str,
    found: BoxFuture<'a, Found>,
}

/// Looks at the destinations of every trail.
pub async fn check(config: &Config, sdk: &SdkConfig, findings: &mut Findings) {
    let looks = looks(config, sdk).into_iter().map(async |look| {
        let Look { key, value, found } = look;
        (key, value, found.await)
    });
    for (key, value, found) in join_all(looks).await {
        match found {
            Found::Nothing => {}
            Found::Mistake { problem, hint } => findings.mistake(&key, value, problem, hint),
            Found::Warning(message) => findings.warn(&key, message),
        }
    }
}

/// In the order of the trails.
fn looks<'a>(config: &'a Config, sdk: &'a SdkConfig) -> Vec<Look<'a>> {
    let s3 = (config.storage.kind == StorageKind::S3).then(|| aws::s3_client(sdk, config));
    let mut looks = Vec::new();
    for (index, trail) in config.trails.iter().enumerate() {
        let mut look = |key: &str, value, found| {
            let key = format!("trails[{index}].{key}");
            looks.push(Look { key, value, found });
        };
        if let Some(s3) = &s3 {
            let name = &trail.s3_bucket_name;
            look("s3_bucket_name", name, bucket(s3.clone(), name).boxed());
        }
        if let Some(named) = &trail.sns_topic {
            look("sns_topic_arn", named.arn(), topic(sdk, named).boxed());
        }
        if let Some(named) = &trail.cloud_watch_logs {
            let key = "cloud_watch_logs_log_group_arn";
            look(key, named.arn(), log_group(sdk, named).boxed());
        }
        if let Some(named) = &trail.event_bus {
            look("event_bus", named.as_str(), event_bus(sdk, named).boxed());
        }
    }
    looks
}

async fn bucket(client: aws_sdk_s3::Client, name: &str) -> Found {
    const WHERE_TO: &str = "check [aws], the credentials of the environment and the network; --offline leaves this check out";
    let mistake = |problem: String, hint: &str| Found::Mistake {
        problem,
        hint: hint.to_owned(),
    };
    let look = client.head_bucket().bucket(name).send();
    match tokio::time::timeout(PATIENCE, look).await {
        Err(_) => mistake(
            format!(
                "no answer about it from S3 within {} seconds",
                PATIENCE.as_secs()
            ),
            WHERE_TO,
        ),
        Ok(Ok(_)) => Found::Nothing,
        Ok(Err(SdkError::ServiceError(error))) => match error.raw().status().as_u16() {
            404 => mistake(
                "the bucket does not exist".to_owned(),
                &format!("create it: aws s3 mb s3://{name}"),
            ),
            301 => mistake(
                "the bucket is in another region".to_owned(),
                "set AWS_REGION to the bucket's region",
            ),
            403 => Found::Warning(format!(
                "S3 does not let us look at the bucket {name}; log files need s3:PutObject alone"
            )),
            status => mistake(
                format!("S3 answered {status} when asked about it"),
                WHERE_TO,
            ),
        },
        Ok(Err(error)) => mistake(
            format!("cannot ask S3 about it: {}", Failure::of(&error).message),
            WHERE_TO,
        ),
    }
}

async fn topic(sdk: &SdkConfig, topic: &Topic) -> Found {
    let look = async {
        let client = aws::sns_client(sdk, topic.region());
        let attributes = client.get_topic_attributes().topic_arn(topic.arn());
        match attributes.send().await {
            Ok(_) => Ok(Found::Nothing),
            Err(error) => match Failure::of(&error) {
                failure if failure.code == "NotFound" => Ok(Found::Mistake {
                    problem: "the topic does not exist".to_owned(),
                    hint: "create it, or name another one; until then its notifications wait"
                        .to_owned(),
                }),
                failure => Err(failure),
            },
        }
    };
    told(look, "sns:GetTopicAttributes", "sns:Publish").await
}

/// With the role, when one is given: so the role is tried, too.
async fn log_group(sdk: &SdkConfig, group: &LogGroup) -> Found {
    let look = async {
        let client = aws::logs_client(sdk, group.region(), group.role_arn()).await;
        // Sorted by name, so that a group comes before all that its name begins (DescribeLogGroups, element `logGroups`).
        let groups = client
            .describe_log_groups()
            .log_group_name_prefix(group.name());
        let answer = groups.send().await.map_err(|error| Failure::of(&error))?;
        let named = answer
            .log_groups()
            .iter()
            .find(|other| other.log_group_name() == Some(group.name()));
        Ok(match named {
            Some(named) => in_account(group, named.arn().unwrap_or(group.arn())),
            None => Found::Mistake {
                problem: format!(
                    "the log group does not exist in {} for the account of the {}",
                    group.region(),
                    group.role_arn().map_or("credentials", |_| "role")
                ),
                hint: "create it there, or correct the ARN or the role; until then its events wait"
                    .to_owned(),
            },
        })
    };
    let sending = "logs:CreateLogStream and logs:PutLogEvents";
    told(look, "logs:DescribeLogGroups", sending).await
}

/// PutLogEvents goes by the group's name, in the account of whoever writes.
fn in_account(group: &LogGroup, found_arn: &str) -> Found {
    match found_arn.parse::<LogGroup>() {
        Ok(found) if found.account() != group.account() => Found::Warning(format!(
            "events go to the log group {} of account {}, which the credentials belong to",
            group.name(),
            found.account()
        )),
        _ => Found::Nothing,
    }
}

async fn event_bus(sdk: &SdkConfig, bus: &EventBus) -> Found {
    let look = async {
        let client = aws::events_client(sdk, bus.region());
        let described = client.describe_event_bus().name(bus.as_str());
        match described.send().await {
            Ok(_) => Ok(Found::Nothing),
            Err(error) => match Failure::of(&error) {
                failure if failure.code == "ResourceNotFoundException" => {
                    let region = client.config().region();
                    let region = region.map_or("the configured region", |region| region.as_ref());
                    Ok(Found::Mistake {
                        problem: format!("the event bus does not exist in {region}"),
                        hint: "create it there, or name another one; until then its events wait"
                            .to_owned(),
                    })
                }
                failure => Err(failure),
            },
        }
    };
    told(look, "events:DescribeEventBus", "events:PutEvents").await
}

/// What a look has found, or why it found nothing: looking takes one action, sending others.
async fn told(
    look: impl Future<Output = Result<Found, Failure>>,
    looking: &str,
    sending: &str,
) -> Found {
    let seconds = PATIENCE.as_secs();
    let why = match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(found)) => return found,
        Ok(Err(Failure { code, message, .. })) => format!("{code}: {message}"),
        Err(_) => format!("no answer within {seconds} seconds"),
    };
    Found::Warning(format!(
        "cannot be checked: {why}; checking takes {looking}, sending {sending}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Place, Source};
    use crate::deliver::fake::{Answer, Service};

    const TRAIL: &str = r#"
        [[trails]]
        name = "main"
        s3_bucket_name = "logs"
        sns_topic_arn = "arn:aws:sns:eu-west-1:111122223333:news"
        cloud_watch_logs_log_group_arn = "arn:aws:logs:eu-west-1:111122223333:log-group:trail:*"
        event_bus = "audit"
    "#;

    fn config() -> Config {
        let loaded = config::check(Source::EmbeddedDefault, TRAIL, []).unwrap();
        loaded.config
    }

    async fn found(config: &Config, sdk: &SdkConfig) -> Findings {
        let mut findings = Findings {
            place: Place::Default,
            mistakes: Vec::new(),
            notes: Vec::new(),
        };
        check(config, sdk, &mut findings).await;
        findings
    }

    /// SNS speaks XML and names its operation in the body, the others JSON.
    async fn service(sns: (u16, &str), logs: (u16, &str), bus: (u16, &str)) -> Service {
        let [sns, logs, bus] = [sns, logs, bus].map(|(status, body)| (status, body.to_owned()));
        Service::start(move |asked| {
            let (status, body) = match asked.target() {
                "" => &sns,
                "Logs_20140328.DescribeLogGroups" => &logs,
                "AWSEvents.DescribeEventBus" => &bus,
                other => panic!("asked for {other}"),
            };
            Answer::new(*status, body)
        })
        .await
    }

    const TOPIC_IS_THERE: (u16, &str) = (
        200,
        "<GetTopicAttributesResponse><GetTopicAttributesResult/></GetTopicAttributesResponse>",
    );
    const GROUP_IS_THERE: (u16, &str) = (
        200,
        r#"{"logGroups":[{"logGroupName":"trail","arn":"arn:aws:logs:eu-west-1:111122223333:log-group:trail:*"},{"logGroupName":"trail2"}]}"#,
    );
    const BUS_IS_THERE: (u16, &str) = (200, r#"{"Name":"audit"}"#);

    #[tokio::test]
    async fn destinations_that_are_there_are_no_news() {
        let service = service(TOPIC_IS_THERE, GROUP_IS_THERE, BUS_IS_THERE).await;
        let findings = found(&config(), &service.sdk_config()).await;
        assert_eq!((findings.mistakes, findings.notes), (vec![], vec![]));
        assert_eq!(service.asked().len(), 3);
    }

    #[tokio::test]
    async fn each_destination_that_does_not_exist_is_a_mistake() {
        let service = service(
            (
                404,
                "<ErrorResponse><Error><Code>NotFound</Code><Message>Topic does not exist</Message></Error></ErrorResponse>",
            ),
            // One that only begins like it.
            (200, r#"{"logGroups":[{"logGroupName":"trail2"}]}"#),
            (
                400,
                r#"{"__type":"ResourceNotFoundException","message":"Event bus audit does not exist."}"#,
            ),
        )
        .await;
        let findings = found(&config(), &service.sdk_config()).await;
        let keys: Vec<_> = findings.mistakes.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "trails[0].sns_topic_arn",
                "trails[0].cloud_watch_logs_log_group_arn",
                "trails[0].event_bus"
            ]
        );
        assert!(findings.mistakes.iter().all(|it| it.hint.is_some()));
        assert!(findings.mistakes[1].problem.contains("credentials"));
        assert_eq!(findings.notes, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_role_that_may_only_send_makes_warnings_and_no_mistakes() {
        const DENIED: (u16, &str) = (
            400,
            r#"{"__type":"AccessDeniedException","message":"not authorized"}"#,
        );
        let service = service(
            (
                403,
                "<ErrorResponse><Error><Code>AuthorizationError</Code><Message>not authorized</Message></Error></ErrorResponse>",
            ),
            DENIED,
            DENIED,
        )
        .await;
        let findings = found(&config(), &service.sdk_config()).await;
        assert_eq!(findings.mistakes, []);
        let told = [
            "AuthorizationError: not authorized; checking takes sns:GetTopicAttributes",
            "AccessDeniedException: not authorized; checking takes logs:DescribeLogGroups",
            "AccessDeniedException: not authorized; checking takes events:DescribeEventBus",
        ];
        assert_eq!(findings.notes.len(), told.len(), "{:#?}", findings.notes);
        for (note, told) in findings.notes.iter().zip(told) {
            assert!(note.contains(told), "{note}");
        }
    }

    #[tokio::test]
    async fn a_role_that_may_not_be_assumed_is_told_with_the_reason() {
        let denial = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no AssumeRole for traild</Message></Error></ErrorResponse>";
        let service = Service::start(move |_| Answer::new(403, denial)).await;
        let role = "cloud_watch_logs_role_arn = \"arn:aws:iam::111122223333:role/writer\"";
        let text = TRAIL.replace("event_bus = \"audit\"", role);
        let mut config = config::check(Source::EmbeddedDefault, &text, [])
            .unwrap()
            .config;
        config.aws.endpoint_url = Some(service.endpoint().to_owned());
        let plain = service.sdk_config();
        let sdk = aws::sdk_config(&config).await.into_builder();
        let sdk = sdk.credentials_provider(plain.credentials_provider().unwrap());
        let sdk = sdk.http_client(plain.http_client().unwrap()).build();
        let findings = found(&config, &sdk).await;
        assert_eq!(findings.mistakes, []);
        assert!(
            findings.notes[1].contains("no AssumeRole for traild"),
            "{:#?}",
            findings.notes
        );
        let asked = service.asked();
        let assumed = |body: &[u8]| body.windows(11).any(|window| window == b"AssumeRole&");
        assert!(asked.iter().any(|asked| assumed(&asked.body)));
    }

    #[tokio::test]
    async fn a_log_group_of_the_same_name_in_another_account_is_told() {
        let elsewhere = r#"{"logGroups":[{"logGroupName":"trail","arn":"arn:aws:logs:eu-west-1:999999999999:log-group:trail:*"}]}"#;
        let service = service(TOPIC_IS_THERE, (200, elsewhere), BUS_IS_THERE).await;
        let findings = found(&config(), &service.sdk_config()).await;
        assert_eq!(findings.mistakes, []);
        assert!(findings.notes[0].contains("of account 999999999999"));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_mistake_of_the_bucket_and_a_warning_of_the_others_and_all_are_waited_for_at_once()
     {
        // Connections are taken by the kernel, and nobody answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Service::start(|_| Answer::new(500, "")).await;
        let sdk = service.sdk_config().into_builder();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let sdk = sdk.endpoint_url(endpoint).build();
        let mut config = config();
        config.storage.kind = StorageKind::S3;
        let began = tokio::time::Instant::now();
        let findings = found(&config, &sdk).await;
        assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
        let keys: Vec<_> = findings.mistakes.iter().map(|it| it.key.as_str()).collect();
        assert_eq!(keys, ["trails[0].s3_bucket_name"]);
        assert_eq!(findings.notes.len(), 3);
    }
}
