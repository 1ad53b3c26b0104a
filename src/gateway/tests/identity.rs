//! Only whoever proves its id comes in.

use std::sync::Arc;

use crate::base::config::GatewayConfig;
use crate::base::identity::{Check, Keys, Proof, Verdict, Words};
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::reconfiguration::Reconfiguration;
use crate::base::time::{Span, WallAnchor};
use crate::gateway::Command;
use crate::gateway::tests::{Stage, config};
use crate::wire::message::{Message, Reply as PingReply};
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

impl Stage {
    /// A client says who it is, and shows this.
    pub(super) fn hello_with(
        &mut self,
        conn: ConnId,
        client_id: &str,
        token: &[u8],
        resume: &[u8],
    ) {
        let hello = Message::Hello {
            wanted_interval_ms: 0,
            client_id,
            class: "",
            token,
            resume,
            last_seq: 0,
            before: None,
        };
        self.say_hello(conn, &hello);
    }
}

/// Whether a client that says this is let in. Whoever is not hears 301.
fn is_let_in(stage: &mut Stage, client_id: &str, token: &[u8], resume: &[u8]) -> bool {
    let conn = stage.connect();
    stage.hello_with(conn, client_id, token, resume);
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
    stage.hello_with(conn, "anna", token.as_bytes(), b"");
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

/// Says HELLO with a token that somebody else has to look at.
fn is_asked(stage: &mut Stage, client_id: &str, token: &[u8]) -> ConnId {
    let conn = stage.connect();
    stage.hello_with(conn, client_id, token, b"");
    conn
}

/// Somebody took all tokens and has looked at this one.
fn answer(stage: &mut Stage, conn: ConnId, verdict: Verdict) {
    checks(stage);
    stage.gateway.on_checked(conn, verdict, stage.now);
    stage.settle();
}

fn checks(stage: &mut Stage) -> Vec<Check> {
    let mut checks = Vec::new();
    stage.gateway.take_checks(&mut checks, usize::MAX);
    checks
}

#[test]
fn whoever_waits_for_an_answer_is_not_heard_before_it() {
    let mut stage = stage(Proof::Asked([1; 32]));
    let conn = is_asked(&mut stage, "anna", b"a token");
    let asked = checks(&mut stage);
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].conn, asked[0].client.as_str()), (conn, "anna"));
    assert_eq!(&*asked[0].token, b"a token");
    assert!(!format!("{asked:?}").contains("token"), "{asked:?}");
    let ping = Message::Ping { reply: PingReply::Wanted, payload: b"1" };
    stage.say(conn, &ping);
    assert!(stage.hear(conn).is_empty(), "nothing is said before the answer");
    stage.gateway.check();
    assert_eq!(stage.gateway.stats().tally.checks_under_way, 1);
    answer(&mut stage, conn, Verdict::Proven);
    let heard = stage.hear(conn);
    assert!(heard[0].contains("Welcome") && heard[1].contains("Pong"), "{heard:?}");
    assert_eq!(stage.gateway.stats().frames_received, 2, "each is counted once");
    assert_eq!(stage.gateway.stats().tally.checks, [1, 0, 0]);
    stage.gateway.check();
}

#[test]
fn an_answer_decides_and_none_is_busy() {
    for (verdict, code) in [(Verdict::Refuted, "301"), (Verdict::Unknown, "302")] {
        let mut stage = stage(Proof::Asked([1; 32]));
        let conn = is_asked(&mut stage, "anna", b"a token");
        answer(&mut stage, conn, verdict);
        let heard = stage.hear(conn);
        assert!(heard[0].contains(code), "{heard:?}");
        assert_eq!(stage.gateway.stats().online, 0);
        stage.gateway.check();
        answer(&mut stage, conn, Verdict::Proven);
        assert_eq!(stage.gateway.stats().online, 0, "an answer counts once");
    }
    let mut stage = stage(Proof::Asked([1; 32]));
    let conn = is_asked(&mut stage, "anna", b"");
    assert!(stage.hear(conn)[0].contains("301"), "nobody has to be asked about no token");
    assert!(checks(&mut stage).is_empty());
}

#[test]
fn whoever_is_gone_when_the_answer_comes_is_not_let_in() {
    let mut stage = stage(Proof::Asked([1; 32]));
    let conn = is_asked(&mut stage, "anna", b"a token");
    stage.is_lost(conn);
    stage.gateway.check();
    answer(&mut stage, conn, Verdict::Proven);
    stage.gateway.check();
    let stats = stage.gateway.stats();
    assert_eq!((stats.online, stats.tally.checks_under_way), (0, 0));
}

#[test]
fn the_deadline_of_the_handshake_goes_on_running() {
    let mut stage = stage(Proof::Asked([1; 32]));
    let conn = is_asked(&mut stage, "anna", b"a token");
    stage.pass(limits::HANDSHAKE_TIMEOUT + Span::from_secs(1));
    stage.sees_nothing(conn);
    answer(&mut stage, conn, Verdict::Proven);
    assert_eq!(stage.gateway.stats().online, 0, "it came too late");
    stage.gateway.check();
}

#[test]
fn neither_many_checks_nor_many_bytes_behind_one_cost_much() {
    let config = GatewayConfig { proof: Proof::Asked([1; 32]), connections_max: 2_000, ..config() };
    let mut stage = Stage::new(config);
    let first = is_asked(&mut stage, "first", b"a token");
    stage.receive(first, &vec![0; limits::CHECK_BYTES_MAX]);
    assert!(stage.hear(first)[0].contains("304"), "a flood");
    for number in 1..limits::CHECKS_MAX {
        is_asked(&mut stage, &format!("client-{number}"), b"a token");
    }
    stage.gateway.check();
    let late = is_asked(&mut stage, "late", b"a token");
    assert!(stage.hear(late)[0].contains("302"), "busy");
    assert_eq!(checks(&mut stage).len(), limits::CHECKS_MAX);
    answer(&mut stage, first, Verdict::Proven);
    let next = is_asked(&mut stage, "next", b"a token");
    assert_eq!(checks(&mut stage)[0].conn, next, "there is room again");
}

#[test]
fn whom_nobody_could_look_at_come_back_one_after_the_other() {
    let config = GatewayConfig { proof: Proof::Asked([1; 32]), connections_max: 2_000, ..config() };
    let earliest = config.reconnect_window.0;
    let mut stage = Stage::new(config);
    let crowd = limits::CHECKS_AGAIN_PER_S / 2;
    let mut last = 0;
    for number in 0..crowd {
        let conn = is_asked(&mut stage, &format!("client-{number}"), b"a token");
        answer(&mut stage, conn, Verdict::Unknown);
        let heard = stage.hear(conn);
        assert!(heard[0].contains("302"), "{heard:?}");
        let (_, after) = heard[0].split_once("reconnect_min_ms: ").expect("a window");
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let from: u64 = digits.parse().expect("a number");
        assert!(from >= last, "{from} is before {last}");
        last = from;
    }
    // A part of the places is for others.
    let spread = last - earliest.as_millis();
    assert!((500..1_000).contains(&spread), "{spread}");
}
