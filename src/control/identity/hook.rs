//! Somebody else who knows which tokens are good, and is asked by HTTP.
//!
//! So many requests at once, each for so long; so many who wait for one; everybody else is told to
//! come back. Whoever was proven a moment ago is not asked about again, and of several who show the
//! same at the same time one is asked for.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use slab::Slab;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use crate::base::identity::{Check, Verdict};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::control::identity::cache::{Cache, Digest};
use crate::control::identity::counts::HookCounts;
use crate::control::identity::question::{Answer, Asked, Question, body_of};
use crate::control::webhook::complaint::Complaint;
use crate::control::webhook::connection::Connection;
use crate::control::webhook::sign::{self, SecretError};
use crate::control::webhook::target::{Scheme, TargetUrl};
use crate::control::webhook::tls::{Tls, TlsError};
use crate::os::clock::Clock;
use crate::os::random;

/// Whom to ask, and how. Data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HookOptions {
    /// Where.
    pub url: TargetUrl,
    /// The file with the key of the signature; without one nothing is signed.
    pub secret_file: Option<PathBuf>,
    /// The file of the authorities that may vouch for it; without one those of the machine.
    pub ca_file: Option<PathBuf>,
    /// From the begin of a check to its answer.
    pub timeout: Span,
    /// Most proofs that are kept.
    pub cache_entries: u32,
    /// For how long each is; zero: nothing is kept, and each token is asked about by itself.
    pub cache_age: Span,
}

/// The same with what is in the files.
pub struct Plan {
    pub(crate) options: HookOptions,
    pub(crate) tls: Option<Tls>,
    pub(crate) keys: Vec<String>,
    origin: [u8; 32],
}

/// Why nobody can be asked. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// There is no key to sign with.
    #[error("identity-secret-file: {0}")]
    Secret(SecretError),
    /// Nobody can vouch for it.
    #[error("identity-ca-file: {0}")]
    Tls(TlsError),
}

impl fmt::Debug for Plan {
    /// Nothing of what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plan({})", self.options.url)
    }
}

impl Plan {
    /// Reads the files, each once.
    ///
    /// # Errors
    /// When one of them is not what it should be.
    pub fn new(options: &HookOptions) -> Result<Self, HookError> {
        let keys = options.secret_file.as_deref().map(sign::read_keys).transpose();
        let keys = keys.map_err(HookError::Secret)?.unwrap_or_default();
        let tls = match options.url.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Tls::by(options.ca_file.as_deref()).map_err(HookError::Tls)?),
        };
        let mut hash = Sha256::new();
        hash.update(format!("{options:?} {keys:?}"));
        hash.update(tls.as_ref().map_or(&[][..], Tls::authorities));
        let origin = hash.finalize().into();
        Ok(Self { options: options.clone(), tls, keys, origin })
    }

    /// The hash of what it was made of.
    pub fn origin(&self) -> [u8; 32] {
        self.origin
    }
}

/// Who waits for a verdict, and at which desk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Waiter {
    pub(crate) desk: usize,
    pub(crate) conn: ConnId,
}

/// Who hears what.
pub(crate) type Answers = Vec<(Waiter, Verdict)>;

/// All of them hear the same.
pub(crate) fn tell(waiters: Vec<Waiter>, verdict: Verdict, answers: &mut Answers) {
    answers.extend(waiters.into_iter().map(|waiter| (waiter, verdict)));
}

/// A token that somebody has to be asked about, and all who showed it meanwhile.
struct Pending {
    check: Check,
    digest: Option<Digest>,
    waiters: Vec<Waiter>,
    until: Moment,
}

/// What a task that asked leaves behind.
pub(crate) type Ended = Result<(Id, Asked), JoinError>;

/// Asks, and remembers.
pub(crate) struct Hook {
    plan: Arc<Plan>,
    clock: Clock,
    counts: Arc<HookCounts>,
    cache: Cache,
    pending: Slab<Pending>,
    /// Which of them is about this.
    same: HashMap<Digest, usize>,
    /// Those of them for which no request is made yet, the oldest first.
    waiting: VecDeque<usize>,
    asking: JoinSet<Asked>,
    /// Whom each of those asks about.
    about: HashMap<Id, usize>,
    /// Those that can be asked by again, and since when.
    idle: Vec<(Moment, Connection)>,
    lookups: Arc<Semaphore>,
    complaint: Complaint,
}

