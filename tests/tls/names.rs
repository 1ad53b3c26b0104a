//! Certificates of clients, and the ids in them.

use std::process::Command;

use heartwheel::base::limits;
use rustls::version::{TLS12, TLS13};

use crate::gate::{Caller, Gate, Heard, hello};
use crate::papers::Papers;
use crate::secured::Secured;
use crate::start;

#[test]
fn whoever_has_to_show_a_certificate_and_has_none_is_not_let_in() {
    let (papers, others) = (Papers::new(), Papers::new());
    papers.issue("anna", &["anna"]);
    let ca = papers.path("ca.pem");
    let gate = start(&papers, &["--tls-client-ca", &ca]);
    for version in [&TLS13, &TLS12] {
        let mut nobody = Secured::connect(gate.address, &papers.client(&[version], None));
        assert!(matches!(nobody.hello("anna"), Heard::Other(_) | Heard::Closed), "{version:?}");
        let known = papers.client(&[version], Some("anna"));
        let _online = Secured::login(gate.address, &known, "not-anna");
        assert_eq!(gate.wait_for_event("online")["client"], "not-anna", "names are not asked for");
    }
    drop(others);
}

#[test]
fn the_name_is_the_id_where_that_is_said_over_shards_too() {
    let papers = Papers::new();
    let ca = papers.path("ca.pem");
    let flags = ["--tls-client-ca", &ca, "--tls-client-cert", "optional"];
    let gate =
        start(&papers, &[&flags[..], &["--tls-client-name", "id", "--shards", "2"]].concat());
    for number in 0..8 {
        let (name, other) = (format!("mill-{number}"), format!("mill-{}", number + 1));
        papers.issue(&name, &[&name, "second.name"]);
        let known = papers.client(&[&TLS13], Some(&name));
        let mut liar = Secured::connect(gate.address, &known);
        let heard = liar.hello(&other);
        assert!(matches!(heard, Heard::Goaway { code: 301, .. } | Heard::Error(301)), "{heard:?}");
        let mut second = Secured::connect(gate.address, &known);
        let heard = second.hello("second.name");
        assert!(matches!(heard, Heard::Goaway { code: 301, .. } | Heard::Error(301)), "{heard:?}");
        let _online = Secured::login(gate.address, &known, &name);
        assert_eq!(gate.wait_for_event("online")["client"], name.as_str(), "nobody else came in");
    }
    // Certificates are optional, and so are names.
    let _without = Secured::login(gate.address, &papers.client(&[&TLS13], None), "free");
    let _plain = Caller::login(gate.address, "plain");
}

fn is_refused(heard: &Heard) -> bool {
    matches!(heard, Heard::Goaway { code: 301, .. } | Heard::Error(301))
}

/// mTLS in the place of a token: each client may have the one or the other.
#[test]
fn a_certificate_stands_for_the_token_and_whoever_has_none_needs_one_in_every_shard() {
    let papers = Papers::new();
    let word = "a word that all others know".replace(' ', "-");
    std::fs::write(papers.at("words"), &word).expect("there is room");
    let (ca, words) = (papers.path("ca.pem"), papers.path("words"));
    let certificates = ["--tls-client-ca", &ca, "--tls-client-cert", "optional"];
    let tokens = ["--tls-client-name", "id", "--identity", "tokens", "--identity-file", &words];
    let gate = start(&papers, &[&certificates[..], &tokens, &["--shards", "2"]].concat());
    let nobody = papers.client(&[&TLS13], None);
    for number in 0..6 {
        let (name, other) = (format!("mill-{number}"), format!("pump-{number}"));
        papers.issue(&name, &[&name]);
        let known = papers.client(&[&TLS13, &TLS12], Some(&name));
        let told = Secured::connect(gate.address, &known).hello_with(&other, &word);
        assert!(is_refused(&told), "a good token does not make up for another name: {told:?}");
        let told = Secured::connect(gate.address, &nobody).hello_with(&name, "a-wrong-word-here");
        assert!(is_refused(&told), "{told:?}");
        let _certified = Secured::login(gate.address, &known, &name);
        assert_eq!(gate.wait_for_event("online")["client"], name.as_str(), "nobody came before");
        let mut trusted = Secured::connect(gate.address, &nobody);
        let told = trusted.hello_with(&other, &word);
        assert!(matches!(told, Heard::Welcome { .. }), "{told:?}");
        assert_eq!(gate.wait_for_event("online")["client"], other.as_str());
    }
}

