//! The events of the journal, as items: what the legs read that send each event on.

use bytes::Bytes;

use super::{Item, ItemId, Unreadable};
use crate::event::Record;
use crate::trail::Trail;
use crate::wal::Position;

/// The event in the frame at `at`, when the trail selects it. Its JSON is a part of the frame, not a copy.
pub fn read(trail: &Trail, at: Position, frame: &Bytes) -> Result<Option<Item>, Unreadable> {
    read_if(at, frame, |event| trail.selects(at, event))
}

/// As [`read`], for those who want it by a rule of their own.
pub fn read_if(
    at: Position,
    frame: &Bytes,
    is_wanted: impl FnOnce(&Record<'_>) -> bool,
) -> Result<Option<Item>, Unreadable> {
    let record = Record::decode(frame).map_err(|error| Unreadable(error.to_string()))?;
    if !is_wanted(&record) {
        return Ok(None);
    }
    Ok(Some(Item {
        id: ItemId {
            position: at,
            index: 0,
        },
        events: 1,
        since: record.meta.accepted_at,
        json: frame.slice_ref(record.json),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::tests::{event, trail};

    fn frame(region: &str) -> Bytes {
        let mut frame = Vec::new();
        event("111122223333", region).encode(&mut frame);
        frame.extend_from_slice(br#"{"eventID":"1"}"#);
        frame.into()
    }

    #[test]
    fn an_event_that_the_trail_selects_is_an_item_without_being_copied() {
        let frame = frame("us-east-1");
        let item = read(&trail(), Position(7), &frame).unwrap().unwrap();
        let id = ItemId {
            position: Position(7),
            index: 0,
        };
        assert_eq!((item.id, item.events), (id, 1));
        assert_eq!(item.since, event("111122223333", "us-east-1").accepted_at);
        assert_eq!(&item.json[..], br#"{"eventID":"1"}"#);
        assert!(frame.as_ptr_range().contains(&item.json.as_ptr()));
    }

    #[test]
    fn an_event_that_the_trail_does_not_select_is_no_item() {
        let at_home = Trail {
            is_multi_region: false,
            ..trail()
        };
        let read = |region| read(&at_home, Position(7), &frame(region)).unwrap();
        assert!(read("us-east-1").is_some());
        assert!(read("eu-west-1").is_none());
    }

    #[test]
    fn a_frame_that_holds_no_event_is_said_to_be_unreadable() {
        let whole = frame("us-east-1");
        let head = whole.len() - br#"{"eventID":"1"}"#.len();
        for cut in 0..head {
            assert!(read(&trail(), Position(7), &whole.slice(..cut)).is_err());
        }
    }
}
