//! What one PutLogEvents takes: 10,000 log events, and 1,048,576 bytes of UTF-8 with 26 more for each log event
//! (CloudWatch Logs API reference, PutLogEvents).

use bytes::Bytes;

use crate::deliver::fanout::Refusal;
use crate::deliver::view::{REFUSED, TOO_LARGE};

const MAX_BATCH_EVENTS: usize = 10_000;
const MAX_BATCH_BYTES: usize = 1_048_576;
/// What a log event counts besides its text.
const OVERHEAD_BYTES: usize = 26;

/// The text of a log event: UTF-8 that fits a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// An event's JSON as a log event. It has `max_bytes` at most.
    pub(super) fn new(json: Bytes, max_bytes: usize) -> Result<Self, Refusal> {
        let max_bytes = max_bytes.min(MAX_BATCH_BYTES - OVERHEAD_BYTES);
        if json.len() > max_bytes {
            return Err(Refusal {
                reason: TOO_LARGE,
                message: format!(
                    "event has {} bytes, at most {max_bytes} are sent",
                    json.len()
                ),
            });
        }
        if simdutf8::basic::from_utf8(&json).is_err() {
            return Err(Refusal {
                reason: REFUSED,
                message: "event is not UTF-8".to_owned(),
            });
        }
        Ok(Self(json))
    }

    pub(super) fn as_str(&self) -> &str {
        simdutf8::basic::from_utf8(&self.0).expect("text: checked when it was made")
    }

    /// What it counts towards a batch.
    fn size(&self) -> usize {
        self.0.len() + OVERHEAD_BYTES
    }
}

/// How many of these, from the first on, one batch takes.
pub(super) fn fits(texts: &[Text]) -> usize {
    let mut bytes = 0;
    texts
        .iter()
        .take(MAX_BATCH_EVENTS)
        .take_while(|text| {
            bytes += text.size();
            bytes <= MAX_BATCH_BYTES
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LARGEST: usize = MAX_BATCH_BYTES - OVERHEAD_BYTES;

    fn text(len: usize) -> Text {
        // One allocation for all of them: a case may have gigabytes of text.
        static BYTES: [u8; LARGEST] = [b'x'; LARGEST];
        Text::new(Bytes::from_static(&BYTES[..len]), LARGEST).unwrap()
    }

    fn sizes(texts: &[Text]) -> usize {
        texts.iter().map(|text| text.0.len() + 26).sum()
    }

    /// Cuts all of it into batches, each of which has to be within the limits and as large as they allow.
    fn check(lens: &[usize]) {
        let texts: Vec<_> = lens.iter().map(|len| text(*len)).collect();
        let mut rest = &texts[..];
        let mut sent = Vec::new();
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(fits(rest));
            assert!((1..=10_000).contains(&batch.len()));
            assert!(sizes(batch) <= 1_048_576);
            if let Some(next) = others.first() {
                let full = batch.len() == 10_000;
                assert!(full || sizes(batch) + sizes(std::slice::from_ref(next)) > 1_048_576);
            }
            sent.extend_from_slice(batch);
            rest = others;
        }
        assert_eq!(sent, texts, "all of them, in order");
    }

    fn lens() -> impl Strategy<Value = Vec<usize>> {
        let near = |edge: usize| edge.saturating_sub(2)..=(edge + 2).min(LARGEST);
        let len = prop_oneof![
            8 => 0..=2_000_usize,
            4 => 0..=LARGEST,
            2 => near(262_144),
            // Two of them fill a batch, and four do.
            2 => near(524_288 - 26),
            2 => near(262_144 - 26),
            1 => near(LARGEST),
            1 => Just(0),
        ];
        prop_oneof![
            4 => prop::collection::vec(len, 0..300),
            // As many as a batch takes, of a size that makes them as many bytes as it takes: 10,000 × (78 + 26) = 1,040,000.
            1 => (0..=100_usize, 19_990..=20_010_usize).prop_map(|(len, n)| vec![len; n]),
            1 => (78..=79_usize, 9_998..=10_002_usize).prop_map(|(len, n)| vec![len; n]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn every_batch_is_within_the_limits_and_as_large_as_they_allow(lens in lens()) {
            check(&lens);
        }
    }

    #[test]
    fn the_limits_are_met_to_the_byte() {
        let of = |lens: &[usize]| fits(&lens.iter().map(|len| text(*len)).collect::<Vec<_>>());
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[LARGEST, 0]), 1);
        assert_eq!(of(&[LARGEST - 26, 0]), 2);
        assert_eq!(of(&[LARGEST - 25, 0]), 1);
        assert_eq!(of(&vec![0; 10_000]), 10_000);
        assert_eq!(of(&vec![0; 10_001]), 10_000);
        // 1,048,576 = 8,192 × 128.
        assert_eq!(of(&vec![102; 9_000]), 8_192);
        assert_eq!(of(&vec![103; 9_000]), 8_128);
    }

    #[test]
    fn a_text_over_its_limit_or_over_a_batch_is_refused_as_too_large() {
        let refused = |len: usize, max_bytes: usize| {
            let text = Text::new(vec![b'x'; len].into(), max_bytes);
            text.err().map(|refusal| refusal.reason)
        };
        assert_eq!(refused(262_144, 262_144), None);
        assert_eq!(refused(262_145, 262_144), Some(TOO_LARGE));
        assert_eq!(refused(LARGEST, 1 << 20), None);
        assert_eq!(refused(LARGEST + 1, 1 << 20), Some(TOO_LARGE));
        // Bytes count, not characters.
        let text = Text::new("ä".repeat(513).into_bytes().into(), 1024);
        assert_eq!(text.err().map(|refusal| refusal.reason), Some(TOO_LARGE));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let refusal = Text::new(Bytes::from_static(b"{\"a\":\"\xff\"}"), 1024).unwrap_err();
        assert_eq!(refusal.reason, REFUSED);
    }
}
