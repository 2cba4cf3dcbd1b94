//! What became of the log events of a PutLogEvents that worked: it may have left some out.
//!
//! ```text
//! 0 ..... tooOldLogEventEndIndex ..... expiredLogEventEndIndex ..... tooNewLogEventStartIndex ..... n
//! └ too_old ────────────────────┘└ expired ──────────────────┘└ taken ──────────────────────┘└ too_new
//! ```
//!
//! An end is the first index after what was left out ("exclusive"), a start the first index in it ("inclusive": CloudWatch Logs API
//! reference, RejectedLogEventsInfo, which says neither of `expiredLogEventEndIndex`; Amazon's Greengrass log manager reads it as an end like the other).

use aws_sdk_cloudwatchlogs::types::RejectedLogEventsInfo;

use crate::deliver::fanout::{Refusal, Verdict};
use crate::deliver::view::{EXPIRED, TOO_NEW, TOO_OLD};

/// One verdict for each of `count` log events, in their order.
pub(super) fn verdicts(rejected: Option<&RejectedLogEventsInfo>, count: usize) -> Vec<Verdict> {
    let Some(rejected) = rejected else {
        return vec![Verdict::Delivered; count];
    };
    // An index below zero would make no sense; the nearest that does is zero.
    let index = |given: Option<i32>| given.map(|index| usize::try_from(index).unwrap_or(0));
    let too_old_end = index(rejected.too_old_log_event_end_index).unwrap_or(0);
    let expired_end = index(rejected.expired_log_event_end_index).unwrap_or(0);
    let too_new_start = index(rejected.too_new_log_event_start_index).unwrap_or(count);
    let verdict = |index: usize| {
        if index < too_old_end {
            refused(TOO_OLD, "the log event is more than 14 days old")
        } else if index < expired_end {
            refused(
                EXPIRED,
                "the log event is older than the log group's retention",
            )
        } else if index >= too_new_start {
            refused(
                TOO_NEW,
                "the log event is more than two hours in the future",
            )
        } else {
            Verdict::Delivered
        }
    };
    (0..count).map(verdict).collect()
}

/// Every log event is stamped with the time of its sending, so that a refusal for its time is about this machine's clock.
fn refused(reason: &'static str, by_cloudwatch: &str) -> Verdict {
    Verdict::Refused(Refusal {
        reason,
        message: format!(
            "CloudWatch Logs says that {by_cloudwatch}; it was stamped with the time of its sending, so this machine's clock is wrong"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 5;

    fn reasons(old: Option<i32>, expired: Option<i32>, new: Option<i32>) -> Vec<&'static str> {
        let rejected = RejectedLogEventsInfo::builder()
            .set_too_old_log_event_end_index(old)
            .set_expired_log_event_end_index(expired)
            .set_too_new_log_event_start_index(new)
            .build();
        let word = |verdict: Verdict| match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Refused(refusal) => refusal.reason,
            Verdict::Again(failure) => panic!("{failure:?}"),
        };
        let verdicts = verdicts(Some(&rejected), COUNT);
        verdicts.into_iter().map(word).collect()
    }

    #[test]
    fn when_nothing_is_rejected_all_is_delivered() {
        assert_eq!(verdicts(None, 2), [Verdict::Delivered, Verdict::Delivered]);
        assert_eq!(reasons(None, None, None), ["delivered"; COUNT]);
    }

    #[test]
    fn each_range_is_refused_with_its_reason_and_the_rest_is_delivered() {
        assert_eq!(
            reasons(Some(1), Some(2), Some(4)),
            ["too_old", "expired", "delivered", "delivered", "too_new"]
        );
        assert_eq!(reasons(Some(COUNT as i32), None, None), ["too_old"; COUNT]);
        assert_eq!(reasons(None, Some(COUNT as i32), None), ["expired"; COUNT]);
        assert_eq!(reasons(None, None, Some(0)), ["too_new"; COUNT]);
    }

    #[test]
    fn in_every_combination_each_log_event_is_in_its_range() {
        let indices = || (-1..=COUNT as i32 + 1).map(Some).chain([None]);
        for old in indices() {
            for expired in indices() {
                for new in indices() {
                    let reasons = reasons(old, expired, new);
                    assert_eq!(reasons.len(), COUNT);
                    for (n, reason) in (0..).zip(reasons) {
                        let before = |end: Option<i32>| end.is_some_and(|end| n < end);
                        let is_one_of = [
                            ("too_old", before(old)),
                            ("expired", before(expired)),
                            ("too_new", new.is_some_and(|start| n >= start)),
                        ];
                        let expected = is_one_of.iter().find(|(_, is)| *is);
                        let expected = expected.map_or("delivered", |(reason, _)| reason);
                        assert_eq!(reason, expected, "{n} of {old:?} {expired:?} {new:?}");
                    }
                }
            }
        }
    }
}
