//! SIGTERM and SIGINT: the first asks to stop in order, the second to stop at once.
//!
//! SIGPIPE is ignored by the runtime before `main`: a pipe whose reader has gone is an error of the
//! write, and no reason to die.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Say good-bye first.
    Drain,
    /// Now.
    Now,
}

/// The watch for signals. It goes on until [`end`](Self::end), or with the process.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: thread::JoinHandle<()>,
}

/// Calls `on_stop` on a thread of its own for every SIGTERM and SIGINT. From here on these signals
/// do not end the process by themselves.
pub fn watch(mut on_stop: impl FnMut(Stop) + Send + 'static) -> io::Result<SignalWatch> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stop = Stop::Drain;
        for _ in signals.forever() {
            on_stop(stop);
            stop = Stop::Now;
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
    /// Ends the watch and its thread. Waits for an `on_stop` that is running.
    pub fn end(self) {
        self.handle.close();
        // A panic in `on_stop` has been told by the thread that had it.
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
        let watch = watch(move |stop| heard.send(stop).expect("the test listens"))
            .expect("signals can be watched");
        for (signal, expected) in
            [(SIGTERM, Stop::Drain), (SIGINT, Stop::Now), (SIGTERM, Stop::Now)]
        {
            raise(signal).expect("a signal to ourselves");
            assert_eq!(stops.recv_timeout(Duration::from_secs(10)), Ok(expected));
        }
        watch.end();
        assert!(stops.recv().is_err(), "the thread has ended");
    }
}
