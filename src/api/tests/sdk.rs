//! The whole life of a trail by AWS's own SDK for Rust, which reads every answer and error by CloudTrail's model.

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region as SdkRegion};
use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::Credentials;
use aws_sdk_cloudtrail::types::{EventSelector, InsightSelector, InsightType, ReadWriteType, Tag};
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::*;
use crate::server::{self, Listener};
use hyper::body::Incoming;

/// A client of an api that is served as long as the guard is held.
async fn client(api: Api) -> (Client, DropGuard) {
    let listener = Listener::bind_tcp("listen.api", ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let handler = move |request: Request<Incoming>, peer: server::Peer| {
        let api = api.clone();
        async move {
            let (head, body) = request.into_parts();
            let door = Door::new(
                api.home.account,
                api.home.region,
                auth::Options::None,
                Vec::new(),
            );
            let admitted = door
                .admit(&head, &peer, "cloudtrail", WallMillis::now())
                .unwrap();
            let request = Request::from_parts(head, body);
            api.answer(request, &admitted.caller).await
        }
    };
    let served = server::serve(listener, handler, server::Limits::default(), stop.clone());
    tokio::spawn(served);
    let options = aws_sdk_cloudtrail::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(SdkRegion::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("111122223333", "any", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled());
    (Client::from_conf(options.build()), stop.drop_guard())
}

#[tokio::test]
async fn a_trail_lives_by_the_sdk_as_cloudtrail_models_it() {
    let fixture = Fixture::new(vec![trail()]);
    let (client, _served) = client(fixture.api()).await;
    let tag = Tag::builder().key("team").value("audit").build().unwrap();
    let create = client.create_trail().name("life").s3_bucket_name("b-1");
    let created = create.tags_list(tag).send().await.unwrap();
    let arn = created.trail_arn().unwrap();
    assert_eq!(created.include_global_service_events(), Some(true));

    client.start_logging().name(arn).send().await.unwrap();
    let selector = EventSelector::builder().read_write_type(ReadWriteType::WriteOnly);
    let put = client.put_event_selectors().trail_name("life");
    put.event_selectors(selector.build()).send().await.unwrap();
    let insight = InsightSelector::builder().insight_type(InsightType::ApiCallRateInsight);
    let put = client.put_insight_selectors().trail_name("life");
    put.insight_selectors(insight.build()).send().await.unwrap();

    let update = client.update_trail().name("life").s3_key_prefix("p");
    let updated = update.is_multi_region_trail(true).send().await.unwrap();
    assert_eq!(updated.s3_key_prefix(), Some("p"));
    let got = client.get_trail().name("life").send().await.unwrap();
    let got = got.trail().unwrap();
    assert_eq!(
        (
            got.has_custom_event_selectors(),
            got.has_insight_selectors()
        ),
        (Some(true), Some(true))
    );
    let selectors = client
        .get_event_selectors()
        .trail_name(arn)
        .send()
        .await
        .unwrap();
    assert_eq!(
        selectors.event_selectors()[0].read_write_type(),
        Some(&ReadWriteType::WriteOnly)
    );
    let insights = client
        .get_insight_selectors()
        .trail_name(arn)
        .send()
        .await
        .unwrap();
    assert_eq!(
        insights.insight_selectors()[0].insight_type(),
        Some(&InsightType::ApiCallRateInsight)
    );
    let tags = client
        .list_tags()
        .resource_id_list(arn)
        .send()
        .await
        .unwrap();
    assert_eq!(tags.resource_tag_list()[0].tags_list()[0].key(), "team");
    let status = client.get_trail_status().name("life").send().await.unwrap();
    assert!(status.is_logging() == Some(true) && status.start_logging_time().is_some());
    let mut pages = client.list_trails().into_paginator().items().send();
    let mut names = Vec::new();
    while let Some(info) = pages.next().await {
        names.push(info.unwrap().name().unwrap().to_owned());
    }
    assert_eq!(names, ["life", "main"]);

    client.stop_logging().name("life").send().await.unwrap();
    client.delete_trail().name("life").send().await.unwrap();
    let error = client.get_trail().name("life").send().await.unwrap_err();
    assert!(error.into_service_error().is_trail_not_found_exception());
    let error = client.delete_trail().name("main").send().await.unwrap_err();
    assert!(
        error
            .into_service_error()
            .is_operation_not_permitted_exception()
    );
}
