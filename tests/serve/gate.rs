//! The built binary with its output caught, and a bare client to talk to it.

use std::cell::Cell;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound};
use serde_json::Value;

/// Nothing in these tests takes longer, unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// The driver of every server that this thread starts; `None`: as it is by itself.
    static DRIVER: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs a test with all of its servers on epoll.
pub(crate) fn on_epoll(test: fn()) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            DRIVER.set(None);
        }
    }
    let _reset = Reset;
    DRIVER.set(Some("epoll"));
    test();
}

/// A running `heartwheel serve` on a port of its own.
pub(crate) struct Gate {
    child: Child,
    unread: Option<ChildStdout>,
    pub(crate) address: SocketAddr,
    events: Receiver<Value>,
    logs: Receiver<String>,
    pub(crate) logged: Vec<String>,
}

impl Gate {
    /// Starts it with events on standard output, and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut gate = Self::start_unread(arguments);
        gate.read_events();
        gate
    }

    /// Reads the events from now on.
    pub(crate) fn read_events(&mut self) {
        let stdout = self.unread.take().expect("piped, and not read yet");
        let (event_in, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if event_in.send(event).is_err() {
                    return;
                }
            }
        });
        self.events = events;
    }

    /// The same, but nobody reads the events.
    pub(crate) fn start_unread(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
        command.arg("serve");
        Self::start_by(command, arguments)
    }

    /// Starts it by a command that becomes `heartwheel serve` with the arguments behind it, and
    /// waits until it listens. Nobody reads the events until `read_events`.
    pub(crate) fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        // Many machines begin with a soft limit of 1,024 files; a crowd needs more.
        heartwheel::os::machine::survey();
        for (flag, value) in [("--listen", "127.0.0.1:0"), ("--events", "-"), ("--admin", "off")] {
            if !arguments.contains(&flag) {
                command.args([flag, value]);
            }
        }
        if let Some(driver) = DRIVER.get() {
            command.env("HEARTWHEEL_DRIVER", driver);
        }
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let logs = lines_of(child.stderr.take().expect("piped"));
        let mut gate = Self {
            unread: child.stdout.take(),
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            events: channel().1,
            logs,
            logged: Vec::new(),
        };
        let line = gate.wait_for_log("listening on ");
        let after = line.split("listening on ").nth(1).expect("found above");
        let word = after.split_whitespace().next().expect("an address");
        gate.address = word.parse().expect("an address");
        if let Some(driver) = DRIVER.get() {
            let kernel = gate.logged.iter().find(|line| line.contains(" kernel "));
            assert!(kernel.is_some_and(|line| line.contains(driver)), "{:#?}", gate.logged);
        }
        gate
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next event, whatever it is.
    pub(crate) fn next_event(&self) -> Value {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(error) => panic!("no event: {error}"),
        }
    }

    /// The next event, if there is one within `patience`.
    pub(crate) fn try_event(&self, patience: Duration) -> Option<Value> {
        self.events.recv_timeout(patience).ok()
    }

    /// The next event of this kind.
    pub(crate) fn wait_for_event(&self, kind: &str) -> Value {
        loop {
            let event = self.next_event();
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// The next line of the log that contains `text`.
    pub(crate) fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.logs.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.logged.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} was not logged, but {:#?}", self.logged)
                }
            }
        }
    }

    /// Everything logged so far.
    pub(crate) fn take_logs(&mut self) -> Vec<String> {
        self.logged.extend(self.logs.try_iter());
        std::mem::take(&mut self.logged)
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Waits for the end; everything it still wrote can be read afterwards.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (line_in, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if line_in.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// One client on a blocking socket. It does what the test says and nothing by itself.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    pub(crate) deframer: Deframer,
    pub(crate) received: Vec<u8>,
}

/// What a caller heard, as far as tests ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Welcome {
        epoch: u64,
        interval_ms: u32,
        timeout_ms: u32,
        first_beat_ms: u32,
        /// Whether a session goes on, and the token with which it can.
        resumed: bool,
        resume: Vec<u8>,
    },
    Ping {
        at_once: bool,
    },
    Pong(Vec<u8>),
    Goaway {
        code: u16,
        reconnect_min_ms: u32,
        reconnect_max_ms: u32,
    },
    Error(u16),
    Other(String),
    Closed,
    Reset,
    Nothing,
}

