//! The events of whole lines, with the offset of each in the file.

use crate::event::check::read;
use crate::ingest::framing::{Framing, Item};

/// Goes through `bytes`, which stand at `offset` in the file. A line is an event or `{"Records":[…]}`; blank ones are skipped.
pub fn lines(bytes: &[u8], offset: u64) -> impl Iterator<Item = (u64, Item<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let line = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let end = memchr::memchr(b'\n', line).map_or(line.len(), |end| end + 1);
        let start = at;
        at += end;
        Some((offset + start as u64, &line[..end]))
    })
    .filter(|(_, line)| !line.trim_ascii().is_empty())
    .flat_map(|(offset, line)| items(offset, line))
}

fn items(offset: u64, line: &[u8]) -> Vec<(u64, Item<'_>)> {
    // A byte order mark stands at the beginning of a file only.
    let line = if offset == 0 {
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    } else {
        line
    };
    if !line.trim_ascii_start().starts_with(b"{\"Records\"") {
        return vec![(offset, read(line))];
    }
    let mut items = Vec::new();
    if let Ok(mut framing) = Framing::new(line) {
        loop {
            let position = offset + framing.position() as u64;
            match framing.next_item() {
                Ok(Some(item)) => items.push((position, item)),
                Ok(None) => return items,
                Err(_) => break,
            }
        }
    }
    vec![(offset, read(line))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Code;

    #[test]
    fn each_event_has_the_offset_it_stands_at() {
        let text = b"{\"a\":1}\r\n\n  {\"b\":2}\n{\"Records\":[{},{\"c\":3}]}\nbad\n{\"d\"";
        let found: Vec<(u64, Result<&str, Code>)> = lines(text, 100)
            .map(|(offset, item)| {
                (
                    offset,
                    item.map(|(given, _)| std::str::from_utf8(given).unwrap())
                        .map_err(|refusal| refusal.code),
                )
            })
            .collect();
        let records = 100
            + text
                .windows(9)
                .position(|window| window == b"\"Records\"")
                .unwrap() as u64
            - 1;
        assert_eq!(found[0], (100, Ok("{\"a\":1}")));
        assert_eq!(found[1], (110, Ok("{\"b\":2}")));
        assert_eq!((found[2].1, found[3].1), (Ok("{}"), Ok("{\"c\":3}")));
        assert!(found[2].0 >= records && found[3].0 > found[2].0);
        assert_eq!(
            (found[4].1, found[5].1),
            (Err(Code::InvalidJson), Err(Code::InvalidJson))
        );
        assert_eq!(found.len(), 6);
    }
}
