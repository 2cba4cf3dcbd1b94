//! Event selectors, as callers and configurations give them.

use serde_json::{Value, json};

use super::{Input, JSON, corpus, events, fuzz};
use crate::event::{Record, corpus as real};
use crate::trail::Selectors;
use crate::trail::selector::model;
use crate::trail::selector::spec::{AdvancedEventSelector, EventSelector};

#[test]
fn selectors_that_are_taken_are_given_back_and_choose_what_the_documents_say() {
    let events: Vec<Vec<u8>> = real::events()
        .iter()
        .step_by(100)
        .filter_map(|given| events::stored(given))
        .collect();
    let tokens = [
        JSON,
        &[
            "\"Equals\":[\"Data\"],",
            "NotStartsWith",
            "\"readOnly\"",
            "resources.ARN",
            "resources.type",
            "AWS::S3::Object",
            "arn:aws:s3",
            "Management",
        ],
    ]
    .concat();
    fuzz("selectors", 30_000, &corpus("selectors"), &tokens, |text| {
        let Ok(given) = serde_json::from_slice::<Value>(text) else {
            return Input::Refused;
        };
        let basic = EventSelector::list(given.clone()).and_then(Selectors::basic);
        let advanced = AdvancedEventSelector::list(given).and_then(Selectors::advanced);
        let Ok(selectors) = basic.or(advanced) else {
            return Input::Refused;
        };
        check(&selectors, &events);
        Input::Understood
    });
}

fn check(selectors: &Selectors, events: &[Vec<u8>]) {
    let (basic, advanced) = (
        json!(selectors.event_selectors()),
        json!(selectors.advanced_event_selectors()),
    );
    let again = match selectors {
        Selectors::Basic(_) => EventSelector::list(basic.clone()).and_then(Selectors::basic),
        _ => AdvancedEventSelector::list(advanced.clone()).and_then(Selectors::advanced),
    };
    assert_eq!(again.as_ref(), Ok(selectors));
    for event in events {
        let record = Record::decode(event).unwrap();
        let plain: Value = serde_json::from_slice(record.json).unwrap();
        let expected = match selectors {
            Selectors::Basic(_) => model::basic(&basic, &plain),
            _ => model::advanced(&advanced, &plain),
        };
        assert_eq!(selectors.select(&record), expected, "{plain}");
    }
}
