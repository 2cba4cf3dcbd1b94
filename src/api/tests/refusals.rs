//! What of trails is refused, by the name that CloudTrail has for it.

use super::trails::{arn, home, with_made};
use super::*;
use crate::deliver::failure::Failure;

#[tokio::test]
async fn what_cannot_be_is_refused_by_the_name_that_cloudtrail_has_for_it() {
    let (_fixture, api) = with_made().await;
    let create = |members: Value| {
        let mut body = json!({"Name": "other", "S3BucketName": "b-1"});
        let given = members.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(given);
        ("CreateTrail", body)
    };
    let update = |members: Value| {
        let mut body = json!({"Name": "made"});
        let given = members.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(given);
        ("UpdateTrail", body)
    };
    let long = "x".repeat(300);
    let many_tags: Vec<_> = (0..51).map(|n| json!({"Key": n.to_string()})).collect();
    let tag = |key: &str| json!([{"Key": key, "Value": "v"}]);
    let put = |body: Value| {
        let mut body = body;
        body["TrailName"] = json!("made");
        ("PutEventSelectors", body)
    };
    let insights = |selectors: Value| {
        let body = json!({"TrailName": "made", "InsightSelectors": selectors});
        ("PutInsightSelectors", body)
    };
    let group = "arn:aws:logs:us-east-1:111122223333:log-group:trail";
    let of_all =
        json!([{"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}]);
    let mut cases = vec![
        (create(json!({"Name": "ab"})), "InvalidTrailName"),
        (create(json!({"Name": null})), "Serialization"),
        (
            ("CreateTrail", json!({"S3BucketName": "b-1"})),
            "InvalidTrailName",
        ),
        (
            ("CreateTrail", json!({"Name": "other"})),
            "InvalidS3BucketName",
        ),
        (create(json!({"Name": arn("other")})), "InvalidTrailName"),
        (create(json!({"Name": "made"})), "TrailAlreadyExists"),
        (create(json!({"Name": "main"})), "TrailAlreadyExists"),
        (create(json!({"TagsList": many_tags})), "TagsLimitExceeded"),
        (
            create(json!({"TagsList": tag("aws:x")})),
            "InvalidTagParameter",
        ),
        (create(json!({"TagsList": [{}]})), "InvalidTagParameter"),
        (
            create(json!({"IsOrganizationTrail": true})),
            "OrganizationsNotInUse",
        ),
        (update(json!({"Name": "absent"})), "TrailNotFound"),
        (update(json!({"Name": arn("absent")})), "TrailNotFound"),
        (update(json!({"Name": "arn:aws:x"})), "CloudTrailARNInvalid"),
        (update(json!({"Name": "main"})), "OperationNotPermitted"),
        (update(json!({"S3BucketName": ""})), "InvalidS3BucketName"),
        (put(json!({})), "InvalidEventSelectors"),
        (put(json!({"EventSelectors": []})), "InvalidEventSelectors"),
        (put(json!({"EventSelectors": {}})), "InvalidEventSelectors"),
        (
            put(json!({"EventSelectors": [{"ReadWriteType": "Some"}]})),
            "InvalidEventSelectors",
        ),
        (
            put(json!({"EventSelectors": vec![json!({}); 6]})),
            "InvalidEventSelectors",
        ),
        (
            put(json!({"EventSelectors": [{}], "AdvancedEventSelectors": of_all})),
            "InvalidEventSelectors",
        ),
        (
            put(json!({"AdvancedEventSelectors": [{"FieldSelectors": []}]})),
            "InvalidEventSelectors",
        ),
        (
            insights(json!([{"InsightType": "Some"}])),
            "InvalidInsightSelectors",
        ),
        (insights(json!([{}])), "InvalidInsightSelectors"),
        (
            insights(
                json!([{"InsightType": "ApiCallRateInsight"}, {"InsightType": "ApiCallRateInsight"}]),
            ),
            "InvalidInsightSelectors",
        ),
        (
            insights(json!([{"InsightType": "ApiCallRateInsight", "EventCategories": ["Some"]}])),
            "InvalidInsightSelectors",
        ),
        (
            insights(json!([{"InsightType": "ApiCallRateInsight", "EventCategories": []}])),
            "InvalidInsightSelectors",
        ),
        (
            ("PutInsightSelectors", json!({"InsightSelectors": []})),
            "InvalidParameter",
        ),
        (
            (
                "PutInsightSelectors",
                json!({"EventDataStore": "eds", "InsightSelectors": []}),
            ),
            "InvalidParameter",
        ),
        (
            (
                "PutInsightSelectors",
                json!({"TrailName": "made", "EventDataStore": "eds"}),
            ),
            "InvalidParameterCombination",
        ),
        (
            (
                "PutInsightSelectors",
                json!({"TrailName": "made", "InsightsDestination": "eds"}),
            ),
            "InvalidParameterCombination",
        ),
        (
            ("GetInsightSelectors", json!({"TrailName": "made"})),
            "InsightNotEnabled",
        ),
        (("GetInsightSelectors", json!({})), "InvalidParameter"),
        (
            (
                "GetInsightSelectors",
                json!({"TrailName": "made", "EventDataStore": "eds"}),
            ),
            "InvalidParameterCombination",
        ),
        (
            ("ListTags", json!({"ResourceIdList": vec![arn("made"); 21]})),
            "InvalidParameter",
        ),
        (
            (
                "ListTags",
                json!({"ResourceIdList": [arn("made")], "NextToken": "x"}),
            ),
            "InvalidToken",
        ),
        (
            (
                "ListTags",
                json!({"ResourceIdList": [arn("made"), arn("absent")]}),
            ),
            "ResourceNotFound",
        ),
        (("ListTrails", json!({"NextToken": "x"})), "InvalidToken"),
        (
            (
                "AddTags",
                json!({"ResourceId": arn("main"), "TagsList": tag("a")}),
            ),
            "OperationNotPermitted",
        ),
        (
            (
                "RemoveTags",
                json!({"ResourceId": arn("main"), "TagsList": tag("a")}),
            ),
            "OperationNotPermitted",
        ),
        (
            (
                "AddTags",
                json!({"ResourceId": arn("made"), "TagsList": many_tags}),
            ),
            "TagsLimitExceeded",
        ),
    ];
    // What both take and refuse.
    for (members, code) in [
        (json!({"S3BucketName": "B"}), "InvalidS3BucketName"),
        (json!({"S3BucketName": "a/../b"}), "InvalidS3BucketName"),
        (json!({"S3KeyPrefix": "/a"}), "InvalidS3Prefix"),
        (json!({"S3KeyPrefix": long}), "InvalidS3Prefix"),
        (json!({"SnsTopicName": "a b"}), "InvalidSnsTopicName"),
        (json!({"SnsTopicName": long}), "InvalidSnsTopicName"),
        (json!({"SnsTopicName": "told.fifo"}), "InvalidSnsTopicName"),
        (
            json!({"SnsTopicName": "arn:aws:sqs:us-east-1:111122223333:told"}),
            "InvalidSnsTopicName",
        ),
        (json!({"KmsKeyId": "not a key"}), "InvalidKmsKeyId"),
        (
            json!({"KmsKeyId": "arn:aws:kms:us-east-1:111122223333:x"}),
            "InvalidKmsKeyId",
        ),
        (
            json!({"CloudWatchLogsLogGroupArn": "trail"}),
            "InvalidCloudWatchLogsLogGroupArn",
        ),
        (
            json!({"CloudWatchLogsLogGroupArn": group, "CloudWatchLogsRoleArn": "r"}),
            "InvalidCloudWatchLogsRoleArn",
        ),
        (
            json!({"CloudWatchLogsRoleArn": "arn:aws:iam::111122223333:role/r"}),
            "InvalidParameterCombination",
        ),
        (
            json!({"IsMultiRegionTrail": true, "IncludeGlobalServiceEvents": false}),
            "InvalidParameterCombination",
        ),
        (json!({"IsMultiRegionTrail": "yes"}), "Serialization"),
    ] {
        cases.push((create(members.clone()), code));
        cases.push((update(members), code));
    }
    for operation in [
        "GetTrail",
        "GetTrailStatus",
        "StartLogging",
        "StopLogging",
        "DeleteTrail",
    ] {
        for (name, code) in [
            ("absent", "TrailNotFound"),
            ("", "InvalidTrailName"),
            ("arn:aws:cloudtrail", "CloudTrailARNInvalid"),
        ] {
            cases.push(((operation, json!({"Name": name})), code));
        }
    }
    for operation in ["StartLogging", "StopLogging", "DeleteTrail"] {
        cases.push((
            (operation, json!({"Name": "main"})),
            "OperationNotPermitted",
        ));
    }
    for operation in [
        "GetEventSelectors",
        "PutEventSelectors",
        "GetInsightSelectors",
        "PutInsightSelectors",
    ] {
        for (name, code) in [
            ("absent", "TrailNotFound"),
            ("a b", "InvalidTrailName"),
            ("arn:aws:cloudtrail", "CloudTrailARNInvalid"),
        ] {
            let body = json!({"TrailName": name, "EventSelectors": [{}], "InsightSelectors": []});
            cases.push(((operation, body), code));
        }
    }
    for operation in ["PutEventSelectors", "PutInsightSelectors"] {
        let body = json!({"TrailName": "main", "EventSelectors": [{}], "InsightSelectors": []});
        cases.push(((operation, body), "OperationNotPermitted"));
    }
    for (resource, code) in [
        (&*arn("absent"), "ResourceNotFound"),
        ("made", "CloudTrailARNInvalid"),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333",
            "CloudTrailARNInvalid",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/a",
            "CloudTrailARNInvalid",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:1:trail/made",
            "CloudTrailARNInvalid",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:channel/",
            "ChannelARNInvalid",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:channel/abc",
            "ChannelNotFound",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:eventdatastore/a b",
            "EventDataStoreARNInvalid",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:eventdatastore/abc",
            "EventDataStoreNotFound",
        ),
        (
            "arn:aws:cloudtrail:us-east-1:111122223333:dashboard/abc",
            "ResourceTypeNotSupported",
        ),
        ("arn:aws:s3:::b-1", "ResourceTypeNotSupported"),
    ] {
        let of_list = match code {
            "ChannelNotFound" => "ResourceNotFound",
            code => code,
        };
        cases.push((("ListTags", json!({"ResourceIdList": [resource]})), of_list));
        for operation in ["AddTags", "RemoveTags"] {
            let body = json!({"ResourceId": resource, "TagsList": tag("a")});
            cases.push(((operation, body), code));
        }
    }
    for operation in ["AddTags", "RemoveTags"] {
        let body = json!({"ResourceId": arn("made"), "TagsList": tag("")});
        cases.push(((operation, body), "InvalidTagParameter"));
    }
    let before = home(&api, "DescribeTrails", json!({})).await.body;
    for ((operation, body), code) in cases {
        let answer = home(&api, operation, body.clone()).await;
        let expected = format!("{code}Exception");
        assert_eq!(
            (answer.status, answer.code()),
            (400, &*expected),
            "{operation} {body}"
        );
    }
    assert_eq!(home(&api, "DescribeTrails", json!({})).await.body, before);
}

#[tokio::test]
async fn nothing_is_made_that_its_destinations_refuse() {
    let (fixture, api) = with_made().await;
    let failure = |status: u16, code: &str| Failure {
        status: Some(status),
        ..Failure::new(code, "no")
    };
    let body = |operation: &str| {
        json!({
            "Name": if operation == "CreateTrail" { "other" } else { "made" }, "S3BucketName": "b-2", "SnsTopicName": "told",
            "CloudWatchLogsLogGroupArn": "arn:aws:logs:us-east-1:111122223333:log-group:trail",
        })
    };
    for (what, failure, status, code) in [
        (
            "bucket",
            failure(404, "NoSuchBucket"),
            400,
            "S3BucketDoesNotExistException",
        ),
        (
            "bucket",
            failure(403, "AccessDenied"),
            400,
            "InsufficientS3BucketPolicyException",
        ),
        (
            "bucket",
            failure(503, "SlowDown"),
            503,
            "ServiceUnavailableException",
        ),
        (
            "topic",
            failure(404, "NotFound"),
            400,
            "InsufficientSnsTopicPolicyException",
        ),
        (
            "log group",
            failure(400, "ResourceNotFoundException"),
            400,
            "InvalidCloudWatchLogsLogGroupArnException",
        ),
        (
            "log group",
            failure(400, "AccessDeniedException"),
            400,
            "InvalidCloudWatchLogsRoleArnException",
        ),
        (
            "log group",
            failure(500, "InternalFailure"),
            400,
            "CloudWatchLogsDeliveryUnavailableException",
        ),
    ] {
        *fixture.preflight.failures.lock().unwrap() = [(what, failure)].into();
        for operation in ["CreateTrail", "UpdateTrail"] {
            let answer = home(&api, operation, body(operation)).await;
            assert_eq!(
                (answer.status, answer.code()),
                (status, code),
                "{operation} {what}"
            );
        }
    }
    let trails = home(&api, "DescribeTrails", json!({})).await;
    assert_eq!(trails.body["trailList"].as_array().unwrap().len(), 2);
    assert_eq!(trails.body["trailList"][1]["S3BucketName"], "b-1");
}

#[tokio::test]
async fn of_two_updates_at_the_same_time_the_second_is_refused() {
    let (fixture, api) = with_made().await;
    let gate = &fixture.preflight.gate;
    gate.forget_permits(usize::MAX);
    let update = |bucket: &str| {
        home(
            &api,
            "UpdateTrail",
            json!({"Name": "made", "S3BucketName": bucket}),
        )
    };
    let both = async { tokio::join!(update("b-2"), update("b-3")) };
    let let_go = async {
        while fixture.preflight.asked.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
    };
    let ((first, second), ()) = tokio::join!(both, let_go);
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let refused = [&first, &second]
        .into_iter()
        .find(|answer| answer.status == 400);
    assert_eq!(refused.unwrap().code(), "ConflictException");
}
