//! One client's life, told moment by moment.

use crate::base::config::{Mode, Rhythm};
use crate::base::event::CloseReason;
use crate::base::io::IoFault;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::client::{Client, Due, Ending, Heard, Presence, Script, Sign, Written};
use crate::load::dialect::Dialect;
use crate::load::plan::{LoadOptions, Pace, Part, Parts, Plan, Talk};
use crate::wire::message::{AckWanted, Message, Reply};
use crate::wire::native::{self, Deframer, Inbound};

const INTERVAL: Span = Span::from_secs(2);
const TIMEOUT: Span = Span::from_secs(7);
const RUN: Span = Span::from_secs(60);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

struct Stage {
    plan: Plan,
    client: Client,
    said: Vec<u8>,
    written: Written,
}

impl Stage {
    fn with(part: Part) -> Self {
        Self::speaking(part, Dialect::Native, Pace::Rhythm)
    }

    fn speaking(part: Part, dialect: Dialect, pace: Pace) -> Self {
        let options = LoadOptions {
            target: "127.0.0.1:7070".parse().unwrap(),
            clients: 1,
            interval: INTERVAL,
            run_time: RUN,
            dialect,
            pace,
            connects_per_s: Some(1_000),
            entering_max: None,
            talk: Talk::default(),
            parts: Parts::default(),
            seed: 1,
            id_prefix: "c".into(),
            source_key: 0,
            tokens: None,
        };
        Self {
            plan: Plan::new(options).unwrap(),
            client: Client::new(0, part, dialect),
            said: Vec::new(),
            written: Written::default(),
        }
    }

    /// Connected, and its HELLO said, at moment zero.
    fn greeting(part: Part) -> Self {
        Self::with(part).greeted()
    }

    fn greeted(mut self) -> Self {
        self.client.on_connecting();
        self.client.on_connected(script(&self.plan), at(0));
        self.say(at(0));
        self
    }

    /// A client of a broker, let in at 10 ms; and when it beats first.
    fn with_broker(pace: Pace) -> (Self, Moment) {
        let mut stage = Self::speaking(Part::Steady, Dialect::Mqtt, pace).greeted();
        let heard = stage.hear_bytes(&CONNACK, at(10));
        let granted = Rhythm { interval: INTERVAL, timeout: INTERVAL.times(3) };
        let took = Span::from_millis(10);
        assert_eq!(heard, [Heard::Welcomed { granted, mode: Mode::Client, took }]);
        let first = stage.client.next_due().unwrap();
        (stage, first)
    }

    /// Welcomed at 10 ms, to beat first at 110 ms.
    fn live(part: Part) -> Self {
        let mut stage = Self::greeting(part);
        stage.hear(&[welcome(Mode::Client)], at(10));
        stage
    }

    fn say(&mut self, now: Moment) {
        self.said.clear();
        self.written = Written::default();
        if self.client.has_something_to_say() {
            self.written = self.client.write(&self.plan, now, &mut self.said);
        }
    }

    fn hear(&mut self, messages: &[Message<'_>], now: Moment) -> Vec<Heard> {
        let mut bytes = Vec::new();
        for message in messages {
            native::encode(message, &mut bytes);
        }
        self.hear_bytes(&bytes, now)
    }

    fn hear_bytes(&mut self, bytes: &[u8], now: Moment) -> Vec<Heard> {
        let mut heard = Vec::new();
        self.client.on_bytes(script(&self.plan), bytes, now, |news| heard.push(news));
        heard
    }

    /// Lives until `end`, and returns what fell due, each with its moment.
    fn live_until(&mut self, end: Moment) -> Vec<(Moment, Due)> {
        let mut happened = Vec::new();
        while let Some(due) = self.client.next_due().filter(|due| *due <= end) {
            happened.push((due, self.client.on_time(script(&self.plan), due)));
            self.say(due);
        }
        happened
    }
}

fn script(plan: &Plan) -> Script<'_> {
    let saturates = plan.options().pace == Pace::Saturating;
    Script { plan, end: Moment::ZERO + RUN, granted: None, saturates }
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn welcome(mode: Mode) -> Message<'static> {
    Message::Welcome {
        version: 1,
        mode,
        resumed: false,
        epoch: 1,
        interval_ms: INTERVAL.as_millis_u32(),
        timeout_ms: TIMEOUT.as_millis_u32(),
        first_beat_ms: 100,
        payload_max: 1_024,
        server_unix_ms: 0,
        resume: b"",
    }
}

