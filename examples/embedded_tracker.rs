//! The tracker in somebody else's server: an ordinary threaded TCP server that wants to know which
//! of its clients are online.
//!
//! What is usual is a dictionary of last-heartbeat times under a lock, and a thread that walks it
//! once a second. Here the thread that receives the beats owns a [`Presence`] and sleeps until the
//! next deadline: no lock, no walk, and a silent client is noticed within ten milliseconds.
//!
//! Run it with `cargo run --example embedded_tracker`; it ends after about a second.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use heartwheel::base::time::{Moment, Span};
use heartwheel::tracker::{Offline, Presence, PresenceConfig, Progress};

const INTERVAL: Duration = Duration::from_millis(60);
const TIMEOUT: Duration = Duration::from_millis(200);

/// What a line of a client says.
enum Said {
    Beat(String),
    Bye(String),
}

fn main() -> std::io::Result<()> {
    for line in run()? {
        println!("{line}");
    }
    Ok(())
}

/// Serves three clients until all are gone, and tells who came and who went.
pub(crate) fn run() -> std::io::Result<Vec<String>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (said, heard) = mpsc::channel();
    thread::spawn(move || accept(&listener, &said));

    let clients = [
        thread::spawn(move || client(address, "polite", 5, Some("bye"))),
        thread::spawn(move || client(address, "steady", 9, Some("bye"))),
        thread::spawn(move || client(address, "silent", 3, None)), // its socket stays open
    ];
    let story = watch(&heard, clients.len());
    for client in clients {
        client.join().expect("a client does not panic")?;
    }
    Ok(story)
}

/// The thread that knows who is online.
fn watch(heard: &Receiver<Said>, clients: usize) -> Vec<String> {
    let started = Instant::now();
    let now = || Moment::ZERO + Span::from(started.elapsed());
    let mut presence = Presence::new(PresenceConfig {
        timeout: Span::from(TIMEOUT),
        tick: Span::from_millis(10),
        clients_max: 10_000,
        hash_key: [0x5eed, 0xfeed], // random, where clients are strangers
        start: now(),
    });
    let mut story = Vec::new();
    let (mut gone, mut told) = (Vec::new(), 0);
    while gone.len() < clients {
        // Sleep until somebody speaks or the next deadline comes.
        let sleep = presence.next_wake().map_or(Duration::MAX, |at| at.since(now()).into());
        let first = match heard.recv_timeout(sleep) {
            Ok(said) => Some(said),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        // First all that was said, and only then the verdicts: nobody is judged whose beat waits.
        for said in first.into_iter().chain(heard.try_iter()) {
            match said {
                Said::Beat(client) => match presence.beat(&client, now()) {
                    Ok(Some(online)) => story.push(format!("{} is online", online.client)),
                    Ok(None) => {}
                    Err(error) => story.push(format!("{client:?} was refused: {error}")),
                },
                Said::Bye(client) => gone.extend(presence.leave(&client, now())),
            }
        }
        while presence.advance(now(), &mut gone) == Progress::More {}
        story.extend(gone[told..].iter().map(offline_line));
        told = gone.len();
    }
    story
}

fn offline_line(offline: &Offline) -> String {
    let Offline { client, reason, last_beat } = offline;
    format!("{client} is offline: {reason}, last heard at {} ms", last_beat.as_millis())
}

/// The server's other threads: one accepts, one reads for each connection.
fn accept(listener: &TcpListener, said: &Sender<Said>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let said = said.clone();
        thread::spawn(move || read(stream, &said));
    }
}

fn read(stream: TcpStream, said: &Sender<Said>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let message = match line.split_once(' ') {
            Some(("beat", client)) => Said::Beat(client.to_owned()),
            Some(("bye", client)) => Said::Bye(client.to_owned()),
            Some(_) | None => return,
        };
        if said.send(message).is_err() {
            return;
        }
    }
}

/// A client that beats a few times, and says a last word or none.
fn client(
    address: SocketAddr,
    name: &str,
    beats: u32,
    last_word: Option<&str>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    for _ in 0..beats {
        writeln!(stream, "beat {name}")?;
        thread::sleep(INTERVAL);
    }
    match last_word {
        Some(word) => writeln!(stream, "{word} {name}"),
        None => {
            thread::sleep(TIMEOUT * 2);
            Ok(())
        }
    }
}