impl Caller {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connects");
        stream.set_nodelay(true).expect("an option");
        Self { stream, deframer: Deframer::client_side(), received: Vec::new() }
    }

    /// Connects and says HELLO.
    pub(crate) fn hello(address: SocketAddr, client: &str) -> Self {
        let mut caller = Self::connect(address);
        caller.say_hello(client, "", 0);
        caller
    }

    /// Connects, says HELLO and hears WELCOME.
    pub(crate) fn login(address: SocketAddr, client: &str) -> Self {
        let mut caller = Self::hello(address, client);
        let heard = caller.hear();
        assert!(matches!(heard, Heard::Welcome { .. }), "{client}: {heard:?}");
        caller
    }

    pub(crate) fn say_hello(&mut self, client_id: &str, class: &str, wanted_interval_ms: u32) {
        self.send(&hello(client_id, class, wanted_interval_ms));
    }

    pub(crate) fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        self.send(&bytes);
    }

    /// A beat that wants no answer.
    pub(crate) fn beat(&mut self) {
        self.say(&Message::Ping { reply: Reply::NotWanted, payload: &[] });
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // A peer that closed already is seen by `hear`.
        let _ = self.stream.write_all(bytes);
    }

    /// The next thing heard, however long it takes.
    pub(crate) fn hear(&mut self) -> Heard {
        let heard = self.hear_within(PATIENCE);
        assert_ne!(heard, Heard::Nothing, "the server says nothing");
        heard
    }

    /// The next thing heard within `patience`.
    pub(crate) fn hear_within(&mut self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(heard) = self.next_received() {
                return heard;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).expect("not zero");
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::Closed,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::Reset,
                // A read with a time limit is not taken up again by the kernel.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn next_received(&mut self) -> Option<Heard> {
        let mut rest = self.received.as_slice();
        let inbound = self.deframer.next(&mut rest, 65_535).expect("the server speaks well");
        let heard = inbound.map(|inbound| match inbound {
            Inbound::Message(message) => heard(&message),
            Inbound::Preface(_) | Inbound::Skipped { .. } => Heard::Other(format!("{inbound:?}")),
        });
        self.received = rest.to_vec();
        heard
    }
}

/// Preface and HELLO.
pub(crate) fn hello(client_id: &str, class: &str, wanted_interval_ms: u32) -> Vec<u8> {
    hello_with(client_id, class, wanted_interval_ms, "")
}

/// The preface, and HELLO with a token.
pub(crate) fn hello_with(
    client_id: &str,
    class: &str,
    wanted_interval_ms: u32,
    token: &str,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms,
        client_id,
        class,
        token: token.as_bytes(),
        resume: &[],
        last_seq: 0,
        before: None,
    };
    native::encode(&hello, &mut bytes);
    bytes
}

pub(crate) fn heard(message: &Message<'_>) -> Heard {
    match *message {
        Message::Welcome {
            epoch, interval_ms, timeout_ms, first_beat_ms, resumed, resume, ..
        } => {
            let resume = resume.to_vec();
            Heard::Welcome { epoch, interval_ms, timeout_ms, first_beat_ms, resumed, resume }
        }
        Message::Ping { reply, .. } => Heard::Ping { at_once: reply == Reply::AtOnce },
        Message::Pong { payload } => Heard::Pong(payload.to_vec()),
        Message::Goaway { code, reconnect_min_ms, reconnect_max_ms, .. } => {
            Heard::Goaway { code, reconnect_min_ms, reconnect_max_ms }
        }
        Message::Error { code, .. } => Heard::Error(code),
        Message::Hello { .. }
        | Message::Data { .. }
        | Message::Ack { .. }
        | Message::Bye { .. }
        | Message::Beat { .. } => Heard::Other(format!("{message:?}")),
    }
}
