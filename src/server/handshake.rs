//! The handshake of TLS, for clients that may not finish it.
//!
//! It is given `Limits::handshake_timeout`. At most `Limits::handshakes` are under way: one more, and the oldest of them is broken off. A handshake takes
//! milliseconds, so those that are old are of clients that stall, and no number of them can keep another one out.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::tls::{Secured, Tls};

/// Those that are under way, the oldest first. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    most: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    tokens: VecDeque<(u64, CancellationToken)>,
}

/// One of them, until it is dropped.
struct Turn<'a> {
    of: &'a Handshakes,
    number: u64,
    broken_off: CancellationToken,
}

impl Handshakes {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    /// Brings a connection to where HTTP begins.
    pub async fn run<S>(
        &self,
        stream: S,
        tls: &Tls,
        patience: Duration,
    ) -> io::Result<(TlsStream<S>, Secured)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let turn = self.begin();
        let accepting = TlsAcceptor::from(tls.config()).accept(stream);
        let accepting = tokio::time::timeout(patience, accepting);
        let accepted = turn.broken_off.run_until_cancelled(accepting).await;
        let too_slow = |why| io::Error::new(io::ErrorKind::TimedOut, why);
        let stream = accepted
            .ok_or_else(|| too_slow("broken off for a newer handshake"))?
            .map_err(|_| too_slow("the handshake takes too long"))??;
        let secured = Secured::of(stream.get_ref().1);
        let unreadable = |error: der::Error| {
            let why = format!("the client's certificate cannot be read: {error}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        Ok((stream, secured.map_err(unreadable)?))
    }

    fn begin(&self) -> Turn<'_> {
        let broken_off = CancellationToken::new();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.next;
        open.next += 1;
        open.tokens.push_back((number, broken_off.clone()));
        if open.tokens.len() > self.most
            && let Some((_, oldest)) = open.tokens.pop_front()
        {
            oldest.cancel();
        }
        Turn {
            of: self,
            number,
            broken_off,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let open = &self.of.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.tokens.retain(|(number, _)| *number != self.number);
    }
}
