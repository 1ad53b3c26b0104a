//! The tracker against its naive twin: a list of everybody who ever was, scanned whole.

use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::time::{Moment, Span};
use heartwheel::tracker::{Full, NameError, Progress, Tracker, TrackerConfig};

const CAPACITY_MAX: u32 = 70; // two blocks of the wheel
const NAMES: usize = 12;
const TICKS_NANOS: [u64; 4] = [10_000_000, 1_000_000, 7_000_003, 1];
const SPANS_NANOS: [u64; 10] = [
    0,
    1,
    999_999,
    10_000_000,
    30_000_000,
    1_000_000_000,
    35_000_000_000,
    163_840_000_000,
    3_600_000_000_000,
    86_400_000_000_000,
];
/// Ticks that a deadline may lie ahead: with the shortest tick not all spans are within reach.
const AHEAD_TICKS_MAX: u64 = 1 << 30;

/// Reads `bytes` as steps, does them to a tracker and to its twin, and panics where they differ.
pub(crate) fn agrees_with_naive_bytes(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let Some(tick) = bytes.next() else { return };
    let mut pair = Pair::new(TICKS_NANOS[usize::from(tick) % TICKS_NANOS.len()]);
    let mut steps = 0_u32;
    while let Some(step) = bytes.next() {
        let mut next = || bytes.next().unwrap_or(0);
        match step % 16 {
            0..=2 => pair.admit(next(), next()),
            3 | 4 => pair.name(next(), next()),
            5 => pair.unname(next()),
            6..=8 => pair.touch(next(), next(), next()),
            9 => pair.disarm(next()),
            10 | 11 => pair.dismiss(next()),
            12 => pair.change_value(next()),
            13 => pair.expire_at_wake(next()),
            _ => pair.expire(next(), next(), next()),
        }
        pair.compare();
        steps += 1;
        if steps.is_multiple_of(32) {
            pair.tracker.check();
        }
    }
    pair.tracker.check();
    pair.dismiss_everybody();
    pair.tracker.check();
}

/// One connection as the twin knows it.
struct Known {
    conn: ConnId,
    state: Option<State>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct State {
    value: u32,
    client: Option<ClientId>,
    /// Rounded up to the tick.
    deadline_nanos: Option<u64>,
}

struct Pair {
    tracker: Tracker<u32>,
    /// Everybody who ever was, in order of arrival.
    known: Vec<Known>,
    tick_nanos: u64,
    now_nanos: u64,
}

impl Pair {
    fn new(tick_nanos: u64) -> Self {
        let start = Moment::from_nanos(12_345_678_901);
        let tracker = Tracker::new(TrackerConfig {
            capacity_max: CAPACITY_MAX,
            tick: Span::from_nanos(tick_nanos),
            hash_key: [1, 2],
            start,
        });
        Self { tracker, known: Vec::new(), tick_nanos, now_nanos: start.as_nanos() }
    }

    fn admit(&mut self, span: u8, more: u8) {
        let value = u32::try_from(self.known.len()).expect("few steps");
        let deadline_nanos = self.deadline_nanos(span, more);
        match self.tracker.admit(value, Moment::from_nanos(deadline_nanos)) {
            Ok(conn) => {
                let again = self.known.iter().rev().find(|known| known.conn.slot == conn.slot);
                assert!(again.is_none_or(|known| known.conn.generation != conn.generation));
                let deadline_nanos = Some(self.rounded_up(deadline_nanos));
                let state = State { value, client: None, deadline_nanos };
                self.known.push(Known { conn, state: Some(state) });
            }
            Err(Full(given_back)) => {
                assert_eq!(given_back, value);
                assert_eq!(self.present().count(), CAPACITY_MAX as usize, "refused too early");
            }
        }
    }

