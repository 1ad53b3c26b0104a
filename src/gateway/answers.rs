//! What one client's session is, and what may be done to it from outside.

use crate::base::config::{ClassId, Rhythm, UserTimeout};
use crate::base::event::{CloseReason, Event};
use crate::base::ids::{ClientId, ConnId};
use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::command::{Filter, Kick, Mood, Presence, Reply, SessionView};
use crate::gateway::connection::{Connection, Look, Session, State, Watch};
use crate::gateway::sessions::ping_after;
use crate::gateway::{Gateway, Word};
use crate::wire::message::Message;

impl Gateway {
    /// A page of sessions that `filter` lets through. O(slots looked at), which are bounded.
    pub(crate) fn sessions(&self, from_slot: u32, limit: u32, filter: &Filter) -> Reply {
        let limit = limit.clamp(1, limits::CLIENTS_PAGE_MAX);
        let slots_end = self.tracker.slots_end();
        let upto = from_slot.saturating_add(limit).min(slots_end);
        let view = |slot| {
            let (conn, connection) = self.tracker.slot(slot)?;
            let session = session_of(connection)?;
            let client = self.tracker.client(conn)?;
            let is_wanted = client.as_str().starts_with(&*filter.prefix)
                && filter.class.is_none_or(|class| class == session.class)
                && filter.group.as_ref().is_none_or(|group| session.is_in(group));
            is_wanted.then(|| self.view(conn, connection, session, client))
        };
        Reply::Sessions {
            sessions: (from_slot..upto).filter_map(view).collect(),
            next_slot: (upto < slots_end).then_some(upto),
        }
    }

    /// What is known of one client.
    pub(crate) fn session(&self, client: &ClientId) -> Reply {
        let found = self.tracker.find(client.as_str()).and_then(|conn| {
            let connection = self.tracker.get(conn)?;
            Some(self.view(conn, connection, session_of(connection)?, client))
        });
        found.map_or(Reply::NoSuchClient, |view| Reply::Session(Box::new(view)))
    }

    fn view(
        &self,
        conn: ConnId,
        connection: &Connection,
        session: &Session,
        client: &ClientId,
    ) -> SessionView {
        let mood = match (&connection.state, session.watch, connection.look) {
            (State::Held(_), _, _) => Mood::Held,
            (_, Watch::Pinged { .. }, _) | (_, _, Look::UnderWay { .. }) => Mood::Suspect,
            (_, Watch::Calm, Look::None) => Mood::Live,
        };
        SessionView {
            presence: Presence {
                client: client.clone(),
                epoch: session.epoch,
                conn,
                remote: connection.peer(),
                interval: session.rhythm().interval,
                timeout: session.rhythm().timeout,
            },
            class: session.class,
            mood,
            since: self.time.clock(session.began()),
            last_beat: self.time.clock(session.last_beat),
            pulse: session.pulse,
            ping_after: session.ping_after(),
            answered_in: session.answered_in.span(),
            tcp: self.measures.of(conn, self.time.lived(self.time.told_at())),
            grace: session.grace(),
            outbox_bytes: connection.outbox.bytes(),
            partial_bytes: connection.partial_bytes(),
            data_in: session.extra.as_ref().map_or(0, |extra| extra.data_in),
            data_out: session.extra.as_ref().map_or(0, |extra| extra.mail.delivered()),
            groups: session.extra.as_ref().map_or(Vec::new(), |extra| extra.groups.clone()),
        }
    }

    /// Ends one client's session, if it is still the one that was meant.
    pub(crate) fn kick(&mut self, kick: &Kick, now: Moment) -> Reply {
        let Some(conn) = self.tracker.find(kick.client.as_str()) else {
            return Reply::NoSuchClient;
        };
        let epoch = self.tracker.get(conn).and_then(session_of).map(|session| session.epoch);
        if kick.epoch.is_some() && kick.epoch != epoch {
            return Reply::OtherSession;
        }
        let text = if kick.text.is_empty() { CloseReason::Kicked.word() } else { &*kick.text };
        let word = Word { code: kick.code, text };
        self.end_saying(conn, CloseReason::Kicked, word, Default::default(), now);
        Reply::Done
    }

    /// Moves a client to another rhythm: it is told, and so is the ledger.
    pub(crate) fn set_rhythm(&mut self, client: ClientId, rhythm: Rhythm, now: Moment) -> Reply {
        let Some(conn) = self.tracker.find(client.as_str()) else { return Reply::NoSuchClient };
        let Some(connection) = self.tracker.get(conn) else { return Reply::NoSuchClient };
        let State::Live(session) = &connection.state else { return Reply::NotConnected };
        let (epoch, class) = (session.epoch, session.class);
        let mode = connection.mode(self.config.mode);
        let (shortest, longest) = self.interval_bounds(class);
        if rhythm.interval < shortest || rhythm.interval > longest {
            return Reply::OutOfBounds { shortest, longest };
        }
        let mut policies = self.config.class_named(class);
        policies.rhythm = rhythm;
        let ping_after = ping_after(mode, policies);
        if let Some(connection) = self.tracker.get_mut(conn)
            && let State::Live(session) = &mut connection.state
        {
            session.change_rhythm(rhythm, ping_after);
        }
        if self.config.user_timeout == UserTimeout::FollowTimeout {
            self.ops.push(Op::SetUserTimeout { conn, timeout: rhythm.timeout });
        }
        let Rhythm { interval, timeout } = rhythm;
        // Written down first: should the client be too slow even for this, OFFLINE comes after it.
        self.tell(Event::Rhythm { client, epoch, interval, timeout }, now);
        let beat = Message::Beat {
            interval_ms: interval.as_millis_u32(),
            timeout_ms: timeout.as_millis_u32(),
        };
        self.say(conn, &beat, now);
        self.send_waiting(conn);
        self.rearm_unless_looked_at(conn, now);
        Reply::Done
    }

    /// Between what a client of this class may be moved: what it could wish for itself.
    fn interval_bounds(&self, class: ClassId) -> (Span, Span) {
        let own = self.config.class_named(class).rhythm.interval;
        (self.config.interval_wish_min.min(own), self.config.interval_wish_max.max(own))
    }

    fn rearm_unless_looked_at(&mut self, conn: ConnId, now: Moment) {
        let Some(connection) = self.tracker.get(conn) else { return };
        if connection.look == Look::None {
            self.rearm(conn, now);
        }
    }
}

/// The session on a connection. Whoever is held is online as far as the ledger goes.
pub(crate) fn session_of(connection: &Connection) -> Option<&Session> {
    match &connection.state {
        State::Live(session) => Some(session),
        State::Held(held) => Some(&held.session),
        State::Greeting { .. } | State::Leaving { .. } | State::Closing => None,
    }
}

/// The same, for who changes it.
pub(crate) fn session_of_mut(connection: &mut Connection) -> Option<&mut Session> {
    match &mut connection.state {
        State::Live(session) => Some(session),
        State::Held(held) => Some(&mut held.session),
        State::Greeting { .. } | State::Leaving { .. } | State::Closing => None,
    }
}
