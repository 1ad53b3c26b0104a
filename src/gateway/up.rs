//! DATA on its way up, and credit: who sent how much that is not taken yet, and who has to wait.
//!
//! What was handed up and not taken counts against a budget, as a whole and on the account of the
//! session that sent it. A client is not read any further as soon as its account holds more than is
//! left of the budget (a dynamic threshold, after Choudhury and Hahne): so the one who sends most
//! stops first, and whoever sends little hardly notices. It is read on when its account holds no
//! more than half of what is left. Nobody is ever looked for: a session is met when it sends, or
//! when its credit comes back, and those who wait are kept by how much they have on account.
//!
//! What had been received of a client before the kernel stopped is kept as it came, unread, and is
//! read first when the client is read on. The end of its stream, if it came, stands behind that. A
//! connection that broke is lost at once, with what was not read of it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::base::data::{Credit, DataRecord, DataTicket, Fate, charge_bytes};
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::io::{Op, ReceiveEnd};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::gateway::answers::session_of_mut;
use crate::gateway::connection::{Hearing, Look, Receive, State};
use crate::gateway::requests::Next;
use crate::tracker::Progress;
use crate::wire::message::{AckWanted, Message};

/// What became of DATA that was received: counts since the start, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpStats {
    /// Everybody who wanted it took it.
    pub taken: u64,
    /// Nobody wanted it.
    pub unclaimed: u64,
    /// Now: what is handed up and not taken counts for so much against the budget, in bytes.
    pub bytes: usize,
    /// Now: bytes that were received of clients that are not read, and wait with them.
    pub unread_bytes: usize,
    /// Now: clients that are not read until what they sent is taken.
    pub stopped: usize,
    /// How often a client was not read any further.
    pub stops: u64,
}

impl UpStats {
    /// Adds what another shard says of itself.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { taken, unclaimed, bytes, unread_bytes, stopped, stops } = other;
        self.taken += taken;
        self.unclaimed += unclaimed;
        self.bytes += bytes;
        self.unread_bytes += unread_bytes;
        self.stopped += stopped;
        self.stops += stops;
    }
}

/// All that is on its way up.
#[derive(Default)]
pub(crate) struct UpPath {
    /// Whether anybody wants DATA.
    is_wanted: bool,
    /// Charges of what was handed up and not taken, in bytes.
    bytes: usize,
    /// What was received of clients that are not read, in bytes.
    unread_bytes: usize,
    /// By session, as long as there is something on it.
    accounts: HashMap<u64, Account>,
    /// What the side thread had no room for yet.
    waiting: VecDeque<Box<DataRecord>>,
    /// Who is not read: what is on the account, since when, and whose it is.
    stopped: BTreeSet<(usize, u64, u64)>,
    stops: u64,
    /// Sessions whose ACK is due at the end of a batch of credits.
    acks: Vec<u64>,
}

/// What one session has sent and nobody has taken.
struct Account {
    /// By which connection the client is here, if it is.
    conn: Option<ConnId>,
    /// The charges of all of it, in bytes.
    bytes: usize,
    /// Number of the first of `sent`.
    first: u64,
    sent: VecDeque<Sent>,
    /// An ACK that has to be said.
    ack: Option<u32>,
    stop: Option<Stop>,
    /// Whether the session is over. What it sent is still on its way.
    is_over: bool,
}

/// One DATA frame, until it and all before it are taken.
struct Sent {
    charge_bytes: u32,
    seq: u32,
    ack: AckWanted,
    is_over: bool,
}

/// A client that is not read.
struct Stop {
    since: u64,
    unread: Vec<u8>,
}

impl UpPath {
    fn left(&self, budget: usize) -> usize {
        budget.saturating_sub(self.bytes)
    }

    /// Those who are not read, for [`check`](Gateway::check).
    fn check(&self) {
        let mut bytes = 0;
        let mut stopped = 0;
        for (epoch, account) in &self.accounts {
            let open = account.sent.iter().filter(|sent| !sent.is_over);
            let own: usize = open.map(|sent| sent.charge_bytes as usize).sum();
            assert_eq!(own, account.bytes, "session {epoch}");
            assert!(account.sent.front().is_none_or(|sent| !sent.is_over));
            bytes += own;
            if let Some(stop) = &account.stop {
                stopped += 1;
                assert!(account.conn.is_some());
                assert!(self.stopped.contains(&(account.bytes, stop.since, *epoch)));
            }
            assert!(!account.is_settled(), "session {epoch} has nothing on its account");
        }
        assert_eq!(bytes, self.bytes);
        assert_eq!(stopped, self.stopped.len());
        let stops = self.accounts.values().filter_map(|account| account.stop.as_ref());
        let unread: usize = stops.map(|stop| stop.unread.len()).sum();
        assert_eq!(unread, self.unread_bytes);
        assert!(self.acks.is_empty());
    }
}

