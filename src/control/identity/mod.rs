//! Tokens that take too long for a loop are looked at here, on a thread of their own.

pub mod jwt;

use std::io;
use std::thread;

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

/// Starts the thread, which serves all loops and ends with the last of them.
///
/// # Errors
/// When the machine gives no further thread.
pub fn spawn(mut desks: Vec<Desk>, judge: Live<Judge>) -> io::Result<()> {
    thread::Builder::new().name("identity".to_owned()).spawn(move || {
        desks.iter().for_each(Desk::listen);
        while !desks.is_empty() {
            if serve(&mut desks, &judge.get()) == 0 {
                thread::park();
            }
            desks.retain(|desk| !desk.has_ended());
        }
    })?;
    Ok(())
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
