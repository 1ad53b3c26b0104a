//! What is pushed to the devices, into which groups they are put, and how the configuration changes
//! meanwhile; and what they must and must not hear of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fastrand::Rng;
use heartwheel::base::config::{
    Class, Duplicate, GatewayConfig, ProbePolicy, QueuePolicy, Rhythm, SlowPolicy,
};
use heartwheel::base::event::CloseReason;
use heartwheel::base::ids::{ClientId, GroupName};
use heartwheel::base::limits;
use heartwheel::base::reconfiguration::Reconfiguration;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::{
    Body, Broadcast, BroadcastReply, Command, Mood, Outcome, Post, Push, Pushed, Reply, Taken,
};

use super::{BODY_BYTES_MAX, Happening, World};
use crate::faults::{happens, part_of, span_upto};
use crate::script::client_id;

const GROUPS: [&str; 3] = ["red", "green", "blue"];

/// What is sent down, and under which policies.
pub(super) struct Down {
    /// Waiting to be done in the next turn.
    pub(super) pushes: u32,
    pub(super) regroups: u32,
    pub(super) reloads: u32,
    pub(super) measures: u32,
    number: u64,
    broadcasts: Vec<Job>,
    /// Whether there ever was too little room for everything.
    pub(super) is_ever_tight: bool,
    pub(super) has_ever_closed: bool,
    /// The policies now.
    queue: QueuePolicy,
}

/// A broadcast.
struct Job {
    text: String,
    group: Option<&'static str>,
    /// Sessions that have to get it, unless they end or leave the group meanwhile.
    targets: BTreeSet<u64>,
    /// Those that were there when it began.
    online: BTreeSet<u64>,
    /// Those that were in the group at any time since.
    members: BTreeSet<u64>,
    began_at: Moment,
    ttl: Span,
    wants_ack: bool,
}

/// One session, as those see it who push to it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) device: usize,
    pub(super) over: Option<CloseReason>,
    inbox: BTreeMap<u32, Letter>,
    pub(super) heard_last: u32,
    /// What its client said that it has, and what of that the gateway has read for certain.
    pub(super) ack_written: u32,
    pub(super) ack_read: u32,
    /// Connections that were welcomed to it.
    pub(super) conns: u32,
    /// Whether its client may have missed what was sent.
    pub(super) is_deaf: bool,
    groups: BTreeSet<&'static str>,
}

struct Letter {
    text: String,
    wants_ack: bool,
    /// It may be dropped from then on; `None`: it came by a broadcast.
    too_old_at: Option<Moment>,
    /// How many connections its session had had when it was pushed while there was none.
    away_since: Option<u32>,
    is_heard: bool,
}

/// What a connection knows when it hears a message.
pub(super) struct Ear {
    pub(super) epoch: u64,
    /// Up to here it heard everything, or it was acknowledged before it began.
    pub(super) upto: u32,
    /// When it began.
    pub(super) since: Moment,
}

impl Session {
    pub(super) fn new(device: usize, is_deaf: bool) -> Self {
        Self {
            device,
            over: None,
            inbox: BTreeMap::new(),
            heard_last: 0,
            ack_written: 0,
            ack_read: 0,
            conns: 0,
            is_deaf,
            groups: BTreeSet::new(),
        }
    }

    fn has_heard(&self, text: &str) -> bool {
        self.inbox.values().any(|letter| letter.is_heard && letter.text == text)
    }
}

impl Letter {
    /// Whether it may be missing by now.
    fn is_excused(&self, is_ever_tight: bool, conns: u32, now: Moment) -> bool {
        let is_old = self.too_old_at.is_none_or(|at| at <= now);
        self.is_heard || is_old || is_ever_tight || (!self.wants_ack && conns > 1)
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, wants_ack, too_old_at, away_since: _, is_heard } = self;
        let text = text.trim_end_matches('x');
        write!(f, "{text} wants ACK {wants_ack}, old at {too_old_at:?}, heard {is_heard}")
    }
}

impl Down {
    pub(super) fn new(queue: QueuePolicy) -> Self {
        let mut down = Self {
            pushes: 0,
            regroups: 0,
            reloads: 0,
            measures: 0,
            number: 0,
            broadcasts: Vec::new(),
            is_ever_tight: false,
            has_ever_closed: false,
            queue,
        };
        down.on_policy(queue);
        down
    }

