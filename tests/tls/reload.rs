//! Another certificate while the gateway runs.

use std::fs;
use std::process::Command;

use heartwheel::wire::message::{Message, Reply};
use rustls::version::TLS13;

use crate::gate::{Gate, Heard};
use crate::papers::Papers;
use crate::secured::Secured;
use crate::start;

fn shown(gate: &Gate, papers: &Papers, client: &str) -> (Secured, Vec<u8>) {
    let secured = Secured::login(gate.address, &papers.client(&[&TLS13], None), client);
    let chain = secured.stream.conn.peer_certificates().expect("it was shown");
    let first = chain[0].to_vec();
    (secured, first)
}

#[test]
fn newcomers_see_another_certificate_and_nobody_is_dropped() {
    let papers = Papers::new();
    let mut gate = start(&papers, &[]);
    let first = papers.seen("gate");
    let (mut before, seen) = shown(&gate, &papers, "before");
    assert_eq!(seen, first.to_vec());

    fs::write(papers.at("gate.pem"), "no certificate").expect("there is room");
    gate.signal("HUP");
    let line = gate.wait_for_log("nothing changed");
    assert!(line.contains("tls-cert") && line.contains("holds no certificate"), "{line}");
    let (_meanwhile, seen) = shown(&gate, &papers, "meanwhile");
    assert_eq!(seen, first.to_vec(), "the old one is still good");

    papers.issue("gate", &["localhost", "other.example"]);
    gate.signal("HUP");
    gate.wait_for_log("tls-cert (content)");
    let (_after, seen) = shown(&gate, &papers, "after");
    assert_eq!(seen, papers.seen("gate").to_vec());
    assert_ne!(seen, first.to_vec());
    before.say(&Message::Ping { reply: Reply::Wanted, payload: b"12345678" });
    assert_eq!(before.hear(), Heard::Pong(b"12345678".to_vec()), "it was not dropped");

    gate.signal("HUP");
    gate.wait_for_log("reloaded: nothing changed");
}

#[test]
fn files_that_are_of_no_use_end_the_start_with_one_line() {
    let (papers, others) = (Papers::new(), Papers::new());
    let mixed = others.path("gate.key");
    let (cert, key) = (papers.path("gate.pem"), papers.path("gate.key"));
    for (flags, code, words) in [
        (vec!["--tls-cert", &cert], 2, "tls-cert needs tls-key"),
        (vec!["--tls-cert", "/no/file", "--tls-key", &key], 1, "tls-cert: cannot read /no/file"),
        (vec!["--tls-cert", &cert, "--tls-key", &mixed], 1, "is not the key of tls-cert"),
        (vec!["--tls-cert", &key, "--tls-key", &key], 1, "holds no certificate"),
        (vec!["--tls-cert", &cert, "--tls-key", &cert], 1, "holds no private key"),
        (vec!["--tls-only", "on"], 2, "tls-only needs tls-cert"),
    ] {
        for command in ["serve", "check-config"] {
            let mut run = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
            let listen = ["--listen", "127.0.0.1:0", "--admin", "off"];
            let output = run.arg(command).args(listen).args(&flags).output().expect("it runs");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = told.lines().filter(|line| line.contains("tls-")).collect();
            assert_eq!(lines.len(), 1, "{command} {flags:?}: {told}");
            assert!(lines[0].contains(words), "{command} {flags:?}: {told}");
            let code = if command == "serve" { code } else { 2 };
            assert_eq!(output.status.code(), Some(code), "{command} {flags:?}: {told}");
        }
    }
}
