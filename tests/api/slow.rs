//! Whoever is slow at the admin API keeps nobody out, by hand and by a tool that is made for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gate::{Caller, Heard as Word};
use crate::http::{Follower, Said, connect, get, start, token_file};

/// More than there are places.
const CROWD: usize = 200;

/// A connection that has said this so far.
fn begin(admin: SocketAddr, text: &str) -> TcpStream {
    let mut stream = connect(admin);
    // One that is sent away at once is as good.
    let _ = stream.write_all(text.as_bytes());
    stream
}

/// How long an answer took.
fn asked(admin: SocketAddr, path: &str, status: u16) -> Duration {
    let began = Instant::now();
    assert_eq!(get(admin, path).status, status, "{path}");
    began.elapsed()
}

/// All places are taken by connections that say half a word, and again as soon as one is free: a
/// probe is answered all the same, at once and not when they are given up.
#[test]
fn a_crowd_that_says_half_a_word_keeps_no_probe_out() {
    let (_folder, file) = token_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    for begun in [
        "",
        "GET /healthz HT",
        "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
        // Answered, and kept for another question.
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut crowd: Vec<_> = (0..CROWD).map(|_| begin(admin, begun)).collect();
        for _ in 0..20 {
            let took = asked(admin, "/healthz", 200);
            // Half of what a head or a body may take.
            assert!(took < Duration::from_millis(2_500), "{begun:?}: {took:?}");
            crowd.push(begin(admin, begun));
        }
        assert_eq!(get(admin, "/v1/stats").status, 401, "{begun:?}");
    }
}

/// Whoever may ask keeps its place, whatever comes.
#[test]
fn a_crowd_takes_no_place_from_whoever_may_ask() {
    let (gate, admin) = start(&[]);
    let mut follower = Follower::start(admin, "/v1/events", "");
    let mut idle = connect(admin);
    let head = format!("GET /v1/stats HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    idle.write_all(head.as_bytes()).expect("it listens");
    let mut first = [0; 15];
    idle.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let _crowd: Vec<_> = (0..CROWD).map(|_| begin(admin, "GET /")).collect();
    let _anna = Caller::login(gate.address, "anna");
    loop {
        match follower.next() {
            Said::Event(event) if event["client"] == "anna" => break,
            Said::Event(_) => {}
            other @ (Said::Reset(_) | Said::Nothing | Said::End) => panic!("{other:?}"),
        }
    }
    idle.write_all(head.as_bytes()).expect("it is still there");
    let mut answers = String::new();
    while !answers.contains("HTTP/1.1 200 OK") {
        let mut bytes = [0; 4_096];
        let count = idle.read(&mut bytes).expect("it answers");
        assert!(count > 0, "it was sent away after {answers:?}");
        answers.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

/// Ends with its owner, whatever becomes of the test.
struct Tool {
    name: &'static str,
    child: Child,
}

impl Tool {
    fn start(admin: SocketAddr, name: &'static str, words: &[&str]) -> Self {
        let child = Command::new("slowhttptest")
            .args(words)
            .args(["-c", "300", "-r", "100", "-l", "12", "-p", "3"])
            .args(["-u", &format!("http://{admin}/dashboard/main.js")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("slowhttptest is installed, as the README asks");
        Self { name, child }
    }

    /// What it printed.
    fn finish(mut self) -> String {
        let mut text = String::new();
        let mut output = self.child.stdout.take().expect("piped");
        output.read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("our own child");
        assert!(status.success(), "{}: {status}\n{text}", self.name);
        text
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Slow heads (slowloris), slow bodies and slow readers at once, 900 connections: the tool itself
/// finds the service available at each of its looks, and so do we; no client is lost meanwhile.
#[test]
fn slowhttptest_finds_the_api_available_at_every_look() {
    let (gate, admin) =
        start(&["--interval", "300ms", "--timeout", "2s", "--min-interval", "100ms"]);
    let mut callers: Vec<_> =
        (0..20).map(|n| Caller::login(gate.address, &format!("beats-{n}"))).collect();
    let tools = [
        Tool::start(admin, "slow heads", &["-H", "-i", "2", "-x", "24"]),
        Tool::start(admin, "slow bodies", &["-B", "-i", "2", "-s", "8192", "-x", "10"]),
        Tool::start(
            admin,
            "slow readers",
            &["-X", "-w", "10", "-y", "20", "-n", "2", "-z", "32", "-k", "3"],
        ),
    ];
    let until = Instant::now() + Duration::from_secs(11);
    let (mut looks, mut longest) = (0, Duration::ZERO);
    while Instant::now() < until {
        callers.iter_mut().for_each(Caller::beat);
        longest = longest.max(asked(admin, "/healthz", 200));
        looks += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{looks} probes of ours meanwhile, the slowest answered after {longest:?}");
    assert!(looks > 20 && longest < Duration::from_millis(2_500), "{looks}: {longest:?}");
    let offline = std::iter::from_fn(|| gate.try_event(Duration::from_millis(10)))
        .find(|event| event["event"] == "offline");
    assert_eq!(offline, None, "nobody is lost");
    for caller in &mut callers {
        caller.say(&heartwheel::wire::message::Message::Ping {
            reply: heartwheel::wire::message::Reply::Wanted,
            payload: b"x",
        });
        assert_eq!(caller.hear(), Word::Pong(b"x".to_vec()));
    }
    for tool in tools {
        let name = tool.name;
        let text = tool.finish();
        // In colours, so the words stand between signs that steer a terminal.
        let looks = text.lines().filter(|line| line.contains("service available:"));
        let seen: Vec<&str> =
            looks.map(|line| if line.contains("YES") { "YES" } else { "NO" }).collect();
        println!("{name}: available {seen:?}");
        assert!(!seen.is_empty() && seen.iter().all(|word| *word == "YES"), "{name}: {text}");
    }
}
