//! Sessions that outlive their connections, names that are fought for, clients that are asked
//! before they are judged, and what an operator is told of all that.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heartwheel::base::ids::ClientId;
use heartwheel::base::limits;
use heartwheel::base::time::Span;
use heartwheel::client::{Client, News, Profile};
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

use crate::gate::{Caller, Gate, Heard, PATIENCE};
use crate::{number, text};

/// Logs in with a resume token; what WELCOME said of it: whether resumed, the epoch and the token.
pub(crate) fn login(
    address: SocketAddr,
    client_id: &str,
    resume: &[u8],
) -> (Caller, bool, u64, Vec<u8>) {
    let mut caller = Caller::connect(address);
    let mut bytes = Vec::new();
    native::encode_preface(native::VERSIONS, &mut bytes);
    let hello = Message::Hello {
        wanted_interval_ms: 0,
        client_id,
        class: "",
        token: &[],
        resume,
        last_seq: 0,
        before: None,
    };
    native::encode(&hello, &mut bytes);
    caller.send(&bytes);
    let heard = caller.hear();
    let Heard::Welcome { resumed, epoch, resume, .. } = heard else {
        panic!("{client_id}: {heard:?}");
    };
    (caller, resumed, epoch, resume)
}

/// Closes with RST, as a machine does that knows nothing of the connection any more.
pub(crate) fn reset(caller: Caller) {
    set_socket_linger(&caller.stream, Some(Duration::ZERO)).expect("an option");
}

fn is_gone(caller: &mut Caller) {
    assert!(matches!(caller.hear(), Heard::Reset | Heard::Closed));
}

#[test]
pub(crate) fn a_session_lost_by_a_reset_is_resumed_within_the_grace_and_was_never_offline() {
    let gate = Gate::start(&["--grace", "10s"]);
    assert_eq!(gate.next_event()["event"], "started");
    let (lost, resumed, epoch, token) = login(gate.address, "anna", &[]);
    assert!(!resumed && !token.is_empty());
    let online = gate.next_event();
    reset(lost);
    std::thread::sleep(Duration::from_millis(300));
    let (mut back, resumed, epoch_back, token_back) = login(gate.address, "anna", &token);
    assert!(resumed);
    assert_eq!((epoch_back, &token_back), (epoch, &token), "the same session");
    let event = gate.next_event();
    assert_eq!(event["event"], "resumed", "{event}");
    assert_eq!(event["client"], "anna");
    assert_eq!(number(&event, "epoch"), epoch);
    assert_eq!(text(&event, "remote"), back.stream.local_addr().unwrap().to_string());
    let away_ms = number(&event, "away_ms");
    assert!((1..5_000).contains(&away_ms), "{away_ms}");
    back.say(&Message::Bye { code: 100 });
    let offline = gate.next_event();
    assert_eq!((&offline["event"], &offline["reason"]), (&"offline".into(), &"bye".into()));
    assert_eq!(number(&offline, "seq"), number(&online, "seq") + 2, "no offline in between");
}

#[test]
fn a_session_that_nobody_comes_back_for_is_offline_after_the_grace() {
    let gate = Gate::start(&["--class", "phone:grace=700ms"]);
    let mut caller = Caller::connect(gate.address);
    caller.say_hello("anna", "phone", 0);
    assert!(matches!(caller.hear(), Heard::Welcome { .. }));
    let online = gate.wait_for_event("online");
    reset(caller);
    let offline = gate.next_event();
    assert_eq!(offline["event"], "offline", "{offline}");
    assert_eq!(offline["reason"], "reset", "for the reason it was lost");
    assert!(number(&offline, "held_ms") >= 700, "{offline}");
    assert_eq!(number(&offline, "epoch"), number(&online, "epoch"));
}

#[test]
fn without_the_token_it_is_a_new_session() {
    let gate = Gate::start(&["--grace", "10s"]);
    let (lost, _, epoch, token) = login(gate.address, "anna", &[]);
    reset(lost);
    let mut forged = token;
    *forged.last_mut().expect("a token") ^= 1;
    let (_back, resumed, epoch_back, _) = login(gate.address, "anna", &forged);
    assert!(!resumed);
    assert!(epoch_back > epoch);
    let kinds: Vec<String> = (0..4).map(|_| text(&gate.next_event(), "event")).collect();
    assert_eq!(kinds, ["started", "online", "offline", "online"]);
}