fn goaway(reason: CloseReason) -> Message<'static> {
    Message::Goaway {
        code: reason.code(),
        reconnect_min_ms: 0,
        reconnect_max_ms: 0,
        address: "",
        text: "",
    }
}

#[test]
fn a_client_is_small() {
    assert!(size_of::<Client>() <= 136, "{}", size_of::<Client>());
}

#[test]
fn it_says_hello_and_is_welcomed() {
    let mut stage = Stage::greeting(Part::Steady);
    let mut server = Deframer::server_side();
    let mut said = stage.said.as_slice();
    let preface = server.next(&mut said, limits::HELLO_PAYLOAD_BYTES_MAX).unwrap();
    assert!(matches!(preface, Some(Inbound::Preface(_))));
    let hello = server.next(&mut said, limits::HELLO_PAYLOAD_BYTES_MAX).unwrap();
    let Some(Inbound::Message(Message::Hello { client_id, wanted_interval_ms, .. })) = hello else {
        panic!("{hello:?}");
    };
    assert_eq!((client_id, wanted_interval_ms), ("c1", 2_000));
    let heard = stage.hear(&[welcome(Mode::Client)], at(10));
    let granted = Rhythm { interval: INTERVAL, timeout: TIMEOUT };
    let took = Span::from_millis(10);
    assert_eq!(heard, [Heard::Welcomed { granted, mode: Mode::Client, took }]);
    assert_eq!(stage.client.presence(), Presence::Live);
}

#[test]
fn it_beats_first_when_told_to_and_then_at_every_interval() {
    let mut stage = Stage::live(Part::Steady);
    let beats = stage.live_until(at(6_200));
    let expected = [110, 2_110, 4_110, 6_110].map(|millis| (at(millis), Due::Say));
    assert_eq!(beats, expected);
    assert_eq!(stage.client.awaited(), 4);
}

#[test]
fn the_round_trip_begins_when_the_beat_should_have_been_sent() {
    let mut stage = Stage::live(Part::Steady);
    assert_eq!(stage.client.on_time(script(&stage.plan), at(500)), Due::Say);
    stage.say(at(600));
    let payload = at(110).as_nanos().to_be_bytes();
    let heard = stage.hear(&[Message::Pong { payload: &payload }], at(650));
    assert_eq!(heard, [Heard::Pong { rtt: Span::from_millis(540) }]);
    assert_eq!(stage.client.awaited(), 0);
    let again = stage.hear(&[Message::Pong { payload: &payload }], at(660));
    assert_eq!(again, [], "an answer that nobody waits for is none");
}

#[test]
fn a_beat_that_cannot_even_be_queued_is_left_out() {
    let mut stage = Stage::live(Part::Steady);
    assert_eq!(stage.client.on_time(script(&stage.plan), at(2_200)), Due::Say);
    assert_eq!(stage.client.on_time(script(&stage.plan), at(2_200)), Due::SkipBeat);
    assert_eq!(stage.client.on_time(script(&stage.plan), at(2_200)), Due::Nothing);
    stage.say(at(2_200));
    assert_eq!(stage.written, Written { ping: Some(at(110)), pongs: 0, message: false });
}

#[test]
fn pings_of_the_server_are_answered_with_their_bytes() {
    for (name, reply, said) in [
        ("ping", Reply::Wanted, true),
        ("probe", Reply::AtOnce, true),
        ("no reply", Reply::NotWanted, false),
    ] {
        let mut stage = Stage::live(Part::Steady);
        stage.hear(&[Message::Ping { reply, payload: b"there?" }], at(50));
        stage.say(at(50));
        let mut expected = Vec::new();
        if said {
            native::encode(&Message::Pong { payload: b"there?" }, &mut expected);
        }
        assert_eq!(stage.said, expected, "{name}");
    }
}

