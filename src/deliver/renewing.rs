//! A client that is made anew when its credentials are no good.
//!
//! The SDK keeps credentials until the time that they give themselves, or for 15 minutes when they give none, and no answer of a service
//! makes it forget them (`aws_smithy_runtime::client::identity`); a profile it reads once and for all. So a client whose credentials a
//! service refuses, or that gets none, is thrown away with all that it remembers, and the next attempt has one made from scratch. A client
//! that cannot reach its service is kept, with its credentials.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::failure::Failure;

/// A client of `C`, as it is now.
pub struct Renewing<C> {
    make: Box<dyn Fn() -> BoxFuture<'static, C> + Send + Sync>,
    /// Made by whoever needs it first; the others that need it wait for that.
    current: Mutex<Arc<OnceCell<C>>>,
}

impl<C: Clone> Renewing<C> {
    /// Begins with this client. Those that follow come from `make`, which must read everything anew.
    pub fn new<F>(client: C, make: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = C> + Send + 'static,
    {
        Self {
            make: Box::new(move || Box::pin(make())),
            current: Mutex::new(Arc::new(OnceCell::new_with(Some(client)))),
        }
    }

    /// Makes one attempt. If it fails in a way that other credentials might mend, the next one has another client.
    pub async fn attempt<T, F>(&self, attempt: impl FnOnce(C) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let used = self.current().clone();
        let client = used.get_or_init(|| (self.make)()).await.clone();
        let result = attempt(client).await;
        if result.as_ref().is_err_and(Failure::is_about_credentials) {
            self.forget(&used);
        }
        result
    }

    /// Gives up the client that failed. Of several attempts that failed with it, only the first does.
    fn forget(&self, failed: &Arc<OnceCell<C>>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current, failed) {
            *current = Arc::default();
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<OnceCell<C>>> {
        self.current
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

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
            ("CredentialsError", true),
            ("DispatchFailure", false),
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

    #[tokio::test(start_paused = true)]
    async fn attempts_that_need_a_new_client_together_get_one_and_its_making_may_be_given_up() {
        let made = Arc::new(AtomicU32::new(0));
        let client = {
            let made = made.clone();
            Renewing::new(0, move || {
                let made = made.clone();
                async move {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    made.fetch_add(1, Ordering::Relaxed) + 1
                }
            })
        };
        let failed = client.attempt(async |_| Err::<(), _>(Failure::new("ExpiredToken", "no")));
        let failed = tokio::time::timeout(Duration::from_secs(1), failed).await;
        assert!(failed.is_ok(), "an attempt waits for the next one's client");
        let given_up = tokio::time::timeout(Duration::from_secs(1), used(&client)).await;
        assert!(given_up.is_err());
        let all = futures::future::join_all((0..8).map(|_| used(&client))).await;
        assert_eq!((all, made.load(Ordering::Relaxed)), (vec![1; 8], 1));
    }

    #[tokio::test]
    async fn a_late_failure_of_an_old_client_does_not_cost_the_new_one() {
        let client = numbered();
        let refused = || Err::<(), _>(Failure::new("ExpiredToken", "no"));
        let late = client.attempt(async |_| {
            let failed = client.attempt(async |_| refused()).await;
            assert!(failed.is_err());
            assert_eq!(used(&client).await, 1);
            refused()
        });
        assert!(late.await.is_err());
        assert_eq!(used(&client).await, 1);
    }
}