    /// What was said in broadcasts.
    fn texts(&self) -> Vec<String> {
        self.broadcasts.iter().map(|job| job.text.clone()).collect()
    }

    fn on_policy(&mut self, queue: QueuePolicy) {
        self.queue = queue;
        self.is_ever_tight |= queue.bytes_max < limits::QUEUE_BYTES_LIMIT;
        self.has_ever_closed |= queue.slow == SlowPolicy::Close;
    }
}

/// Not at all, for moments, or for long.
pub(super) fn grace(rng: &mut Rng, rhythm: Rhythm) -> Span {
    match rng.u32(0..3) {
        0 => Span::ZERO,
        1 => part_of(rng, rhythm.timeout, 5..60),
        _ => part_of(rng, rhythm.timeout, 100..250),
    }
}

/// The class that some devices name, where it is configured.
pub(super) const CLASS: &str = "kept";

/// Whether there is a class of its own, and what its devices get.
pub(super) fn classes(rng: &mut Rng, rhythm: Rhythm) -> Vec<(String, Class)> {
    let duplicates = [Duplicate::TakeOver, Duplicate::Reject];
    let class = Class {
        rhythm,
        probe: probe(rng),
        grace: grace(rng, rhythm),
        duplicate: duplicates[rng.usize(0..2)],
    };
    if rng.bool() { vec![(CLASS.to_owned(), class)] } else { Vec::new() }
}

/// Whether silent clients are asked before they are judged.
pub(super) fn probe(rng: &mut Rng) -> ProbePolicy {
    [ProbePolicy::Off, ProbePolicy::Fixed(Span::from_millis(600))][rng.usize(0..2)]
}

/// Room for everything or hardly any, time for everything or hardly any.
pub(super) fn queue(rng: &mut Rng, rhythm: Rhythm) -> QueuePolicy {
    let slow = [SlowPolicy::Oldest, SlowPolicy::Newest, SlowPolicy::Close];
    QueuePolicy {
        bytes_max: match rng.bool() {
            true => limits::QUEUE_BYTES_LIMIT,
            false => rng.usize(1_100..6_000),
        },
        ttl: match rng.bool() {
            true => limits::QUEUE_TTL_MAX,
            false => part_of(rng, rhythm.timeout, 5..200),
        },
        slow: slow[rng.usize(0..slow.len())],
    }
}

impl World {
    pub(super) fn plan_talk(&mut self) {
        let longest = self.rhythm.timeout.times(9);
        for (happening, most) in [
            (Happening::Push, 60),
            (Happening::Regroup, 20),
            (Happening::Measure, 20),
            (Happening::Reload, 4),
        ] {
            for _ in 0..self.rng.u32(0..most) {
                let at = self.now + span_upto(&mut self.rng, longest);
                self.plan(at, happening);
            }
        }
    }

    /// Does what operators and backends want.
    pub(super) fn command(&mut self) {
        for _ in 0..std::mem::take(&mut self.down.reloads) {
            self.reload();
        }
        for _ in 0..std::mem::take(&mut self.down.regroups) {
            self.regroup();
        }
        for _ in 0..std::mem::take(&mut self.down.measures) {
            self.measure();
        }
        for _ in 0..std::mem::take(&mut self.down.pushes) {
            match self.rng.u32(0..8) {
                0 => self.push_to_many(None),
                1 => {
                    let group = GROUPS[self.rng.usize(0..GROUPS.len())];
                    self.push_to_many(Some(group));
                }
                2 => self.push_to_another_session(),
                _ => {
                    let repeats = if self.rng.bool() { 1 } else { self.rng.u32(2..12) };
                    let all = self.devices.len() + 1;
                    let count = if self.rng.bool() { 1 } else { self.rng.usize(1..=all) };
                    let mut batch: Vec<usize> = (0..all).collect();
                    self.rng.shuffle(&mut batch);
                    batch.truncate(count);
                    (0..repeats).for_each(|_| self.push_to(&batch));
                }
            }
            self.ask_what_became_of_it();
        }
    }

