//! The pretend clients: each follows its script, reads what the gateway says, and insists that it
//! is what the protocol promises.

use std::collections::BTreeMap;

use fastrand::Rng;
use heartwheel::base::config::GatewayConfig;
use heartwheel::base::event::CloseReason;
use heartwheel::base::io::CloseHow;
use heartwheel::base::time::{Moment, Span};
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native::{Deframer, Inbound};

use crate::faults::{happens, span_upto, stream};
use crate::guard::Guard;
use crate::inbox::{Ear, Inboxes};
use crate::link::Link;
use crate::script::{Hello, Label, Script, Shows, Step, Writer, client_id, encoded, hello_bytes};
use crate::ways::{Parcel, Plan, Way};
use crate::world::is_told;

pub(crate) struct Clients {
    seed: u64,
    /// How often each device connected.
    times: BTreeMap<usize, u64>,
    badges: BTreeMap<usize, Badge>,
    pub(crate) inboxes: Inboxes,
    /// What they have to show.
    pub(crate) guard: Guard,
    ends: Vec<End>,
}

/// What a client was given to come back with.
#[derive(Clone)]
struct Badge {
    epoch: u64,
    token: Vec<u8>,
}

/// The client's end of one link.
struct End {
    device: usize,
    rng: Rng,
    script: Script,
    deframer: Deframer,
    way: Way,
    /// It is within a frame, and must not say anything else.
    is_within_frame: bool,
    is_welcome: bool,
    pings_said: usize,
    pongs_heard: usize,
    pings_heard: usize,
    pinged_at: Option<Moment>,
    /// It answers pings and does as GOAWAY says.
    is_obedient: bool,
    /// The session that it showed the token of.
    shown: Option<u64>,
    /// What its HELLO named as the last number that it heard in that session.
    named: u32,
    ear: Ear,
    last_word: Option<u16>,
    has_vanished: bool,
}

/// Whether the gateway was awake while it waited for its last word to be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Patience {
    Kept,
    Slept,
}

/// What a client does about what it heard.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) pongs: Vec<Span>,
    pub(crate) acks: Vec<(u32, Span)>,
    pub(crate) leaves: Option<Span>,
    /// What its layers say by themselves.
    pub(crate) wire: Option<Span>,
}

