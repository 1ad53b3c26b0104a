//! The machine and a pretend server, with a pretend network and a pretend clock between them.

use std::collections::VecDeque;

use crate::base::config::Mode;
use crate::base::event::CloseReason;
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::client::{Action, EndedBy, Loss, Machine, News, Profile, SendError};
use crate::wire::message::{AckWanted, Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

/// From one end to the other.
const LATENCY: Span = Span::from_millis(20);

/// What the server does with what it hears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manners {
    /// Welcomes, and answers PING.
    Good,
    /// Takes connections and says nothing.
    Mute,
    /// Takes no connections.
    Absent,
}

/// Both ends, and a clock that jumps from one thing that happens to the next.
struct Pair {
    now: Moment,
    client: Machine,
    manners: Manners,
    welcome: Message<'static>,
    deframer: Deframer,
    /// Bytes under way: when they arrive, and whether at the client.
    to_client: VecDeque<(Moment, Vec<u8>)>,
    to_server: VecDeque<(Moment, Vec<u8>)>,
    connected_at: Option<Moment>,
    /// What the server heard, and when.
    heard: Vec<(u64, String)>,
    /// Where the client connected, and when.
    connects: Vec<(u64, Option<String>)>,
    closes: u32,
    news: Vec<(u64, News)>,
}

const WELCOME: Message<'static> = welcome(Mode::Client, 300, false);

const fn welcome(mode: Mode, first_beat_ms: u32, resumed: bool) -> Message<'static> {
    Message::Welcome {
        version: 1,
        mode,
        resumed,
        epoch: 9,
        interval_ms: 1_000,
        timeout_ms: 3_500,
        first_beat_ms,
        payload_max: 1_024,
        server_unix_ms: 0,
        resume: b"again",
    }
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self::with(Manners::Good, WELCOME, seed)
    }

    fn with(manners: Manners, welcome: Message<'static>, seed: u64) -> Self {
        let profile = Profile::new(ClientId::new("device-7").unwrap());
        Self {
            now: Moment::ZERO,
            client: Machine::new(profile, seed).unwrap(),
            manners,
            welcome,
            deframer: Deframer::server_side(),
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
            connected_at: None,
            heard: Vec::new(),
            connects: Vec::new(),
            closes: 0,
            news: Vec::new(),
        }
    }

    /// Lets everything happen that happens until then.
    fn drive(&mut self, until_ms: u64) {
        let until = Moment::from_millis(until_ms);
        for _ in 0..100_000 {
            self.settle();
            let under_way = self.to_client.front().into_iter().chain(self.to_server.front());
            let next = under_way
                .map(|(at, _)| *at)
                .chain(self.connected_at)
                .chain(self.client.next_wake())
                .min();
            match next {
                Some(next) if next <= until => self.now = self.now.max(next),
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
            self.deliver();
            self.client.on_time(self.now);
        }
        panic!("the machine is busy for ever");
    }

    fn settle(&mut self) {
        let mut bytes = Vec::new();
        self.client.take_output(&mut bytes);
        if !bytes.is_empty() {
            self.to_server.push_back((self.now + LATENCY, bytes));
        }
        while let Some(action) = self.client.take_action() {
            match action {
                Action::Connect { address } => {
                    self.connects.push((self.now.as_millis(), address));
                    self.connected_at = Some(self.now + LATENCY);
                }
                Action::Close => {
                    self.closes += 1;
                    self.connected_at = None;
                    self.to_client.clear();
                }
            }
        }
        while let Some(news) = self.client.take_news() {
            self.news.push((self.now.as_millis(), news));
        }
    }

    fn deliver(&mut self) {
        if self.connected_at.is_some_and(|at| at <= self.now) {
            self.connected_at = None;
            self.deframer = Deframer::server_side();
            match self.manners {
                Manners::Good | Manners::Mute => self.client.on_connected(self.now),
                Manners::Absent => self.client.on_disconnected(EndedBy::Client, self.now),
            }
        }
        while self.to_server.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, bytes) = self.to_server.pop_front().unwrap();
            self.serve(&bytes);
        }
        while self.to_client.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, bytes) = self.to_client.pop_front().unwrap();
            self.client.on_received(&bytes, self.now);
        }
    }

    fn serve(&mut self, bytes: &[u8]) {
        let mut deframer = std::mem::take(&mut self.deframer);
        let mut rest = bytes;
        while let Some(inbound) = deframer.next(&mut rest, 65_535).unwrap() {
            let Inbound::Message(message) = inbound else { continue };
            self.heard.push((self.now.as_millis(), format!("{message:?}")));
            if self.manners != Manners::Good {
                continue;
            }
            if let Message::Hello { .. } = message {
                self.say(&self.welcome.clone());
            }
            if let Message::Ping { reply: Reply::Wanted, payload } = message {
                self.say(&Message::Pong { payload });
            }
        }
        self.deframer = deframer;
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        self.say_bytes(bytes);
    }

    fn say_bytes(&mut self, bytes: Vec<u8>) {
        self.to_client.push_back((self.now + LATENCY, bytes));
    }

    /// When the server heard something that begins like this.
    fn heard_at(&self, what: &str) -> Vec<u64> {
        self.heard.iter().filter(|(_, said)| said.starts_with(what)).map(|(at, _)| *at).collect()
    }

    /// Everything told but PONG.
    fn told(&self) -> Vec<(u64, News)> {
        let is_pong = |news: &News| matches!(news, News::Pong { .. });
        self.news.iter().filter(|(_, news)| !is_pong(news)).cloned().collect()
    }

    fn last_news_of(&self, what: &str) -> &News {
        let named = |news: &&News| format!("{news:?}").starts_with(what);
        self.news.iter().map(|(_, news)| news).rfind(named).expect("there were such news")
    }

    fn last_news(&self) -> &(u64, News) {
        self.news.last().expect("there were news")
    }
}

