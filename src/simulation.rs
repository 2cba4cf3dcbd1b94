//! What a simulated daemon has in place of a machine: its time, its chance, its AWS, and no threads.
//!
//! A simulation runs on one thread, on tokio's paused time. What the daemon asks of the machine that a seed must decide, it asks through a handful of functions
//! ([`crate::clock`], [`crate::background::spawn_blocking`], [`crate::random`], [`crate::retry`], [`crate::aws::sdk_config`]); while that thread has a [`Machine`], those
//! ask it. Work that would block is done at once, where it is asked for, and its caller learns of it a little later, as of a disk's.
//! Other threads, such as those of other tests, notice nothing.

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{self, KeySize};
use tokio::time::Instant;

use crate::clock::WallMillis;
use crate::digest::sign::KeyPair;
use crate::wal::sim::Random;

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
}

/// What a thread's simulated daemon runs on.
#[derive(Debug)]
pub struct Machine {
    pub random: Random,
    /// What the wall clock says besides the time that has passed.
    pub wall: WallMillis,
    /// Since the simulation began, until this life did.
    pub passed: Duration,
    /// When this life began, by tokio's clock, which begins anew with each.
    pub booted: Option<Instant>,
    pub keys_made: usize,
    pub sdk: SdkConfig,
}

impl Machine {
    /// How long the simulation has lasted.
    pub fn elapsed(&self) -> Duration {
        self.passed
            + self
                .booted
                .map_or(Duration::ZERO, |booted| booted.elapsed())
    }

    fn now(&self) -> WallMillis {
        let elapsed = i64::try_from(self.elapsed().as_millis()).unwrap();
        WallMillis(self.wall.0 + elapsed)
    }
}

/// Takes the machine away when it is dropped.
pub struct Running(());

impl Drop for Running {
    fn drop(&mut self) {
        MACHINE.with_borrow_mut(|machine| *machine = None);
    }
}

/// Gives this thread a machine.
pub fn start(machine: Machine) -> Running {
    MACHINE.with_borrow_mut(|slot| *slot = Some(machine));
    Running(())
}

/// Nothing on a thread without a machine.
pub fn with<T>(ask: impl FnOnce(&mut Machine) -> T) -> Option<T> {
    MACHINE.with_borrow_mut(|machine| machine.as_mut().map(ask))
}

pub fn is_on() -> bool {
    with(|_| ()).is_some()
}

pub fn wall() -> Option<WallMillis> {
    with(|machine| machine.now())
}

pub fn elapsed() -> Option<Duration> {
    with(|machine| machine.elapsed())
}

/// From zero to one.
pub fn chance() -> Option<f64> {
    with(|machine| machine.random.below(1 << 20) as f64 / (1 << 20) as f64)
}

/// The next of the pairs of keys that all simulations of this process have in common, so that two with one seed have the same.
pub fn key_pair() -> Option<KeyPair> {
    static PAIRS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let nth = with(|machine| {
        machine.keys_made += 1;
        machine.keys_made
    })?;
    let mut pairs = PAIRS.lock().unwrap();
    while pairs.len() < nth {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        pairs.push(der.as_ref().to_vec());
    }
    Some(KeyPair::from_pkcs8(&pairs[nth - 1]).unwrap())
}

/// Whether there is a machine, which then has filled `bytes`.
pub fn fill(bytes: &mut [u8]) -> bool {
    let filled = with(|machine| {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&machine.random.next().to_le_bytes()[..piece.len()]);
        }
    });
    filled.is_some()
}

/// As long as a disk may take, from nothing to three milliseconds.
pub async fn pause() {
    let millis = with(|machine| machine.random.below(4)).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