    fn name(&mut self, who: u8, name: u8) {
        let Some(which) = self.choose(who) else { return };
        let client = client_id(usize::from(name) % NAMES);
        let owner = self.owner(&client);
        let Known { conn, state } = &mut self.known[which];
        let expected = match (state, owner) {
            (None, _) => Err(NameError::Stale),
            (Some(State { client: Some(_), .. }), _) => Err(NameError::Named),
            (Some(_), Some(owner)) => Err(NameError::Taken { owner }),
            (Some(state), None) => {
                state.client = Some(client.clone());
                Ok(())
            }
        };
        assert_eq!(self.tracker.name(*conn, client), expected);
    }

    fn unname(&mut self, who: u8) {
        let Some(which) = self.choose(who) else { return };
        let Known { conn, state } = &mut self.known[which];
        let expected = state.as_mut().and_then(|state| state.client.take());
        assert_eq!(self.tracker.unname(*conn), expected);
    }

    fn touch(&mut self, who: u8, span: u8, more: u8) {
        let Some(which) = self.choose(who) else { return };
        let deadline_nanos = self.deadline_nanos(span, more);
        let rounded_nanos = self.rounded_up(deadline_nanos);
        let Known { conn, state } = &mut self.known[which];
        self.tracker.touch(*conn, Moment::from_nanos(deadline_nanos));
        if let Some(state) = state {
            state.deadline_nanos = Some(rounded_nanos);
        }
    }

    fn disarm(&mut self, who: u8) {
        let Some(which) = self.choose(who) else { return };
        let Known { conn, state } = &mut self.known[which];
        self.tracker.disarm(*conn);
        if let Some(state) = state {
            state.deadline_nanos = None;
        }
    }

    fn dismiss(&mut self, who: u8) {
        let Some(which) = self.choose(who) else { return };
        let Known { conn, state } = &mut self.known[which];
        assert_eq!(self.tracker.dismiss(*conn), state.take().map(|state| state.value));
    }

    fn change_value(&mut self, who: u8) {
        let Some(which) = self.choose(who) else { return };
        let Known { conn, state } = &mut self.known[which];
        match (self.tracker.get_mut(*conn), state) {
            (Some(value), Some(state)) => {
                *value += 1_000_000;
                state.value += 1_000_000;
            }
            (None, None) => {}
            (value, state) => panic!("{conn} has {value:?}, should have {state:?}"),
        }
    }

    fn expire(&mut self, span: u8, more: u8, budget: u8) {
        let nanos = SPANS_NANOS[usize::from(span) % SPANS_NANOS.len()] + u64::from(more);
        self.now_nanos += nanos.min(AHEAD_TICKS_MAX * self.tick_nanos);
        self.expire_now(budget);
    }

    fn expire_at_wake(&mut self, budget: u8) {
        if let Some(wake) = self.tracker.next_wake() {
            self.now_nanos = self.now_nanos.max(wake.as_nanos());
            self.expire_now(budget);
        }
    }

    fn expire_now(&mut self, budget: u8) {
        let budget = if budget.is_multiple_of(8) { 1_024 } else { usize::from(budget % 8) };
        let now_nanos = self.now_nanos;
        let mut expired = Vec::new();
        let progress = self.tracker.expire(Moment::from_nanos(now_nanos), budget, &mut expired);
        assert!(expired.len() <= budget);
        for conn in &expired {
            let known = self.known.iter_mut().rev().find(|known| known.conn == *conn);
            let state = known.expect("known").state.as_mut().expect("who expires is here");
            let deadline_nanos = state.deadline_nanos.take().expect("armed, and fires once");
            assert!(deadline_nanos <= now_nanos, "{conn} expired early");
        }
        let due = |state: &State| state.deadline_nanos.is_some_and(|at| at <= now_nanos);
        let left_over = self.present().filter(|(_, state)| due(state)).count();
        match progress {
            Progress::Done => assert_eq!(left_over, 0, "due, and not handed out"),
            Progress::More => {
                assert_eq!(expired.len(), budget);
                assert!(left_over > 0);
            }
        }
    }

