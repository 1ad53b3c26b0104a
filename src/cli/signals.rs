//! SIGTERM and SIGINT: the first asks to stop in order, the second to stop at once. SIGUSR1 asks
//! for a report, and SIGHUP, where somebody has a use for it, for a reload.
//!
//! SIGPIPE is ignored by the runtime before `main`: a pipe whose reader has gone is an error of the
//! write, and no reason to die.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Stop, and say good-bye first.
    Drain,
    /// Stop now.
    Stop,
    /// Say how things are.
    Report,
    /// Read the configuration again.
    Reload,
}

/// The watch for signals. It goes on until [`end`](Self::end), or with the process.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: thread::JoinHandle<()>,
}

/// Calls `on_wish` on a thread of its own for every SIGTERM, SIGINT and SIGUSR1. From here on these
/// signals do not end the process by themselves.
pub fn watch(on_wish: impl FnMut(Wish) + Send + 'static) -> io::Result<SignalWatch> {
    watch_these(&[SIGTERM, SIGINT, SIGUSR1], on_wish)
}

/// The same, and SIGHUP is a wish as well.
pub fn watch_reloads(on_wish: impl FnMut(Wish) + Send + 'static) -> io::Result<SignalWatch> {
    watch_these(&[SIGTERM, SIGINT, SIGUSR1, SIGHUP], on_wish)
}

fn watch_these(
    these: &[i32],
    mut on_wish: impl FnMut(Wish) + Send + 'static,
) -> io::Result<SignalWatch> {
    let mut signals = Signals::new(these)?;
    let handle = signals.handle();
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stop = Wish::Drain;
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                on_wish(Wish::Report);
            } else if signal == SIGHUP {
                on_wish(Wish::Reload);
            } else {
                on_wish(stop);
                stop = Wish::Stop;
            }
        }
    })?;
    Ok(SignalWatch { handle, thread })
}

/// Lets a file that grows beyond `RLIMIT_FSIZE` be an error of the write, as a full disk is, and
/// not the end of the process.
pub fn outlive_file_size_limit() -> io::Result<()> {
    let unread = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, unread).map(|_| ())
}

impl SignalWatch {
    /// Ends the watch and its thread. Waits for an `on_wish` that is running.
    pub fn end(self) {
        self.handle.close();
        // A panic in `on_wish` has been told by the thread that had it.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn the_first_signal_drains_and_every_further_one_stops() {
        let (heard, stops) = channel();
        let watch = watch_reloads(move |wish| heard.send(wish).expect("the test listens"))
            .expect("signals can be watched");
        for (signal, expected) in [
            (SIGUSR1, Wish::Report),
            (SIGHUP, Wish::Reload),
            (SIGTERM, Wish::Drain),
            (SIGHUP, Wish::Reload),
            (SIGUSR1, Wish::Report),
            (SIGINT, Wish::Stop),
            (SIGTERM, Wish::Stop),
        ] {
            raise(signal).expect("a signal to ourselves");
            assert_eq!(stops.recv_timeout(Duration::from_secs(10)), Ok(expected));
        }
        watch.end();
        assert!(stops.recv().is_err(), "the thread has ended");
    }
}
