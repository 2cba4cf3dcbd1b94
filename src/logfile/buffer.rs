//! Memory for the bytes of a log file, taken from the system and given back to it.
//!
//! Files of tens of megabytes are made on threads that come and go. Allocators keep what such threads free, each in a heap of its own, for the next
//! buffer of that size: memory that no budget counts, the more of it the more processors there are. A mapping is gone when it is dropped; but to get
//! its pages costs as much as a pass over them, so one is used again while there are files to be made.

use std::io;
use std::ops::Deref;

use memmap2::MmapMut;

/// Bytes that are added to.
#[derive(Debug)]
pub struct Buffer {
    pages: MmapMut,
    len: usize,
}

impl Buffer {
    /// Room for `bytes`, of which the system gives what is written to. An error when it has no more.
    pub fn with_capacity(bytes: usize) -> io::Result<Self> {
        let pages = MmapMut::map_anon(bytes.max(1))?;
        Ok(Self { pages, len: 0 })
    }

    /// This one, empty, if there is room for `bytes` in it, else another.
    pub fn reuse(mut self, bytes: usize) -> io::Result<Self> {
        if self.pages.len() < bytes {
            drop(self); // before there are two
            return Self::with_capacity(bytes);
        }
        self.len = 0;
        Ok(self)
    }

    /// Adds bytes; where there is no room for them it moves to twice as much.
    pub fn extend(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.len + bytes.len();
        if end > self.pages.len() {
            let mut larger = Self::with_capacity(end.max(2 * self.pages.len()))?;
            larger.pages[..self.len].copy_from_slice(self);
            larger.len = self.len;
            *self = larger;
        }
        self.pages[self.len..end].copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// All the room that there is, whatever is in it.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.pages
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_is_added_and_grows() {
        let mut buffer = Buffer::with_capacity(0).unwrap();
        assert!(buffer.is_empty());
        let mut expected = Vec::new();
        for n in 0..2000_u32 {
            buffer.extend(&n.to_be_bytes()).unwrap();
            expected.extend_from_slice(&n.to_be_bytes());
        }
        assert_eq!(&*buffer, &expected[..]);
        assert!(buffer.room().len() >= expected.len());
        let room = buffer.room().len();
        let buffer = buffer.reuse(room).unwrap();
        assert!(buffer.is_empty());
        assert!(buffer.reuse(room + 1).unwrap().room().len() > room);
    }

    #[test]
    fn what_the_system_has_not_is_an_error() {
        assert!(Buffer::with_capacity(usize::MAX >> 1).is_err());
    }
}