    fn ask(&mut self, command: Command) -> Reply {
        let reply = self.gateway.on_command(command, self.now);
        self.settle();
        reply
    }

    // --- to some ---------------------------------------------------------------------------------

    fn post(&mut self, name: &str) -> (String, Post, Span) {
        self.down.number += 1;
        let filler = "x".repeat(self.rng.usize(0..BODY_BYTES_MAX - 50));
        let text = format!("{name}:{}:{filler}", self.down.number);
        let body = Body::new("t", text.as_bytes()).expect("it is short");
        let rhythm = self.rhythm;
        let ttl = happens(&mut self.rng, 300)
            .then(|| part_of(&mut self.rng, rhythm.timeout, 5..200).max(limits::QUEUE_TTL_MIN));
        let post = Post { body: Arc::new(body), ack: self.rng.u32(0..4) > 0, ttl };
        (text, post, ttl.unwrap_or(self.down.queue.ttl))
    }

    /// To a batch of devices; the one behind the last is nobody.
    fn push_to(&mut self, batch: &[usize]) {
        let (text, post, ttl) = self.post("batch");
        let wants_ack = post.ack;
        let clients: Vec<_> = batch.iter().map(|device| name(*device)).collect();
        let before: Vec<_> = batch.iter().map(|device| self.session_of(*device)).collect();
        let push = Push { clients, epoch: None, post };
        let reply = self.ask(Command::Push(Box::new(push)));
        let Reply::Pushed(pushed) = reply else { panic!("{reply:?}") };
        assert_eq!(pushed.len(), batch.len());
        for ((device, pushed), before) in batch.iter().zip(pushed).zip(before) {
            self.note(pushed.outcome.word());
            match before {
                None => {
                    let was_here = self.sessions.values().any(|one| one.device == *device);
                    let outcome = if was_here { Outcome::Offline } else { Outcome::Unknown };
                    assert_eq!((pushed.outcome, pushed.seq), (outcome, 0), "{device}");
                }
                Some((epoch, mood)) => {
                    if pushed.outcome == Outcome::Slow {
                        assert!(self.down.queue.bytes_max < limits::QUEUE_BYTES_LIMIT);
                        assert_eq!(pushed.seq, 0, "it was not taken");
                        continue;
                    }
                    assert_eq!((pushed.outcome, pushed.epoch), (Outcome::Queued, epoch));
                    assert_eq!(pushed.is_away, mood == Mood::Held, "{device}");
                    self.note_letter(pushed, &text, wants_ack, ttl);
                }
            }
        }
    }

    fn note_letter(&mut self, pushed: Pushed, text: &str, wants_ack: bool, ttl: Span) {
        let session = self.sessions.get_mut(&pushed.epoch).expect("it was online");
        let too_old_at = Some(self.now + ttl);
        let away_since = pushed.is_away.then_some(session.conns);
        let (text, is_heard) = (text.to_owned(), false);
        let letter = Letter { text, wants_ack, too_old_at, away_since, is_heard };
        let other = session.inbox.insert(pushed.seq, letter);
        assert!(other.is_none(), "{} was given twice", pushed.seq);
    }

    /// The session of a device, and how it is.
    fn session_of(&mut self, device: usize) -> Option<(u64, Mood)> {
        let online = self.devices.get(device).and_then(|device| device.online);
        let reply = self.ask(Command::Session { client: name(device) });
        let Some(epoch) = online else {
            assert_eq!(reply, Reply::NoSuchClient, "{device}");
            return None;
        };
        let Reply::Session(view) = reply else { panic!("{reply:?}") };
        assert_eq!(view.presence.epoch, epoch);
        let groups: BTreeSet<_> = view.groups.iter().map(GroupName::as_str).collect();
        assert_eq!(groups, self.sessions[&epoch].groups);
        Some((epoch, view.mood))
    }

    /// A session that is over is not mistaken for the one that is here.
    fn push_to_another_session(&mut self) {
        let over = self.sessions.iter().filter(|(_, one)| one.over.is_some());
        let over: Vec<_> = over.map(|(epoch, one)| (*epoch, one.device)).collect();
        let here = over.into_iter().find(|(_, device)| self.devices[*device].online.is_some());
        let Some((epoch, device)) = here else { return };
        let (_, post, _) = self.post("nobody");
        let push = Push { clients: vec![name(device)], epoch: Some(epoch), post };
        assert_eq!(self.ask(Command::Push(Box::new(push))), Reply::OtherSession);
        self.note("another session");
    }