/// From the start to WELCOME: connect, HELLO there, WELCOME back.
const WELCOME_MS: u64 = 60;

#[test]
fn beats_come_after_the_first_beat_and_then_in_step() {
    let mut pair = Pair::new(1);
    pair.drive(5_000);
    let arrival = WELCOME_MS + LATENCY.as_millis();
    assert_eq!(pair.heard_at("Hello"), [40]);
    assert_eq!(
        pair.heard_at("Ping"),
        [300, 1_300, 2_300, 3_300, 4_300].map(|after| arrival + after)
    );
    assert_eq!(pair.told().len(), 1, "{:?}", pair.told());
    let pongs = pair
        .news
        .iter()
        .filter(|(_, news)| *news == News::Pong { round_trip: Some(Span::from_millis(40)) });
    assert_eq!(pongs.count(), 5);
}

#[test]
fn a_silent_server_is_gone_when_the_first_unanswered_ping_is_a_timeout_old() {
    let mut pair = Pair::new(1);
    pair.drive(2_000); // beats at 360 and 1360 are answered
    pair.manners = Manners::Mute;
    pair.drive(5_859);
    assert_eq!(pair.told().len(), 1, "not early: {:?}", pair.told());
    pair.drive(5_860);
    let (at, news) = pair.last_news();
    assert_eq!(*at, 2_360 + 3_500, "later PINGs do not put it off");
    assert!(matches!(news, News::Lost { loss: Loss::Silent, .. }), "{news:?}");
    assert_eq!(pair.closes, 1);
}

