//! `heartwheel demo` as a person sees it, and as a script does.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A demo that runs, with somebody at its keyboard.
struct Demo {
    child: Child,
    keyboard: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(words: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .arg("demo")
            .args(words.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (heard, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        let keyboard = child.stdin.take();
        Self { child, keyboard, lines, seen: Vec::new() }
    }

    fn enter(&mut self, line: &str) {
        writeln!(self.keyboard.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line that contains `words`.
    fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{words:?} was never said, but this: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= deadline {
                self.child.kill().unwrap();
                panic!("the demo does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_silenced_client_goes_offline_and_comes_back() {
    let mut demo = Demo::start("--clients 10 --interval 500ms --timeout 2s");
    for number in 1..=10 {
        demo.wait_for(&format!("online   {number}"));
    }
    demo.wait_for("10 clients are online");
    demo.enter("7");
    demo.wait_for("client 7 falls silent");
    let offline = demo.wait_for("offline");
    assert!(offline.contains("offline  7  heartbeat_timeout, last beat "), "{offline}");
    demo.enter("l");
    demo.wait_for("online  9: 1-6, 8-10");
    demo.wait_for("offline 1: 7");
    demo.enter("+7");
    demo.wait_for("client 7 comes back");
    demo.wait_for("online   7");
    demo.enter("99");
    demo.wait_for("type 1 to 10");
    demo.enter("0");
    demo.wait_for("the end; 10 of 10 clients came; found dead: 1");
    assert!(demo.end().success());
}

#[test]
fn without_anybody_at_the_keyboard_it_ends_with_the_input_or_its_time() {
    let began = Instant::now();
    let mut demo = Demo::start("--clients 5");
    drop(demo.keyboard.take());
    demo.wait_for("5 clients are online");
    demo.wait_for("the end; 5 of 5 clients came; found dead: 0");
    assert!(demo.end().success());

    let mut demo = Demo::start("--clients 5 --for 4s");
    drop(demo.keyboard.take());
    demo.wait_for("the end");
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert!(demo.end().success());
}