    // --- to all, and to groups -------------------------------------------------------------------

    fn push_to_many(&mut self, group: Option<&'static str>) {
        let (text, post, ttl) = self.post(group.unwrap_or("all"));
        let wants_ack = post.ack;
        let id = self.down.broadcasts.len() as u64 + 1;
        let name = group.map(|group| GroupName::new(group).expect("a group"));
        let per_second = [None, Some(self.rng.u32(1..200))][self.rng.usize(0..2)];
        let broadcast = Broadcast { id, group: name, post, per_second };
        let reply = self.ask(Command::Broadcast(Box::new(broadcast)));
        if reply == Reply::Broadcast(BroadcastReply::Busy) {
            return;
        }
        assert!(matches!(reply, Reply::Broadcast(BroadcastReply::Is(_))), "{reply:?}");
        let is_in = |one: &Session| group.is_none_or(|group| one.groups.contains(group));
        let online = self.sessions.iter().filter(|(_, one)| one.over.is_none());
        let members = online.clone().filter(|(_, one)| is_in(one));
        let members: BTreeSet<u64> = members.map(|(epoch, _)| *epoch).collect();
        let (targets, online) = (members.clone(), online.map(|(epoch, _)| *epoch).collect());
        let began_at = self.now;
        let job = Job { text, group, targets, online, members, began_at, ttl, wants_ack };
        self.down.broadcasts.push(job);
        self.note(if group.is_some() { "group" } else { "broadcast" });
    }

    /// Somebody joins a group, or leaves one.
    fn regroup(&mut self) {
        let device = self.rng.usize(0..=self.devices.len());
        let group = GROUPS[self.rng.usize(0..GROUPS.len())];
        let joins = happens(&mut self.rng, 650);
        let (client, named) = (name(device), GroupName::new(group).expect("a group"));
        let reply = match joins {
            true => self.ask(Command::Join { client, group: named }),
            false => self.ask(Command::Leave { client, group: named }),
        };
        match self.devices.get(device).and_then(|device| device.online) {
            None => assert_eq!(reply, Reply::NoSuchClient),
            Some(epoch) => {
                assert_eq!(reply, Reply::Done);
                let session = self.sessions.get_mut(&epoch).expect("it is online");
                let jobs = self.down.broadcasts.iter_mut();
                let jobs = jobs.filter(|job| job.group == Some(group));
                if joins {
                    session.groups.insert(group);
                    jobs.for_each(|job| job.members.extend([epoch]));
                } else {
                    session.groups.remove(group);
                    jobs.for_each(|job| job.targets.retain(|target| *target != epoch));
                }
            }
        }
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for session in self.sessions.values().filter(|session| session.over.is_none()) {
            session.groups.iter().for_each(|group| *sizes.entry(group).or_default() += 1);
        }
        let sizes: Vec<_> = sizes
            .iter()
            .map(|(one, size)| (GroupName::new(one).expect("a group"), *size))
            .collect();
        assert_eq!(self.ask(Command::Groups { after: None, limit: 10 }), Reply::Groups(sizes));
    }

    /// TCP is asked about somebody, by the same operation that looks at suspects.
    fn measure(&mut self) {
        let device = self.rng.usize(0..self.devices.len());
        let reply = self.ask(Command::Measure { client: name(device) });
        let is_online = self.devices[device].online.is_some();
        match is_online {
            true => assert!(matches!(reply, Reply::Session(_)), "{reply:?}"),
            false => assert_eq!(reply, Reply::NoSuchClient),
        }
        self.note("measured");
    }

    // --- other policies --------------------------------------------------------------------------

