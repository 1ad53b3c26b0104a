//! Faults on the real kernel: the built binary, with what really goes wrong done to it.
//!
//! Each test prints one line with what it measured (`cargo test --test faults -- --nocapture`);
//! `src/manual/reliability.md` has these figures in a table. How fast a machine is proves nothing,
//! so what is held to a bound here is held to a generous one. What must not happen, must never.
//!
//! ```text
//! gate       the binary under test, and bare clients          (from tests/serve)
//! feed       its events, checked as they come
//! fleet      pretend clients, in this process and in others
//! namespace  networks of our own
//! the rest   one theme of faults each
//! ```

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[allow(dead_code, reason = "tests/serve needs more of it than we do")]
#[path = "../serve/gate.rs"]
mod gate;

mod feed;
mod fleet;
mod namespace;

mod crash;
mod death;
mod files;
mod flood;
mod network;
mod on_epoll;
mod slow;
mod stall;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest that anything may take which should happen soon, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much later than the deadline a verdict may come here. On an idle machine it is a tick and a
/// turn; these machines are not idle.
const LATE_MAX: Duration = Duration::from_secs(3);

/// Whoever holds it has the machine for himself, as far as these tests go.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that could harm the next one.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what a test measured.
fn figure(test: &str, text: impl std::fmt::Display) {
    println!("figure {test}: {text}");
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