impl Hook {
    pub(crate) fn new(plan: Arc<Plan>, clock: Clock, counts: Arc<HookCounts>) -> Self {
        let HookOptions { cache_entries, cache_age, .. } = plan.options;
        Self {
            plan,
            clock,
            counts,
            cache: Cache::new(random::bytes(), cache_entries as usize, cache_age),
            pending: Slab::new(),
            same: HashMap::new(),
            waiting: VecDeque::new(),
            asking: JoinSet::new(),
            about: HashMap::new(),
            idle: Vec::new(),
            lookups: Arc::new(Semaphore::new(limits::WEBHOOK_BLOCKING_MAX)),
            complaint: Complaint::default(),
        }
    }

    /// Looks at a token. What is known of it at once goes to the end of `answers`; else all who
    /// wait for it hear later.
    pub(crate) fn look_at(&mut self, check: Check, waiters: Vec<Waiter>, answers: &mut Answers) {
        let now = self.clock.now();
        let digest = self.cache.digest(check.client.as_str(), &check.token);
        if let Some(digest) = &digest {
            if self.cache.is_proven(digest, now) {
                self.counts.cached.add(waiters.len());
                return tell(waiters, Verdict::Proven, answers);
            }
            if let Some(pending) = self.same.get(digest).and_then(|at| self.pending.get_mut(*at)) {
                self.counts.shared.add(waiters.len());
                return pending.waiters.extend(waiters);
            }
        }
        let has_place = self.asking.len() < limits::HOOK_REQUESTS_MAX;
        if !has_place && self.waiting.len() >= limits::HOOK_WAITING_MAX {
            self.counts.full.add(waiters.len());
            return tell(waiters, Verdict::Unknown, answers);
        }
        let until = now + self.plan.options.timeout;
        let at = self.pending.insert(Pending { check, digest, waiters, until });
        if let Some(digest) = digest {
            self.same.insert(digest, at);
        }
        match has_place {
            true => self.ask_about(at, now),
            false => self.waiting.push_back(at),
        }
        self.count();
    }

    fn ask_about(&mut self, at: usize, now: Moment) {
        // One that nothing was said on for long may be dead, and nobody would know.
        self.idle.retain(|(since, connection)| {
            !connection.has_ended() && now.since(*since) < limits::HOOK_IDLE_MAX
        });
        let pending = &self.pending[at];
        let question = Question {
            plan: Arc::clone(&self.plan),
            body: body_of(&pending.check),
            kept: self.idle.pop().map(|(_, connection)| connection),
            lookups: Arc::clone(&self.lookups),
            patience: pending.until.since(now),
            clock: self.clock,
        };
        let task = self.asking.spawn(question.ask());
        self.about.insert(task.id(), at);
    }

    /// The end of the next request; `None`: there is none under way.
    pub(crate) async fn next_ended(&mut self) -> Option<Ended> {
        self.asking.join_next_with_id().await
    }

    /// The same, if it has ended already.
    pub(crate) fn try_ended(&mut self) -> Option<Ended> {
        self.asking.try_join_next_with_id()
    }

    /// A request has ended. Whoever hears of it now, and what, goes to the end of `answers`.
    pub(crate) fn on_ended(&mut self, ended: Ended, answers: &mut Answers) {
        let now = self.clock.now();
        let (id, asked) = match ended {
            Ok((id, asked)) => (id, asked),
            Err(error) => {
                let answer = Answer::Other("it was not asked to the end".to_owned());
                (error.id(), Asked { answer, connection: None })
            }
        };
        self.idle.extend(asked.connection.map(|connection| (now, connection)));
        let verdict = self.verdict_of(&asked.answer, now);
        if let Some(at) = self.about.remove(&id) {
            self.settle(at, verdict, now, answers);
        }
        while self.asking.len() < limits::HOOK_REQUESTS_MAX
            && let Some(at) = self.waiting.pop_front()
        {
            match self.pending[at].until <= now {
                true => {
                    self.counts.waited.add(self.pending[at].waiters.len());
                    self.settle(at, Verdict::Unknown, now, answers);
                }
                false => self.ask_about(at, now),
            }
        }
        self.count();
    }

    fn settle(&mut self, at: usize, verdict: Verdict, now: Moment, answers: &mut Answers) {
        let Pending { digest, waiters, .. } = self.pending.remove(at);
        if let Some(digest) = digest {
            self.same.remove(&digest);
            if verdict == Verdict::Proven {
                self.cache.note(digest, now);
            }
        }
        tell(waiters, verdict, answers);
    }

    /// Counts an answer, and says so where there is none.
    fn verdict_of(&mut self, answer: &Answer, now: Moment) -> Verdict {
        let (count, verdict) = match answer {
            Answer::Yes => (&self.counts.proven, Verdict::Proven),
            Answer::No => (&self.counts.refuted, Verdict::Refuted),
            Answer::Other(_) => (&self.counts.failed, Verdict::Unknown),
            Answer::Nothing => (&self.counts.timed_out, Verdict::Unknown),
        };
        count.add(1);
        match answer {
            Answer::Yes | Answer::No => {
                if self.complaint.on_succeeded().is_some() {
                    let url = &self.plan.options.url;
                    tracing::info!(%url, "whoever is asked about tokens answers again");
                }
            }
            Answer::Other(cause) => self.say_silent(cause, now),
            Answer::Nothing => {
                let cause = format!("no answer within {}", self.plan.options.timeout);
                self.say_silent(&cause, now);
            }
        }
        verdict
    }