impl Account {
    fn new(conn: ConnId) -> Self {
        Self {
            conn: Some(conn),
            bytes: 0,
            first: 0,
            sent: VecDeque::new(),
            ack: None,
            stop: None,
            is_over: false,
        }
    }

    /// A message is on nobody's account any more. What it was charged, unless it was over before.
    fn end(&mut self, number: u64, fate: Fate) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sent = self.sent.get_mut(index).filter(|sent| !sent.is_over)?;
        sent.is_over = true;
        if fate == Fate::Unclaimed {
            sent.ack = AckWanted::No;
        }
        Some(sent.charge_bytes as usize)
    }

    /// Forgets those that are over and have nothing before them that is not. The number that the
    /// last of them wants to be told, if any does.
    fn forget_ended(&mut self) -> Option<u32> {
        let mut ack = None;
        while self.sent.front().is_some_and(|sent| sent.is_over)
            && let Some(sent) = self.sent.pop_front()
        {
            self.first += 1;
            if sent.ack == AckWanted::Yes {
                ack = Some(sent.seq);
            }
        }
        ack
    }

    /// Whether nothing is left to be remembered.
    fn is_settled(&self) -> bool {
        self.sent.is_empty() && self.ack.is_none() && self.stop.is_none()
    }
}

impl Gateway {
    // --- up --------------------------------------------------------------------------------------

    /// Whether anybody wants DATA; at first nobody does.
    pub fn set_data_wanted(&mut self, is_wanted: bool) {
        self.up.is_wanted = is_wanted;
    }

    /// Moves at most `budget` records to the end of `out`, in order.
    pub fn take_data(&mut self, out: &mut Vec<Box<DataRecord>>, budget: usize) {
        let count = budget.min(self.up.waiting.len());
        out.extend(self.up.waiting.drain(..count));
        if self.up.waiting.is_empty() && self.up.waiting.capacity() > limits::DATA_QUEUE_MAX {
            self.up.waiting = VecDeque::new();
        }
    }

    /// Records that nobody has taken from here yet.
    pub fn data_waiting(&self) -> usize {
        self.up.waiting.len()
    }

    /// A client that is online sent something.
    pub(crate) fn on_data(&mut self, conn: ConnId, data: Data<'_>, now: Moment) -> Next {
        self.stats.data_received += 1;
        self.count_data(conn);
        if !self.up.is_wanted {
            self.stats.up.unclaimed += 1;
            return Next::Listen;
        }
        let Some(epoch) = self.live_epoch(conn) else { return Next::Ended };
        let Some(client) = self.tracker.client(conn).cloned() else { return Next::Ended };
        let Data { seq, ack, topic, body } = data;
        let charge = charge_bytes(topic, body);
        if charge > self.room_for_more() {
            return self.refuse(conn, CloseReason::Busy, now);
        }
        let account = self.up.accounts.entry(epoch).or_insert_with(|| Account::new(conn));
        let number = account.first + account.sent.len() as u64;
        let charge_bytes = u32::try_from(charge).unwrap_or(u32::MAX);
        account.sent.push_back(Sent { charge_bytes, seq, ack, is_over: false });
        account.bytes += charge;
        self.up.bytes += charge;
        let (own, left) = (account.bytes, self.up.left(self.config.up_bytes_max));
        self.up.waiting.push_back(Box::new(DataRecord {
            ticket: DataTicket { epoch, number },
            client,
            seq,
            topic: topic.into(),
            body: body.into(),
            at: self.time.expected(now),
        }));
        if own > left {
            self.stop_reading(conn, epoch, now);
            return Next::Stopped;
        }
        Next::Listen
    }

    /// Whoever sends messages has room for their count; whoever only beats goes without.
    fn count_data(&mut self, conn: ConnId) {
        if let Some(session) = self.tracker.get_mut(conn).and_then(session_of_mut) {
            session.extra().data_in += 1;
        }
    }

    /// What may still come, of whoever is not stopped yet, before somebody has to go.
    fn room_for_more(&self) -> usize {
        let most = 2 * self.config.up_bytes_max + limits::UP_OVERSHOOT_BYTES;
        most.saturating_sub(self.up.bytes + self.up.unread_bytes)
    }

    fn live_epoch(&self, conn: ConnId) -> Option<u64> {
        match &self.tracker.get(conn)?.state {
            State::Live(session) => Some(session.epoch),
            State::Greeting { .. } | State::Held(_) | State::Leaving { .. } | State::Closing => {
                None
            }
        }
    }

    // --- stopping and going on -------------------------------------------------------------------

