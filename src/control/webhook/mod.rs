//! Webhooks: what happens, in batches, to backends that are asked to take them; in order, and at
//! least once.
//!
//! A thread beside everything else: it reads what all who follow read, and the loop knows nothing
//! of it. For each stream of each target a `Worker` gathers a batch, sends it until it is taken,
//! and keeps the position. A target that is down for long costs one batch of memory.

mod backoff;
mod batch;
pub(crate) mod complaint;
pub(crate) mod connection;
pub(crate) mod health;
pub(crate) mod metrics;
mod position;
mod sender;
pub(crate) mod sign;
mod supply;
pub mod target;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::limits;
use crate::base::time::Span;
use crate::control::hub::{Hub, Sink};
use crate::control::ledger::Ledger;
use crate::control::webhook::health::{Health, State};
use crate::control::webhook::sender::Sender;
pub use crate::control::webhook::sign::SecretError;
use crate::control::webhook::supply::{Left, subscribe_from_now};
use crate::control::webhook::target::{Stream, Target};
use crate::control::webhook::tls::Tls;
pub use crate::control::webhook::tls::TlsError;
use crate::control::webhook::worker::{Making, Order, Start, Worker};

/// The webhooks of a node. Clones are the same.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

/// What webhooks tell.
#[derive(Clone)]
pub struct Sources {
    /// What happens.
    pub ledger: Ledger,
    /// What clients send up.
    pub hub: Hub,
}

struct Shared {
    sources: Sources,
    /// Every stream of every target.
    rows: Mutex<Vec<Arc<Health>>>,
    /// `None` until there is a target.
    thread: Mutex<Option<Thread>>,
    /// Whether the targets of the start of the program are known.
    has_begun: AtomicBool,
    /// Whether the program ends.
    has_ended: AtomicBool,
}

struct Thread {
    /// The latest of all wishes is the one that counts.
    wishes: watch::Sender<Vec<Prepared>>,
    /// Nothing comes out of it but its end.
    ended: Receiver<()>,
}

/// Why a target cannot be used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It has no key to sign with.
    #[error("webhook {name}: {cause}")]
    Secret {
        /// Which target.
        name: String,
        /// What is wrong.
        cause: SecretError,
    },
    /// Nobody can vouch for it.
    #[error("webhook {name}: {cause}")]
    Tls {
        /// Which target.
        name: String,
        /// What is wrong.
        cause: TlsError,
    },
    /// The machine gives no further thread or descriptor.
    #[error("cannot start the webhooks: {cause}")]
    Machine {
        /// What it said.
        cause: io::Error,
    },
}

/// A target whose files were found to be good.
#[derive(Clone)]
struct Prepared {
    target: Arc<Target>,
    tls: Option<Tls>,
    /// Its messages from the moment on at which it was asked for, until somebody works for it.
    sink: Arc<Mutex<Option<Sink>>>,
}

impl Prepared {
    fn new(target: Target) -> Result<Self, WebhookError> {
        if let Some(path) = &target.secret_file {
            let unusable = |cause| WebhookError::Secret { name: target.name.clone(), cause };
            sign::read_keys(path).map_err(unusable)?;
        }
        let unsafe_way = |cause| WebhookError::Tls { name: target.name.clone(), cause };
        let tls = Tls::for_target(&target).map_err(unsafe_way)?;
        Ok(Self { target: Arc::new(target), tls, sink: Arc::default() })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.target == other.target && self.tls == other.tls
    }
}

