//! Reads the journal for the follower, on a thread of the usual priority.
//!
//! Whoever waits for the journal's end shares locks with the thread that writes it and with those that answer. The follower, which may wait long for a
//! processor, must hold none of them: it asks here, and waits at a channel that nobody else uses.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pump::{Tail, TailError};
use crate::wal::{Chunk, Position, Wal};

/// What happens next.
pub enum Happened {
    Stop,
    /// The journal cannot keep anything before this position.
    Cut(Position),
    Read(Chunk),
    /// The journal has let go of what was to be read, up to this position. What it still has comes next.
    Gone(Position),
    Time,
}

enum Told {
    Stop,
    Cut(Position),
    /// What was read at a position, and where the journal began then.
    Read(Position, Result<Chunk, TailError>, Position),
}

/// The follower's end. A chunk is read ahead at most.
pub struct Feed {
    asks: UnboundedSender<Position>,
    told: Receiver<Told>,
    next: Position,
    /// Whether what is at `next` was asked for.
    is_asked: bool,
    /// Until it runs.
    reader: Option<Reader>,
}

/// The other end.
struct Reader {
    journal: Wal,
    tail: Tail,
    cut: watch::Receiver<Position>,
    asked: UnboundedReceiver<Position>,
    tell: Sender<Told>,
}

impl Feed {
    /// It will read at `from`, as soon as it is started and asked to.
    pub fn new(journal: &Wal, from: Position, cut: watch::Receiver<Position>) -> Self {
        let (asks, asked) = unbounded_channel();
        let (tell, told) = channel();
        let reader = Reader {
            journal: journal.clone(),
            tail: Tail::new(journal, from),
            cut,
            asked,
            tell,
        };
        Self {
            asks,
            told,
            next: from,
            is_asked: false,
            reader: Some(reader),
        }
    }

    /// Starts the thread that reads, which has the priority of this one, until `stop`.
    pub fn start(&mut self, runtime: Handle, stop: CancellationToken) -> std::io::Result<()> {
        if let Some(reader) = self.reader.take() {
            let thread = std::thread::Builder::new().name("history-reader".to_owned());
            thread.spawn(move || runtime.block_on(reader.run(&stop)))?;
        }
        Ok(())
    }

    /// The position after all that was handed over.
    pub fn position(&self) -> Position {
        self.next
    }

    /// Goes on at another position.
    pub fn seek(&mut self, to: Position) {
        (self.next, self.is_asked) = (to, false);
    }

    /// Waits for at most so long. A chunk comes only after it was `wanted`.
    pub fn next(&mut self, wanted: bool, most: Duration) -> Result<Happened, TailError> {
        if wanted && !self.is_asked {
            self.is_asked = self.asks.send(self.next).is_ok();
        }
        Ok(match self.told.recv_timeout(most) {
            Ok(Told::Stop) => Happened::Stop,
            Ok(Told::Cut(upto)) => Happened::Cut(upto),
            Ok(Told::Read(from, chunk, start)) if from == self.next => {
                let chunk = chunk?;
                let first = chunk.iter().next().map_or(chunk.next, |(first, _)| first);
                if from < start && start <= first {
                    self.seek(start);
                    return Ok(Happened::Gone(start));
                }
                (self.next, self.is_asked) = (chunk.next, false);
                Happened::Read(chunk)
            }
            // It was asked for before the last `seek`.
            Ok(Told::Read(..)) | Err(RecvTimeoutError::Timeout) => Happened::Time,
            Err(RecvTimeoutError::Disconnected) => return Err(TailError::Closed),
        })
    }
}

impl Reader {
    /// Until `stop`, the end of the journal, or nobody asks any more.
    async fn run(mut self, stop: &CancellationToken) {
        let mut is_wanted = false;
        loop {
            let told = tokio::select! {
                biased;
                () = stop.cancelled() => Told::Stop,
                Ok(()) = self.cut.changed() => Told::Cut(*self.cut.borrow_and_update()),
                next = self.asked.recv() => {
                    let Some(next) = next else {
                        return;
                    };
                    if next != self.tail.position() {
                        self.tail = Tail::new(&self.journal, next);
                    }
                    is_wanted = true;
                    continue;
                }
                (at, chunk) = read(&mut self.tail), if is_wanted => {
                    is_wanted = false;
                    // Asked here: it is behind a lock of the journal's.
                    Told::Read(at, chunk, self.journal.start())
                }
            };
            let is_last = matches!(told, Told::Stop | Told::Read(_, Err(_), _));
            if self.tell.send(told).is_err() || is_last {
                return;
            }
        }
    }
}

/// What is next, and where that is. Cancel safe.
async fn read(tail: &mut Tail) -> (Position, Result<Chunk, TailError>) {
    let at = tail.position();
    (at, tail.next().await)
}
