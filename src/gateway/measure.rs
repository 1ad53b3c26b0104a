//! What TCP says of a connection that nobody suspects, for whoever asks.
//!
//! A measurement is a look like the last one, and no verdict ever rests on it: a deadline that
//! passes meanwhile waits for a look of its own, which is asked for when the measurement is over.

use std::collections::VecDeque;

use crate::base::ids::{ClientId, ConnId};
use crate::base::io::{Op, TcpFacts};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::gateway::command::Reply;
use crate::gateway::connection::{Look, Measure, State};

/// What was measured lately, at most [`limits::MEASURES_MAX`] connections.
#[derive(Default)]
pub(crate) struct Measures {
    /// Oldest first.
    lately: VecDeque<(ConnId, Moment, TcpFacts)>,
}

impl Measures {
    /// What TCP said of a connection, if that was just now.
    pub(crate) fn of(&self, conn: ConnId, now: Moment) -> Option<TcpFacts> {
        let found = self.lately.iter().rev().find(|(of, _, _)| *of == conn);
        found.filter(|(_, at, _)| now.since(*at) <= limits::MEASURE_AGE_MAX).map(|found| found.2)
    }

    fn note(&mut self, conn: ConnId, facts: TcpFacts, now: Moment) {
        self.lately.retain(|(of, _, _)| *of != conn);
        if self.lately.len() >= limits::MEASURES_MAX {
            self.lately.pop_front();
        }
        self.lately.push_back((conn, now, facts));
    }

    pub(crate) fn len(&self) -> usize {
        self.lately.len()
    }
}

impl Gateway {
    /// Begins to measure the way to a client, if it is live and not looked at, and says what is
    /// known of it by now.
    pub(crate) fn measure(&mut self, client: &ClientId, now: Moment) -> Reply {
        if let Some(conn) = self.tracker.find(client.as_str())
            && self.measures.of(conn, now).is_none()
            && let Some(connection) = self.tracker.get_mut(conn)
            && matches!(connection.state, State::Live(_))
            && (connection.look, connection.measure) == (Look::None, Measure::None)
        {
            connection.measure = Measure::UnderWay;
            self.ops.push(Op::Look { conn });
        }
        self.session(client)
    }

    /// A look was answered. Says whether it was a measurement, and no look that anybody waits for.
    pub(crate) fn on_measured(&mut self, conn: ConnId, tcp: Option<TcpFacts>, now: Moment) -> bool {
        let Some(connection) = self.tracker.get_mut(conn) else { return false };
        if std::mem::replace(&mut connection.measure, Measure::None) == Measure::None {
            return false;
        }
        match connection.state {
            State::Live(_) => {}
            State::Greeting { .. } | State::Held(_) | State::Leaving { .. } | State::Closing => {
                return true;
            }
        }
        // Its deadline passed meanwhile: what this look saw is older than the suspicion.
        if connection.look != Look::None {
            self.ops.push(Op::Look { conn });
        }
        if let Some(facts) = tcp {
            self.measures.note(conn, facts, now);
        }
        true
    }
}