#[test]
fn messages_that_want_it_are_acknowledged_up_to_the_latest() {
    let data = |seq, ack| Message::Data { seq, ack, topic: "t", body: b"x" };
    let mut stage = Stage::live(Part::Steady);
    stage.hear(&[data(1, AckWanted::No)], at(50));
    stage.say(at(50));
    assert_eq!(stage.said, [0; 0], "nobody asked");
    stage.hear(&[data(2, AckWanted::Yes), data(3, AckWanted::Yes)], at(60));
    assert!(stage.client.has_something_to_say());
    stage.say(at(60));
    let mut expected = Vec::new();
    native::encode(&Message::Ack { seq: 3 }, &mut expected);
    assert_eq!(stage.said, expected);
    assert!(!stage.client.has_something_to_say());
    assert!(stage.client.silence());
    assert_eq!(stage.hear(&[data(4, AckWanted::Yes)], at(70)), [], "the dead do not answer");
}

#[test]
fn where_the_server_pings_the_client_does_not_beat() {
    let mut stage = Stage::greeting(Part::Steady);
    stage.hear(&[welcome(Mode::Server)], at(10));
    assert_eq!(stage.client.next_due(), None);
}

#[test]
fn the_silent_beat_once_and_fall_silent_early_enough_for_the_verdict() {
    let mut stage = Stage::live(Part::Silent);
    let happened = stage.live_until(Moment::ZERO + RUN);
    let (silent_at, last) = *happened.last().unwrap();
    assert_eq!(last, Due::FallSilent);
    assert_eq!(happened[0], (at(110), Due::Say));
    let verdict_at = silent_at + TIMEOUT + limits::LOAD_VERDICT_MARGIN;
    assert!(verdict_at <= Moment::ZERO + RUN, "{silent_at:?}");
    let heard = stage.hear(&[Message::Ping { reply: Reply::AtOnce, payload: b"" }], silent_at);
    assert_eq!(heard, [], "the dead do not answer");
    assert_eq!(stage.client.next_due(), None);
}

#[test]
fn detection_counts_from_the_deadline_to_the_first_sign() {
    let millis = Span::from_millis;
    let word = Sign::Told(CloseReason::HeartbeatTimeout);
    for (name, after_last_beat, sign, ending) in [
        ("fin", 7_012, Sign::Eof, Ending::Detected { late: millis(12) }),
        ("reset", 7_000, Sign::Fault(IoFault::Reset), Ending::Detected { late: millis(0) }),
        ("word", 7_001, word, Ending::Detected { late: millis(1) }),
        ("early", 6_999, Sign::Eof, Ending::DetectedEarly { early: millis(1) }),
    ] {
        let mut stage = Stage::live(Part::Silent);
        let happened = stage.live_until(Moment::ZERO + RUN);
        let last_beat = happened[happened.len() - 2].0;
        let noticed = last_beat + millis(after_last_beat);
        assert_eq!(stage.client.on_ended(sign, noticed), ending, "{name}");
        assert_eq!(stage.client.on_ended(Sign::Eof, noticed), Ending::NoMatter, "{name}");
    }
}

#[test]
fn a_living_client_that_is_ended_is_a_false_offline_unless_it_overslept() {
    let mut stage = Stage::live(Part::Steady);
    stage.live_until(at(110));
    let eof = Sign::Eof;
    for (name, sign, millis, ending) in [
        ("cut", eof, 7_109, Ending::FalseOffline),
        ("judged", Sign::Told(CloseReason::HeartbeatTimeout), 200, Ending::FalseOffline),
        ("own fault", eof, 7_110, Ending::Overslept),
        ("drained", Sign::Told(CloseReason::Drain), 200, Ending::SentAway),
        ("nonsense", Sign::Garbled(CloseReason::Malformed), 200, Ending::SentAway),
    ] {
        assert_eq!(stage.client.judge(sign, at(millis)), ending, "{name}");
    }
    let early = Stage::greeting(Part::Steady).client.on_ended(eof, at(1));
    assert_eq!(early, Ending::Refused);
}