impl End {
    fn say(&mut self, bytes: Vec<u8>, label: Label) {
        let end = bytes.len();
        self.way.write(bytes, vec![(end, label)]);
    }
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            times: BTreeMap::new(),
            badges: BTreeMap::new(),
            inboxes: Inboxes::default(),
            guard: Guard::default(),
            ends: Vec::new(),
        }
    }

    /// How many connections there were.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The randomness of a device before it connects.
    pub(crate) fn rng_of(&self, device: usize) -> Rng {
        stream(self.seed, device as u64, 0)
    }

    /// The randomness of the wire of a device that connects now.
    pub(crate) fn next_rng_of(&mut self, device: usize) -> Rng {
        let times = self.times.entry(device).or_default();
        *times += 1;
        stream(self.seed, device as u64, *times)
    }

    /// A device connected by a new link. Says when it acts first, if ever.
    pub(crate) fn on_connected(
        &mut self,
        link: usize,
        device: usize,
        config: &GatewayConfig,
        plan: Plan,
    ) -> Option<Span> {
        assert_eq!(link, self.ends.len(), "links are numbered in order");
        let nth = self.times.get(&device).copied().unwrap_or_default();
        let mut rng = stream(self.seed, device as u64, nth | 1 << 32);
        let script = Writer::life(&mut rng, config, device);
        let is_obedient = !happens(&mut rng, 200);
        let wait = script.front().map(|(wait, _)| *wait);
        self.ends.push(End {
            device,
            rng,
            script,
            deframer: Deframer::client_side(),
            way: Way::new(plan, stream(self.seed, device as u64, nth | 2 << 32)),
            is_within_frame: false,
            is_welcome: false,
            pings_said: 0,
            pongs_heard: 0,
            pings_heard: 0,
            pinged_at: None,
            is_obedient,
            shown: None,
            named: 0,
            ear: Ear::default(),
            last_word: None,
            has_vanished: false,
        });
        wait
    }

    /// The next step of the script, and how long after it the one behind it comes.
    pub(crate) fn next_step(&mut self, link: usize) -> Option<(Step, Option<Span>)> {
        let end = &mut self.ends[link];
        let (_, step) = end.script.pop_front()?;
        match &step {
            Step::Write { bytes, ends } => {
                end.way.write(bytes.clone(), ends.clone());
                end.is_within_frame = ends.last().is_none_or(|(at, _)| *at != bytes.len());
                end.pings_said += ends.len();
            }
            Step::Vanish => end.has_vanished = true,
            Step::Greet { .. }
            | Step::Finish
            | Step::Reset
            | Step::Fail
            | Step::Restart
            | Step::StopReading
            | Step::ConnectAgain => {}
        }
        Some((step, end.script.front().map(|(wait, _)| *wait)))
    }

    /// The client at this link says hello.
    pub(crate) fn hello(&mut self, link: usize, hello: Hello, shows: Shows) {
        let end = &mut self.ends[link];
        end.pings_said += 1;
        let badge = self.badges.get(&hello.device);
        let mut token = badge.map(|badge| badge.token.clone()).unwrap_or_default();
        match shows {
            Shows::Nothing => token.clear(),
            Shows::Token => end.shown = badge.map(|badge| badge.epoch),
            Shows::Forgery => {
                let byte = end.rng.usize(0..24);
                token.resize(24, 0);
                token[byte] ^= 1 << end.rng.u32(0..8);
            }
        }
        let (proof, claim) = self.guard.show(&mut end.rng, hello.device);
        let said = Hello { resumes: end.shown, claim, ..hello };
        let known = end.shown.map_or(0, |epoch| self.inboxes.heard_last(epoch));
        // Some forget.
        end.named = if end.rng.u32(0..4) > 0 { known } else { 0 };
        end.say(hello_bytes(&said, &proof, &token, end.named), Label::Hello(said));
    }

    /// It does nothing more, whatever its script says.
    pub(crate) fn vanish(&mut self, link: usize) {
        self.ends[link].has_vanished = true;
        self.ends[link].script.clear();
    }

    pub(crate) fn device(&self, link: usize) -> usize {
        self.ends[link].device
    }

    /// When it last heard a PING.
    pub(crate) fn pinged_at(&self, link: usize) -> Option<Moment> {
        self.ends[link].pinged_at
    }

    /// It answers a PING, unless that cannot be said now.
    pub(crate) fn pong(&mut self, link: usize) {
        let end = &mut self.ends[link];
        if end.has_vanished || !end.is_welcome || end.way.pong() {
            return;
        }
        if !end.is_within_frame {
            end.say(encoded(&Message::Pong { payload: &[] }), Label::Beat);
        }
    }

    /// It acknowledges a message, unless that cannot be said now.
    pub(crate) fn ack(&mut self, link: usize, seq: u32) {
        let end = &mut self.ends[link];
        if !end.is_within_frame && !end.has_vanished {
            end.say(encoded(&Message::Ack { seq }), Label::Beat);
        }
    }

    // --- its layers ------------------------------------------------------------------------------

    /// It says what comes before its first frame.
    pub(crate) fn begin(&mut self, link: usize) {
        self.ends[link].way.begin();
    }

    /// It ends its layers in due form, if it has any and likes to.
    pub(crate) fn say_goodbye(&mut self, link: usize) {
        let end = &mut self.ends[link];
        if end.way.has_layers() && end.rng.bool() {
            end.way.say_goodbye();
        }
    }

    /// What it has said since the last call.
    pub(crate) fn take_parcel(&mut self, link: usize) -> Parcel {
        self.ends[link].way.take_parcel()
    }

    pub(crate) fn way(&self, link: usize) -> &Way {
        &self.ends[link].way
    }

    /// Whether it can hear and be heard, as far as its layers go.
    pub(crate) fn is_open(&self, link: usize) -> bool {
        self.ends[link].way.is_open()
    }

    pub(crate) fn has_vanished(&self, link: usize) -> bool {
        self.ends[link].has_vanished
    }

    /// Bytes came. They are frames of the server's, in the order that the protocol has.
    pub(crate) fn hear(&mut self, link: usize, bytes: &[u8], now: Moment) -> Answers {
        let mut answers = Answers::default();
        let end = &mut self.ends[link];
        let native = end.way.hear(bytes);
        if end.way.has_parcel() {
            answers.wire = Some(span_upto(&mut end.rng, Span::from_millis(30)));
        }
        let mut rest = native.as_slice();
        loop {
            let inbound = end.deframer.next(&mut rest, usize::from(u16::MAX));
            let Some(inbound) = inbound.expect("the gateway speaks the protocol") else { break };
            let Inbound::Message(message) = inbound else { panic!("the gateway said {inbound:?}") };
            assert_eq!(end.last_word, None, "{message:?} behind the last word");
            match message {
                Message::Welcome {
                    interval_ms,
                    timeout_ms,
                    first_beat_ms,
                    epoch,
                    resumed,
                    resume,
                    ..
                } => {
                    assert!(!resumed || end.shown == Some(epoch), "welcome to another's session");
                    keep_badge(&mut self.badges, end.device, epoch, resume);
                    assert!(!end.is_welcome, "welcome twice");
                    assert!(interval_ms < timeout_ms, "{interval_ms} of {timeout_ms}");
                    assert!(first_beat_ms <= interval_ms, "the first beat is due too late");
                    end.is_welcome = true;
                    end.way.on_welcome();
                    end.ear = Ear::new(epoch, if resumed { end.named } else { 0 });
                }
                Message::Ping { reply, .. } => {
                    assert!(end.is_welcome, "a ping before WELCOME");
                    assert_ne!(reply, Reply::NotWanted);
                    end.pings_heard += 1;
                    end.pinged_at = Some(now);
                    if end.is_obedient {
                        answers.pongs.push(span_upto(&mut end.rng, Span::from_millis(50)));
                    }
                }
                Message::Pong { .. } => {
                    end.pongs_heard += 1;
                    assert!(end.pongs_heard <= end.pings_said, "an answer to no question");
                }
                Message::Data { seq, ack, topic, body } => {
                    assert!(end.is_welcome && topic == "t", "a message before WELCOME");
                    let name = format!("{}:", client_id(end.device));
                    self.inboxes.hear(&mut end.ear, seq, body, &name);
                    if ack == AckWanted::Yes && end.is_obedient {
                        answers.acks.push((seq, span_upto(&mut end.rng, Span::from_millis(200))));
                    }
                }
                Message::Goaway { code, reconnect_min_ms, reconnect_max_ms, .. } => {
                    assert!(reconnect_min_ms <= reconnect_max_ms);
                    end.last_word = Some(code);
                    if end.is_obedient {
                        answers.leaves = Some(span_upto(&mut end.rng, Span::from_millis(500)));
                    }
                }
                Message::Error { code, .. } => end.last_word = Some(code),
                Message::Hello { .. }
                | Message::Ack { .. }
                | Message::Bye { .. }
                | Message::Beat { .. } => panic!("the gateway said {message:?}"),
            }
        }
        answers
    }

    /// Nobody is pinged who was not silent for long, or twice for the same silence.
    pub(crate) fn check_pings(&self, link: usize, silences: usize) {
        let pings = self.ends[link].pings_heard;
        assert!(pings <= silences, "link {link} was pinged {pings} times in {silences} silences");
    }

    /// The gateway closed the link. Who was there and listening was told why.
    pub(crate) fn on_closed(
        &self,
        link: usize,
        reason: Option<CloseReason>,
        wire: &Link,
        patience: Patience,
    ) {
        let Some(reason) = reason else { return };
        let way = &self.ends[link].way;
        let is_there = wire.is_reading() && !wire.is_peer_gone();
        if is_there && way.is_finishing() && wire.closed == Some(CloseHow::Finish) {
            way.check_closed(self.ends[link].last_word);
        }
        if let Some(word) = self.ends[link].last_word {
            assert_eq!(word, reason.code(), "it was told another reason than the ledger");
            return;
        }
        // The last of those who are told at a pace are told in the last moment.
        let is_late = reason == CloseReason::Drain && wire.is_cut_off;
        let is_owed =
            is_told(reason) && is_there && way.is_open() && patience == Patience::Kept && !is_late;
        assert!(!is_owed, "P4: link {link} ended for {reason} and was not told");
    }
}

fn keep_badge(badges: &mut BTreeMap<usize, Badge>, device: usize, epoch: u64, token: &[u8]) {
    if token.is_empty() {
        badges.remove(&device);
    } else {
        badges.insert(device, Badge { epoch, token: token.to_vec() });
    }
}