#[test]
fn a_client_that_slept_reads_before_it_judges_and_beats_once() {
    let mut pair = Pair::new(1);
    pair.drive(1_370); // a beat is under way
    let day = Moment::from_millis(86_400_000);
    let mut pong = Vec::new();
    native::encode(&Message::Pong { payload: &2u32.to_be_bytes() }, &mut pong);
    pair.client.on_received(&pong, day);
    let mut out = Vec::new();
    for _ in 0..10 {
        pair.client.on_time(day);
    }
    pair.client.take_output(&mut out);
    assert!(pair.client.is_live());
    assert_eq!(out.len(), 8, "one PING for all that were missed");
    assert_eq!(pair.client.next_wake(), Some(day + Span::from_secs(1)));
}

#[test]
fn pings_are_answered_as_they_ask() {
    let mut pair = Pair::new(1);
    pair.drive(100);
    pair.say(&Message::Ping { reply: Reply::Wanted, payload: b"a" });
    pair.say(&Message::Ping { reply: Reply::NotWanted, payload: b"b" });
    pair.drive(150);
    assert_eq!(pair.heard_at("Pong"), [140]);
    assert!(pair.heard.last().unwrap().1.contains("[97]"));

    pair.client.try_send("topic", b"body", AckWanted::No).unwrap();
    let mut probe = Vec::new();
    native::encode(&Message::Ping { reply: Reply::AtOnce, payload: b"?" }, &mut probe);
    pair.client.on_received(&probe, pair.now);
    pair.drive(200);
    let kinds: Vec<&str> =
        pair.heard.iter().rev().take(2).map(|(_, said)| said.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["Data", "Pong"], "the answer to a PROBE goes first");
}

#[test]
fn beat_changes_the_rhythm_from_the_last_beat_on() {
    let mut pair = Pair::new(1);
    pair.drive(500); // the first beat was sent at 360
    pair.say(&Message::Beat { interval_ms: 2_000, timeout_ms: 9_000 });
    pair.drive(5_000);
    assert_eq!(pair.heard_at("Ping"), [380, 2_380, 4_380]);
    pair.say(&Message::Beat { interval_ms: 100, timeout_ms: 900 });
    pair.drive(5_100);
    assert_eq!(pair.heard_at("Ping")[3..], [5_040], "at once: the new interval has passed");
    let (interval, timeout) = (Span::from_millis(100), Span::from_millis(900));
    assert_eq!(pair.told().last().unwrap().1, News::Rhythm { interval, timeout });
}

#[test]
fn goaway_is_followed_by_coming_back_in_its_window_to_its_address() {
    let goaway = Message::Goaway {
        code: CloseReason::Drain.code(),
        reconnect_min_ms: 2_000,
        reconnect_max_ms: 4_000,
        address: "other:7070",
        text: "drain",
    };
    let mut delays = Vec::new();
    for seed in 0..100 {
        let mut pair = Pair::new(seed);
        pair.drive(100);
        pair.say(&goaway);
        pair.drive(120);
        assert_eq!(pair.closes, 1, "the client closes first");
        pair.drive(5_000);
        let (at, address) = pair.connects[1].clone();
        assert_eq!(address.as_deref(), Some("other:7070"));
        assert!((2_120..=4_120).contains(&at), "seed {seed}: {at}");
        assert!(pair.client.is_live());
        delays.push(at);
    }
    assert!(delays.iter().max().unwrap() - delays.iter().min().unwrap() > 1_800, "spread out");
}

#[test]
fn an_address_that_fails_is_left_for_home() {
    let mut pair = Pair::new(3);
    pair.drive(100);
    pair.say(&Message::Goaway {
        code: CloseReason::Drain.code(),
        reconnect_min_ms: 0,
        reconnect_max_ms: 10,
        address: "other:7070",
        text: "",
    });
    pair.manners = Manners::Absent;
    pair.drive(20_000);
    assert!(pair.connects.len() > 2);
    assert_eq!(pair.connects[1].1.as_deref(), Some("other:7070"));
    assert!(pair.connects[2..].iter().all(|(_, address)| address.is_none()));
}

