//! Std sockets and the clock around the machine: a client for threads that may wait.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use crate::base::limits;
use crate::base::time::Span;
use crate::client::machine::Machine;
use crate::client::news::{Action, News, Profile, SendError};
use crate::os::clock::Clock;
use crate::os::pause::pause;
use crate::wire::error::Unsayable;
use crate::wire::message::{AckWanted, EndedBy};

/// A client that blocks the thread that asks it.
///
/// It beats, answers and reconnects only inside [`wait`](Self::wait), so wait often: more often
/// than the interval.
///
/// ```no_run
/// use heartwheel::base::ids::ClientId;
/// use heartwheel::base::time::Span;
/// use heartwheel::client::{Client, Profile};
///
/// let profile = Profile::new(ClientId::new("device-7")?);
/// let mut client = Client::new("127.0.0.1:7070", profile)?;
/// while !client.is_ended() {
///     if let Some(news) = client.wait(Span::from_secs(1)) {
///         println!("{news:?}");
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    machine: Machine,
    clock: Clock,
    home: String,
    stream: Option<TcpStream>,
    /// Why the network failed us the last time.
    fault: Option<io::Error>,
    output: Vec<u8>,
    input: Box<[u8]>,
}

/// What came of listening.
enum Listened {
    Something,
    Nothing,
}

/// Bytes read at once.
const INPUT_BYTES: usize = 4 * 1_024;
/// Reads in a row before time is looked at, so that a busy server cannot keep us from beating.
const READS_MAX: u32 = 64;
/// Addresses tried of a name that has many.
const ADDRESSES_MAX: usize = 4;
/// Shortest wait: zero would mean for ever.
const WAIT_MIN: Span = Span::from_millis(1);

impl Client {
    /// A client whose server is at `home`, `host:port`. Connects in the first [`wait`](Self::wait).
    /// An error says which field of the profile is too long.
    pub fn new(home: impl Into<String>, profile: Profile) -> Result<Self, Unsayable> {
        Ok(Self {
            machine: Machine::new(profile, fastrand::u64(..))?,
            clock: Clock::new(),
            home: home.into(),
            stream: None,
            fault: None,
            output: Vec::new(),
            input: vec![0; INPUT_BYTES].into(),
        })
    }

    /// The next thing to tell, or `None` when there was none for so long, or when it is over
    /// ([`is_ended`](Self::is_ended)). Waits longer than asked only while it connects.
    pub fn wait(&mut self, patience: Span) -> Option<News> {
        let end = self.clock.now() + patience;
        let mut reads = 0;
        loop {
            self.settle();
            if let Some(news) = self.machine.take_news() {
                return Some(news);
            }
            let wake = self.machine.next_wake()?;
            let listened = self.listen(wake.min(end).since(self.clock.now()));
            reads += 1;
            // Whoever was asleep for long finds the server's answer unread: read first, judge then.
            match listened {
                Listened::Something if reads % READS_MAX != 0 => continue,
                Listened::Something | Listened::Nothing => self.machine.on_time(self.clock.now()),
            }
            if self.clock.now() >= end {
                self.settle();
                return self.machine.take_news();
            }
        }
    }

    /// Sends a message; its number.
    pub fn send(&mut self, topic: &str, body: &[u8], ack: AckWanted) -> Result<u32, SendError> {
        let seq = self.machine.try_send(topic, body, ack)?;
        self.settle();
        Ok(seq)
    }

    /// Beats now, and not again for an interval. Nothing happens without a session.
    pub fn beat(&mut self) {
        self.machine.beat(self.clock.now());
        self.settle();
    }

    /// Leaves on purpose, for good.
    pub fn bye(mut self) {
        self.machine.bye();
        self.settle();
    }

    /// Whether there is a session.
    pub const fn is_live(&self) -> bool {
        self.machine.is_live()
    }

    /// Whether the server told us to stay away.
    pub const fn is_ended(&self) -> bool {
        self.machine.is_ended()
    }

    /// Why the network failed us the last time, if it has.
    pub const fn fault(&self) -> Option<&io::Error> {
        self.fault.as_ref()
    }

    /// Does what the machine wants done, until it wants nothing more.
    fn settle(&mut self) {
        loop {
            self.machine.take_output(&mut self.output);
            self.flush();
            match self.machine.take_action() {
                Some(Action::Connect { address }) => self.connect(address.as_deref()),
                Some(Action::Close) => self.close(),
                None => return,
            }
        }
    }

    fn flush(&mut self) {
        let written = match &mut self.stream {
            Some(stream) => stream.write_all(&self.output),
            None => Ok(()),
        };
        self.output.clear();
        if let Err(fault) = written {
            self.lose(Some(fault));
        }
    }

