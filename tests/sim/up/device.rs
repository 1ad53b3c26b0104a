//! Devices that talk: how they connect, beat, send, acknowledge, sleep, lose their connections and
//! come back; and what they must and must not hear about what they sent.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use heartwheel::base::config::Mode;
use heartwheel::base::data::Fate;
use heartwheel::base::event::CloseReason;
use heartwheel::base::io::IoFault;
use heartwheel::base::time::{Moment, Span};
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound, VERSIONS};

use super::down::{self, Ear};
use super::{BODY_BYTES_MAX, Happening, World};
use crate::faults::{happens, part_of, span_upto};
use crate::guard::Claim;
use crate::script::{Hello, Label, encoded, hello_bytes};

/// How a client ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It is still here when the world ends.
    Stays,
    Bye,
    Fin,
    Reset,
    /// It says nothing more, and its connection stays.
    Silent,
}

/// When a client acknowledges what it hears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Acks {
    AtOnce,
    /// With something else that it says, and not always.
    Late,
    /// When it has heard a few.
    Seldom,
    Never,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) end: End,
    has_ended: bool,
    /// Whether it sends much.
    is_chatty: bool,
    /// Whether it leaves beating to who pings it.
    is_lazy: bool,
    /// Whether it falls asleep now and then, for longer than it may.
    is_sleepy: bool,
    /// Whether it does not always read.
    is_slow: bool,
    acks: Acks,
    losses_left: u32,
    /// Its session, as far as the ledger has told.
    pub(super) online: Option<u64>,
    /// Of which session it has which token.
    token: Option<(u64, Vec<u8>)>,
    /// By which of its connections it is here.
    conn: Option<usize>,
    streams: Vec<Stream>,
    /// The latest connection of which something was handed up.
    reading: usize,
    out: Outgoing,
}

/// One connection, as its client sees it.
#[derive(Debug)]
struct Stream {
    link: usize,
    deframer: Deframer,
    epoch: Option<u64>,
    /// The session that its HELLO wants back.
    resumes: Option<u64>,
    named: u32,
    /// What it acknowledged on it.
    acked: u32,
    /// DATA that was sent on it: its number, what was acknowledged before it, where it ends.
    sent: Vec<(u32, u32, u64)>,
    /// How many of them were handed up.
    taken: usize,
    /// The last message that was heard on it, or named in its HELLO.
    last: u32,
    /// What the gateway had read to be acknowledged when it began.
    floor: u32,
    /// Said to a client that was asleep.
    unheard: Vec<u8>,
}

/// What was sent in the session that the device believes to have.
#[derive(Debug, Default)]
struct Outgoing {
    epoch: Option<u64>,
    seq_last: u32,
    wanted: BTreeSet<u32>,
    /// Length of the body of what may have to be sent again.
    kept: BTreeMap<u32, usize>,
    /// Those whose credit was given back.
    over: BTreeSet<u32>,
    /// Those of them that nobody wanted, one of the times they came.
    unclaimed: BTreeSet<u32>,
    acked: u32,
    /// Connections on which something of it was sent.
    streams: u32,
}

/// One connection, as the world sees it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) device: usize,
    number: usize,
    began: Moment,
    pub(super) said_at: Moment,
    pub(super) handed_at: Option<Moment>,
    pub(super) handed_bytes: u64,
    written_bytes: u64,
    /// Reasons for which it may end.
    pub(super) excuses: Vec<CloseReason>,
    /// Its client says nothing more.
    pub(super) is_silent: bool,
    /// Its client is done with it, and closes when it hears of that.
    is_left: bool,
    /// From when until when its client slept, the latest time.
    slept: Option<(Moment, Moment)>,
    pub(super) has_been_slow: bool,
    /// Its client may have missed what was sent by it.
    pub(super) is_deaf: bool,
    pub(super) ended_by: Option<CloseReason>,
}

