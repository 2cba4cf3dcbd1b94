//! What the tests of faults share with `tests/campaign`, which runs them with many more seeds and sums up what they did.
//!
//! ```text
//! TRAILD_SEEDS=17..18 cargo test --release NAME      one seed again
//! ```

use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;

/// The seeds of a test: `usual` of them, or those that `TRAILD_SEEDS` asks for, as `FIRST..END`.
pub fn seeds(usual: u64) -> Range<u64> {
    let Ok(wanted) = std::env::var("TRAILD_SEEDS") else {
        return 0..usual;
    };
    let range = wanted.split_once("..").and_then(|(first, end)| {
        let range = first.parse().ok()?..end.parse().ok()?;
        (!range.is_empty()).then_some(range)
    });
    range.unwrap_or_else(|| {
        panic!("TRAILD_SEEDS is FIRST..END, for example 17..18, and not {wanted:?}")
    })
}

/// How many of so many seeds there are.
pub fn count_of(seeds: &Range<u64>) -> u64 {
    seeds.end - seeds.start
}

/// Adds a line to the tally, the file that `TRAILD_TALLY` names: so many independent trials of a row of the campaign, in which so many
/// faults really happened.
pub fn count(row: &str, trials: u64, fired: u64) {
    let Some(tally) = std::env::var_os("TRAILD_TALLY") else {
        return;
    };
    let line =
        serde_json::json!({ "row": row, "how": "simulated", "trials": trials, "fired": fired });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(tally)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Counts the trials of these seeds, and that `share` of them had the fault at least: without it they would prove nothing.
pub fn enough(row: &str, seeds: &Range<u64>, fired: u64, share: f64) {
    let trials = count_of(seeds);
    count(row, trials, fired);
    // A few seeds may all be lucky.
    assert!(
        trials < 20 || fired as f64 >= share * trials as f64,
        "{row}: {fired} faults in {trials} trials"
    );
}