/// Passes bytes on between clients and the gateway, until it is cut.
struct Relay {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(gate: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let ends = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&ends);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.expect("accepts");
                let far = TcpStream::connect(gate).expect("the gateway listens");
                let clone = |end: &TcpStream| end.try_clone().expect("another descriptor");
                kept.lock().expect("nobody panics").extend([clone(&near), clone(&far)]);
                for (mut from, mut to) in [(clone(&near), clone(&far)), (far, near)] {
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
            }
        });
        Self { address, ends }
    }

    /// Ends every connection, on both sides. New ones are passed on again.
    fn cut(&self) {
        for end in self.ends.lock().expect("nobody panics").drain(..) {
            // Already gone is gone.
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
pub(crate) fn the_crates_own_client_resumes_by_itself() {
    let gate = Gate::start(&["--grace", "10s"]);
    let relay = Relay::to(gate.address);
    let profile = Profile::new(ClientId::new("anna").expect("a client id"));
    let mut client = Client::new(relay.address.to_string(), profile).expect("it fits");
    let mut welcome = || {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(News::Welcome { resumed, epoch, .. }) = client.wait(Span::from_secs(1)) {
                return (resumed, epoch);
            }
        }
        panic!("no WELCOME");
    };
    let (resumed, epoch) = welcome();
    assert!(!resumed);
    assert_eq!(gate.wait_for_event("online")["client"], "anna");
    relay.cut();
    assert_eq!(welcome(), (true, epoch));
    assert_eq!(gate.next_event()["event"], "resumed");
}

#[test]
pub(crate) fn a_class_that_rejects_keeps_the_older_login() {
    let gate = Gate::start(&["--class", "lock:duplicate=reject"]);
    let mut older = Caller::connect(gate.address);
    older.say_hello("anna", "lock", 0);
    assert!(matches!(older.hear(), Heard::Welcome { .. }));
    let mut newer = Caller::hello(gate.address, "anna");
    assert_eq!(newer.hear(), Heard::Error(305));
    is_gone(&mut newer);
    older.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
    assert_eq!(older.hear(), Heard::Pong(Vec::new()));
    let kinds: Vec<String> = (0..2).map(|_| text(&gate.next_event(), "event")).collect();
    assert_eq!(kinds, ["started", "online"]);
    assert!(gate.try_event(Duration::from_millis(200)).is_none());
}

#[test]
fn two_devices_that_fight_for_an_id_are_slowed_down() {
    let gate = Gate::start(&[]);
    let mut owner = Caller::login(gate.address, "anna");
    for _ in 0..limits::CONTEST_FREE {
        let newer = Caller::login(gate.address, "anna");
        assert!(matches!(owner.hear(), Heard::Goaway { code: 102, .. }));
        owner = newer;
    }
    for expected_ms in [2_000, 4_000] {
        let mut newcomer = Caller::hello(gate.address, "anna");
        let Heard::Goaway { code, reconnect_min_ms, reconnect_max_ms } = newcomer.hear() else {
            panic!("no GOAWAY");
        };
        assert_eq!((code, reconnect_max_ms), (306, expected_ms));
        assert_eq!(reconnect_min_ms, expected_ms / 2);
    }
    let contested = gate.wait_for_event("contested");
    assert_eq!((&contested["client"], number(&contested, "count")), (&"anna".into(), 4));
    owner.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
    assert_eq!(owner.hear(), Heard::Pong(Vec::new()), "whoever has the id keeps it");
}

#[test]
pub(crate) fn a_silent_client_is_asked_before_the_verdict_and_not_after_its_timeout() {
    let gate = Gate::start(&["--interval", "300ms", "--timeout", "900ms", "--probe", "300ms"]);
    let mut caller = Caller::login(gate.address, "anna");
    let began = Instant::now();
    assert_eq!(caller.hear(), Heard::Ping { at_once: true });
    let asked = began.elapsed();
    assert!(asked >= Duration::from_millis(550), "{asked:?}: not before it is suspect");
    caller.say(&Message::Pong { payload: b"" });
    assert_eq!(caller.hear(), Heard::Ping { at_once: true });
    assert_eq!(caller.hear(), Heard::Error(202));
    let offline = gate.wait_for_event("offline");
    assert_eq!(offline["probe"], "unanswered");
    let silence_ms = number(&offline, "silence_ms");
    assert!((900..1_200).contains(&silence_ms), "within its timeout: {silence_ms}");
}

#[test]
fn the_evidence_of_a_verdict_tells_an_app_that_hangs_from_a_path_that_is_gone() {
    let ways = [["--descriptors", "direct"], ["--descriptors", "ordinary"], ["--driver", "epoll"]];
    for way in ways {
        let rhythm = ["--interval", "300ms", "--timeout", "900ms", "--probe", "200ms"];
        let gate = Gate::start(&[rhythm.as_slice(), &way].concat());
        let _hung = Caller::login(gate.address, "hung");
        let offline = gate.wait_for_event("offline");
        assert_eq!(offline["reason"], "heartbeat_timeout", "{offline}");
        assert_eq!(number(&offline, "beats_missed"), 3, "{offline}");
        assert_eq!(offline["probe"], "unanswered", "{offline}");
        for (key, expected) in [("partial_bytes", 0), ("stalled_ms", 0), ("held_ms", 0)] {
            assert_eq!(number(&offline, key), expected, "{key} of {offline}");
        }
        let tcp = &offline["tcp"];
        assert!(tcp.is_object(), "{way:?}: {offline}");
        let data_ms = number(tcp, "last_data_received_ms");
        assert!(data_ms >= 850, "nothing since HELLO: {tcp}");
        let ack_ms = number(tcp, "last_ack_received_ms");
        assert!(ack_ms + 400 < data_ms, "its kernel acknowledged our probe: {tcp}");
        assert_eq!(number(tcp, "unacked"), 0, "{tcp}");
        assert_eq!(number(tcp, "retransmits"), 0, "{tcp}");
        assert!(number(tcp, "rtt_us") > 0, "{tcp}");
    }
}

#[test]
fn sigusr1_and_the_end_say_how_verdicts_went() {
    let mut gate = Gate::start(&["--interval", "200ms", "--timeout", "600ms"]);
    let _silent = Caller::login(gate.address, "silent");
    gate.wait_for_event("offline");
    gate.signal("USR1");
    let line = gate.wait_for_log("verdicts so far verdicts=1 ");
    for part in [
        "late_p50=",
        "late_p99=",
        "late_max=",
        "rescued=0",
        "probes_sent=0",
        "probes_answered=0",
        "stalls=",
        "false_offline=0",
        "false_offline_share=0",
        "held=0",
        "resumed=0",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    let mut living = Caller::login(gate.address, "living");
    living.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
    assert_eq!(living.hear(), Heard::Pong(Vec::new()), "the signal stopped nothing");
    drop(living);
    gate.signal("TERM");
    assert!(gate.wait().success());
    gate.wait_for_log("verdicts so far verdicts=1 ");
}

fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
pub(crate) fn transport_events_are_a_stream_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("transport.jsonl");
    let mut gate = Gate::start(&[
        "--interval",
        "300ms",
        "--timeout",
        "900ms",
        "--probe",
        "300ms",
        "--grace",
        "10s",
        "--transport-events",
        path.to_str().expect("UTF-8"),
    ]);
    let (lost, _, _, token) = login(gate.address, "anna", &[]);
    reset(lost);
    std::thread::sleep(Duration::from_millis(400));
    let (mut back, resumed, _, _) = login(gate.address, "anna", &token);
    assert!(resumed);
    assert_eq!(back.hear(), Heard::Ping { at_once: true });
    back.say(&Message::Pong { payload: b"" });
    back.say(&Message::Bye { code: 100 });
    is_gone(&mut back);
    gate.wait_for_event("offline");
    gate.signal("TERM");
    assert!(gate.wait().success());

    let told = lines_of(&path);
    let kinds: Vec<String> = told.iter().map(|line| text(line, "event")).collect();
    let expected = ["connected", "disconnected", "connected", "suspect", "rescued", "disconnected"];
    assert_eq!(kinds, expected, "{told:#?}");
    for (line, tseq) in told.iter().zip(1..) {
        assert_eq!((number(line, "tseq"), number(line, "dropped")), (tseq, 0), "{line}");
        assert!(line["seq"].is_null(), "the ledger's numbers are not touched: {line}");
        assert!(line["node"].is_string() && line["boot"].is_u64(), "{line}");
    }
    assert_eq!((&told[1]["reason"], &told[1]["client"]), (&"reset".into(), &"anna".into()));
    assert_eq!(told[0]["conn"], told[1]["conn"]);
    assert_eq!(told[2]["conn"], told[5]["conn"]);
    assert!(number(&told[3], "silence_ms") >= 600, "{}", told[3]);
    assert_eq!(told[4]["by"], "heard");
    assert_eq!(told[5]["reason"], "bye");
}

#[test]
fn transport_events_that_nobody_reads_hold_up_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    // Held open for reading and writing, so that it opens, and never read.
    let _sleeper =
        std::fs::File::options().read(true).write(true).open(&pipe).expect("a pipe opens");
    let mut gate = Gate::start(&["--transport-events", pipe.to_str().expect("UTF-8")]);
    // More lines than a pipe holds.
    for count in 0..1_500 {
        drop(Caller::login(gate.address, &format!("client-{count}")));
    }
    for _ in 0..1_500 {
        gate.wait_for_event("offline");
    }
    gate.signal("TERM");
    assert!(gate.wait().success(), "they are best effort, and no failure");
}