impl Stream {
    fn new(link: usize, resumes: Option<u64>, named: u32, floor: u32) -> Self {
        Self {
            link,
            deframer: Deframer::client_side(),
            epoch: None,
            resumes,
            named,
            acked: 0,
            sent: Vec::new(),
            taken: 0,
            last: named,
            floor,
            unheard: Vec::new(),
        }
    }
}

impl Wire {
    fn new(device: usize, number: usize, excuses: Vec<CloseReason>, began: Moment) -> Self {
        Self {
            device,
            number,
            began,
            said_at: began,
            handed_at: None,
            handed_bytes: 0,
            written_bytes: 0,
            excuses,
            is_silent: false,
            is_left: false,
            slept: None,
            has_been_slow: false,
            is_deaf: false,
            ended_by: None,
        }
    }

    /// Whether it slept when it was last listened to.
    pub(super) fn is_asleep(&self) -> bool {
        let (slept, handed_at) = (self.slept, self.handed_at);
        slept.is_some_and(|(_, until)| handed_at.is_none_or(|at| at < until))
    }
}

impl Device {
    pub(super) fn new(rng: &mut Rng, mode: Mode) -> Self {
        let ends = [End::Stays, End::Stays, End::Bye, End::Fin, End::Reset, End::Silent];
        let acks = [Acks::AtOnce, Acks::Late, Acks::Seldom, Acks::Never];
        // Who does not hear that it is asked must beat by itself.
        let is_slow = mode != Mode::Server && happens(rng, 250);
        Self {
            end: ends[rng.usize(0..ends.len())],
            has_ended: false,
            is_chatty: happens(rng, 400),
            is_lazy: mode.server_pings() && !is_slow && rng.bool(),
            is_sleepy: happens(rng, 250),
            is_slow,
            acks: acks[rng.usize(0..acks.len())],
            losses_left: rng.u32(0..4),
            online: None,
            token: None,
            conn: None,
            streams: Vec::new(),
            reading: 0,
            out: Outgoing::default(),
        }
    }

    /// DATA of it was handed up. What it had acknowledged before it sent that.
    pub(super) fn on_taken(&mut self, epoch: u64, number: usize, seq: u32) -> u32 {
        assert!(number >= self.reading, "an older connection is read behind a newer one");
        self.reading = number;
        let stream = &mut self.streams[number];
        assert!(stream.epoch.is_none_or(|own| own == epoch), "{epoch}: {stream:?}");
        let (expected, acked, _) = stream.sent[stream.taken];
        assert_eq!(seq, expected, "once and in order: {stream:?}");
        stream.taken += 1;
        acked
    }

    pub(super) fn on_fate(&mut self, epoch: u64, seq: u32, fate: Fate) {
        if self.out.epoch.is_some_and(|own| own != epoch) {
            return;
        }
        self.out.over.insert(seq);
        if fate == Fate::Unclaimed {
            self.out.unclaimed.insert(seq);
        }
    }

    /// DATA that was handed in on this connection, whole, and not up.
    pub(super) fn unread(&self, wire: &Wire) -> usize {
        let stream = &self.streams[wire.number];
        let handed = stream.sent.iter().filter(|(_, _, end)| *end <= wire.handed_bytes).count();
        handed - stream.taken
    }

    fn on_ack(&mut self, seq: u32) {
        let out = &mut self.out;
        assert!(out.wanted.contains(&seq), "nobody asked for an ACK of {seq}");
        for before in 1..=seq {
            // What wanted none may be lost with a connection.
            let may_be_lost = out.streams > 1 && !out.wanted.contains(&before);
            assert!(out.over.contains(&before) || may_be_lost, "{before} of {seq}: {out:?}");
        }
        assert!(seq > out.acked || out.streams > 1, "{seq} after {}", out.acked);
        out.acked = out.acked.max(seq);
        let acked = out.acked;
        out.kept.retain(|seq, _| *seq > acked);
    }