#[test]
fn who_beats_too_late_cannot_complain_before_the_server_had_time_to_say_so() {
    let mut stage = Stage::live(Part::Steady);
    stage.live_until(at(110));
    // It should have beaten every two seconds, and is dead at 7,110.
    stage.client.on_time(script(&stage.plan), at(9_000));
    stage.say(at(9_000));
    let ended = |stage: &Stage, millis| stage.client.judge(Sign::Eof, at(millis));
    assert_eq!(ended(&stage, 9_000), Ending::Overslept, "at once");
    let beats = stage.live_until(at(12_000)).len();
    assert_eq!(ended(&stage, 12_000), Ending::Overslept, "after {beats} beats in time");
    stage.live_until(at(20_000));
    assert_eq!(ended(&stage, 20_000), Ending::FalseOffline, "it was forgiven long since");
}

#[test]
fn who_is_told_to_go_closes_first() {
    let mut stage = Stage::live(Part::Steady);
    let heard = stage.hear(&[goaway(CloseReason::Drain)], at(50));
    let sign = Sign::Told(CloseReason::Drain);
    assert_eq!(heard, [Heard::Ended(sign, Ending::SentAway)]);
    assert!(stage.client.wants_to_close());
    stage.client.on_closed(&stage.plan, at(60));
    assert_eq!(stage.client.presence(), Presence::Away);
    assert_eq!(stage.client.next_due(), None, "it does not come back by itself");
}

#[test]
fn the_silent_do_not_close_even_when_told_to_go() {
    let mut stage = Stage::live(Part::Steady);
    assert!(stage.client.silence());
    let heard = stage.hear(&[goaway(CloseReason::HeartbeatTimeout)], at(7_005));
    let sign = Sign::Told(CloseReason::HeartbeatTimeout);
    assert_eq!(heard, [Heard::Ended(sign, Ending::Detected { late: Span::from_millis(5) })]);
    assert!(!stage.client.wants_to_close(), "the dead wait to be closed");
    assert_eq!(stage.client.presence(), Presence::Leaving);
    assert_eq!(stage.client.on_ended(Sign::Eof, at(7_006)), Ending::NoMatter);
    assert!(stage.client.wants_to_close());
}

#[test]
fn the_late_beat_between_interval_and_timeout() {
    let mut stage = Stage::live(Part::Late);
    let beats = stage.live_until(Moment::ZERO + RUN);
    assert!(beats.len() > 5);
    for pair in beats.windows(2) {
        let gap = pair[1].0.since(pair[0].0);
        assert!(gap > INTERVAL, "{gap} is not late");
        assert!(gap < TIMEOUT, "{gap} is too late");
    }
}

#[test]
fn who_wants_no_answer_says_so_and_waits_for_none() {
    let mut stage = Stage::live(Part::NoReply);
    assert_eq!(stage.live_until(at(110)), [(at(110), Due::Say)]);
    let payload = &at(110).as_nanos().to_be_bytes();
    let mut ping = Vec::new();
    native::encode(&Message::Ping { reply: Reply::NotWanted, payload }, &mut ping);
    assert_eq!(stage.said, ping);
    assert_eq!(stage.client.awaited(), 0);
}

#[test]
fn leaving_is_a_bye_and_then_a_close() {
    let mut stage = Stage::live(Part::Leave);
    let happened = stage.live_until(Moment::ZERO + RUN);
    assert_eq!(happened.last().unwrap().1, Due::Say);
    let mut bye = Vec::new();
    native::encode(&Message::Bye { code: 100 }, &mut bye);
    assert_eq!(stage.said, bye);
    assert!(stage.client.wants_to_close());
    assert_eq!(stage.client.on_ended(Sign::Eof, at(60_000)), Ending::NoMatter);
}

#[test]
fn who_comes_and_goes_comes_back_until_the_end() {
    let mut stage = Stage::live(Part::Flap);
    let mut goings = 0;
    let mut now = at(10);
    while now < Moment::ZERO + RUN {
        let (gone_at, _) = *stage.live_until(Moment::ZERO + RUN.times(2)).last().unwrap();
        stage.client.on_closed(&stage.plan, gone_at);
        goings += 1;
        now = stage.client.next_due().expect("it comes back");
        assert!(now > gone_at);
        assert_eq!(stage.client.on_time(script(&stage.plan), now), Due::Connect);
        stage.client.on_connected(script(&stage.plan), now);
        stage.say(now);
        stage.hear(&[welcome(Mode::Client)], now);
    }
    assert!(goings >= 5, "{goings}");
}