/// Where everybody shows a certificate with its name there is nothing to be said about identity.
#[test]
fn where_everybody_is_certified_the_gateway_may_listen_everywhere() {
    let papers = Papers::new();
    papers.issue("anna", &["anna"]);
    let ca = papers.path("ca.pem");
    let everywhere = ["--listen", "0.0.0.0:0", "--tls-client-ca", &ca, "--tls-client-name", "id"];
    let gate = start(&papers, &[&everywhere[..], &["--tls-only", "on"]].concat());
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], gate.address.port()));
    let known = papers.client(&[&TLS13], Some("anna"));
    assert!(is_refused(&Secured::connect(local, &known).hello("bert")));
    let _online = Secured::login(local, &known, "anna");
    assert_eq!(gate.wait_for_event("online")["client"], "anna");
    drop(gate);
    for open in [&[][..], &["--tls-only", "on", "--tls-client-cert", "optional"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            // It says the same as serve, and ends whatever it finds.
            .args(["check-config", "--admin", "off"])
            .args(papers.flags())
            .args(everywhere)
            .args(open)
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("can be reached"), "{open:?}: {said}");
    }
}

/// Whoever came in by the open door and waited does not get in when only certificates count.
#[test]
fn whoever_waited_in_the_door_is_not_let_in_without_a_certificate() {
    let papers = Papers::new();
    let config = papers.at("heartwheel.toml");
    let write = |only: &str| {
        let (cert, key) = (papers.path("gate.pem"), papers.path("gate.key"));
        let text = format!(
            "tls-cert = {cert:?}\ntls-key = {key:?}\ntls-only = {only:?}\n\
             tls-client-ca = {:?}\ntls-client-name = \"id\"\n",
            papers.path("ca.pem")
        );
        std::fs::write(&config, text).expect("there is room");
    };
    write("off");
    let mut gate = Gate::start(&["--config", &config.display().to_string()]);
    // Who has not spoken is with the kernel.
    let hello = hello("anna", "", 0);
    let (preface, rest) = hello.split_at(limits::PREFACE_BYTES);
    let mut waits = Caller::connect(gate.address);
    waits.send(preface);
    let _open = Caller::login(gate.address, "open");
    assert_eq!(gate.wait_for_event("online")["client"], "open");
    write("on");
    gate.signal("HUP");
    gate.wait_for_log("reloaded");
    waits.send(rest);
    assert_eq!(waits.hear(), Heard::Error(301));
}

/// That certificates name clients needs a restart; until then a reload makes nobody a stranger.
#[test]
fn names_that_come_with_a_restart_only_do_not_count_before() {
    let papers = Papers::new();
    papers.issue("anna", &["anna"]);
    let config = papers.at("heartwheel.toml");
    let write = |more: &str| {
        let (cert, key) = (papers.path("gate.pem"), papers.path("gate.key"));
        let text = format!(
            "tls-cert = {cert:?}\ntls-key = {key:?}\ntls-only = \"on\"\n\
             tls-client-ca = {:?}\n{more}",
            papers.path("ca.pem")
        );
        std::fs::write(&config, text).expect("there is room");
    };
    write("");
    let mut gate = Gate::start(&["--config", &config.display().to_string()]);
    let known = papers.client(&[&TLS13], Some("anna"));
    let _before = Secured::login(gate.address, &known, "anna");
    assert_eq!(gate.wait_for_event("online")["client"], "anna");
    write("tls-client-name = \"id\"\n");
    gate.signal("HUP");
    gate.wait_for_log("reloaded");
    let _after = Secured::login(gate.address, &known, "anna");
    assert_eq!(gate.wait_for_event("online")["client"], "anna");
}
