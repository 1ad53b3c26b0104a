//! Tokens that take too long for a loop are looked at here, on a thread of their own.

mod cache;
pub mod counts;
pub mod hook;
pub mod jwt;
mod question;

use std::future::pending;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::base::identity::{Check, Verdict};
use crate::base::limits;
use crate::control::identity::counts::HookCounts;
use crate::control::identity::hook::{Answers, Ended, Hook, Plan, Waiter, tell};
use crate::control::identity::jwt::Jwt;
use crate::control::live::Live;
use crate::os::clock::Clock;
use crate::server::desk::Desk;

/// Who looks at tokens.
#[derive(Debug, Default)]
pub enum Judge {
    /// Nobody: the loops do it themselves.
    #[default]
    Nobody,
    /// Whoever has the keys of JSON web tokens.
    Jwt(Jwt),
    /// Somebody else, who is asked.
    Hook(Arc<Plan>),
}

impl Judge {
    /// Whether both would say the same, and one remembers what the other does.
    fn is_same(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Hook(one), Self::Hook(two)) if one.origin() == two.origin())
    }
}

/// Where tokens are looked at. Clones are the same. There is a thread from the first judge on who
/// is somebody; it serves all loops and ends with the last of them.
#[derive(Clone)]
pub struct Office {
    judge: Live<Judge>,
    bell: Arc<Bell>,
    counts: Arc<HookCounts>,
    /// Until somebody sits there.
    desks: Arc<Mutex<Vec<Desk>>>,
}

impl Office {
    /// At these desks, where nobody sits yet.
    pub fn new(desks: Vec<Desk>) -> Self {
        let judge = Live::new(Judge::Nobody);
        let desks = Arc::new(Mutex::new(desks));
        Self { judge, bell: Arc::default(), counts: Arc::default(), desks }
    }

    /// Makes sure that somebody sits at the desks, if this judge is somebody.
    ///
    /// # Errors
    /// When the machine gives no further thread or descriptor.
    pub fn open_for(&self, judge: &Arc<Judge>) -> io::Result<()> {
        if matches!(**judge, Judge::Nobody) {
            return Ok(());
        }
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.is_empty() { Ok(()) } else { self.start(&mut desks) }
    }

    /// Starts the thread, which takes the desks with it.
    fn start(&self, desks: &mut Vec<Desk>) -> io::Result<()> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(limits::WEBHOOK_BLOCKING_MAX)
            .thread_name("identity-names")
            .build()?;
        let (bell, judge) = (Arc::clone(&self.bell), self.judge.clone());
        let counts = Arc::clone(&self.counts);
        // A thread that cannot be started would take with it what it was given.
        let (give, given) = sync_channel(1);
        thread::Builder::new().name("identity".to_owned()).spawn(move || {
            if let Ok(desks) = given.recv() {
                runtime.block_on(Clerk::new(desks, counts).sit(&judge, &bell));
            }
            // A lookup of a name that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        let _ = give.send(std::mem::take(desks));
        Ok(())
    }

    /// From now on this judge looks at tokens; the office is [open](Self::open_for) for it. One who
    /// is as the one before goes on, and forgets nothing.
    pub fn appoint(&self, judge: &Arc<Judge>) {
        if !judge.is_same(&self.judge.get()) {
            self.judge.set(Arc::clone(judge));
            self.bell.0.notify_one();
        }
    }

    /// What is counted of the hook.
    pub fn counts(&self) -> Arc<HookCounts> {
        Arc::clone(&self.counts)
    }
}

/// Wakes whoever sits at the desks.
#[derive(Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Whoever sits at the desks.
struct Clerk {
    desks: Vec<Desk>,
    judge: Arc<Judge>,
    /// If this is the judge.
    hook: Option<Hook>,
    counts: Arc<HookCounts>,
    /// What was found out, until the loops are told.
    answers: Answers,
}

impl Clerk {
    fn new(desks: Vec<Desk>, counts: Arc<HookCounts>) -> Self {
        Self { desks, judge: Arc::default(), hook: None, counts, answers: Vec::new() }
    }

