//! Trails over the protocol.

use super::*;
use crate::api::status::Latest;

const AWAY: &str = "eu-west-1";

/// Asks as an account, in a region.
async fn ask_as(api: &Api, (account, region): (&str, &str), operation: &str, body: Value) -> Read {
    let mut request = request(&cloudtrail(operation), body.to_string());
    let header = format!(
        "AWS4-HMAC-SHA256 Credential={account}/20260501/{region}/cloudtrail/aws4_request, SignedHeaders=host, Signature=00"
    );
    let header = HeaderValue::try_from(header).unwrap();
    request.headers_mut().insert(AUTHORIZATION, header);
    send(api, request).await
}

/// Asks as the home account at home.
pub(super) async fn home(api: &Api, operation: &str, body: Value) -> Read {
    ask(api, &cloudtrail(operation), body.to_string()).await
}

pub(super) fn arn(name: &str) -> String {
    format!("arn:aws:cloudtrail:us-east-1:111122223333:trail/{name}")
}

/// An api with a trail `made` of the API and a trail `main` of the configuration.
pub(super) async fn with_made() -> (Fixture, Api) {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    let created = home(
        &api,
        "CreateTrail",
        json!({"Name": "made", "S3BucketName": "b-1"}),
    )
    .await;
    assert_eq!(created.status, 200, "{created:?}");
    (fixture, api)
}

