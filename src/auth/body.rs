//! A body that is not whole until its signature is good.
//!
//! The bytes are hashed as they come, before they are inflated; behind the last one the signature is compared. When it does not match, the
//! body ends in an error instead, so whoever reads it to its end, as they must to use it, cannot take it for good. Why it was refused is
//! told by the [`Verdict`] beside it.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::keyring::Keyring;
use super::sigv4::{Claim, Expected, Refused, SigningKey};

/// What a body has to prove.
#[derive(Debug)]
pub struct Pending {
    expected: Expected,
    claim: Claim,
    key: SigningKey,
    keyring: Arc<Keyring>,
}

impl Pending {
    pub(super) fn new(
        expected: Expected,
        claim: Claim,
        key: SigningKey,
        keyring: Arc<Keyring>,
    ) -> Self {
        Self {
            expected,
            claim,
            key,
            keyring,
        }
    }

    /// For a request whose body is not read: it must have been signed as empty.
    pub fn without_body(self) -> Result<(), Refused> {
        self.finish(digest::digest(&digest::SHA256, b"").as_ref())
    }

    fn finish(self, payload_sha256: &[u8]) -> Result<(), Refused> {
        self.expected.finish(payload_sha256)?;
        self.keyring.keys.remember(&self.claim, &self.key);
        Ok(())
    }
}

/// Why a body was refused, when it was. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<OnceLock<Refused>>);

impl Verdict {
    pub fn refused(&self) -> Option<Refused> {
        self.0.get().cloned()
    }
}

/// A body on its way, with what it has to prove.
pub struct SignedBody<B> {
    inner: B,
    proof: Option<(digest::Context, Pending)>,
    verdict: Verdict,
}

impl<B> SignedBody<B> {
    /// `pending` is nothing for a body that has nothing to prove; it passes as it is.
    pub fn new(inner: B, pending: Option<Pending>) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let body = Self {
            inner,
            proof: pending.map(|pending| (digest::Context::new(&digest::SHA256), pending)),
            verdict: verdict.clone(),
        };
        (body, verdict)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SignedBodyError<E> {
    #[error("{0}")]
    Inner(E),
    #[error("it is not what was signed")]
    Refused,
}

impl<B> Body for SignedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = SignedBodyError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(context));
        let Some((hash, _)) = &mut this.proof else {
            return Poll::Ready(frame.map(|frame| frame.map_err(SignedBodyError::Inner)));
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    hash.update(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(SignedBodyError::Inner(error)))),
            None => Poll::Ready(match this.proof.take() {
                Some((hash, pending)) => match pending.finish(hash.finish().as_ref()) {
                    Ok(()) => None,
                    Err(refused) => {
                        let _ = this.verdict.0.set(refused);
                        Some(Err(SignedBodyError::Refused))
                    }
                },
                None => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.proof.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