    /// Everything was dealt with a while ago.
    pub(super) fn check_end(&self, wires: &BTreeMap<usize, Wire>) {
        for (number, stream) in self.streams.iter().enumerate() {
            let wire = &wires[&stream.link];
            let is_read_to_its_end = match wire.ended_by {
                Some(CloseReason::Bye | CloseReason::ClosedByPeer) => true,
                Some(CloseReason::HeartbeatTimeout) => wire.is_silent,
                Some(_) => false, // what was not read by then is lost
                None => self.end == End::Stays && self.conn == Some(number),
            };
            if is_read_to_its_end {
                assert_eq!(stream.taken, stream.sent.len(), "{stream:?} of {wire:?}");
            }
        }
        let out = &self.out;
        let owed = out.over.iter().rev();
        let owed = owed.filter(|seq| out.wanted.contains(seq) && !out.unclaimed.contains(seq));
        if self.end == End::Stays
            && let Some(owed) = owed.max()
        {
            assert!(out.acked >= *owed, "{owed} was taken: {self:?}");
        }
    }
}

impl World {
    pub(super) fn plan_life(&mut self, device: usize) {
        self.plan(self.now, Happening::Connect(device));
        let timeout = self.rhythm.timeout;
        if self.devices[device].end != End::Stays {
            let at = self.now + span_upto(&mut self.rng, timeout.times(9));
            self.plan(at, Happening::End(device));
        }
        for _ in 0..self.devices[device].losses_left {
            let at = self.now + span_upto(&mut self.rng, timeout.times(9));
            self.plan(at, Happening::Lose(device));
        }
    }

    // --- connections come and go -----------------------------------------------------------------

    pub(super) fn connect(&mut self, device: usize, at: Moment) {
        let own = &self.devices[device];
        if own.has_ended || own.conn.is_some() || self.is_draining {
            return;
        }
        let link = self.kernel.connect(self.rng.fork());
        let own = &mut self.devices[device];
        let number = own.streams.len();
        // Whoever it is here by is replaced; and what it said before may be heard behind this.
        let mut excuses = Vec::new();
        for stream in &own.streams {
            let wire = self.wires.get_mut(&stream.link).expect("a wire");
            wire.excuses.push(CloseReason::Replaced);
            if stream.epoch.is_none() {
                excuses.push(CloseReason::Replaced);
            }
        }
        let shown = own.token.clone().filter(|_| happens(&mut self.rng, 850));
        let session = shown.as_ref().and_then(|(epoch, _)| self.sessions.get_mut(epoch));
        let (mut named, mut floor) = (0, 0);
        if let Some(session) = session {
            named = [0, session.ack_written, session.heard_last][self.rng.usize(0..3)];
            floor = named.max(session.ack_read);
            session.ack_written = session.ack_written.max(named);
            if let Some(before) = own.streams.last()
                && before.taken < before.sent.len()
                && session.over.is_none()
                && self.gateway.stats().up.stopped > 0
            {
                *self.seen.entry("resumed while stopped").or_default() += 1;
            }
        }
        own.conn = Some(number);
        let resumes = shown.as_ref().map(|(epoch, _)| *epoch);
        own.streams.push(Stream::new(link, resumes, named, floor));
        self.wires.insert(link, Wire::new(device, number, excuses, at));
        let mut bytes = Vec::new();
        native::encode_preface(VERSIONS, &mut bytes);
        let class = ["", down::CLASS][self.rng.usize(0..2)];
        let claim = Claim::Unneeded;
        let hello = Hello { device, class, wish_ms: 0, resumes: None, before: None, claim };
        let token = shown.map(|(_, token)| token).unwrap_or_default();
        bytes.extend(hello_bytes(&hello, &[], &token, named));
        self.write(link, &bytes, Label::Beat, at);
        self.plan(at, Happening::Speak(device, number));
    }

    /// It will come back by another connection, unless it has gone for good.
    fn come_back(&mut self, device: usize, after: Span) {
        self.devices[device].conn = None;
        let at = self.now + after + span_upto(&mut self.rng, Span::from_millis(500));
        self.plan(at, Happening::Connect(device));
    }