    fn stop_reading(&mut self, conn: ConnId, epoch: u64, now: Moment) {
        let Some(account) = self.up.accounts.get_mut(&epoch) else { return };
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        self.stats.up.stops += 1;
        let since = self.up.stops;
        self.up.stops += 1;
        account.stop = Some(Stop { since, unread: Vec::new() });
        self.up.stopped.insert((account.bytes, since, epoch));
        connection.hearing = Hearing::Stopped;
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Pausing;
            self.ops.push(Op::Pause { conn });
        }
        self.on_mail_hearing(conn, Hearing::Stopped, now);
    }

    /// Keeps what came in of a client that is not read.
    pub(crate) fn keep_unread(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        if bytes.len() > self.room_for_more() {
            return self.end(conn, CloseReason::Busy, now);
        }
        if let Some(stop) = self.stop_of(conn) {
            stop.unread.extend_from_slice(bytes);
            self.up.unread_bytes += bytes.len();
        }
    }

    fn stop_of(&mut self, conn: ConnId) -> Option<&mut Stop> {
        let epoch = self.live_epoch(conn)?;
        self.up.accounts.get_mut(&epoch)?.stop.as_mut()
    }

    /// Whether something of this client was received and is not read yet.
    pub(crate) fn has_unread(&mut self, conn: ConnId) -> bool {
        let connection = self.tracker.get(conn);
        connection.is_some_and(|connection| connection.hearing == Hearing::Stopped)
            && self.stop_of(conn).is_some_and(|stop| !stop.unread.is_empty())
    }

    /// The receive of a client that is not read ended. Whether that is all there is to do about it
    /// now: an end of its stream is acted on behind what it said before, a fault at once.
    pub(crate) fn on_stopped_receive_ended(&mut self, conn: ConnId, end: ReceiveEnd) -> bool {
        let receive = match end {
            ReceiveEnd::Paused | ReceiveEnd::Starved | ReceiveEnd::Interrupted => Receive::Paused,
            ReceiveEnd::Eof if self.has_unread(conn) => Receive::Over,
            ReceiveEnd::Eof | ReceiveEnd::Fault(_) => return false,
        };
        if let Some(connection) = self.tracker.get_mut(conn) {
            connection.receive = receive;
        }
        true
    }

    /// Reads those on who wait for it and may be, the least first; some of them in each turn.
    pub(crate) fn read_on(&mut self, now: Moment) {
        let mut letters = 0;
        for _ in 0..limits::TURN_RESUMES_MAX {
            let Some(epoch) = self.next_to_be_read() else { return };
            letters += self.resume_reading(epoch, now);
            if letters > limits::SWEEP_LETTERS_MAX {
                break;
            }
        }
        if self.next_to_be_read().is_some() {
            self.unfinished = Progress::More;
        }
    }

    fn next_to_be_read(&self) -> Option<u64> {
        let (own, _, epoch) = *self.up.stopped.first()?;
        let left = self.up.left(self.config.up_bytes_max);
        (left > 0 && own <= left / 2).then_some(epoch)
    }

    /// Reads a client on; how many messages of it were looked at.
    fn resume_reading(&mut self, epoch: u64, now: Moment) -> usize {
        let Some((conn, stop)) = self.up.end_stop(epoch) else { return 0 };
        let Some(connection) = self.tracker.get_mut(conn) else { return 0 };
        connection.hearing = Hearing::Open;
        self.forgive(conn, now);
        let letters = self.on_mail_hearing(conn, Hearing::Open, now);
        self.read_what_was_kept(conn, epoch, &stop, now);
        letters
    }

    fn read_what_was_kept(&mut self, conn: ConnId, epoch: u64, stop: &Stop, now: Moment) {
        if !stop.unread.is_empty() {
            self.take_apart(conn, &stop.unread, now);
        }
        if self.live_epoch(conn) != Some(epoch) {
            return;
        }
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        if connection.receive == Receive::Over {
            // It stands behind what is left, if anything is.
            return self.on_receive_ended(conn, ReceiveEnd::Eof, now);
        }
        if connection.hearing == Hearing::Stopped {
            return;
        }
        let Some(connection) = self.tracker.get(conn) else { return };
        let is_looked_at = connection.look != Look::None;
        if connection.receive == Receive::Paused {
            self.receive_again(conn);
        }
        if !is_looked_at {
            self.rearm(conn, now);
        }
    }

    // --- credit ----------------------------------------------------------------------------------

    /// Credit came back. Clients hear their ACKs, one for all that was taken of each, and those who
    /// waited are read on.
    pub fn on_credits(&mut self, credits: &[Credit], now: Moment) {
        let now = self.on_told(now);
        for credit in credits {
            match (self.up.on_credit(*credit), credit.fate) {
                (false, _) => self.stats.stale += 1,
                (true, Fate::Taken) => self.stats.up.taken += 1,
                (true, Fate::Unclaimed) => self.stats.up.unclaimed += 1,
            }
        }
        let mut acks = std::mem::take(&mut self.up.acks);
        for epoch in acks.drain(..) {
            self.say_ack(epoch, now);
        }
        self.up.acks = acks;
        self.read_on(now);
    }

    fn say_ack(&mut self, epoch: u64, now: Moment) {
        let Some(account) = self.up.accounts.get_mut(&epoch) else { return };
        let Some(conn) = account.conn else { return };
        let Some(seq) = account.ack.take() else { return };
        self.up.drop_settled(epoch);
        self.say(conn, &Message::Ack { seq }, now);
        self.send_waiting(conn);
    }

    // --- sessions come and go --------------------------------------------------------------------

    /// The client goes on by this connection. What was taken while it was away is said now.
    pub(crate) fn on_up_resumed(&mut self, epoch: u64, conn: ConnId, now: Moment) {
        if let Some(account) = self.up.accounts.get_mut(&epoch) {
            account.conn = Some(conn);
            self.say_ack(epoch, now);
        }
    }

    /// Panics when the accounts disagree with the connections.
    pub(crate) fn check_up(&self) {
        self.up.check();
        assert!(self.room_for_more() <= 2 * self.config.up_bytes_max + limits::UP_OVERSHOOT_BYTES);
    }

    /// Panics when this client is not read and nobody would read it on.
    pub(crate) fn check_hearing(&self, conn: ConnId, hearing: Hearing, receive: Receive) {
        let epoch = self.live_epoch(conn).expect("it was seen to be live");
        let stop = self.up.accounts.get(&epoch).and_then(|account| account.stop.as_ref());
        match (hearing, stop) {
            (Hearing::Open, None) => {
                assert!(matches!(receive, Receive::Armed | Receive::Pausing), "{conn} is heard");
            }
            (Hearing::Stopped, Some(stop)) => match receive {
                Receive::Over => assert!(!stop.unread.is_empty(), "{conn} has said all"),
                Receive::Pausing | Receive::Paused => {}
                Receive::Armed => panic!("{conn} is not to be read"),
            },
            (Hearing::Open, Some(_)) | (Hearing::Stopped, None) => {
                panic!("{conn}: nobody would read it on")
            }
        }
    }
}

