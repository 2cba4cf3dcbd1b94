use aws_sdk_s3::config::Credentials;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;
use crate::aws::sdk_config;
use crate::config::Config;

const ROLE: &str = "arn:aws:iam::111122223333:role/trail";

/// The daemon's configuration, for services at `endpoint`.
async fn sdk(endpoint: String) -> SdkConfig {
    let mut config = Config::embedded_default();
    config.aws.endpoint_url = Some(endpoint);
    let credentials = Credentials::new("test", "test", None, None, "test");
    sdk_config(&config)
        .await
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

#[tokio::test]
async fn a_client_is_of_the_region_that_the_destination_names() {
    let sdk = sdk("http://127.0.0.1:1".to_owned()).await;
    let frankfurt: Region = "eu-central-1".parse().unwrap();
    let events = |region| {
        let client = events_client(&sdk, region);
        client.config().region().cloned()
    };
    assert_eq!(events(Some(&frankfurt)).unwrap().as_ref(), "eu-central-1");
    assert_eq!(events(None), sdk.region().cloned());
    let kms = |key| kms_client(&sdk, key).config().region().cloned();
    let alias = "arn:aws:kms:eu-central-1:111122223333:alias/digests";
    assert_eq!(kms(alias).unwrap().as_ref(), "eu-central-1");
    assert_eq!(kms("alias/digests"), sdk.region().cloned());
    for role in [None, Some(ROLE)] {
        let client = logs_client(&sdk, &frankfurt, role).await;
        assert_eq!(client.config().region().unwrap().as_ref(), "eu-central-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_given_up_after_twenty_seconds() {
    // Connections wait in its backlog for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sdk = sdk(format!("http://{}", silent.local_addr().unwrap())).await;
    let region: Region = "eu-central-1".parse().unwrap();
    for role in [None, Some(ROLE)] {
        let client = logs_client(&sdk, &region, role).await;
        let started = Instant::now();
        let create = client
            .create_log_stream()
            .log_group_name("g")
            .log_stream_name("s");
        let answer = tokio::time::timeout(Duration::from_secs(60), create.send());
        answer.await.expect("it is given up").unwrap_err();
        assert_eq!(started.elapsed().as_secs(), 20, "role {role:?}");
    }
}
