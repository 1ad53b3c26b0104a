//! How a target is: counted by its worker, read by the API and the metrics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::control::journal::Position;
use crate::control::webhook::Sources;
use crate::control::webhook::target::{Stream, Target};

/// How one stream to one target is.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) target: String,
    pub(crate) stream: Stream,
    url: Mutex<String>,
    state: AtomicU8,
    pub(crate) batches: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) attempts_failed: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) positions_unsaved: AtomicU64,
    position: Mutex<Position>,
    /// 0: none yet.
    last_success_unix_ms: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
}

/// The latest failure.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) unix_ms: u64,
    pub(crate) cause: String,
}

/// Whether a target takes what is sent to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// As far as is known.
    Ok = 0,
    /// The latest attempt failed, and there will be another.
    Failing = 1,
    /// It said that it is gone, and is sent nothing any more.
    Off = 2,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Off => "off",
        }
    }
}

impl Health {
    pub(crate) fn new(target: &Target, stream: Stream) -> Self {
        Self {
            target: target.name.clone(),
            stream,
            url: Mutex::new(target.url.to_string()),
            state: AtomicU8::new(State::Ok as u8),
            batches: AtomicU64::new(0),
            events: AtomicU64::new(0),
            attempts_failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            positions_unsaved: AtomicU64::new(0),
            position: Mutex::default(),
            last_success_unix_ms: AtomicU64::new(0),
            last_failure: Mutex::default(),
        }
    }

    /// The target is another one by the same name.
    pub(crate) fn on_target(&self, target: &Target) {
        *lock(&self.url) = target.url.to_string();
        self.state.store(State::Ok as u8, Relaxed);
    }

    pub(crate) fn on_taken(&self, events: usize, position: Position, unix_ms: u64) {
        self.batches.fetch_add(1, Relaxed);
        self.events.fetch_add(events as u64, Relaxed);
        *lock(&self.position) = position;
        self.last_success_unix_ms.store(unix_ms, Relaxed);
        self.state.store(State::Ok as u8, Relaxed);
    }

    pub(crate) fn on_failure(&self, cause: String, unix_ms: u64) {
        self.attempts_failed.fetch_add(1, Relaxed);
        *lock(&self.last_failure) = Some(Failure { unix_ms, cause });
        self.state.store(State::Failing as u8, Relaxed);
    }

    pub(crate) fn on_off(&self) {
        self.state.store(State::Off as u8, Relaxed);
    }

    pub(crate) fn on_place(&self, position: Position) {
        *lock(&self.position) = position;
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::Ok,
            1 => State::Failing,
            _ => State::Off,
        }
    }

    pub(crate) fn url(&self) -> String {
        lock(&self.url).clone()
    }

    pub(crate) fn position(&self) -> Position {
        *lock(&self.position)
    }

    pub(crate) fn last_success_unix_ms(&self) -> Option<u64> {
        Some(self.last_success_unix_ms.load(Relaxed)).filter(|unix_ms| *unix_ms > 0)
    }

    pub(crate) fn last_failure(&self) -> Option<Failure> {
        lock(&self.last_failure).clone()
    }

    /// How many entries of this boot the target has not taken. Those of earlier boots, while it is
    /// still among them, are not counted; messages of other topics are, while it is behind.
    pub(crate) fn lag(&self, sources: &Sources) -> u64 {
        let Sources { ledger, hub } = sources;
        let last = match self.stream {
            Stream::Events => ledger.door.newest().seq,
            Stream::Messages => hub.last_useq(),
            Stream::Transport => ledger.door.newest().tseq,
        };
        let position = self.position();
        if position.boot == ledger.identity.boot { last.saturating_sub(position.seq) } else { last }
    }
}

/// Nothing is left half done behind these locks: each is held for one copy.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