#[test]
fn codes_say_whether_to_come_back() {
    for (name, code, comes_back, resumes) in [
        ("drain", 101, true, true),
        ("busy", 302, true, false),
        ("replaced", 102, false, false),
        ("kicked", 300, false, false),
        ("malformed", 403, false, false),
        ("a newer network code", 299, true, true),
        ("a newer policy code", 399, true, false),
        ("a newer protocol code", 499, false, false),
        ("no family at all", 7, true, false),
    ] {
        for is_error in [false, true] {
            let mut pair = Pair::new(1);
            pair.drive(100);
            if is_error {
                pair.say(&Message::Error { code, text: "x" });
            } else {
                pair.say(&Message::Goaway {
                    code,
                    reconnect_min_ms: 0,
                    reconnect_max_ms: 0,
                    address: "",
                    text: "x",
                });
            }
            pair.drive(130);
            assert_eq!(pair.client.is_ended(), !comes_back, "{name}");
            assert_eq!(pair.client.next_wake().is_some(), comes_back, "{name}");
            pair.drive(3_000);
            let hellos: Vec<_> =
                pair.heard.iter().filter(|(_, said)| said.starts_with("Hello")).collect();
            assert_eq!(hellos.len(), if comes_back { 2 } else { 1 }, "{name}");
            let has_token = hellos.last().unwrap().1.contains("resume: [97");
            assert_eq!(has_token, resumes, "{name}");
        }
    }
}

#[test]
fn a_window_that_ends_before_it_begins_is_its_beginning() {
    let mut pair = Pair::new(1);
    pair.drive(100);
    pair.say(&Message::Goaway {
        code: CloseReason::Drain.code(),
        reconnect_min_ms: 2_000,
        reconnect_max_ms: 1_000,
        address: "",
        text: "",
    });
    pair.drive(5_000);
    assert_eq!(pair.connects[1].0, 120 + 2_000);
}

#[test]
fn numbers_go_on_in_a_resumed_session_and_begin_anew_in_a_new_one() {
    for (resumed, next_seq) in [(true, 3), (false, 1)] {
        let mut pair = Pair::new(1);
        pair.drive(100);
        pair.say(&Message::Data { seq: 7, ack: AckWanted::No, topic: "", body: b"" });
        pair.drive(130);
        assert_eq!(pair.client.try_send("", b"", AckWanted::No), Ok(1));
        assert_eq!(pair.client.try_send("", b"", AckWanted::No), Ok(2));
        pair.welcome = welcome(Mode::Client, 300, resumed);
        pair.client.on_disconnected(EndedBy::Server, pair.now);
        pair.drive(3_000);
        let (_, hello) = pair.heard.iter().rfind(|(_, said)| said.starts_with("Hello")).unwrap();
        assert!(hello.contains("last_seq: 7"), "{hello}");
        assert_eq!(pair.client.try_send("", b"", AckWanted::No), Ok(next_seq));
    }
}

/// What the latest HELLO says about the connection before.
fn said_before(pair: &Pair) -> &str {
    let (_, hello) = pair.heard.iter().rfind(|(_, said)| said.starts_with("Hello")).unwrap();
    hello.split("before: ").nth(1).unwrap().trim_end_matches(" }")
}

#[test]
fn the_next_hello_says_when_the_last_beat_was_and_who_ended_the_connection() {
    let before = |ago_ms: u64, ended_by: &str| {
        format!("Some(Before {{ last_beat_ago_ms: {ago_ms}, ended_by: {ended_by}")
    };
    for (name, ended_by, expected) in [
        ("the server reset it", EndedBy::Server, "Server"),
        ("the path was gone", EndedBy::Client, "Client"),
    ] {
        let mut pair = Pair::new(1);
        pair.drive(1_500); // the latest beat was sent at 1360
        assert_eq!(said_before(&pair), "None", "{name}");
        pair.client.on_disconnected(ended_by, pair.now);
        pair.drive(3_000);
        let said_at = pair.connects[1].0 + LATENCY.as_millis();
        assert!(said_before(&pair).starts_with(&before(said_at - 1_360, expected)), "{name}");
    }
}