    pub(super) fn lose(&mut self, device: usize, at: Moment) {
        let own = &mut self.devices[device];
        let Some(number) = own.conn.filter(|_| !own.has_ended) else { return };
        let link = own.streams[number].link;
        self.deafen(link);
        let wire = self.wires.get_mut(&link).expect("a wire");
        let manner = self.rng.u32(0..5);
        wire.is_silent = manner >= 2;
        match manner {
            0 => {
                wire.excuses.push(CloseReason::ClosedByPeer);
                self.kernel.touch(link, |wire| wire.finish());
            }
            1 => {
                wire.excuses.push(CloseReason::Reset);
                self.kernel.touch(link, |wire| wire.break_with(IoFault::Reset));
            }
            2 => {
                wire.excuses.push(CloseReason::Reset);
                self.kernel.touch(link, |wire| wire.forget());
            }
            3 => wire.is_left = true,
            _ => {}
        }
        let longest = [Span::from_millis(50), self.rhythm.timeout.times(2)];
        let longest = longest[self.rng.usize(0..2)];
        let after = at.since(self.now) + span_upto(&mut self.rng, longest);
        self.come_back(device, after);
    }

    /// What is sent by this connection may be missed.
    fn deafen(&mut self, link: usize) {
        let wire = self.wire(link);
        wire.is_deaf = true;
        let online = self.devices[self.wires[&link].device].online;
        if let Some(session) = online.and_then(|epoch| self.sessions.get_mut(&epoch)) {
            session.is_deaf = true;
        }
    }

    pub(super) fn end(&mut self, device: usize, at: Moment) {
        let own = &mut self.devices[device];
        own.has_ended = true;
        let Some(number) = own.conn else { return };
        let (link, end) = (own.streams[number].link, own.end);
        let wire = self.wires.get_mut(&link).expect("a wire");
        match end {
            End::Stays => {}
            End::Silent => wire.is_silent = true,
            End::Bye => {
                wire.excuses.push(CloseReason::Bye);
                let bye = encoded(&Message::Bye { code: CloseReason::Bye.code() });
                self.write(link, &bye, Label::Bye, at);
            }
            End::Fin => {
                wire.excuses.push(CloseReason::ClosedByPeer);
                self.kernel.touch(link, |wire| wire.finish());
            }
            End::Reset => {
                wire.excuses.push(CloseReason::Reset);
                self.kernel.touch(link, |wire| wire.break_with(IoFault::Reset));
            }
        }
    }

    pub(super) fn read_on(&mut self, device: usize) {
        for stream in &self.devices[device].streams {
            self.kernel.read_on(stream.link);
        }
    }

    // --- speaking --------------------------------------------------------------------------------

    fn write(&mut self, link: usize, bytes: &[u8], label: Label, at: Moment) {
        let wire = self.wires.get_mut(&link).expect("a wire");
        wire.said_at = at;
        wire.written_bytes += bytes.len() as u64;
        self.kernel.arrive(link, bytes, &[(bytes.len(), label)], at);
    }

    pub(super) fn speak(&mut self, device: usize, number: usize, at: Moment) {
        let own = &mut self.devices[device];
        if own.has_ended || own.conn != Some(number) {
            return;
        }
        let link = own.streams[number].link;
        if self.kernel.link(link).closed.is_some() {
            return self.come_back(device, Span::from_millis(100));
        }
        self.hear(link, &[]);
        if self.devices[device].conn != Some(number) {
            return;
        }
        let bytes = self.words(device, number);
        if !bytes.is_empty() {
            self.write(link, &bytes, Label::Beat, at);
        }
        let own = &self.devices[device];
        let (interval, timeout) = (self.rhythm.interval, self.rhythm.timeout);
        let is_lazy = own.is_lazy && !self.is_quiet && self.rng.bool();
        let most = if is_lazy { 700 } else { 100 };
        let mut pause = part_of(&mut self.rng, interval, 5..most);
        if own.is_sleepy && !self.is_quiet && happens(&mut self.rng, 60) {
            pause = part_of(&mut self.rng, timeout, 60..250);
            self.wire(link).slept = Some((at, at + pause));
            self.note("slept");
        } else if own.is_slow && !self.is_quiet && happens(&mut self.rng, 100) {
            let window = self.rng.usize(0..4_000);
            self.wire(link).has_been_slow = true;
            self.deafen(link);
            self.kernel.touch(link, |wire| wire.stop_reading(window));
            let until = at + span_upto(&mut self.rng, timeout.times(2));
            self.plan(until, Happening::ReadOn(device));
        }
        self.plan(at + pause, Happening::Speak(device, number));
    }

