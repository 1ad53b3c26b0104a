//! Only whoever proves its id comes in.

use std::sync::Arc;

use crate::base::config::GatewayConfig;
use crate::base::identity::{Keys, Proof, Words};
use crate::base::reconfiguration::Reconfiguration;
use crate::base::time::{Span, WallAnchor};
use crate::gateway::Command;
use crate::gateway::tests::{Stage, config};
use crate::wire::message::Message;
use crate::wire::token;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// The wall clock at the begin of the test, in seconds since 1970.
const NOW_S: u64 = 1_800_000_000;

fn keys(keys: &[&[u8]]) -> Proof {
    let origin = [u8::try_from(keys.len()).expect("few"); 32];
    Proof::Keys(Arc::new(Keys::new(keys.iter().map(|key| (*key).into()).collect(), origin)))
}

fn words() -> Proof {
    let mut words = Words::new([3; 32], [9; 32]);
    words.add("anna", b"the word of anna");
    Proof::Words(Arc::new(words))
}

fn stage(proof: Proof) -> Stage {
    let unix_ms = i64::try_from(NOW_S * 1_000).expect("it fits");
    let wall = WallAnchor { unix_millis_at_zero: unix_ms - 1_000 };
    Stage::new(GatewayConfig {
        proof,
        wall,
        grace: Span::from_secs(60),
        connections_max: 64,
        ..config()
    })
}

/// Whether a client that says this is let in. Whoever is not hears 301.
fn is_let_in(stage: &mut Stage, client_id: &str, token: &[u8], resume: &[u8]) -> bool {
    let conn = stage.connect();
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id,
        class: "",
        token,
        resume,
        last_seq: 0,
        before: None,
    };
    stage.say_hello(conn, &hello);
    let heard = stage.hear(conn);
    let is_in = heard.iter().any(|line| line.contains("Welcome"));
    assert_ne!(is_in, heard.iter().any(|line| line.contains("301")), "{heard:?}");
    stage.gateway.check();
    is_in
}

#[test]
fn a_word_lets_in_whose_it_is_and_nobody_else() {
    for (client, word, expected) in [
        ("anna", &b"the word of anna"[..], true),
        ("anna", b"the word of annA", false),
        ("anna", b"the word of ann", false),
        ("anna", b"", false),
        ("bert", b"the word of anna", false),
        ("bert", b"", false),
    ] {
        assert_eq!(
            is_let_in(&mut stage(words()), client, word, b""),
            expected,
            "{client} {word:?}"
        );
    }
}

#[test]
fn a_token_holds_for_its_client_until_it_expires() {
    let token = token::make(KEY, "anna", NOW_S + 10);
    let mut stage = stage(keys(&[b"the new key of ours", KEY]));
    assert!(is_let_in(&mut stage, "anna", token.as_bytes(), b""), "an older key still counts");
    assert!(!is_let_in(&mut stage, "bert", token.as_bytes(), b""), "another client's");
    let foreign = token::make(b"somebody else's key", "anna", NOW_S + 10);
    assert!(!is_let_in(&mut stage, "anna", foreign.as_bytes(), b""));
    assert!(!is_let_in(&mut stage, "anna", b"", b""));
    stage.pass(Span::from_secs(11));
    assert!(!is_let_in(&mut stage, "anna", token.as_bytes(), b""), "replayed after its end");
}

#[test]
fn whoever_resumes_proves_itself_like_everybody() {
    let token = token::make(KEY, "anna", NOW_S + 600);
    let mut stage = stage(keys(&[KEY]));
    let conn = stage.connect();
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id: "anna",
        class: "",
        token: token.as_bytes(),
        resume: b"",
        last_seq: 0,
        before: None,
    };
    stage.say_hello(conn, &hello);
    stage.hear(conn);
    let resume = stage.token("anna", 1);
    stage.is_lost(conn);
    assert!(!is_let_in(&mut stage, "anna", b"", &resume), "the resume token is not enough");
    assert_eq!(stage.gateway.stats().held, 1, "and her session waits for her");
    assert!(is_let_in(&mut stage, "anna", token.as_bytes(), &resume));
}

#[test]
fn other_keys_hold_for_whoever_comes_from_then_on() {
    let mut stage = stage(words());
    assert!(is_let_in(&mut stage, "anna", b"the word of anna", b""));
    let before = config();
    let wanted = GatewayConfig { proof: keys(&[KEY]), ..config() };
    let new = Reconfiguration::new(&before, &wanted, Span::ZERO).expect("few classes");
    stage.gateway.on_command(Command::Reconfigure(Box::new(new)), stage.now);
    assert_eq!(stage.gateway.stats().online, 1, "whoever is in stays");
    assert!(!is_let_in(&mut stage, "anna", b"the word of anna", b""));
    assert_eq!(stage.gateway.stats().online, 1, "and is not driven out by a stranger");
    let token = token::make(KEY, "bert", NOW_S + 10);
    assert!(is_let_in(&mut stage, "bert", token.as_bytes(), b""));
}