#[test]
fn any_answer_is_a_beat_and_so_is_hello() {
    let mut pair = Pair::new(1);
    pair.drive(100); // HELLO was said at 20
    pair.say(&Message::Error { code: CloseReason::ServerError.code(), text: "" });
    pair.drive(3_000);
    let said_at = pair.connects[1].0 + LATENCY.as_millis();
    let expected = format!("last_beat_ago_ms: {}, ended_by: Server", said_at - 20);
    assert!(said_before(&pair).contains(&expected), "{}", said_before(&pair));

    let mut pair = Pair::new(1);
    pair.drive(500); // the first beat was sent at 360
    pair.say(&Message::Ping { reply: Reply::AtOnce, payload: b"?" });
    pair.drive(600);
    pair.client.on_disconnected(EndedBy::Server, pair.now);
    pair.drive(3_000);
    let said_at = pair.connects[1].0 + LATENCY.as_millis();
    let expected = format!("last_beat_ago_ms: {},", said_at - 520);
    assert!(said_before(&pair).contains(&expected), "{}", said_before(&pair));
}

#[test]
fn a_server_that_fell_silent_was_left_by_the_client() {
    let mut pair = Pair::new(1);
    pair.drive(2_000);
    pair.manners = Manners::Mute;
    pair.drive(5_860); // given up: the beats at 2360, 3360, 4360, 5360 had no answer
    pair.manners = Manners::Good;
    pair.drive(10_000);
    let said_at = pair.connects[1].0 + LATENCY.as_millis();
    let expected = format!("last_beat_ago_ms: {}, ended_by: Client", said_at - 5_360);
    assert!(said_before(&pair).contains(&expected), "{}", said_before(&pair));
}

#[test]
fn an_attempt_that_failed_in_between_changes_nothing() {
    let mut pair = Pair::new(1);
    pair.drive(500); // the first beat was sent at 360
    pair.manners = Manners::Absent;
    pair.client.on_disconnected(EndedBy::Server, pair.now);
    pair.drive(20_000);
    pair.manners = Manners::Mute;
    pair.drive(100_000);
    pair.manners = Manners::Good;
    pair.drive(300_000);
    assert!(pair.client.is_live());
    let said_at = pair.connects.last().unwrap().0 + LATENCY.as_millis();
    let expected = format!("last_beat_ago_ms: {}, ended_by: Server", said_at - 360);
    assert!(said_before(&pair).contains(&expected), "{}", said_before(&pair));
}

#[test]
fn a_client_that_resumes_is_told_so() {
    for resumed in [true, false] {
        let mut pair = Pair::new(1);
        pair.drive(100);
        pair.welcome = welcome(Mode::Client, 300, resumed);
        pair.client.on_disconnected(EndedBy::Server, pair.now);
        pair.drive(3_000);
        let (_, hello) = pair.heard.iter().rfind(|(_, said)| said.starts_with("Hello")).unwrap();
        assert!(hello.contains("resume: [97, 103, 97, 105, 110]"), "{hello}");
        let welcomed =
            |news: &News| matches!(news, News::Welcome { resumed: told, .. } if *told == resumed);
        assert!(welcomed(pair.last_news_of("Welcome")), "{resumed}");
    }
}

#[test]
fn the_first_beat_is_never_later_than_an_interval() {
    let mut pair = Pair::with(Manners::Good, welcome(Mode::Client, 60_000, false), 1);
    pair.drive(2_000);
    assert_eq!(pair.heard_at("Ping"), [WELCOME_MS + 1_000 + 20]);
}