    /// What a device says now.
    fn words(&mut self, device: usize, number: usize) -> Vec<u8> {
        let own = &mut self.devices[device];
        let mut bytes = Vec::new();
        if !own.is_lazy || self.is_quiet || self.rng.bool() {
            bytes.extend(encoded(&Message::Ping { reply: Reply::NotWanted, payload: &[] }));
        }
        let is_time = self.is_quiet || own.acks == Acks::Late && self.rng.bool();
        if is_time && own.acks != Acks::Never {
            bytes.extend(self.acknowledgement(device, number));
        }
        // What it may say in which session it knows by WELCOME, but for the first time.
        let own = &self.devices[device];
        let may_send = own.streams[number].epoch.is_some() || number == 0;
        if self.is_quiet || !may_send {
            return bytes;
        }
        let most = if own.is_chatty { 8 } else { 2 };
        for _ in 0..self.rng.usize(0..most) {
            let length = self.rng.usize(4..BODY_BYTES_MAX);
            let out = &mut self.devices[device].out;
            out.seq_last += 1;
            let seq = out.seq_last;
            if self.rng.bool() {
                out.wanted.insert(seq);
                out.kept.insert(seq, length);
            }
            self.data(device, number, seq, length, &mut bytes);
        }
        bytes
    }

    /// Adds DATA to what a device is about to say.
    fn data(&mut self, device: usize, number: usize, seq: u32, length: usize, out: &mut Vec<u8>) {
        let own = &mut self.devices[device];
        let ack = match own.out.wanted.contains(&seq) {
            true => AckWanted::Yes,
            false => AckWanted::No,
        };
        let stream = &mut own.streams[number];
        let mut body = vec![7; length];
        let mark = u32::try_from(number).expect("few");
        body[..4].copy_from_slice(&mark.to_be_bytes());
        out.extend(encoded(&Message::Data { seq, ack, topic: "t", body: &body }));
        let end = self.wires[&stream.link].written_bytes + out.len() as u64;
        if stream.sent.is_empty() {
            own.out.streams += 1;
        }
        stream.sent.push((seq, stream.acked, end));
    }

    /// Everything that it heard is in its care.
    fn acknowledgement(&mut self, device: usize, number: usize) -> Vec<u8> {
        let stream = &mut self.devices[device].streams[number];
        let session = stream.epoch.and_then(|epoch| self.sessions.get_mut(&epoch));
        let Some(session) = session.filter(|one| one.heard_last > stream.acked) else {
            return Vec::new();
        };
        stream.acked = session.heard_last;
        session.ack_written = session.ack_written.max(stream.acked);
        encoded(&Message::Ack { seq: stream.acked })
    }

    // --- hearing ---------------------------------------------------------------------------------

    pub(super) fn let_clients_hear(&mut self) {
        for (link, bytes) in self.kernel.take_heard() {
            self.hear(link, &bytes);
        }
    }

