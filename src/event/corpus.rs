//! The real events of `tests/corpus`, for tests.

use std::io::Read;

/// One event each, as it was found.
pub fn events() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut events = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "gz") {
            continue;
        }
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).unwrap())
            .read_to_end(&mut text)
            .unwrap();
        let lines = text.split(|byte| *byte == b'\n');
        events.extend(lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    events
}
