//! Small files in the data directory, that people and other programs may have had in their hands.

use super::{Input, JSON, corpus, fuzz};
use crate::deliver::dead_letter::{Letters, Line};
use crate::registry::Registry;
use crate::snapshot;

#[test]
fn each_line_of_a_dead_letter_file_is_a_letter_or_unreadable_and_none_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.sns.ndjson");
    let tokens = [JSON, &["\"position\":64,", "\"body\":", "\"from\":1,"]].concat();
    fuzz("letters", 8_000, &corpus("letters"), &tokens, |text| {
        std::fs::write(&path, text).unwrap();
        let mut letters = Letters::open(&path).unwrap().unwrap();
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty());
        let mut has_letter = false;
        while let Some(line) = letters.next_line().unwrap() {
            assert_eq!(Some(line.text()), lines.next());
            has_letter |= matches!(line, Line::Letter { .. });
        }
        assert_eq!(lines.next(), None);
        assert_eq!(letters.offset(), text.len() as u64);
        Input::understood(has_letter)
    });
}

/// Damage is for the sum to find; what a later version, or somebody with an editor, wrote has a good one.
#[test]
fn the_registry_opens_with_whatever_files_and_keeps_what_it_understood() {
    let tokens = [
        JSON,
        &[
            "\"version\":2,",
            "\"version\":1,",
            "111122223333",
            "\"organization\":{\"id\":\"o-abcdefghij\",\"accounts\":null},",
            "is_deleted",
        ],
    ]
    .concat();
    fuzz("registry", 1_500, &corpus("registry"), &tokens, |json| {
        let directory = tempfile::tempdir().unwrap();
        let files = ["trails.json", "channels.json"].map(|name| directory.path().join(name));
        for file in &files {
            std::fs::write(file, snapshot::with_sum(json)).unwrap();
        }
        let open = || Registry::open(directory.path(), Vec::new()).unwrap().book();
        let (first, second) = (open(), open());
        assert_eq!(first, second);
        Input::understood(files.iter().any(|file| file.exists()))
    });
}