    /// From now on something else holds.
    fn reload(&mut self) {
        let second = Span::from_millis(1_000);
        let rhythms = [(second, Span::from_millis(2_500)), (second, second.times(5))];
        let (interval, timeout) = rhythms[self.rng.usize(0..rhythms.len())];
        let rhythm = Rhythm::new(interval, timeout).expect("a rhythm");
        let wanted = GatewayConfig {
            rhythm,
            probe: probe(&mut self.rng),
            classes: classes(&mut self.rng, rhythm),
            grace: grace(&mut self.rng, self.rhythm),
            queue: queue(&mut self.rng, self.rhythm),
            outbox_bytes_max: [2_000, limits::OUTBOX_BYTES_MAX][self.rng.usize(0..2)],
            broadcast_per_second: self.rng.u32(10..10_000),
            connections_max: self.rng.u32(500..2_000),
            ..self.config.clone()
        };
        let new = Reconfiguration::new(&self.config, &wanted, Span::ZERO).expect("few classes");
        self.down.on_policy(wanted.queue);
        // What comes next is reckoned from what holds then.
        self.config.take_over(&new);
        assert_eq!(self.ask(Command::Reconfigure(Box::new(new))), Reply::Done);
        self.note("reloaded");
    }

    // --- what becomes of it ----------------------------------------------------------------------

    /// A session hears a message.
    pub(super) fn hear_post(&mut self, ear: &Ear, (seq, wants_ack): (u32, bool), body: &[u8]) {
        let Ear { epoch, upto: before, since } = *ear;
        let stalled = self.gateway.stats().stalled;
        let text = std::str::from_utf8(body).expect("it was a text");
        let is_ever_tight = self.down.is_ever_tight;
        let session = self.sessions.get_mut(&epoch).expect("it was online");
        assert!(seq > before, "{seq} of session {epoch} comes behind {before}");
        for (missing, letter) in session.inbox.range(before + 1..seq) {
            let is_excused = letter.is_excused(is_ever_tight, session.conns, self.now);
            assert!(is_excused, "{missing} of session {epoch} is lost before {seq}: {letter:?}");
        }
        let is_batch = text.starts_with("batch:");
        if let Some(letter) = session.inbox.get_mut(&seq) {
            assert!((&*letter.text, letter.wants_ack) == (text, wants_ack), "{seq} of {epoch}");
            if letter.is_heard {
                *self.seen.entry("sent again").or_default() += 1;
                assert!(wants_ack || session.is_deaf, "{seq} of {epoch} was to be sent once");
            }
            // It was looked through when its client came back, and not before that.
            let is_first = letter.away_since == Some(session.conns - 1);
            let was_young = letter.too_old_at.is_none_or(|at| since < at + stalled);
            assert!(!is_first || was_young, "{seq} of {epoch} was too old: {letter:?}");
            letter.is_heard = true;
        } else {
            assert!(!is_batch, "{text:?} was pushed to another session");
            let job = self.down.broadcasts.iter().find(|job| job.text == text);
            let job = job.unwrap_or_else(|| panic!("nobody said {text:?}"));
            assert!(job.online.contains(&epoch), "{epoch} was not there yet");
            assert!(job.members.contains(&epoch), "{epoch} was not in {:?}", job.group);
            assert!(!session.has_heard(text), "{text:?} has two numbers in session {epoch}");
            assert_eq!(wants_ack, job.wants_ack);
            let text = text.to_owned();
            let (too_old_at, away_since, is_heard) = (None, None, true);
            let letter = Letter { text, wants_ack, too_old_at, away_since, is_heard };
            session.inbox.insert(seq, letter);
        }
        session.heard_last = session.heard_last.max(seq);
    }

    /// What is said of each message agrees with what its client saw.
    fn ask_what_became_of_it(&mut self) {
        self.let_clients_hear();
        for (epoch, seq, outcome) in self.outcomes() {
            self.note(outcome.word());
            let session = &self.sessions[&epoch];
            let letter = &session.inbox[&seq];
            let is_old = letter.too_old_at.is_none_or(|at| at <= self.now);
            // Of many that were dropped it is forgotten which.
            let many = session.inbox.len() > limits::LOST_KEPT_MAX;
            let is_right = match outcome {
                Outcome::Acked => letter.wants_ack && letter.is_heard && session.ack_written >= seq,
                Outcome::Delivered => letter.is_heard || session.is_deaf || !letter.wants_ack,
                Outcome::Queued => session.over.is_none() && session.ack_read < seq,
                Outcome::Slow => is_old || self.down.is_ever_tight || many,
                Outcome::Offline => is_old || session.over.is_some(),
                Outcome::Unknown => false,
            };
            assert!(is_right, "{outcome:?}: {seq} of {epoch}: {letter:?} at {:?}", self.now);
        }
    }

