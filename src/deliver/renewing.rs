//! A client that is made anew when its credentials are no good.
//!
//! The SDK keeps credentials until the time that they give themselves, or for 15 minutes when they give none, and no answer of a service
//! makes it forget them (`aws_smithy_runtime::client::identity`); a profile it reads once and for all. So a client whose credentials a
//! service refuses is thrown away with all that it remembers, and the next attempt has one made from scratch.

use std::future::Future;

use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::failure::Failure;

/// A client of `C`, as it is now.
pub struct Renewing<C> {
    make: Box<dyn Fn() -> BoxFuture<'static, C> + Send + Sync>,
    current: Mutex<Made<C>>,
}

#[derive(Clone)]
struct Made<C> {
    client: C,
    /// How many were made before.
    ordinal: u64,
}

impl<C: Clone> Renewing<C> {
    /// Begins with this client. Those that follow come from `make`, which must read everything anew.
    pub fn new<F>(client: C, make: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = C> + Send + 'static,
    {
        Self {
            make: Box::new(move || Box::pin(make())),
            current: Mutex::new(Made { client, ordinal: 0 }),
        }
    }

    /// Makes one attempt. If it fails in a way that other credentials might mend, the next one has another client.
    pub async fn attempt<T, F>(&self, attempt: impl FnOnce(C) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let Made { client, ordinal } = self.current.lock().await.clone();
        let result = attempt(client).await;
        if result.as_ref().is_err_and(may_be_the_credentials) {
            self.renew(ordinal).await;
        }
        result
    }

    /// Replaces the client that failed. Of several attempts that failed with it, only the first does.
    async fn renew(&self, failed: u64) {
        let mut current = self.current.lock().await;
        if current.ordinal == failed {
            *current = Made {
                client: (self.make)().await,
                ordinal: failed + 1,
            };
        }
    }
}

/// The service says so; or the request was never sent, which is how the SDK tells that it has got no credentials, too: for a role, say.
fn may_be_the_credentials(failure: &Failure) -> bool {
    failure.is_about_credentials() || failure.code == "DispatchFailure"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Clients are numbers, and each new one is greater by one.
    fn numbered() -> Renewing<u32> {
        let made = Arc::new(AtomicU32::new(0));
        Renewing::new(0, move || {
            let made = made.clone();
            async move { made.fetch_add(1, Ordering::Relaxed) + 1 }
        })
    }

    async fn used(client: &Renewing<u32>) -> u32 {
        client.attempt(async |client| Ok(client)).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_lasts_until_its_credentials_are_no_good() {
        for (code, renewed) in [
            ("ExpiredTokenException", true),
            ("ExpiredToken", true),
            ("UnrecognizedClientException", true),
            ("DispatchFailure", true),
            ("AccessDeniedException", false),
            ("ThrottlingException", false),
            ("Timeout", false),
        ] {
            let client = numbered();
            let failure = Failure::new(code, "no");
            let failed = client.attempt(async |_| Err::<(), _>(failure.clone()));
            assert_eq!(failed.await, Err(failure.clone()));
            assert_eq!(used(&client).await, u32::from(renewed), "{code}");
        }
    }

    #[tokio::test]
    async fn attempts_that_fail_together_get_one_new_client() {
        let client = numbered();
        let barrier = tokio::sync::Barrier::new(8);
        let fail = || {
            client.attempt(async |_| {
                barrier.wait().await;
                Err::<(), _>(Failure::new("ExpiredToken", "no"))
            })
        };
        futures::future::join_all((0..8).map(|_| fail())).await;
        assert_eq!(used(&client).await, 1);
    }
}
