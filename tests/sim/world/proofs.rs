//! Whoever looks at tokens, and takes his time.

use heartwheel::base::identity::Verdict;

use crate::guard::{self, Guard};

use super::*;

/// The guard's stream of randomness.
const GUARD: u64 = 5 << 40;

/// What clients of a world have to show.
pub(super) fn guard(bounds: &Bounds) -> Guard {
    match bounds.scene {
        Scene::Bare => Guard::default(),
        Scene::Layered => Guard::random(&mut stream(bounds.seed, GUARD, 0)),
    }
}

impl World {
    /// Takes what is to be looked at, and tells what was found out.
    pub(super) fn look_at_tokens(&mut self) {
        if self.clients.guard != Guard::Asked {
            return;
        }
        let now = self.now;
        for (conn, verdict) in std::mem::take(&mut self.verdicts_waiting) {
            self.oracle.on_told(now);
            let verdict = verdict_of(verdict);
            self.trace(|| format!("{conn} is {verdict:?}"));
            self.gateway.on_checked(conn, verdict, now);
            self.oracle.on_judged(conn, verdict, now);
            self.read_ledger(now);
        }
        let mut checks = Vec::new();
        self.gateway.take_checks(&mut checks, self.rng.usize(1..100));
        for check in checks {
            let longest = match self.rng.u32(0..4) {
                0 => self.config.handshake_timeout.times(2),
                _ => Span::from_millis(300),
            };
            let at = now + span_upto(&mut self.rng, longest);
            let verdict = guard::judge(&check);
            self.check_address(check.conn, check.peer);
            self.plan(at, Happening::Judged { conn: check.conn, verdict: verdict.index() as u64 });
        }
    }

    /// Whoever looks at a token is told where it comes from.
    fn check_address(&self, conn: ConnId, peer: SocketAddr) {
        let Some(seat) = self.oracle.seats.get(&conn) else { return };
        assert_eq!(peer, self.address_of(seat.link), "{conn} comes from elsewhere");
    }

    /// Answers that come when everybody is gone do nothing.
    pub(super) fn sum_up_tokens(&mut self) {
        let mut late = Vec::new();
        let mut checks = Vec::new();
        self.gateway.take_checks(&mut checks, usize::MAX);
        late.extend(checks.into_iter().map(|check| (check.conn, guard::judge(&check))));
        let waiting = std::mem::take(&mut self.verdicts_waiting);
        late.extend(waiting.into_iter().map(|(conn, verdict)| (conn, verdict_of(verdict))));
        for Reverse((_, _, happening)) in self.agenda.drain() {
            if let Happening::Judged { conn, verdict } = happening {
                late.push((conn, verdict_of(verdict)));
            }
        }
        for (conn, verdict) in late {
            self.gateway.on_checked(conn, verdict, self.now);
        }
        let mut ops = Vec::new();
        self.gateway.take_ops(&mut ops);
        assert!(ops.is_empty(), "a late answer does something: {ops:?}");
        assert_eq!(self.gateway.events_waiting(), 0, "a late answer is told");
        let stats = self.gateway.stats();
        assert_eq!((stats.stale, stats.tally.checks_under_way), (0, 0), "an answer is awaited");
    }
}

fn verdict_of(index: u64) -> Verdict {
    let found = Verdict::ALL.into_iter().find(|verdict| verdict.index() as u64 == index);
    found.expect("it was one of them")
}