    fn compare(&self) {
        for Known { conn, state } in self.known.iter().rev().take(200) {
            let expected = state.clone().map(|state| self.with_overdue_as_now(state));
            let found = self.tracker.get(*conn).map(|value| State {
                value: *value,
                client: self.tracker.client(*conn).cloned(),
                deadline_nanos: self.tracker.deadline(*conn).map(Moment::as_nanos),
            });
            let found = found.map(|state| self.with_overdue_as_now(state));
            assert_eq!(found, expected, "{conn}");
            let at_slot = self.tracker.slot(conn.slot).filter(|(id, _)| id == conn);
            assert_eq!(at_slot.map(|(_, value)| *value), state.as_ref().map(|state| state.value));
        }
        for name in 0..NAMES {
            let client = client_id(name);
            assert_eq!(self.tracker.find(client.as_str()), self.owner(&client), "{client}");
        }
        assert_eq!(self.tracker.len(), self.present().count());
        let named = self.present().filter(|(_, state)| state.client.is_some()).count();
        assert_eq!(self.tracker.named(), named);
        let earliest = self.present().filter_map(|(_, state)| state.deadline_nanos).min();
        match (self.tracker.next_wake().map(Moment::as_nanos), earliest) {
            (Some(wake), Some(earliest)) => assert!(wake <= earliest.max(self.now_nanos)),
            (None, None) => {}
            (wake, earliest) => panic!("wake {wake:?}, earliest deadline {earliest:?}"),
        }
    }

    /// By how much a deadline is overdue is not promised.
    fn with_overdue_as_now(&self, state: State) -> State {
        let deadline_nanos = state.deadline_nanos.map(|at| at.max(self.now_nanos));
        State { deadline_nanos, ..state }
    }

    fn dismiss_everybody(&mut self) {
        for Known { conn, state } in &mut self.known {
            assert_eq!(self.tracker.dismiss(*conn), state.take().map(|state| state.value));
        }
        assert!(self.tracker.is_empty());
        assert_eq!(self.tracker.named(), 0);
        assert_eq!(self.tracker.next_wake(), None);
    }

    /// Somebody, most often one of the latest: here or gone.
    fn choose(&self, who: u8) -> Option<usize> {
        self.known.len().checked_sub(1 + usize::from(who) % self.known.len().clamp(1, 100))
    }

    fn present(&self) -> impl Iterator<Item = (ConnId, &State)> {
        self.known.iter().filter_map(|known| Some((known.conn, known.state.as_ref()?)))
    }

    fn owner(&self, client: &ClientId) -> Option<ConnId> {
        self.present().find(|(_, state)| state.client.as_ref() == Some(client)).map(|(id, _)| id)
    }

    fn deadline_nanos(&self, span: u8, more: u8) -> u64 {
        let span_nanos = SPANS_NANOS[usize::from(span) % SPANS_NANOS.len()];
        let ahead_nanos = span_nanos.min(AHEAD_TICKS_MAX * self.tick_nanos) + u64::from(more);
        if span.is_multiple_of(7) {
            self.now_nanos.saturating_sub(ahead_nanos)
        } else {
            self.now_nanos + ahead_nanos
        }
    }

    fn rounded_up(&self, nanos: u64) -> u64 {
        nanos.div_ceil(self.tick_nanos) * self.tick_nanos
    }
}

fn client_id(number: usize) -> ClientId {
    ClientId::new(&format!("client-{number}")).expect("fit to be a client id")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::agrees_with_naive_bytes;

    #[test]
    fn the_tracker_agrees_on_every_seed() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/tracker");
        let mut read = 0;
        for seed in std::fs::read_dir(seeds).expect("the seeds are in the repository") {
            let path = seed.expect("a directory entry").path();
            agrees_with_naive_bytes(&std::fs::read(path).expect("a readable seed"));
            read += 1;
        }
        assert!(read > 0, "no seeds in {seeds}");
    }

    proptest! {
        #[test]
        fn the_tracker_agrees_with_a_list_of_everybody(
            bytes in proptest::collection::vec(any::<u8>(), 0..1_200),
        ) {
            agrees_with_naive_bytes(&bytes);
        }
    }
}
