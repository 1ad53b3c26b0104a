//! HTTP by hand: what the tests say and hear is what is on the wire.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, socket, sockopt};
use serde_json::Value;
use tempfile::TempDir;

use crate::gate::{Gate, PATIENCE};

/// Where the admin API of a gate listens.
pub(crate) fn admin_of(gate: &Gate) -> SocketAddr {
    let line = gate.logged.iter().find(|line| line.contains("admin API on ")).expect("it is on");
    let after = line.split("admin API on ").nth(1).expect("found above");
    after.trim_end_matches(')').parse().expect("an address")
}

/// Starts a gateway with an admin API on a port of its own.
pub(crate) fn start(arguments: &[&str]) -> (Gate, SocketAddr) {
    let gate = Gate::start(&[&["--admin", "127.0.0.1:0"], arguments].concat());
    let admin = admin_of(&gate);
    let until = Instant::now() + PATIENCE;
    // The loop's first report comes right after it began to listen.
    while get(admin, "/healthz").status != 200 {
        assert!(Instant::now() < until, "the loop does not turn");
        std::thread::sleep(Duration::from_millis(10));
    }
    (gate, admin)
}

/// A token, and a file that holds it as long as its folder is kept.
pub(crate) const TOKEN: &str = "correct-horse-battery";

pub(crate) fn token_file() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("there is room");
    let path = file.to_str().expect("plain text").to_owned();
    (folder, path)
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The last word of a problem's type.
    pub(crate) fn problem(&self) -> String {
        let json = self.json();
        assert_eq!(json["status"], self.status, "{json}");
        assert!(self.head.contains("application/problem+json"), "{}", self.head);
        let kind = json["type"].as_str().expect("a type").rsplit(':').next();
        kind.expect("a word").to_owned()
    }
}

pub(crate) fn get(admin: SocketAddr, path: &str) -> Heard {
    ask(admin, "GET", path, &[], "")
}

pub(crate) fn post(admin: SocketAddr, path: &str, body: &str) -> Heard {
    ask(admin, "POST", path, &[], body)
}

pub(crate) fn ask(
    admin: SocketAddr,
    method: &str,
    path: &str,
    lines: &[&str],
    body: &str,
) -> Heard {
    let mut stream = connect(admin);
    let host = match lines.iter().any(|line| line.starts_with("Host:")) {
        true => String::new(),
        false => format!("Host: {admin}\r\n"),
    };
    let length = body.len();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n\
         {lines}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it listens");
    // Whoever refuses a body early closes while it is sent.
    let _ = stream.write_all(body.as_bytes());
    hear(stream)
}

pub(crate) fn connect(admin: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&admin, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream
}

/// Reads an answer to its end.
pub(crate) fn hear(stream: TcpStream) -> Heard {
    let mut reader = BufReader::new(stream);
    let (status, head) = read_head(&mut reader);
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        while let Some(piece) = read_chunk(&mut reader) {
            body.extend(piece);
        }
    } else {
        let _ = reader.read_to_end(&mut body);
    }
    Heard { status, head, body }
}

fn read_head(reader: &mut BufReader<TcpStream>) -> (u16, String) {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        let count = reader.read_line(&mut line).expect("an answer");
        if count == 0 || line == "\r\n" {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {head:?}")), head)
}

/// The next piece; `None` at the end of the answer, or of the connection.
fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let length = usize::from_str_radix(line.trim(), 16).expect("a length");
    let mut piece = vec![0; length + 2];
    reader.read_exact(&mut piece).ok()?;
    piece.truncate(length);
    (length > 0).then_some(piece)
}

/// One who follows a feed.
pub(crate) struct Follower {
    reader: BufReader<TcpStream>,
    unread: String,
    pub(crate) last_id: String,
}

/// What a feed says next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Event(Value),
    Reset(Value),
    /// Nothing came for a while.
    Nothing,
    End,
}

impl Follower {
    /// Follows from right behind `after`, or from now on where that is empty.
    pub(crate) fn start(admin: SocketAddr, path: &str, after: &str) -> Self {
        Self::try_start(admin, path, after).unwrap_or_else(|heard| panic!("{heard:?}"))
    }

    pub(crate) fn try_start(admin: SocketAddr, path: &str, after: &str) -> Result<Self, Heard> {
        Self::start_by(connect(admin), admin, path, after)
    }

    fn start_by(
        mut stream: TcpStream,
        admin: SocketAddr,
        path: &str,
        after: &str,
    ) -> Result<Self, Heard> {
        let id = match after {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let head = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{id}\r\n");
        stream.write_all(head.as_bytes()).expect("it listens");
        let mut reader = BufReader::new(stream);
        let (status, head) = read_head(&mut reader);
        if status != 200 {
            let mut body = Vec::new();
            let length = head.split("content-length: ").nth(1).expect("a short answer");
            let length = length.split("\r\n").next().and_then(|text| text.parse().ok());
            let length: u64 = length.expect("a number");
            reader.take(length).read_to_end(&mut body).expect("a body");
            return Err(Heard { status, head, body });
        }
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Ok(Self { reader, unread: String::new(), last_id: String::new() })
    }

    /// Has the kernel keep little of what is sent to it, so that a slow reader is felt at once.
    pub(crate) fn start_keeping_little(admin: SocketAddr, path: &str) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor");
        // Said before it connects: a window that was promised is not taken back.
        sockopt::set_socket_recv_buffer_size(&socket, 128 * 1_024).expect("an option");
        rustix::net::connect(&socket, &admin).expect("it listens");
        Self::start_by(socket.into(), admin, path, "").unwrap_or_else(|heard| panic!("{heard:?}"))
    }

    pub(crate) fn next(&mut self) -> Said {
        self.next_within(PATIENCE)
    }

    pub(crate) fn next_within(&mut self, patience: Duration) -> Said {
        self.reader.get_ref().set_read_timeout(Some(patience)).expect("not zero");
        let until = Instant::now() + patience;
        // Signs of life alone are nothing.
        while Instant::now() < until {
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let block = block.to_owned();
                self.unread = rest.to_owned();
                if let Some(said) = self.understand(&block) {
                    return said;
                }
            }
            // A chunk is read as a whole or not at all, as far as these tests go.
            match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Said::Nothing,
                // A read with a time limit is not taken up again by the kernel.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("{error}"),
                Ok([]) => return Said::End,
                Ok(_) => {}
            }
            match read_chunk(&mut self.reader) {
                Some(piece) => {
                    self.unread.push_str(std::str::from_utf8(&piece).expect("JSON is text"));
                }
                None => return Said::End,
            }
        }
        Said::Nothing
    }

    fn understand(&mut self, block: &str) -> Option<Said> {
        let mut is_reset = false;
        let mut said = None;
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last_id = id.to_owned(),
                Some(("event", "reset")) => is_reset = true,
                Some(("data", json)) => {
                    said = Some(serde_json::from_str(json).expect("one line of JSON"));
                }
                _ => assert!(line.starts_with(':'), "{line:?}"),
            }
        }
        said.map(|json| if is_reset { Said::Reset(json) } else { Said::Event(json) })
    }

    /// The events up to `kind`, or up to `count` of them.
    pub(crate) fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            match self.next() {
                Said::Event(event) => events.push(event),
                other @ (Said::Reset(_) | Said::Nothing | Said::End) => {
                    panic!("{other:?} after {events:?}")
                }
            }
        }
        events
    }
}
