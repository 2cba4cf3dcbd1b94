//! Uploads of batches of which the journal cannot give back every event.

use super::*;

/// An outcome in words: what is settled must be what the store holds.
fn words(outcome: &Outcome, stored: Option<&LogFile>) -> String {
    let Outcome::Settled(settled) = outcome else {
        return word(outcome);
    };
    if let Some(object) = &settled.object {
        let file = stored.expect("an object that is there");
        assert_eq!(object.sha256, hex::encode(file.sha256));
        assert_eq!(object.events, file.count);
        assert_eq!(object.bytes, file.gzip.len() as u64);
        assert_eq!(object.etag.as_deref(), Some("\"tag\""));
        let times = (object.oldest_event_time, object.newest_event_time);
        assert_eq!(Some(times), file.event_times);
    }
    let place = settled.object.as_ref().map(|object| &*object.bucket);
    format!("in {}, {} lost", place.unwrap_or("no bucket"), settled.lost)
}

/// Each case: what the store gives back for the key of a batch, and what becomes of the batch when its key was taken and `LOST` of its
/// events cannot be read any more; when moreover the trail has another bucket by now; and when all of its events are lost.
#[tokio::test]
async fn of_a_batch_that_is_there_from_before_the_journal_was_damaged_what_is_there_is_settled() {
    const LOST: usize = 5;
    let whole = file_of(0..EVENTS);
    let from = |first| file_of(first..EVENTS);
    // As many records as were sealed, of other lengths.
    let other = file_of((0..EVENTS).map(|n| n + 1));
    let file = |file: &LogFile| (ok(file.gzip.clone()), Some(file.clone()));
    let cut = whole.gzip[..whole.gzip.len() - 1].to_vec();
    let no_object = "in no bucket, 200 lost";
    let cases = [
        (
            file(&whole),
            [
                "in audit-logs, 0 lost",
                "in former, 0 lost",
                "in audit-logs, 0 lost",
            ],
        ),
        // An earlier attempt had lost fewer, or the same ones.
        (
            file(&from(2)),
            [
                "in audit-logs, 2 lost",
                "in former, 2 lost",
                "in audit-logs, 2 lost",
            ],
        ),
        (
            file(&from(5)),
            [
                "in audit-logs, 5 lost",
                "in former, 5 lost",
                "in audit-logs, 5 lost",
            ],
        ),
        // Fewer events than are left: no attempt of this batch wrote that.
        (
            file(&from(6)),
            ["another key", "another key", "in audit-logs, 6 lost"],
        ),
        (file(&other), ["another key", "another key", no_object]),
        (
            (ok("something else"), None),
            ["another key", "another key", no_object],
        ),
        ((ok(cut), None), ["another key", "another key", no_object]),
        (
            (ok(vec![0; 1 << 20]), None),
            ["another key", "another key", no_object],
        ),
        (
            (error(403, "AccessDenied"), None),
            ["again", "another key", no_object],
        ),
        (
            (error(404, "NoSuchKey"), None),
            ["again", "another key", no_object],
        ),
        ((error(503, "SlowDown"), None), ["again", "again", "again"]),
    ];
    let sealed = sealed(&journal(&["us-east-1"]).await);
    let damaged = journal_without(LOST, &["us-east-1"]).await;
    let empty = journal_without(EVENTS, &["us-east-1"]).await;
    for (n, ((get, stored), expected)) in cases.into_iter().enumerate() {
        let scenes = [
            (&damaged, "audit-logs"),
            (&damaged, "former"),
            (&empty, "audit-logs"),
        ];
        for ((journal, bucket), expected) in scenes.into_iter().zip(expected) {
            let (status, body) = (get.status, get.body.clone());
            let (client, log) = store(move |asked| match asked.is(Method::PUT) {
                true => error(412, "PreconditionFailed"),
                false => Answer {
                    status,
                    ..ok(body.clone())
                },
            })
            .await;
            let uploader = uploader(journal, client, false);
            let batch = SealedBatch {
                bucket: bucket.to_owned(),
                ..sealed.clone()
            };
            let outcome = uploader.deliver(batch).await;
            assert_eq!(words(&outcome, stored.as_ref()), expected, "case {n}");
            assert_eq!(count(&log, Method::GET), 1, "case {n}");
            let error = uploader.view.facts().last_error;
            if status == 403 && expected == "again" {
                let error = error.unwrap();
                assert_eq!(error.code, "AccessDenied");
                assert!(
                    error
                        .message
                        .contains("hint: allow s3:GetObject on audit-logs/"),
                    "{error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_a_damaged_journal_still_has_is_delivered_where_nothing_is_there() {
    let sealed = sealed(&journal(&["us-east-1"]).await);
    let damaged = journal_without(5, &["us-east-1"]).await;
    let (client, _) = store(|_| ok("")).await;
    let outcome = uploader(&damaged, client, false).deliver(sealed).await;
    let Outcome::Settled(Settled {
        object: Some(object),
        lost: 5,
        ..
    }) = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(object.sha256, hex::encode(file_of(5..EVENTS).sha256));
    assert_eq!(object.events as usize, EVENTS - 5);
}
