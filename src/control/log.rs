//! The log on standard error.
//!
//! Lines are handed to a thread of their own: whoever reads standard error may be slow or asleep,
//! and the loop does not wait for anybody. What does not fit into the queue is counted and dropped.

use std::fmt::{Display, Formatter};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::base::limits;
use crate::base::time::Span;

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// For programs: one JSON object a line.
    Json,
}

/// What the log leaves out: everything less urgent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogLevel {
    /// Everything.
    Off,
    /// What went wrong.
    Error,
    /// And what might.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And what a developer wants to know: every client that comes or goes.
    Debug,
    /// And the rest.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// The running log. Keep it until the end, and [`flush`](Self::flush) it then.
#[derive(Clone, Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    /// `None`: nothing is left out.
    level: Option<reload::Handle<LevelFilter, Registry>>,
}

/// Why the log did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The machine gives no further thread.
    #[error("no thread for the log: {cause}")]
    Thread {
        /// What it said.
        cause: io::Error,
    },
    /// The process has a log already: it belongs to whoever embeds this crate.
    #[error("this process has a log already")]
    Already,
}

/// Starts the log of this process on standard error. Once only: the log belongs to the process.
pub fn start(format: LogFormat, level: LogLevel) -> Result<Log, LogError> {
    let ansi = io::stderr().is_terminal();
    let mut log = Log::to_output(Box::new(io::stderr()), format)?;
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    log.level = Some(handle);
    let lines = fmt::layer().with_writer(log.clone()).with_target(false).with_ansi(ansi);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Human => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|_| LogError::Already)?;
    Ok(log)
}

/// What a stranger has chosen, as the value of a field: in quotes and escaped where it could be
/// taken for more than that, or would steer a terminal.
pub(crate) struct Strange<'a>(pub(crate) &'a str);

impl Display for Strange<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let is_plain = |sign: char| sign.is_alphanumeric() || "-_.:/@+~#*".contains(sign);
        match self.0.chars().all(is_plain) {
            true => f.write_str(self.0),
            false => write!(f, "{:?}", self.0),
        }
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Log {
    /// Waits until everything said so far is written, at most for `patience`.
    pub fn flush(&self, patience: Span) {
        let (done, written) = sync_channel(1);
        // A full queue has a reader who sleeps: what waits in it is lost with the process.
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from(patience));
        }
    }

    /// Leaves out what `level` says from now on.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(handle) = &self.level {
            // It fails when the log is gone, and then nobody reads it.
            let _ = handle.reload(LevelFilter::from(level));
        }
    }

    fn to_output(output: Box<dyn Write + Send>, format: LogFormat) -> Result<Self, LogError> {
        let (queue, messages) = sync_channel(limits::LOG_LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Self { queue, lost: Arc::clone(&lost), level: None };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_messages(&messages, &lost, output, format))
            .map_err(|cause| LogError::Thread { cause })?;
        Ok(log)
    }

    fn take(&self, line: &[u8]) {
        match self.queue.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Writes until nobody can say anything any more. Errors are not told to anybody: this is where
/// they would be told.
fn write_messages(
    messages: &Receiver<Message>,
    lost: &AtomicU64,
    mut output: Box<dyn Write + Send>,
    format: LogFormat,
) {
    for message in messages {
        match message {
            Message::Line(line) => {
                let _ = output.write_all(&line);
                let lines = lost.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    let _ = output.write_all(lost_line(lines, format).as_bytes());
                }
            }
            Message::Flush(done) => {
                let _ = output.flush();
                let _ = done.try_send(());
            }
        }
    }
}

fn lost_line(lines: u64, format: LogFormat) -> String {
    match format {
        LogFormat::Human => format!("{lines} lines of the log were lost: too many at once\n"),
        LogFormat::Json => {
            format!(
                "{{\"level\":\"WARN\",\"message\":\"lines of the log were lost\",\
                 \"lines\":{lines}}}\n"
            )
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogWriter<'a>;

    fn make_writer(&'a self) -> LogWriter<'a> {
        LogWriter { log: self }
    }
}

/// Takes one event of the log, which arrives in one piece.
#[derive(Debug)]
pub struct LogWriter<'a> {
    log: &'a Log,
}

impl Write for LogWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Passes on what it is given, each time after the test allowed it.
    struct Gated {
        allowed: Receiver<()>,
        given: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.allowed.recv();
            let _ = self.given.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_stranger_has_chosen_is_one_value() {
        for (text, expected) in [
            ("till-12", "till-12"),
            ("büro/3.a@host:1", "büro/3.a@host:1"),
            ("", ""),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\"b", r#""a\"b""#),
            ("a\\b", r#""a\\b""#),
            ("\u{202e}a\u{2028}", r#""\u{202e}a\u{2028}""#),
            ("a\nb", r#""a\nb""#),
        ] {
            assert_eq!(Strange(text).to_string(), expected);
        }
    }

    #[test]
    fn a_reader_who_sleeps_costs_lines_and_never_time() {
        let (allow, allowed) = channel();
        let (given, seen) = channel();
        let log =
            Log::to_output(Box::new(Gated { allowed, given }), LogFormat::Human).expect("a thread");
        let lines = 2 * limits::LOG_LINES_WAITING_MAX;
        for _ in 0..lines {
            log.take(b"line\n"); // returns although nobody has read a single one
        }
        drop(allow);
        log.flush(Span::from_secs(10));
        // The flush may have found the queue full; one more line makes the thread tell the count.
        while log.queue.try_send(Message::Line(b"last\n".to_vec())).is_err() {
            thread::yield_now();
        }
        log.flush(Span::from_secs(10));
        drop(log);
        let all: Vec<u8> = seen.iter().flatten().collect();
        let all = String::from_utf8(all).expect("lines are text");
        let written = all.matches("line\n").count();
        let lost: usize = all
            .lines()
            .filter_map(|line| line.strip_suffix(" lines of the log were lost: too many at once"))
            .map(|count| count.parse::<usize>().expect("a number"))
            .sum();
        assert_eq!(written + lost, lines);
        assert!(written >= limits::LOG_LINES_WAITING_MAX);
        assert!(lost > 0);
    }

    #[test]
    fn lost_lines_are_told_in_the_format_of_the_log() {
        let text = lost_line(7, LogFormat::Json);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["lines"], 7);
        assert!(lost_line(7, LogFormat::Human).starts_with("7 lines"));
    }

    #[test]
    fn a_flush_waits_for_what_was_said() {
        let (allow, allowed) = channel();
        let (given, seen) = channel();
        let log =
            Log::to_output(Box::new(Gated { allowed, given }), LogFormat::Human).expect("a thread");
        drop(allow);
        log.take(b"one\n");
        log.take(b"two\n");
        log.flush(Span::from_secs(10));
        let all: Vec<_> = seen.try_iter().flatten().collect();
        assert_eq!(all, b"one\ntwo\n");
    }

    #[test]
    fn a_flush_has_an_end_even_if_the_reader_sleeps() {
        let (_allow, allowed) = channel();
        let (given, _seen) = channel();
        let log =
            Log::to_output(Box::new(Gated { allowed, given }), LogFormat::Human).expect("a thread");
        log.take(b"one\n");
        log.flush(Span::from_millis(20));
    }
}