#[tokio::test]
async fn a_new_trail_has_cloudtrails_defaults_and_answers_with_what_is_set() {
    let (_fixture, api) = with_made().await;
    let plain = home(&api, "GetTrail", json!({"Name": "made"})).await;
    assert_eq!(
        plain.body,
        json!({"Trail": {
            "Name": "made", "S3BucketName": "b-1", "IncludeGlobalServiceEvents": true, "IsMultiRegionTrail": false,
            "HomeRegion": "us-east-1", "TrailARN": arn("made"), "LogFileValidationEnabled": false,
            "HasCustomEventSelectors": false, "HasInsightSelectors": false, "IsOrganizationTrail": false,
        }})
    );
    let selectors = home(&api, "GetEventSelectors", json!({"TrailName": "made"})).await;
    assert_eq!(
        selectors.body,
        json!({"TrailARN": arn("made"), "EventSelectors": [{
            "ReadWriteType": "All", "IncludeManagementEvents": true, "DataResources": [], "ExcludeManagementEventSources": [],
        }]})
    );
    let status = home(&api, "GetTrailStatus", json!({"Name": "made"})).await;
    assert_eq!(
        status.body,
        json!({
            "IsLogging": false, "LatestDeliveryAttemptTime": "", "LatestNotificationAttemptTime": "",
            "LatestNotificationAttemptSucceeded": "", "LatestDeliveryAttemptSucceeded": "",
            "TimeLoggingStarted": "", "TimeLoggingStopped": "",
        })
    );
    let group = "arn:aws:logs:us-east-1:111122223333:log-group:trail";
    let role = "arn:aws:iam::111122223333:role/r";
    let full = home(
        &api,
        "CreateTrail",
        json!({
            "Name": "full", "S3BucketName": "b-1", "S3KeyPrefix": "a/b", "SnsTopicName": "told", "IncludeGlobalServiceEvents": true,
            "IsMultiRegionTrail": true, "EnableLogFileValidation": true, "CloudWatchLogsLogGroupArn": group,
            "CloudWatchLogsRoleArn": role, "KmsKeyId": "alias/k", "IsOrganizationTrail": false,
            "TagsList": [{"Key": "team", "Value": "audit"}, {"Key": "empty"}], "Unknown": {"x": 1},
        }),
    )
    .await;
    assert_eq!(
        full.body,
        json!({
            "Name": "full", "S3BucketName": "b-1", "S3KeyPrefix": "a/b", "SnsTopicName": "told",
            "SnsTopicARN": "arn:aws:sns:us-east-1:111122223333:told", "IncludeGlobalServiceEvents": true, "IsMultiRegionTrail": true,
            "TrailARN": arn("full"), "LogFileValidationEnabled": true, "CloudWatchLogsLogGroupArn": format!("{group}:*"),
            "CloudWatchLogsRoleArn": role, "KmsKeyId": "alias/k", "IsOrganizationTrail": false,
        })
    );
    let tags = home(
        &api,
        "ListTags",
        json!({"ResourceIdList": [arn("full"), arn("made")]}),
    )
    .await;
    assert_eq!(
        tags.body,
        json!({"ResourceTagList": [
            {"ResourceId": arn("full"), "TagsList": [{"Key": "team", "Value": "audit"}, {"Key": "empty"}]},
            {"ResourceId": arn("made"), "TagsList": []},
        ]})
    );
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_removes_what_it_empties() {
    let (fixture, api) = with_made().await;
    let set = |body: Value| home(&api, "UpdateTrail", body);
    let group = "arn:aws:logs:us-east-1:111122223333:log-group:trail:*";
    let role = "arn:aws:iam::111122223333:role/r";
    let plain = json!({
        "Name": "made", "S3BucketName": "b-1", "IncludeGlobalServiceEvents": true, "IsMultiRegionTrail": false,
        "TrailARN": arn("made"), "LogFileValidationEnabled": false, "IsOrganizationTrail": false,
    });
    let mut expected = plain.clone();
    for (given, set_to) in [
        (json!({}), json!({})),
        (
            json!({"S3BucketName": "b-2", "S3KeyPrefix": "p"}),
            json!({"S3BucketName": "b-2", "S3KeyPrefix": "p"}),
        ),
        (
            json!({"EnableLogFileValidation": true, "IsMultiRegionTrail": true}),
            json!({"LogFileValidationEnabled": true, "IsMultiRegionTrail": true}),
        ),
        (
            json!({"SnsTopicName": "arn:aws:sns:eu-west-1:111122223333:told"}),
            json!({"SnsTopicName": "arn:aws:sns:eu-west-1:111122223333:told", "SnsTopicARN": "arn:aws:sns:eu-west-1:111122223333:told"}),
        ),
        (
            json!({"CloudWatchLogsLogGroupArn": group}),
            json!({"CloudWatchLogsLogGroupArn": group}),
        ),
        (
            json!({"CloudWatchLogsRoleArn": role}),
            json!({"CloudWatchLogsRoleArn": role}),
        ),
        (
            json!({"CloudWatchLogsRoleArn": ""}),
            json!({"CloudWatchLogsRoleArn": null}),
        ),
        (
            json!({"CloudWatchLogsLogGroupArn": group, "CloudWatchLogsRoleArn": role}),
            json!({"CloudWatchLogsRoleArn": role}),
        ),
        (
            json!({"KmsKeyId": "alias/k"}),
            json!({"KmsKeyId": "alias/k"}),
        ),
        (json!({"SnsTopicName": null}), json!({})),
        (
            json!({"S3KeyPrefix": "", "SnsTopicName": ""}),
            json!({"S3KeyPrefix": null, "SnsTopicName": null, "SnsTopicARN": null}),
        ),
        (
            json!({"CloudWatchLogsLogGroupArn": ""}),
            json!({"CloudWatchLogsLogGroupArn": null, "CloudWatchLogsRoleArn": null}),
        ),
        (json!({"KmsKeyId": ""}), json!({"KmsKeyId": null})),
        (
            json!({"S3BucketName": "b-1", "EnableLogFileValidation": false, "IsMultiRegionTrail": false}),
            json!({"S3BucketName": "b-1", "LogFileValidationEnabled": false, "IsMultiRegionTrail": false}),
        ),
    ] {
        for (member, value) in set_to.as_object().unwrap() {
            let members = expected.as_object_mut().unwrap();
            match value {
                Value::Null => members.remove(member),
                value => members.insert(member.clone(), value.clone()),
            };
        }
        let mut body = given.clone();
        body["Name"] = json!(arn("made"));
        let answer = set(body).await;
        assert_eq!((answer.status, &answer.body), (200, &expected), "{given}");
    }
    assert_eq!(expected, plain);
    // The restart finds what the last answer said.
    let again = home(&fixture.api(), "UpdateTrail", json!({"Name": "made"})).await;
    assert_eq!(again.body, plain);
}

#[tokio::test]
async fn only_what_an_update_names_is_asked_for_again() {
    let (fixture, api) = with_made().await;
    fixture.preflight.asked.lock().unwrap().clear();
    for (body, asked) in [
        (json!({"EnableLogFileValidation": true}), vec!["bucket b-1"]),
        (
            json!({"S3BucketName": "b-2", "SnsTopicName": "told"}),
            vec!["bucket b-2", "topic b-2"],
        ),
        (json!({"SnsTopicName": ""}), vec!["bucket b-2"]),
    ] {
        let mut body = body;
        body["Name"] = json!("made");
        assert_eq!(home(&api, "UpdateTrail", body).await.status, 200);
        let said = std::mem::take(&mut *fixture.preflight.asked.lock().unwrap());
        assert_eq!(said, asked);
    }
}

#[tokio::test]
async fn a_trail_is_changed_at_home_and_read_from_everywhere_by_its_arn() {
    let (_fixture, api) = with_made().await;
    let away = ("111122223333", AWAY);
    for (operation, member, body) in [
        ("UpdateTrail", "Name", json!({})),
        ("DeleteTrail", "Name", json!({})),
        ("StartLogging", "Name", json!({})),
        ("StopLogging", "Name", json!({})),
        (
            "PutEventSelectors",
            "TrailName",
            json!({"EventSelectors": [{}]}),
        ),
        (
            "PutInsightSelectors",
            "TrailName",
            json!({"InsightSelectors": []}),
        ),
    ] {
        let mut body = body;
        body[member] = json!(arn("made"));
        let answer = ask_as(&api, away, operation, body.clone()).await;
        assert_eq!(answer.code(), "InvalidHomeRegionException", "{operation}");
        body[member] = json!("made");
        let answer = ask_as(&api, away, operation, body).await;
        assert_eq!(answer.code(), "TrailNotFoundException", "{operation}");
    }
    let tags = json!({"ResourceId": arn("made"), "TagsList": [{"Key": "a"}]});
    for (operation, body) in [
        ("GetTrail", json!({"Name": arn("made")})),
        ("GetTrailStatus", json!({"Name": arn("made")})),
        ("GetEventSelectors", json!({"TrailName": arn("made")})),
        ("ListTags", json!({"ResourceIdList": [arn("made")]})),
        ("AddTags", tags.clone()),
        ("RemoveTags", tags),
    ] {
        let answer = ask_as(&api, away, operation, body).await;
        assert_eq!(answer.status, 200, "{operation}: {answer:?}");
    }
}

#[tokio::test]
async fn an_account_has_its_own_trails_and_sees_no_others() {
    let (_fixture, api) = with_made().await;
    let other = ("444455556666", "us-east-1");
    let body = json!({"Name": "made", "S3BucketName": "b-1"});
    let created = ask_as(&api, other, "CreateTrail", body).await;
    let others = "arn:aws:cloudtrail:us-east-1:444455556666:trail/made";
    assert_eq!(created.body["TrailARN"], others);
    for (who, sees) in [
        (("111122223333", AWAY), vec![arn("made"), arn("main")]),
        (other, vec![others.to_owned()]),
        (("777788889999", AWAY), vec![]),
    ] {
        let list = ask_as(&api, who, "ListTrails", json!({})).await;
        let mut arns: Vec<_> = list.body["Trails"]
            .as_array()
            .unwrap()
            .iter()
            .map(|info| info["TrailARN"].as_str().unwrap().to_owned())
            .collect();
        arns.sort();
        let mut sees = sees;
        sees.sort();
        assert_eq!(arns, sees);
    }
    let described = ask_as(&api, other, "DescribeTrails", json!({})).await;
    assert_eq!(described.body["trailList"].as_array().unwrap().len(), 1);
    for given in ["main".to_owned(), arn("made"), arn("main")] {
        let answer = ask_as(&api, other, "GetTrail", json!({"Name": given})).await;
        assert_eq!(answer.code(), "TrailNotFoundException", "{given}");
    }
    let body = json!({"Name": "org", "S3BucketName": "b-1", "IsOrganizationTrail": true});
    let answer = ask_as(&api, other, "CreateTrail", body).await;
    assert_eq!(answer.code(), "NotOrganizationMasterAccountException");
}

#[tokio::test]
async fn an_organization_trail_is_of_the_organization_that_the_configuration_knows() {
    let of = Trail {
        accounts: Accounts::Organization {
            id: "o-exampleorgid".to_owned(),
            members: Members::Every,
        },
        ..trail()
    };
    let fixture = Fixture::new(vec![of.clone()]);
    let api = fixture.api();
    let body = json!({"Name": "org", "S3BucketName": "b-1", "IsOrganizationTrail": true});
    let created = home(&api, "CreateTrail", body).await;
    assert_eq!(created.body["IsOrganizationTrail"], true);
    let book = api.home.registry.book();
    let made = book.trails().last().unwrap();
    assert_eq!(made.trail.accounts, of.accounts);
    let body = json!({"Name": "org", "IsOrganizationTrail": false});
    let updated = home(&api, "UpdateTrail", body).await;
    assert_eq!(updated.body["IsOrganizationTrail"], false);
}

#[tokio::test]
async fn logging_is_started_and_stopped_and_a_deleted_trail_is_gone() {
    let (_fixture, api) = with_made().await;
    let status = async || {
        home(&api, "GetTrailStatus", json!({"Name": "made"}))
            .await
            .body
    };
    for (operation, is_logging) in [
        ("StopLogging", false),
        ("StartLogging", true),
        ("StartLogging", true),
        ("StopLogging", false),
        ("StopLogging", false),
        ("StartLogging", true),
    ] {
        let answer = home(&api, operation, json!({"Name": "made"})).await;
        assert_eq!((answer.status, answer.body), (200, json!({})));
        assert_eq!(status().await["IsLogging"], is_logging, "{operation}");
    }
    let told = status().await;
    assert!(told["StartLoggingTime"].as_f64() >= told["StopLoggingTime"].as_f64());
    assert_eq!(told["TimeLoggingStarted"].as_str().unwrap().len(), 20);

    let configured = home(&api, "GetTrailStatus", json!({"Name": "main"})).await;
    assert_eq!(configured.body["IsLogging"], true);

    let deleted = home(&api, "DeleteTrail", json!({"Name": arn("made")})).await;
    assert_eq!((deleted.status, deleted.body), (200, json!({})));
    for operation in ["GetTrail", "DeleteTrail", "StartLogging"] {
        let answer = home(&api, operation, json!({"Name": "made"})).await;
        assert_eq!(answer.code(), "TrailNotFoundException");
    }
    let again = home(
        &api,
        "CreateTrail",
        json!({"Name": "made", "S3BucketName": "b-1"}),
    )
    .await;
    assert_eq!(again.status, 200);
    assert_eq!(status().await["IsLogging"], false);
}

#[tokio::test]
async fn a_status_tells_how_deliveries_go() {
    let mut fixture = Fixture::new(vec![trail()]);
    let at = |seconds: i64| WallMillis(1_777_594_354_000 + seconds * 1000);
    fixture.facts = Some(TrailFacts {
        log_files: Latest::new(Some(at(0)), Some((at(60), "KMS.DisabledException"))),
        notifications: Some(Latest::new(None, Some((at(1), "AuthorizationError")))),
        log_events: Some(Latest::new(Some(at(2)), None)),
        digests: Some(Latest::new(None, Some((at(3), "Timeout")))),
    });
    let status = home(&fixture.api(), "GetTrailStatus", json!({"Name": "main"})).await;
    assert_eq!(
        status.body,
        json!({
            "IsLogging": true, "LatestDeliveryError": "KMS.DisabledException", "LatestNotificationError": "AuthorizationError",
            "LatestDeliveryTime": 1_777_594_354, "LatestCloudWatchLogsDeliveryTime": 1_777_594_356,
            "LatestDeliveryAttemptTime": "2026-05-01T00:13:34Z", "LatestNotificationAttemptTime": "2026-05-01T00:12:35Z",
            "LatestNotificationAttemptSucceeded": "", "LatestDeliveryAttemptSucceeded": "2026-05-01T00:12:34Z",
            "TimeLoggingStarted": "", "TimeLoggingStopped": "",
        })
    );
}

#[tokio::test]
async fn selectors_of_one_kind_take_the_place_of_the_other() {
    let (_fixture, api) = with_made().await;
    let advanced = json!([{"Name": "a", "FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]}]);
    let basic = json!([{
        "ReadWriteType": "WriteOnly", "IncludeManagementEvents": true, "DataResources": [],
        "ExcludeManagementEventSources": ["kms.amazonaws.com"],
    }]);
    let default = json!([{}]);
    for (member, given, is_custom) in [
        ("AdvancedEventSelectors", &advanced, true),
        ("EventSelectors", &basic, true),
        ("EventSelectors", &default, false),
    ] {
        let mut body = json!({"TrailName": "made"});
        body[member] = given.clone();
        let put = home(&api, "PutEventSelectors", body).await;
        assert_eq!(
            (put.status, &put.body["TrailARN"]),
            (200, &json!(arn("made"))),
            "{put:?}"
        );
        let got = home(&api, "GetEventSelectors", json!({"TrailName": arn("made")})).await;
        assert_eq!(got.body, put.body);
        if *given != default {
            assert_eq!(got.body[member], *given);
        }
        assert_eq!(
            got.body.as_object().unwrap().len(),
            2,
            "only the kind in force"
        );
        let trail = home(&api, "GetTrail", json!({"Name": "made"})).await;
        assert_eq!(trail.body["Trail"]["HasCustomEventSelectors"], is_custom);
    }
}

#[tokio::test]
async fn insight_selectors_are_replaced_and_turned_off() {
    let (_fixture, api) = with_made().await;
    let put = async |selectors: Value| {
        let body = json!({"TrailName": "made", "InsightSelectors": selectors});
        home(&api, "PutInsightSelectors", body).await
    };
    let both = json!([
        {"InsightType": "ApiCallRateInsight"},
        {"InsightType": "ApiErrorRateInsight", "EventCategories": ["Management", "Data"]},
    ]);
    let answer = put(both.clone()).await;
    assert_eq!(
        answer.body,
        json!({"TrailARN": arn("made"), "InsightSelectors": both})
    );
    let got = home(&api, "GetInsightSelectors", json!({"TrailName": "made"})).await;
    assert_eq!(got.body, answer.body);
    let has = async || {
        home(&api, "GetTrail", json!({"Name": "made"})).await.body["Trail"]["HasInsightSelectors"]
            .clone()
    };
    assert_eq!(has().await, true);
    assert_eq!(put(json!([])).await.status, 200);
    assert_eq!(has().await, false);
}

#[tokio::test]
async fn tags_are_added_replaced_and_removed() {
    let (_fixture, api) = with_made().await;
    let tags = async || {
        let list = home(&api, "ListTags", json!({"ResourceIdList": [arn("made")]})).await;
        list.body["ResourceTagList"][0]["TagsList"].clone()
    };
    for (operation, given, expected) in [
        (
            "AddTags",
            json!([{"Key": "a", "Value": "1"}, {"Key": "b"}]),
            json!([{"Key": "a", "Value": "1"}, {"Key": "b"}]),
        ),
        (
            "AddTags",
            json!([{"Key": "a", "Value": "2"}]),
            json!([{"Key": "a", "Value": "2"}, {"Key": "b"}]),
        ),
        (
            "RemoveTags",
            json!([{"Key": "a", "Value": "other"}, {"Key": "absent"}]),
            json!([{"Key": "b"}]),
        ),
        ("RemoveTags", json!([]), json!([{"Key": "b"}])),
    ] {
        let body = json!({"ResourceId": arn("made"), "TagsList": given});
        let answer = home(&api, operation, body).await;
        assert_eq!((answer.status, answer.body), (200, json!({})), "{given}");
        assert_eq!(tags().await, expected);
    }
}

#[tokio::test]
async fn trails_are_listed_page_by_page_and_a_page_is_the_callers_own() {
    let fixture = Fixture::new(vec![trail()]);
    let api = fixture.api();
    let account = "444455556666";
    let mut made = BTreeSet::new();
    for number in 0..60 {
        let (region, name) = (format!("region-{}", number / 5), format!("trail-{number}"));
        let body = json!({"Name": name, "S3BucketName": "b-1"});
        let created = ask_as(&api, (account, &region), "CreateTrail", body).await;
        made.insert(created.body["TrailARN"].as_str().unwrap().to_owned());
    }
    let (mut listed, mut token, mut pages) = (BTreeSet::new(), Value::Null, 0);
    loop {
        let page = ask_as(
            &api,
            (account, AWAY),
            "ListTrails",
            json!({"NextToken": token}),
        )
        .await;
        for info in page.body["Trails"].as_array().unwrap() {
            assert!(listed.insert(info["TrailARN"].as_str().unwrap().to_owned()));
        }
        pages += 1;
        match page.body.get("NextToken") {
            Some(next) => token = next.clone(),
            None => break,
        }
    }
    assert_eq!((listed, pages), (made, 2));
    let foreign = home(&api, "ListTrails", json!({"NextToken": token})).await;
    assert_eq!(foreign.code(), "InvalidTokenException");
    let body = json!({"Name": "one-more", "S3BucketName": "b-1"});
    let sixth = ask_as(&api, (account, "region-0"), "CreateTrail", body).await;
    assert_eq!(sixth.code(), "MaximumNumberOfTrailsExceededException");
}