    fn hear(&mut self, link: usize, bytes: &[u8]) {
        let (now, wire) = (self.now, &self.wires[&link]);
        let (device, number) = (wire.device, wire.number);
        if self.devices[device].conn != Some(number) {
            if wire.is_left {
                self.wire(link).excuses.push(CloseReason::ClosedByPeer);
                self.kernel.touch(link, |wire| wire.finish());
            }
            return;
        }
        let stream = &mut self.devices[device].streams[number];
        if wire.slept.is_some_and(|(_, until)| now < until) {
            stream.unheard.extend_from_slice(bytes);
            return self.deafen(link);
        }
        let mut deframer = std::mem::replace(&mut stream.deframer, Deframer::client_side());
        let bytes = [&std::mem::take(&mut stream.unheard), bytes].concat();
        let (mut rest, mut said) = (bytes.as_slice(), Vec::new());
        while let Some(inbound) = deframer.next(&mut rest, 65_535).expect("good frames") {
            if let Inbound::Message(message) = inbound {
                self.hear_message(device, number, &message, &mut said);
            }
            if self.devices[device].conn != Some(number) {
                return;
            }
        }
        let own = &mut self.devices[device];
        let stream = &mut own.streams[number];
        stream.deframer = deframer;
        if own.has_ended {
            return;
        }
        let heard_last = stream.epoch.map_or(0, |epoch| self.sessions[&epoch].heard_last);
        let is_time = match own.acks {
            Acks::AtOnce => true,
            Acks::Seldom => heard_last >= stream.acked + 5,
            Acks::Late | Acks::Never => false,
        };
        if is_time {
            said.extend(self.acknowledgement(device, number));
        }
        if !said.is_empty() {
            self.write(link, &said, Label::Beat, now);
        }
    }

    fn hear_message(
        &mut self,
        device: usize,
        number: usize,
        message: &Message<'_>,
        said: &mut Vec<u8>,
    ) {
        match message {
            Message::Welcome { resumed, epoch, resume, .. } => {
                let token = (!resume.is_empty()).then(|| (*epoch, resume.to_vec()));
                self.on_welcome(device, number, *resumed, *epoch);
                self.devices[device].token = token;
                let own = &self.devices[device];
                if *resumed && !own.has_ended {
                    let kept = own.out.kept.clone();
                    for (seq, length) in kept {
                        self.data(device, number, seq, length, said);
                    }
                }
            }
            Message::Ack { seq } => self.devices[device].on_ack(*seq),
            Message::Ping { reply: Reply::AtOnce | Reply::Wanted, payload } => {
                said.extend(encoded(&Message::Pong { payload }));
            }
            Message::Data { seq, ack, body, .. } => {
                let stream = &mut self.devices[device].streams[number];
                let epoch = stream.epoch.expect("WELCOME comes first");
                let upto = std::mem::replace(&mut stream.last, *seq).max(stream.floor);
                let ear = Ear { epoch, upto, since: self.wires[&stream.link].began };
                self.hear_post(&ear, (*seq, *ack == AckWanted::Yes), body);
            }
            Message::Goaway { .. } | Message::Error { .. } => {
                if self.devices[device].streams[number].epoch.is_none() {
                    self.note("refused");
                }
                let link = self.devices[device].streams[number].link;
                self.kernel.touch(link, |wire| wire.finish());
                self.come_back(device, Span::from_millis(100));
            }
            Message::Ping { .. } | Message::Pong { .. } | Message::Beat { .. } => {}
            Message::Hello { .. } | Message::Bye { .. } => panic!("{message:?} of a server"),
        }
    }

    fn on_welcome(&mut self, device: usize, number: usize, resumed: bool, epoch: u64) {
        let own = &mut self.devices[device];
        let stream = &mut own.streams[number];
        assert_eq!(stream.epoch.replace(epoch), None, "WELCOME comes once");
        let session = self.sessions.get_mut(&epoch).expect("the ledger knew before");
        session.conns += 1;
        if resumed {
            assert_eq!(stream.resumes, Some(epoch), "it asked for another session");
            session.ack_read = session.ack_read.max(stream.named);
            stream.acked = stream.named;
            return;
        }
        assert_eq!(session.conns, 1, "{epoch} is new");
        (stream.last, stream.floor) = (0, 0);
        if number > 0 {
            own.out = Outgoing::default();
        }
        own.out.epoch = Some(epoch);
        let before = stream.resumes.map(|before| &self.sessions[&before]);
        assert!(before.is_none_or(|before| before.over.is_some()), "it could have been resumed");
    }
}