impl Webhooks {
    /// Webhooks without a target; they cost nothing.
    pub fn new(sources: Sources) -> Self {
        let shared = Shared {
            sources,
            rows: Mutex::default(),
            thread: Mutex::default(),
            has_begun: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether the files of all targets can be used.
    ///
    /// # Errors
    /// When a file cannot be read, or has not in it what it should have.
    pub fn check(targets: &[Target]) -> Result<(), WebhookError> {
        targets.iter().try_for_each(|target| Prepared::new(target.clone()).map(drop))
    }

    /// From now on these are the targets. Those that are as before go on undisturbed, but for one
    /// that was switched off; one that changed goes on behind the last batch that was taken. What
    /// the first call names is there from the start of the program.
    ///
    /// # Errors
    /// When a file of a target cannot be used, or the machine gives no further thread. Then nothing
    /// has changed.
    pub fn reload(&self, targets: Vec<Target>) -> Result<(), WebhookError> {
        let prepared = targets.into_iter().map(Prepared::new);
        let prepared: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
        let mut thread = lock(&self.shared.thread);
        if self.shared.has_ended.load(Relaxed) {
            return Ok(());
        }
        for Prepared { target, sink, .. } in &prepared {
            if target.streams.contains(&Stream::Messages) {
                *lock(sink) = Some(subscribe_from_now(&self.shared.sources.hub, target));
            }
        }
        let has_begun = self.shared.has_begun.swap(true, Relaxed);
        let start = if has_begun { Start::Later } else { Start::Program };
        match &mut *thread {
            Some(thread) => drop(thread.wishes.send_replace(prepared)),
            None if prepared.is_empty() => {}
            None => {
                let started = Thread::start(&self.shared, prepared, start);
                *thread = Some(started.map_err(|cause| WebhookError::Machine { cause })?);
            }
        }
        Ok(())
    }

    /// Waits until those targets that take their batches have heard the end of the loop, at most
    /// for `patience`.
    pub fn finish(&self, patience: Span) {
        let mut place = lock(&self.shared.thread);
        // A reload that comes now is too late.
        self.shared.has_ended.store(true, Relaxed);
        let Some(thread) = place.take() else { return };
        drop(place);
        match thread.ended.recv_timeout(patience.into()) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("a webhook is slow, and does not hear the end");
            }
        }
    }

    /// Every stream of every target.
    pub(crate) fn rows(&self) -> Vec<Arc<Health>> {
        lock(&self.shared.rows).clone()
    }

    /// What they tell.
    pub fn sources(&self) -> &Sources {
        &self.shared.sources
    }
}

impl Thread {
    fn start(shared: &Arc<Shared>, targets: Vec<Prepared>, start: Start) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(limits::WEBHOOK_BLOCKING_MAX)
            .thread_name("webhook-files")
            .build()?;
        let (wishes, wished) = watch::channel(targets);
        let (end, ended) = sync_channel(1);
        let shared = Arc::clone(shared);
        thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            runtime.block_on(
                Manager { shared, running: Vec::new(), leaving: Vec::new() }.run(wished, start),
            );
            // A lookup of a name that hangs is not waited for.
            runtime.shutdown_background();
            drop(end);
        })?;
        Ok(Self { wishes, ended })
    }
}

/// Starts and stops workers.
struct Manager {
    shared: Arc<Shared>,
    running: Vec<Running>,
    /// Targets that are no longer wanted, until their last attempt is over.
    leaving: Vec<Running>,
}

/// A target that is worked for.
struct Running {
    prepared: Prepared,
    stop: watch::Sender<Order>,
    workers: Vec<Working>,
}

struct Working {
    health: Arc<Health>,
    task: JoinHandle<Option<Left>>,
}

impl Manager {
    async fn run(mut self, mut wished: watch::Receiver<Vec<Prepared>>, mut start: Start) {
        let mut newest = self.shared.sources.ledger.door.subscribe();
        loop {
            let wish = wished.borrow_and_update().clone();
            self.apply(wish, start);
            start = Start::Later;
            let has_ended = async { while newest.changed().await.is_ok() {} };
            tokio::select! {
                changed = wished.changed() => if changed.is_err() { break },
                () = has_ended => break,
            }
        }
        // They end by themselves when everything is told.
        for working in self.running.into_iter().flat_map(|running| running.workers) {
            if working.health.state() != State::Off {
                let _ = working.task.await;
            }
        }
    }