impl UpPath {
    /// What `counts` says, and how things are now.
    pub(crate) fn stats(&self, counts: UpStats) -> UpStats {
        UpStats {
            bytes: self.bytes,
            unread_bytes: self.unread_bytes,
            stopped: self.stopped.len(),
            ..counts
        }
    }

    /// Whether it was somebody's.
    fn on_credit(&mut self, credit: Credit) -> bool {
        let DataTicket { epoch, number } = credit.ticket;
        let Some(account) = self.accounts.get_mut(&epoch) else { return false };
        let before = account.bytes;
        let Some(charge) = account.end(number, credit.fate) else { return false };
        account.bytes -= charge;
        self.bytes -= charge;
        if let Some(stop) = &account.stop {
            self.stopped.remove(&(before, stop.since, epoch));
            self.stopped.insert((account.bytes, stop.since, epoch));
        }
        if let Some(seq) = account.forget_ended().filter(|_| !account.is_over) {
            if account.ack.is_none() {
                self.acks.push(epoch);
            }
            // What came twice may be taken behind what came later.
            account.ack = account.ack.max(Some(seq));
        }
        self.drop_settled(epoch);
        true
    }

    /// The session's connection is lost. What was received by it and not read is lost with it.
    pub(crate) fn on_lost(&mut self, epoch: u64) {
        self.end_stop(epoch);
        if let Some(account) = self.accounts.get_mut(&epoch) {
            account.conn = None;
        }
    }

    /// The session is over.
    pub(crate) fn on_over(&mut self, epoch: u64) {
        self.on_lost(epoch);
        if let Some(account) = self.accounts.get_mut(&epoch) {
            account.is_over = true;
            account.ack = None;
        }
        self.drop_settled(epoch);
    }

    fn end_stop(&mut self, epoch: u64) -> Option<(ConnId, Stop)> {
        let account = self.accounts.get_mut(&epoch)?;
        let stop = account.stop.take()?;
        let (conn, bytes) = (account.conn?, account.bytes);
        self.stopped.remove(&(bytes, stop.since, epoch));
        self.unread_bytes -= stop.unread.len();
        self.drop_settled(epoch);
        Some((conn, stop))
    }

    fn drop_settled(&mut self, epoch: u64) {
        if self.accounts.get(&epoch).is_some_and(Account::is_settled) {
            self.accounts.remove(&epoch);
        }
    }
}

/// A DATA frame, as it came.
#[derive(Clone, Copy)]
pub(crate) struct Data<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: AckWanted,
    pub(crate) topic: &'a str,
    pub(crate) body: &'a [u8],
}