    fn say_silent(&mut self, cause: &str, now: Moment) {
        if self.complaint.on_failed(now).is_some() {
            let url = &self.plan.options.url;
            tracing::warn!(
                %url, %cause,
                "whoever is asked about tokens says neither yes nor no; clients are told busy"
            );
        }
    }

    /// Ends it, and hands back all who wait.
    pub(crate) fn close(mut self) -> Vec<(Check, Vec<Waiter>)> {
        let pending = std::mem::take(&mut self.pending).into_iter();
        let pending = pending.map(|(_, Pending { check, waiters, .. })| (check, waiters)).collect();
        for gauge in [&self.counts.asking, &self.counts.waiting, &self.counts.kept] {
            gauge.set(0);
        }
        pending
    }

    fn count(&self) {
        self.counts.asking.set(self.asking.len());
        self.counts.waiting.set(self.waiting.len());
        self.counts.kept.set(self.cache.len());
    }

    /// Panics when somebody waits for an answer that will not come.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.pending.len(), self.about.len() + self.waiting.len());
        assert_eq!(self.asking.len(), self.about.len());
        assert!(self.asking.len() <= limits::HOOK_REQUESTS_MAX);
        assert!(self.waiting.len() <= limits::HOOK_WAITING_MAX);
        assert!(self.same.values().all(|at| self.pending.contains(*at)));
        assert!(self.idle.len() <= limits::HOOK_REQUESTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::runtime::Builder;

    use super::*;
    use crate::base::ids::ClientId;

    /// A hook that takes connections and never answers.
    fn silent(age: Span) -> (TcpListener, Hook) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let options = HookOptions {
            url: format!("http://{address}/?key=secret").parse().expect("a URL"),
            secret_file: None,
            ca_file: None,
            timeout: Span::from_secs(30),
            cache_entries: 10,
            cache_age: age,
        };
        let plan = Arc::new(Plan::new(&options).expect("no file is named"));
        assert_eq!(format!("{plan:?}"), format!("Plan(http://{address}/)"));
        (listener, Hook::new(plan, Clock::new(), Arc::default()))
    }

    fn ask(hook: &mut Hook, number: usize, client: &str, answers: &mut Answers) {
        let conn = ConnId { slot: u32::try_from(number).expect("few"), generation: 1 };
        let check = Check {
            conn,
            client: ClientId::new(client).expect("an id"),
            token: (*b"token").into(),
            peer: "127.0.0.1:7".parse().expect("an address"),
        };
        hook.look_at(check, vec![Waiter { desk: 0, conn }], answers);
        hook.check();
    }

    #[test]
    fn so_many_are_asked_about_and_so_many_wait_and_no_more() {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let (_listener, mut hook) = silent(Span::from_secs(60));
        let most = limits::HOOK_REQUESTS_MAX + limits::HOOK_WAITING_MAX;
        let mut answers = Vec::new();
        for number in 0..most {
            ask(&mut hook, number, &format!("client-{number}"), &mut answers);
        }
        assert!(answers.is_empty());
        assert_eq!(hook.counts.asking.get(), limits::HOOK_REQUESTS_MAX as u64);
        assert_eq!(hook.counts.waiting.get(), limits::HOOK_WAITING_MAX as u64);
        ask(&mut hook, most, "late", &mut answers);
        assert_eq!(answers.len(), 1, "at once");
        assert_eq!((answers[0].0.conn.slot as usize, answers[0].1), (most, Verdict::Unknown));
        ask(&mut hook, most + 1, "client-7", &mut answers);
        assert_eq!(answers.len(), 1, "it costs nothing to wait for what somebody else waits for");
        assert_eq!((hook.counts.full.get(), hook.counts.shared.get()), (1, 1));
        let waiters: usize = hook.close().iter().map(|(_, waiters)| waiters.len()).sum();
        assert_eq!(waiters, most + 1, "nobody is forgotten");
    }

    #[test]
    fn without_a_cache_each_is_asked_about_by_itself() {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        for (age, count) in [(Span::from_secs(60), 1), (Span::ZERO, 3)] {
            let (_listener, mut hook) = silent(age);
            for number in 0..3 {
                ask(&mut hook, number, "anna", &mut Vec::new());
            }
            assert_eq!(hook.asking.len(), count);
        }
    }
}