    fn apply(&mut self, wish: Vec<Prepared>, start: Start) {
        self.leaving.retain(|running| !running.has_ended());
        let mut before: Vec<Running> = std::mem::take(&mut self.running);
        for prepared in wish {
            let is_it = |running: &Running| running.prepared.target.name == prepared.target.name;
            let former = [&mut before, &mut self.leaving].into_iter().find_map(|all| {
                let index = all.iter().position(is_it)?;
                Some(all.swap_remove(index))
            });
            // Whoever works for it already has them, and needs no second claim.
            let sink = lock(&prepared.sink).take();
            let running = match former {
                Some(running) if running.is_fine_as(&prepared) => running,
                former => self.start(prepared, sink, former, start),
            };
            self.running.push(running);
        }
        for running in before {
            tracing::info!(webhook = %running.prepared.target.name, "a webhook is removed");
            let _ = running.stop.send(Order::Leave);
            self.leaving.push(running);
        }
        let workers = self.running.iter().flat_map(|running| &running.workers);
        let rows = workers.map(|working| Arc::clone(&working.health)).collect();
        *lock(&self.shared.rows) = rows;
    }

    /// Starts the workers of a target. One that was there under its name ends first, and what it
    /// left is where the new one begins.
    fn start(
        &self,
        prepared: Prepared,
        mut sink: Option<Sink>,
        former: Option<Running>,
        start: Start,
    ) -> Running {
        let target = &prepared.target;
        tracing::info!(webhook = %target.name, url = %target.url, "a webhook begins");
        let (stop, stopped) = watch::channel(Order::Work);
        let mut before = former.map(|former| {
            let _ = former.stop.send(Order::HandOver);
            former.workers
        });
        let workers = target.streams.iter().map(|stream| {
            let workers = before.iter_mut().flatten();
            let is_it = |working: &&mut Working| working.health.stream == *stream;
            let former = workers.into_iter().find(is_it);
            let health = match &former {
                Some(former) => Arc::clone(&former.health),
                None => Arc::new(Health::new(target, *stream)),
            };
            health.on_target(target);
            let left = former
                .map(|former| std::mem::replace(&mut former.task, tokio::spawn(async { None })));
            let worker = self.worker(&prepared, *stream, Arc::clone(&health), stopped.clone());
            let sink = if *stream == Stream::Messages { sink.take() } else { None };
            let task = tokio::spawn(async move {
                let left = match left {
                    Some(left) => left.await.ok().flatten(),
                    None => None,
                };
                match left {
                    Some(left) => {
                        let sink = left.sink.or(sink);
                        worker.run(Start::At(left.taken), sink).await
                    }
                    None => worker.run(start, sink).await,
                }
            });
            Working { health, task }
        });
        let workers = workers.collect();
        Running { prepared, stop, workers }
    }

    fn worker(
        &self,
        prepared: &Prepared,
        stream: Stream,
        health: Arc<Health>,
        stop: watch::Receiver<Order>,
    ) -> Worker {
        let sources = self.shared.sources.clone();
        let connector = prepared.tls.as_ref().map(Tls::connector);
        let target = Arc::clone(&prepared.target);
        let sender = Sender::new(Arc::clone(&target), connector, sources.ledger.door.clock());
        Worker::new(Making { target, stream, sources, health, sender, stop })
    }
}

impl Running {
    /// Whether it goes on as it is.
    fn is_fine_as(&self, wish: &Prepared) -> bool {
        let is_off = self.workers.iter().any(|working| working.health.state() == State::Off);
        self.prepared.is_same(wish) && !is_off && *self.stop.borrow() == Order::Work
    }

    fn has_ended(&self) -> bool {
        self.workers.iter().all(|working| working.task.is_finished())
    }
}

/// Nothing is left half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