#[test]
fn a_slow_reader_beats_without_having_heard_welcome() {
    let stage = &mut Stage::greeting(Part::SlowReader);
    assert_eq!(stage.live_until(at(4_000)), [(at(2_000), Due::Say), (at(4_000), Due::Say)]);
    assert_eq!(stage.client.on_ended(Sign::Eof, at(4_001)), Ending::SlowReader);
}

#[test]
fn the_silenced_can_be_revived() {
    let mut stage = Stage::live(Part::Steady);
    assert!(stage.client.silence());
    assert!(!stage.client.silence());
    let deadline = at(0) + TIMEOUT;
    assert_eq!(stage.client.presence(), Presence::Silent { deadline });
    assert!(stage.client.revive(at(500)));
    assert_eq!(stage.live_until(at(500)), [(at(500), Due::Say)]);
    stage.client.on_closed(&stage.plan, at(600));
    assert!(stage.client.revive(at(700)));
    assert_eq!(stage.client.on_time(script(&stage.plan), at(700)), Due::Connect);
}

#[test]
fn a_server_that_grants_no_time_at_all_does_not_make_us_spin() {
    let mut stage = Stage::greeting(Part::Steady);
    let mut hurry = welcome(Mode::Client);
    if let Message::Welcome { interval_ms, .. } = &mut hurry {
        *interval_ms = 0;
    }
    stage.hear(&[hurry], at(10));
    let beats = stage.live_until(at(1_110));
    assert_eq!(beats.len(), 21, "one each 50 ms");
}

#[test]
fn bytes_that_are_not_the_protocol_end_it() {
    let mut stage = Stage::live(Part::Steady);
    let mut heard = Vec::new();
    let bytes = [native::kind::WELCOME, 0, 0, 1, 0xFF];
    stage.client.on_bytes(script(&stage.plan), &bytes, at(20), |news| heard.push(news));
    let sign = Sign::Garbled(CloseReason::Malformed);
    assert_eq!(heard, [Heard::Ended(sign, Ending::SentAway)]);
    assert!(stage.client.wants_to_close());
}