    /// Looks at tokens until the last loop has ended.
    async fn sit(mut self, judge: &Live<Judge>, bell: &Arc<Bell>) {
        let waker = Waker::from(Arc::clone(bell));
        self.desks.iter().for_each(|desk| desk.listen(&waker));
        while !self.desks.iter().all(Desk::has_ended) {
            self.take_up(judge.get());
            let count = self.take_checks() + self.take_ended();
            self.answer();
            if count > 0 {
                yield_now().await;
                continue;
            }
            let ended = tokio::select! {
                () = bell.0.notified() => None,
                ended = next_ended(&mut self.hook) => Some(ended),
            };
            if let (Some(hook), Some(ended)) = (&mut self.hook, ended) {
                hook.on_ended(ended, &mut self.answers);
            }
        }
    }

    /// Another judge begins with those who wait for the one before.
    fn take_up(&mut self, judge: Arc<Judge>) {
        if Arc::ptr_eq(&self.judge, &judge) {
            return;
        }
        let waiting = self.hook.take().map(Hook::close);
        if let Judge::Hook(plan) = &*judge {
            let counts = Arc::clone(&self.counts);
            self.hook = Some(Hook::new(Arc::clone(plan), Clock::new(), counts));
        }
        self.judge = judge;
        for (check, waiters) in waiting.into_iter().flatten() {
            self.look_at(check, waiters);
        }
    }

    /// Some of each, so that no loop waits for the crowd of another. How many there were.
    fn take_checks(&mut self) -> usize {
        let mut count = 0;
        for desk in 0..self.desks.len() {
            for _ in 0..limits::CHECK_BATCH_MAX {
                let Some(check) = self.desks[desk].next_check() else { break };
                let waiter = Waiter { desk, conn: check.conn };
                self.look_at(check, vec![waiter]);
                count += 1;
            }
        }
        count
    }

    /// How many requests have ended.
    fn take_ended(&mut self) -> usize {
        let Some(hook) = &mut self.hook else { return 0 };
        for count in 0..limits::HOOK_REQUESTS_MAX {
            let Some(ended) = hook.try_ended() else { return count };
            hook.on_ended(ended, &mut self.answers);
        }
        limits::HOOK_REQUESTS_MAX
    }

    fn look_at(&mut self, check: Check, waiters: Vec<Waiter>) {
        let verdict = match (&*self.judge, &mut self.hook) {
            (Judge::Jwt(jwt), _) => match jwt.proves(check.client.as_str(), &check.token) {
                true => Verdict::Proven,
                false => Verdict::Refuted,
            },
            (Judge::Hook(_), Some(hook)) => {
                return hook.look_at(check, waiters, &mut self.answers);
            }
            // A loop was told of another configuration before this thread was.
            (Judge::Nobody | Judge::Hook(_), _) => Verdict::Unknown,
        };
        tell(waiters, verdict, &mut self.answers);
    }

    /// Tells the loops, each once.
    fn answer(&mut self) {
        self.answers.sort_unstable_by_key(|(waiter, _)| waiter.desk);
        let mut told = None;
        for (Waiter { desk, conn }, verdict) in self.answers.drain(..) {
            self.desks[desk].answer(conn, verdict);
            if let Some(before) = told.replace(desk).filter(|before| *before != desk) {
                self.desks[before].ring();
            }
        }
        if let Some(last) = told {
            self.desks[last].ring();
        }
    }
}

/// The end of the next request, however long that takes.
async fn next_ended(hook: &mut Option<Hook>) -> Ended {
    match hook {
        Some(hook) => match hook.next_ended().await {
            Some(ended) => ended,
            None => pending().await,
        },
        None => pending().await,
    }
}