#[test]
fn losses_are_followed_by_full_jitter_that_doubles_to_the_cap() {
    let mut longest_ms = [0; 10];
    let mut shortest_ms = [u64::MAX; 10];
    for seed in 0..300 {
        let mut pair = Pair::with(Manners::Absent, WELCOME, seed);
        pair.drive(3_600_000);
        let waits = pair.news.iter().map(|(_, news)| {
            let News::Lost { loss: Loss::Unreachable, back_in } = news else {
                panic!("{news:?}");
            };
            back_in.as_millis()
        });
        for (attempt, wait) in waits.take(10).enumerate() {
            longest_ms[attempt] = longest_ms[attempt].max(wait);
            shortest_ms[attempt] = shortest_ms[attempt].min(wait);
        }
    }
    for (attempt, (longest, shortest)) in longest_ms.into_iter().zip(shortest_ms).enumerate() {
        let bound = (1_000 << attempt).min(60_000);
        assert!(longest <= bound, "attempt {attempt}: {longest}");
        assert!(longest > bound * 9 / 10, "attempt {attempt} uses its range: {longest}");
        assert!(shortest < bound / 10, "attempt {attempt} uses its range: {shortest}");
    }
}

#[test]
fn a_welcome_makes_the_next_wait_short_again() {
    let mut pair = Pair::with(Manners::Absent, WELCOME, 5);
    pair.drive(600_000);
    pair.manners = Manners::Good;
    pair.drive(700_000);
    assert!(pair.client.is_live());
    pair.client.on_disconnected(EndedBy::Server, pair.now);
    pair.settle();
    let (_, news) = pair.last_news();
    let News::Lost { loss: Loss::Closed, back_in } = news else { panic!("{news:?}") };
    assert!(*back_in <= limits::COME_BACK_BASE, "{back_in}");
}

#[test]
fn a_server_that_does_not_welcome_is_given_up() {
    let mut pair = Pair::with(Manners::Mute, WELCOME, 1);
    pair.drive(10_020);
    let (at, news) = pair.last_news();
    assert!(matches!(news, News::Lost { loss: Loss::NoWelcome, .. }), "{news:?}");
    assert_eq!(*at, 20 + limits::HANDSHAKE_TIMEOUT.as_millis());
}

#[test]
fn whoever_does_not_speak_the_protocol_is_left() {
    let said = |message: &Message<'_>| {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        bytes
    };
    let newer = Message::Welcome {
        version: 2,
        mode: Mode::Client,
        resumed: false,
        epoch: 1,
        interval_ms: 1,
        timeout_ms: 2,
        first_beat_ms: 0,
        payload_max: 9,
        server_unix_ms: 0,
        resume: &[],
    };
    for (name, manners, bytes) in [
        ("HTTP", Manners::Mute, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a frame before WELCOME", Manners::Mute, said(&Message::Ack { seq: 1 })),
        ("a version we did not offer", Manners::Mute, said(&newer)),
        ("WELCOME twice", Manners::Good, said(&WELCOME)),
        ("BYE", Manners::Good, said(&Message::Bye { code: 100 })),
        ("unknown and critical", Manners::Good, vec![0x7F, 0x80, 0, 0]),
        ("longer than agreed", Manners::Good, vec![0x05, 0, 0x04, 0x01]),
    ] {
        let mut pair = Pair::with(manners, WELCOME, 1);
        pair.drive(100);
        pair.say_bytes(bytes);
        pair.drive(120);
        let (at, news) = pair.last_news();
        assert_eq!(*at, 120, "{name}: {news:?}");
        assert!(
            matches!(news, News::Lost { loss: Loss::Wire(_) | Loss::Unexpected, .. }),
            "{name}: {news:?}"
        );
        assert_eq!(pair.closes, 1, "{name}");
    }
}

#[test]
fn bye_is_said_before_closing_and_is_the_end() {
    let mut pair = Pair::new(1);
    pair.drive(100);
    pair.client.bye();
    assert!(pair.client.is_ended());
    pair.drive(100_000);
    assert_eq!(pair.heard_at("Bye"), [120]);
    assert_eq!((pair.closes, pair.connects.len()), (1, 1));
}