    /// What is said of every message, in any order.
    fn outcomes(&mut self) -> Vec<(u64, u32, Outcome)> {
        let mut of = Vec::new();
        for (epoch, session) in &self.sessions {
            let client = name(session.device);
            of.extend(session.inbox.iter().map(|(seq, letter)| {
                (
                    *epoch,
                    Taken {
                        client: client.clone(),
                        epoch: *epoch,
                        seq: *seq,
                        ack: letter.wants_ack,
                    },
                )
            }));
        }
        let mut outcomes = Vec::new();
        for page in of.chunks(limits::PUSH_CLIENTS_MAX) {
            let asked = page.iter().map(|(_, taken)| taken.clone()).collect();
            let Reply::Outcomes(found) = self.ask(Command::Outcomes { of: asked }) else {
                panic!("outcomes were asked for");
            };
            assert_eq!(found.len(), page.len());
            let page = page.iter().zip(found);
            outcomes.extend(page.map(|((epoch, taken), found)| (*epoch, taken.seq, found)));
        }
        outcomes
    }

    /// Time has passed, and everybody who is here reads.
    pub(super) fn check_messages_at_end(&mut self) {
        self.ask_what_became_of_it();
        let here: Vec<u64> = self.devices.iter().filter_map(|device| device.online).collect();
        for (epoch, seq, outcome) in self.outcomes() {
            assert!(!here.contains(&epoch) || outcome != Outcome::Queued, "{seq} of {epoch} waits");
        }
        let (is_ever_tight, now) = (self.down.is_ever_tight, self.now);
        for epoch in here {
            let session = &self.sessions[&epoch];
            for (seq, letter) in &session.inbox {
                let is_excused = letter.is_excused(is_ever_tight, session.conns, now);
                assert!(is_excused, "{seq} of {epoch} is lost: {letter:?} of {session:?}");
            }
            for job in self.down.broadcasts.iter().filter(|job| job.targets.contains(&epoch)) {
                let is_excused = is_ever_tight
                    || job.began_at + job.ttl <= now
                    || (!job.wants_ack && session.conns > 1);
                assert!(is_excused || session.has_heard(&job.text), "{epoch} got no {}", job.text);
            }
        }
        self.check_broadcasts_at_end();
    }

    fn check_broadcasts_at_end(&mut self) {
        for (id, text) in (1..).zip(self.down.texts()) {
            let reply = self.ask(Command::BroadcastStatus { id });
            let Reply::Broadcast(BroadcastReply::Is(view)) = reply else { panic!("{reply:?}") };
            assert!(!view.is_running, "{view:?}");
            assert_eq!(view.results.iter().sum::<u64>(), view.targets, "{view:?}");
            let heard = self.sessions.values().filter(|one| one.has_heard(&text)).count();
            assert!(heard as u64 <= view.targets, "{heard} heard {view:?}");
        }
    }

    /// Every message came to one end.
    pub(super) fn sum_up_messages(&mut self) {
        let mail = self.gateway.stats().mail;
        let ended = mail.delivered + mail.expired + mail.dropped_oldest + mail.orphaned;
        assert_eq!(mail.pushed, ended, "a message is nowhere: {mail:?}");
        assert!(mail.acked + mail.ack_missed <= mail.delivered, "{mail:?}");
        assert_eq!(mail.queue_bytes, 0, "a message waits for nobody");
        if !self.down.is_ever_tight {
            assert_eq!((mail.dropped_oldest, mail.dropped_newest), (0, 0), "{mail:?}");
        }
        for (word, count) in [
            ("too old", mail.expired),
            ("dropped as the oldest", mail.dropped_oldest),
            ("dropped as the newest", mail.dropped_newest),
        ] {
            *self.seen.entry(word).or_default() += count;
        }
        self.seen.retain(|_, count| *count > 0);
    }
}

fn name(device: usize) -> ClientId {
    ClientId::new(&client_id(device)).expect("a client id")
}