#[test]
fn a_client_of_a_broker_says_connect_pingreq_and_disconnect() {
    let stage = Stage::speaking(Part::Steady, Dialect::Mqtt, Pace::Rhythm).greeted();
    assert_eq!(stage.said, b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x04\x00\x02c1");
    let (mut stage, first) = Stage::with_broker(Pace::Rhythm);
    assert!(first <= at(10) + INTERVAL, "{first:?}");
    assert_eq!(stage.live_until(first), [(first, Due::Say)]);
    assert_eq!(stage.said, [0xC0, 0]);
    let heard = stage.hear_bytes(&PINGRESP, first + Span::from_millis(3));
    assert_eq!(heard, [Heard::Pong { rtt: Span::from_millis(3) }]);
    assert_eq!(stage.client.dismiss(), Due::Say);
    stage.say(at(50_000));
    assert_eq!(stage.said, [0xE0, 0]);
}

#[test]
fn a_broker_that_refuses_or_talks_nonsense_ends_the_connection() {
    for (name, bytes, sign) in [
        ("refuses", &[0x20, 2, 0, 5][..], Sign::ToldUnknown),
        ("nonsense", &[0x02, 0, 0, 0x22], Sign::Garbled(CloseReason::Malformed)),
    ] {
        let mut stage = Stage::speaking(Part::Steady, Dialect::Mqtt, Pace::Rhythm).greeted();
        let heard = stage.hear_bytes(bytes, at(10));
        assert_eq!(heard, [Heard::Ended(sign, Ending::Refused)], "{name}");
    }
}

/// PINGRESP does not say which PINGREQ it answers, so only one is under way; the one that waits
/// keeps its moment, and its round trip contains the waiting.
#[test]
fn where_answers_have_no_names_a_beat_waits_for_the_answer_before() {
    let (mut stage, first) = Stage::with_broker(Pace::Rhythm);
    stage.live_until(first);
    let second = first + INTERVAL;
    assert_eq!(stage.live_until(second), [(second, Due::Say)]);
    assert!(!stage.client.has_something_to_say(), "the first is not answered");
    assert_eq!((stage.said.len(), stage.client.awaited()), (0, 1));
    let third = second + INTERVAL;
    assert_eq!(stage.live_until(third), [(third, Due::SkipBeat)]);
    let answered = third + Span::from_millis(1);
    assert_eq!(stage.hear_bytes(&PINGRESP, answered).len(), 1);
    stage.say(answered);
    assert_eq!(stage.written, Written { ping: Some(second), pongs: 0, message: false });
    let heard = stage.hear_bytes(&PINGRESP, answered + Span::from_millis(1));
    assert_eq!(heard, [Heard::Pong { rtt: INTERVAL + Span::from_millis(2) }]);
}

#[test]
fn a_saturating_client_beats_at_every_answer_until_the_end() {
    for dialect in [Dialect::Native, Dialect::Mqtt] {
        let (mut stage, first) = match dialect {
            Dialect::Mqtt => Stage::with_broker(Pace::Saturating),
            Dialect::Native | Dialect::WebSocket => {
                let stage = Stage::speaking(Part::Steady, dialect, Pace::Saturating);
                let mut stage = stage.greeted();
                stage.hear(&[welcome(Mode::Client)], at(10));
                (stage, at(110))
            }
        };
        let answer = |stage: &mut Stage, beat: Moment, now| match dialect {
            Dialect::Mqtt => stage.hear_bytes(&PINGRESP, now),
            Dialect::Native | Dialect::WebSocket => {
                let payload = &beat.as_nanos().to_be_bytes();
                stage.hear(&[Message::Pong { payload }], now)
            }
        };
        assert_eq!(stage.live_until(first), [(first, Due::Say)], "{dialect:?}");
        assert_eq!(stage.client.next_due(), None, "only answers call for beats: {dialect:?}");
        let mut beat = first;
        for _ in 0..3 {
            let now = beat + Span::from_micros(70);
            let rtt = Span::from_micros(70);
            assert_eq!(answer(&mut stage, beat, now), [Heard::Pong { rtt }], "{dialect:?}");
            stage.say(now);
            assert_eq!(
                stage.written,
                Written { ping: Some(now), pongs: 0, message: false },
                "{dialect:?}"
            );
            beat = now;
        }
        answer(&mut stage, beat, Moment::ZERO + RUN);
        assert!(!stage.client.has_something_to_say(), "the run is over: {dialect:?}");
    }
}

#[test]
fn a_client_keeps_its_rhythm_until_everybody_is_in_and_never_has_two_beats_under_way() {
    let mut stage = Stage::speaking(Part::Steady, Dialect::Native, Pace::Saturating).greeted();
    stage.hear(&[welcome(Mode::Client)], at(10));
    let not_yet = |stage: &mut Stage, now| {
        let script = Script { saturates: false, ..script(&stage.plan) };
        stage.client.on_time(script, now)
    };
    assert_eq!(not_yet(&mut stage, at(110)), Due::Say);
    stage.say(at(110));
    let payload = at(110).as_nanos().to_be_bytes();
    assert_eq!(stage.client.next_due(), Some(at(2_110)));
    // Everybody is in before the answer comes: it calls for the next beat, the alarm for none.
    assert_eq!(stage.hear(&[Message::Pong { payload: &payload }], at(120)).len(), 1);
    stage.say(at(120));
    assert_eq!(stage.written, Written { ping: Some(at(120)), pongs: 0, message: false });
    assert_eq!(stage.live_until(at(5_000)), [(at(2_110), Due::Nothing)]);
    assert_eq!((stage.client.awaited(), stage.client.next_due()), (1, None));
}

#[test]
fn whoever_talks_sends_messages_beside_its_beats_and_times_their_acks() {
    let mut stage = Stage::live(Part::Talk);
    let mut spoken = Vec::new();
    while spoken.len() < 3 {
        let due = stage.client.next_due().unwrap();
        assert_eq!(stage.client.on_time(script(&stage.plan), due), Due::Say);
        stage.say(due);
        if stage.written.message {
            assert_eq!(stage.written.ping, None, "each at its own time");
            spoken.push(due);
            let mut said = stage.said.as_slice();
            let mut server = Deframer::client_side();
            let heard = server.next(&mut said, 1_024).unwrap();
            let seq = u32::try_from(spoken.len()).unwrap();
            let body = &[b'x'; 64];
            let ack = AckWanted::Yes;
            let expected = Message::Data { seq, ack, topic: "load", body };
            assert_eq!(heard, Some(Inbound::Message(expected)));
        }
    }
    assert!(spoken[0] <= at(110) + INTERVAL + INTERVAL, "{spoken:?}");
    let every = stage.plan.options().talk_every();
    assert_eq!(spoken, [spoken[0], spoken[0] + every, spoken[0] + every + every]);
    let ms = Span::from_millis;
    let acked = |took| Heard::Acked { took };
    let now = spoken[2] + ms(7);
    assert_eq!(
        stage.hear(&[Message::Ack { seq: 2 }], now),
        [every + ms(7) + every, every + ms(7)].map(acked)
    );
    assert_eq!(stage.hear(&[Message::Ack { seq: 2 }], now), [], "each is told once");
    assert_eq!(stage.hear(&[Message::Ack { seq: 99 }], now), [acked(ms(7))]);
}

#[test]
fn whoever_gets_no_ack_leaves_messages_out_in_the_end_and_goes_on_beating() {
    let mut stage = Stage::live(Part::Talk);
    let every = stage.plan.options().talk_every();
    let happened = stage.live_until(at(110) + every.times(limits::LOAD_UNACKED_MAX as u64 + 5));
    let skipped = happened.iter().filter(|(_, due)| *due == Due::SkipMessage).count();
    assert!((3..=5).contains(&skipped), "{skipped}");
    assert_eq!(
        happened.len() - skipped - limits::LOAD_UNACKED_MAX,
        usize::from(stage.client.awaited())
    );
    // On another connection it begins anew.
    stage.client.on_closed(&stage.plan, at(1));
    stage.client.on_connected(script(&stage.plan), at(1));
    stage.say(at(1));
    stage.hear(&[welcome(Mode::Client)], at(2));
    assert_eq!(stage.hear(&[Message::Ack { seq: 9 }], at(3)), [], "nothing was sent yet");
}

/// By WebSocket HELLO waits until the request is granted, and a ping is answered by a pong.
#[test]
fn by_websocket_hello_is_said_when_the_door_is_open() {
    let stage = Stage::speaking(Part::Steady, Dialect::WebSocket, Pace::Rhythm);
    let mut stage = stage.greeted();
    assert!(stage.said.starts_with(b"GET / HTTP/1.1\r\n"), "{:?}", stage.said);
    assert!(!stage.client.has_something_to_say());
    let key = b"aGVhcnR3aGVlbCBsb2FkIQ==";
    let accept = crate::wire::websocket::accept_key(key);
    let granted = format!("HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    assert_eq!(stage.hear_bytes(granted.as_bytes(), at(5)), [Heard::Say]);
    stage.say(at(5));
    assert_eq!(stage.said[0], 0x82, "a message of bytes");
    let mut native = Vec::new();
    native::encode(&welcome(Mode::Either), &mut native);
    let mut bytes = Vec::new();
    let binary = crate::wire::websocket::Opcode::Binary;
    crate::wire::websocket::write_frame(binary, None, &native, &mut bytes);
    let heard = stage.hear_bytes(&bytes, at(10));
    let took = Span::from_millis(5);
    assert!(matches!(heard[..], [Heard::Welcomed { took: t, .. }] if t == took), "{heard:?}");
    assert_eq!(stage.hear_bytes(&[0x89, 0], at(20)), [Heard::Say]);
    stage.say(at(20));
    assert_eq!((stage.said[0], stage.said[1], stage.written.pongs), (0x8A, 0x80, 1));
    let refused = Stage::speaking(Part::Steady, Dialect::WebSocket, Pace::Rhythm);
    let mut refused = refused.greeted();
    let heard = refused.hear_bytes(b"HTTP/1.1 403 Forbidden\r\n\r\n", at(5));
    assert_eq!(heard, [Heard::Ended(Sign::ToldUnknown, Ending::Refused)]);
}
