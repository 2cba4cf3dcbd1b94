//! What it costs to choose an event: nanoseconds an event for a few selectors, beside parsing the same events to values.
//!
//! `cargo bench --bench selectors`. The events are the corpus as the journal keeps them; hardly any is a data event, so the second column
//! takes those that name resources as data events, one resource made an S3 object of the audit bucket in every other event.

use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use traild::clock::WallMillis;
use traild::event::fill::Filling;
use traild::event::{Fields, Record, Rules, parse};
use traild::trail::Selectors;
use traild::trail::selector::spec::{AdvancedEventSelector, EventSelector};
use uuid::Uuid;

/// How long each figure is measured, at least.
const MEASURED: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let given = corpus()?;
    let real: Vec<Vec<u8>> = given.iter().filter_map(|event| stored(event)).collect();
    let twins: Vec<Vec<u8>> = given.iter().filter_map(|event| data_twin(event)).collect();
    let data: Vec<Vec<u8>> = twins.iter().filter_map(|event| stored(event)).collect();
    let (real, data) = (decoded(&real)?, decoded(&data)?);
    let bytes = |events: &[Record<'_>]| {
        events.iter().map(|event| event.json.len()).sum::<usize>() / events.len()
    };
    println!(
        "{} events of the corpus, {} bytes on average; {} data events, {} bytes on average",
        real.len(),
        bytes(&real),
        data.len(),
        bytes(&data)
    );
    println!(
        "{:<58}{:>12}{:>12}",
        "ns an event (share recorded)", "corpus", "data"
    );
    for (name, selectors) in selectors()? {
        let row: Vec<String> = [&real, &data]
            .into_iter()
            .map(|events| {
                let recorded = events
                    .iter()
                    .filter(|event| selectors.select(event))
                    .count();
                let cost = nanoseconds(events, |event| selectors.select(event));
                format!("{cost:.0} ({}%)", 100 * recorded / events.len())
            })
            .collect();
        println!("{name:<58}{:>12}{:>12}", row[0], row[1]);
    }
    compare("one walk for the event's fields", &real, &data, |event| {
        Fields::of(event.json).is_some()
    });
    compare("serde_json::from_slice::<Value>", &real, &data, |event| {
        serde_json::from_slice::<Value>(event.json).is_ok()
    });
    Ok(())
}

fn compare(
    name: &str,
    real: &[Record<'_>],
    data: &[Record<'_>],
    work: impl Fn(&Record<'_>) -> bool,
) {
    let [real, data] = [real, data].map(|events| nanoseconds(events, &work));
    println!(
        "{:<58}{real:>12.0}{data:>12.0}",
        format!("for comparison: {name}")
    );
}

fn selectors() -> Result<Vec<(&'static str, Selectors)>> {
    let basic = |json: Value| EventSelector::list(json).and_then(Selectors::basic);
    let advanced = |json: Value| AdvancedEventSelector::list(json).and_then(Selectors::advanced);
    let but_kms = json!({"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Management"]},
        {"Field": "eventSource", "NotEquals": ["kms.amazonaws.com"]}]});
    let s3_writes = json!({"FieldSelectors": [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
        {"Field": "readOnly", "Equals": ["false"]},
        {"Field": "resources.ARN", "StartsWith": ["arn:aws:s3:::audit-bucket/"]}]});
    let buckets: Vec<String> = (0..250).map(|n| format!("arn:aws:s3:::b{n}/")).collect();
    Ok(vec![
        ("no selectors", Selectors::Everything),
        (
            "basic, the default: all management events",
            basic(json!([{}]))?,
        ),
        (
            "basic, 250 buckets",
            basic(json!([{"DataResources": [{"Type": "AWS::S3::Object", "Values": buckets}]}]))?,
        ),
        (
            "advanced, all management events but KMS",
            advanced(json!([but_kms]))?,
        ),
        (
            "advanced, that and the writes of one bucket",
            advanced(json!([but_kms, s3_writes]))?,
        ),
    ])
}

fn nanoseconds(events: &[Record<'_>], work: impl Fn(&Record<'_>) -> bool) -> f64 {
    let started = Instant::now();
    let mut rounds = 0_u32;
    while started.elapsed() < MEASURED {
        for event in events {
            black_box(work(black_box(event)));
        }
        rounds += 1;
    }
    started.elapsed().as_nanos() as f64 / f64::from(rounds) / events.len() as f64
}

fn corpus() -> Result<Vec<Vec<u8>>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut events = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut text = Vec::new();
            flate2::read::MultiGzDecoder::new(std::fs::File::open(&path)?)
                .read_to_end(&mut text)
                .with_context(|| path.display().to_string())?;
            let lines = text.split(|byte| *byte == b'\n');
            events.extend(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
        }
    }
    Ok(events)
}

/// The event as a write of data, if it names resources.
fn data_twin(event: &[u8]) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(event).ok()?;
    let of_the_bucket = event["eventID"].as_str()?.bytes().last()? % 2 == 0;
    let resource = event["resources"].as_array_mut()?.first_mut()?;
    if of_the_bucket {
        *resource = json!({"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::audit-bucket/2026/05/01/a.json"});
    }
    event["eventCategory"] = "Data".into();
    event["managementEvent"] = false.into();
    event["readOnly"] = false.into();
    Some(event.to_string().into_bytes())
}

/// The event as the journal keeps it, if it is accepted.
fn stored(given: &[u8]) -> Option<Vec<u8>> {
    let rules = Rules {
        max_event_bytes: 256 << 10,
        account: "111122223333".parse().ok()?,
        region: "us-east-1".parse().ok()?,
        now: WallMillis(1_800_000_000_000),
    };
    let checked = parse(given, &rules).ok()?;
    let mut bytes = Vec::new();
    checked.meta(rules.now, [0; 16]).encode(&mut bytes);
    let filling = Filling {
        event_id: Uuid::nil(),
        source_address: "192.0.2.7",
    };
    checked.write(&mut bytes, filling);
    Some(bytes)
}

fn decoded(stored: &[Vec<u8>]) -> Result<Vec<Record<'_>>> {
    let records = stored.iter().map(|bytes| Record::decode(bytes));
    Ok(records.collect::<Result<_, _>>()?)
}