    fn connect(&mut self, address: Option<&str>) {
        match open(address.unwrap_or(&self.home)) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.fault = None;
                self.machine.on_connected(self.clock.now());
            }
            Err(fault) => self.lose(Some(fault)),
        }
    }

    /// Closes without a reset: what lies here unread would turn the end into one, and a reset can
    /// overtake our BYE.
    fn close(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        if stream.set_nonblocking(true).is_ok() {
            for _ in 0..READS_MAX {
                match stream.read(&mut self.input) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
        }
    }

    /// The connection is gone; without a fault the server closed it.
    fn lose(&mut self, fault: Option<io::Error>) {
        let ended_by = match fault.as_ref().map(io::Error::kind) {
            None | Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                EndedBy::Server
            }
            Some(_) => EndedBy::Client,
        };
        self.stream = None;
        self.fault = fault;
        self.machine.on_disconnected(ended_by, self.clock.now());
    }

    /// Waits for bytes, at most so long.
    fn listen(&mut self, span: Span) -> Listened {
        let Some(stream) = &mut self.stream else {
            pause(span);
            return Listened::Nothing;
        };
        let read = stream
            .set_read_timeout(Some(span.max(WAIT_MIN).into()))
            .and_then(|()| stream.read(&mut self.input));
        match read {
            Ok(0) => self.lose(None),
            Ok(count) => {
                let (bytes, _) = self.input.split_at(count);
                self.machine.on_received(bytes, self.clock.now());
            }
            Err(fault) if is_no_fault(&fault) => return Listened::Nothing,
            Err(fault) => self.lose(Some(fault)),
        }
        Listened::Something
    }
}

/// A connection to one of the addresses that `home` stands for.
fn open(home: &str) -> io::Result<TcpStream> {
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in home.to_socket_addrs()?.take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(&address, limits::HANDSHAKE_TIMEOUT.into()) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(limits::HANDSHAKE_TIMEOUT.into()))?;
                return Ok(stream);
            }
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// Whether reading ended only because time did, or a signal came.
fn is_no_fault(fault: &io::Error) -> bool {
    matches!(
        fault.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Mode;
    use crate::base::ids::ClientId;
    use crate::client::Loss;
    use crate::wire::message::{Message, Reply};
    use crate::wire::native::{self, Deframer, Inbound};
    use std::net::TcpListener;
    use std::thread;

    fn client(home: String) -> Client {
        Client::new(home, Profile::new(ClientId::new("device-7").unwrap())).unwrap()
    }

    fn answer(stream: &mut TcpStream, message: &Message<'_>) {
        let mut out = Vec::new();
        native::encode(message, &mut out);
        stream.write_all(&out).unwrap();
    }

    /// Serves one connection: welcomes, answers so many beats, then says `last`. What it heard
    /// until the client closed, but for beats beyond: how many there are is up to the machine.
    fn serve(listener: &TcpListener, beats: usize, last: &Message<'_>) -> Vec<String> {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut deframer, mut heard) = (Deframer::server_side(), Vec::new());
        let mut input = [0; 256];
        loop {
            let count = stream.read(&mut input).unwrap();
            if count == 0 {
                return heard;
            }
            let mut bytes = &input[..count];
            while let Some(inbound) = deframer.next(&mut bytes, 1_012).unwrap() {
                let Inbound::Message(message) = inbound else { continue };
                let beaten = heard.iter().filter(|said| *said == "Ping").count();
                if matches!(message, Message::Ping { .. }) && beaten == beats {
                    continue;
                }
                heard.push(format!("{message:?}").split(' ').next().unwrap().to_owned());
                if let Message::Hello { .. } = message {
                    answer(&mut stream, &WELCOME);
                }
                if let Message::Ping { reply: Reply::Wanted, payload } = message {
                    answer(&mut stream, &Message::Pong { payload });
                    if beaten + 1 == beats {
                        answer(&mut stream, last);
                    }
                }
            }
        }
    }

    const WELCOME: Message<'static> = Message::Welcome {
        version: 1,
        mode: Mode::Client,
        resumed: false,
        epoch: 9,
        interval_ms: 60,
        timeout_ms: 5_000,
        first_beat_ms: 10,
        payload_max: 1_024,
        server_unix_ms: 0,
        resume: &[],
    };

    #[test]
    fn a_session_over_real_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = client(listener.local_addr().unwrap().to_string());
        let server = thread::spawn(move || {
            let goaway = Message::Goaway {
                code: 101,
                reconnect_min_ms: 1,
                reconnect_max_ms: 30,
                address: "",
                text: "drain",
            };
            let data = Message::Data { seq: 1, ack: AckWanted::Yes, topic: "t", body: b"x" };
            [serve(&listener, 3, &goaway), serve(&listener, 1, &data)]
        });
        let mut news = Vec::new();
        while !matches!(news.last(), Some(News::Data { .. })) {
            news.push(client.wait(Span::from_secs(5)).expect("there is news within 5 s"));
        }
        assert_eq!(client.send("up", b"y", AckWanted::No), Ok(1));
        client.bye();
        let [first, second] = server.join().unwrap();
        assert_eq!(first, ["Hello", "Ping", "Ping", "Ping"]);
        assert_eq!(second, ["Hello", "Ping", "Ack", "Data", "Bye"]);
        let words: Vec<String> = news
            .iter()
            .map(|news| format!("{news:?}").split(' ').next().unwrap().to_owned())
            .collect();
        let expected = ["Welcome", "Pong", "Pong", "Pong", "Goaway", "Welcome", "Pong", "Data"];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_port_where_nobody_listens_is_told_with_its_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let home = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut client = client(home);
        let news = client.wait(Span::from_secs(5));
        assert!(matches!(news, Some(News::Lost { loss: Loss::Unreachable, .. })), "{news:?}");
        let fault = client.fault().expect("the fault is kept");
        assert_eq!(fault.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = client(listener.local_addr().unwrap().to_string());
        let start = Clock::new().now();
        assert_eq!(client.wait(Span::from_millis(100)), None);
        let waited = Clock::new().now().since(start);
        assert!(waited >= Span::from_millis(100), "{waited}");
        assert!(waited < Span::from_secs(5), "{waited}");
    }
}