#[test]
fn data_is_told_and_acknowledged() {
    let mut pair = Pair::new(1);
    pair.drive(100);
    pair.say(&Message::Data { seq: 7, ack: AckWanted::Yes, topic: "t", body: b"one" });
    pair.say(&Message::Data { seq: 8, ack: AckWanted::No, topic: "", body: b"" });
    pair.say(&Message::Ack { seq: 3 });
    pair.drive(150);
    assert_eq!(pair.heard_at("Ack { seq: 7 }"), [140]);
    assert_eq!(pair.heard_at("Ack").len(), 1);
    let told: Vec<News> = pair.told().into_iter().skip(1).map(|(_, news)| news).collect();
    assert_eq!(
        told,
        [
            News::Data { seq: 7, topic: "t".to_owned(), body: b"one".to_vec() },
            News::Data { seq: 8, topic: String::new(), body: Vec::new() },
            News::Acked { seq: 3 },
        ]
    );
}

#[test]
fn what_cannot_be_sent_is_refused_whole() {
    let mut pair = Pair::new(1);
    assert_eq!(pair.client.try_send("t", b"x", AckWanted::No), Err(SendError::Offline));
    pair.drive(100);
    assert_eq!(pair.client.try_send("t", b"x", AckWanted::No), Ok(1));
    let long = [0; 1_024];
    assert_eq!(
        pair.client.try_send("t", &long, AckWanted::No),
        Err(SendError::TooLong { bytes: 1_030, limit_bytes: 1_024 })
    );
    assert!(matches!(
        pair.client.try_send("a\nb", b"x", AckWanted::No),
        Err(SendError::Unsayable(_))
    ));
    assert_eq!(pair.client.try_send("t", &long[..1_000], AckWanted::No), Ok(2));
    let refused = (0..1_000)
        .map(|_| pair.client.try_send("t", &long[..1_000], AckWanted::No))
        .find(Result::is_err);
    assert_eq!(refused, Some(Err(SendError::Full)));
}

#[test]
fn when_the_server_pings_the_client_only_asks_after_two_silent_intervals() {
    let welcome = welcome(Mode::Server, 300, false);
    let mut pair = Pair::with(Manners::Good, welcome, 1);
    pair.drive(1_000);
    pair.say(&Message::Ping { reply: Reply::Wanted, payload: b"" });
    pair.drive(3_000);
    assert_eq!(pair.heard_at("Pong"), [1_040]);
    assert_eq!(pair.heard_at("Ping"), [] as [u64; 0]);
    pair.manners = Manners::Mute;
    pair.drive(10_000);
    assert_eq!(pair.heard_at("Ping")[0], 1_020 + 2_000 + 20);
    let lost: Vec<u64> = pair
        .told()
        .into_iter()
        .filter(|(_, news)| matches!(news, News::Lost { .. }))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(lost[0], 1_020 + 2_000 + 3_500);
}

#[test]
fn a_rhythm_of_zero_does_not_keep_the_machine_busy() {
    let mut pair = Pair::new(1);
    pair.drive(100);
    pair.say(&Message::Beat { interval_ms: 0, timeout_ms: 0 });
    pair.drive(1_120);
    assert!(pair.heard_at("Ping").len() <= 21, "{}", pair.heard.len());
}

#[test]
fn a_profile_that_does_not_fit_is_refused_at_the_start() {
    let profile = || Profile::new(ClientId::new("device-7").unwrap());
    let with_token = |bytes| Profile { token: vec![0; bytes], ..profile() };
    assert!(Machine::new(with_token(512), 0).is_ok());
    assert!(Machine::new(with_token(1_000), 0).is_err());
    assert!(Machine::new(Profile { class: "x".repeat(65), ..profile() }, 0).is_err());
}
