//! Tokens that take too long for a loop are looked at here, on a thread of their own.

pub mod jwt;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::base::identity::{Check, Verdict};
use crate::base::limits;
use crate::control::identity::jwt::Jwt;
use crate::control::live::Live;
use crate::server::desk::Desk;

/// Who looks at tokens.
#[derive(Debug, Default)]
pub enum Judge {
    /// Nobody: the loops do it themselves.
    #[default]
    Nobody,
    /// Whoever has the keys of JSON web tokens.
    Jwt(Jwt),
}

/// Where tokens are looked at. Clones are the same. There is a thread from the first judge on who is
/// somebody; it serves all loops and ends with the last of them.
#[derive(Clone)]
pub struct Office {
    judge: Live<Judge>,
    bell: Arc<Bell>,
    /// Until somebody sits there.
    desks: Arc<Mutex<Vec<Desk>>>,
}

impl Office {
    /// At these desks, where nobody sits yet.
    pub fn new(desks: Vec<Desk>) -> Self {
        let judge = Live::new(Judge::Nobody);
        Self { judge, bell: Arc::default(), desks: Arc::new(Mutex::new(desks)) }
    }

    /// Makes sure that somebody sits at the desks, if this judge is somebody.
    ///
    /// # Errors
    /// When the machine gives no further thread or descriptor.
    pub fn open_for(&self, judge: &Judge) -> io::Result<()> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(judge, Judge::Nobody) || desks.is_empty() {
            return Ok(());
        }
        let runtime = Builder::new_current_thread().build()?;
        let (bell, judge) = (Arc::clone(&self.bell), self.judge.clone());
        // Whoever cannot be started would take with it what it was given.
        let (give, given) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new().name("identity".to_owned()).spawn(move || {
            if let Ok(desks) = given.recv() {
                sit(&runtime, desks, &judge, &bell);
            }
        })?;
        let _ = give.send(std::mem::take(&mut *desks));
        Ok(())
    }

    /// From now on this judge looks at tokens; the office is [open](Self::open_for) for it.
    pub fn appoint(&self, judge: Judge) {
        self.judge.set(judge);
        self.bell.0.notify_one();
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

/// Looks at tokens until the last loop has ended.
fn sit(runtime: &Runtime, mut desks: Vec<Desk>, judge: &Live<Judge>, bell: &Arc<Bell>) {
    let waker = Waker::from(Arc::clone(bell));
    desks.iter().for_each(|desk| desk.listen(&waker));
    runtime.block_on(async {
        while !desks.iter().all(Desk::has_ended) {
            match serve(&mut desks, &judge.get()) {
                0 => bell.0.notified().await,
                _ => yield_now().await,
            }
        }
    });
}

/// Some of each, so that no loop waits for the crowd of another. How many there were.
fn serve(desks: &mut [Desk], judge: &Judge) -> usize {
    let mut count = 0;
    for desk in desks {
        let before = count;
        while count - before < limits::CHECK_BATCH_MAX
            && let Some(check) = desk.next_check()
        {
            desk.answer(check.conn, judge.judge(&check));
            count += 1;
        }
        if count > before {
            desk.ring();
        }
    }
    count
}

impl Judge {
    fn judge(&self, check: &Check) -> Verdict {
        match self {
            // A loop was told of another configuration before this thread was.
            Self::Nobody => Verdict::Unknown,
            Self::Jwt(jwt) => match jwt.proves(check.client.as_str(), &check.token) {
                true => Verdict::Proven,
                false => Verdict::Refuted,
            },
        }
    }
}
