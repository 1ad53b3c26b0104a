//! The tracker against other ways to know by name who is here and until when.

#[allow(dead_code, unused_imports, reason = "shared with the other benchmark, which uses the rest")]
mod rivals;

use std::collections::HashMap;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use heartwheel::base::ids::{ClientId, ConnId};
use heartwheel::base::limits::EXPIRE_BATCH_MAX;
use heartwheel::base::time::{Moment, Span};
use heartwheel::tracker::{Progress, Tracker, TrackerConfig};
use tokio::runtime::Handle;

use rivals::own_time;

use rivals::{BareStore, Beat, Day, Deadlines, HashWheel, Order, Pace, TokioDelayQueue, Tree};

const TICK: Span = Span::from_millis(10);

const WHOLE: &[u32] = &[10_000, 100_000, 1_000_000];
const TRIAL: &[u32] = &[1_000];

fn main() {
    let measures = std::env::args().any(|arg| arg == "--bench");
    let tries = std::env::args().any(|arg| arg == "--test");
    let sizes = if measures && !tries { WHOLE } else { TRIAL };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    for &clients in sizes {
        beats::<BareStore>(&mut criterion, clients);
        beats::<ByConnection>(&mut criterion, clients);
        beats::<ByName>(&mut criterion, clients);
        beats::<NamedScan>(&mut criterion, clients);
        beats::<Named<Tree>>(&mut criterion, clients);
        beats::<Named<TokioDelayQueue>>(&mut criterion, clients);
        beats::<Named<HashWheel>>(&mut criterion, clients);
        churn(&mut criterion, clients);
        expire(&mut criterion, clients);
    }
    criterion.final_summary();
}

/// One beat with its share of ticks.
fn beats<D: Deadlines>(criterion: &mut Criterion, clients: u32) {
    let mut group = criterion.benchmark_group("tracker/beat");
    group.throughput(Throughput::Elements(1));
    // Made when it is measured first: a filter leaves most of them out.
    let mut made = None;
    group.bench_function(BenchmarkId::new(D::NAME, clients), |bencher| {
        let (day, deadlines) = made.get_or_insert_with(|| {
            let (mut day, mut deadlines) =
                (Day::new(clients, Pace::USUAL, Order::New), D::new(clients));
            day.live(&mut deadlines);
            day.next_interval();
            (day, deadlines)
        });
        bencher.iter_custom(|beats| day.measure_beats(deadlines, beats));
    });
    group.finish();
}

/// A client leaves and another comes, among so many.
fn churn(criterion: &mut Criterion, clients: u32) {
    let mut made = None;
    criterion.bench_function(&format!("tracker/leave_and_come/{clients}"), |bencher| {
        let (tracker, ids) = made.get_or_insert_with(|| filled(clients));
        let mut turn = 0;
        bencher.iter(|| {
            turn = (turn + 7_919) % ids.len();
            let client = tracker.unname(ids[turn]).expect("named");
            tracker.dismiss(ids[turn]);
            ids[turn] = tracker.admit(0, deadline()).expect("there is room");
            tracker.name(ids[turn], client).expect("it is free");
        });
    });
}

/// A slice of a mass death: 1,024 of so many are handed out and dismissed.
fn expire(criterion: &mut Criterion, clients: u32) {
    let slice = EXPIRE_BATCH_MAX.min(clients as usize);
    let mut group = criterion.benchmark_group("tracker/expire_and_dismiss");
    group.throughput(Throughput::Elements(slice as u64));
    let mut made = None;
    group.bench_function(BenchmarkId::from_parameter(clients), |bencher| {
        let (tracker, ids) = made.get_or_insert_with(|| filled(clients));
        let mut dead = Vec::with_capacity(slice);
        let mut names = Vec::with_capacity(slice);
        bencher.iter_custom(|slices| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..slices {
                ids[..slice].iter().for_each(|conn| tracker.touch(*conn, Moment::ZERO));
                elapsed += own_time(|| {
                    assert_eq!(tracker.expire(Moment::ZERO, slice, &mut dead), Progress::Done);
                    for conn in &dead {
                        names.extend(tracker.unname(*conn));
                        tracker.dismiss(*conn);
                    }
                });
                assert_eq!(dead.len(), slice);
                dead.clear();
                for (conn, client) in ids.iter_mut().zip(names.drain(..)) {
                    *conn = tracker.admit(0, deadline()).expect("there is room");
                    tracker.name(*conn, client).expect("it is free");
                }
            }
            elapsed
        });
    });
    group.finish();
}

fn filled(clients: u32) -> (Tracker<u64>, Vec<ConnId>) {
    let mut tracker = tracker(clients);
    let ids = (0..clients)
        .map(|client| {
            let conn = tracker.admit(0, deadline()).expect("there is room");
            tracker.name(conn, ClientId::new(&name(client)).expect("fits")).expect("it is free");
            conn
        })
        .collect();
    (tracker, ids)
}

fn tracker(clients: u32) -> Tracker<u64> {
    let hash_key = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    let config = TrackerConfig { capacity_max: clients, tick: TICK, hash_key, start: Moment::ZERO };
    Tracker::new(config)
}

fn deadline() -> Moment {
    Moment::ZERO + Span::from_secs(90)
}

fn moment(tick: u64) -> Moment {
    Moment::ZERO + TICK.times(tick)
}

fn name(client: u32) -> String {
    format!("device-{client:08}")
}

/// Ours, where the connection is known: what the gateway does with a beat. The id comes with the
/// kernel's completion, so it is not looked up here either: slots are given in order.
struct ByConnection {
    tracker: Tracker<u64>,
    expired: Vec<ConnId>,
}

impl Deadlines for ByConnection {
    const NAME: &'static str = "heartwheel_by_connection";

    fn new(clients: u32) -> Self {
        let (tracker, ids) = filled(clients);
        assert!((0..clients).zip(ids).all(|(client, conn)| conn == conn_id(client)));
        Self { tracker, expired: Vec::new() }
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        self.tracker.touch(conn_id(client), moment(deadline));
    }

    fn tick(&mut self, now: u64) -> usize {
        expire_all(&mut self.tracker, &mut self.expired, now)
    }
}

fn conn_id(client: u32) -> ConnId {
    ConnId { slot: client, generation: 0 }
}

/// Ours, where only the name is known: what `Presence` does with a beat.
struct ByName {
    tracker: Tracker<u64>,
    names: Vec<String>,
    expired: Vec<ConnId>,
}

impl Deadlines for ByName {
    const NAME: &'static str = "heartwheel_by_name";

    fn new(clients: u32) -> Self {
        let names = (0..clients).map(name).collect();
        Self { tracker: tracker(clients), names, expired: Vec::new() }
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        let name = &self.names[client as usize];
        match self.tracker.find(name) {
            Some(conn) => self.tracker.touch(conn, moment(deadline)),
            None => {
                let conn = self.tracker.admit(0, moment(deadline)).expect("there is room");
                self.tracker.name(conn, ClientId::new(name).expect("fits")).expect("it is free");
            }
        }
    }

    fn tick(&mut self, now: u64) -> usize {
        expire_all(&mut self.tracker, &mut self.expired, now)
    }
}

fn expire_all(tracker: &mut Tracker<u64>, expired: &mut Vec<ConnId>, now: u64) -> usize {
    expired.clear();
    while tracker.expire(moment(now), EXPIRE_BATCH_MAX, expired) == Progress::More {}
    expired.len()
}

/// The classic article: a dictionary from name to deadline, and a scan of it once a second.
struct NamedScan {
    deadlines: HashMap<String, u64>,
    names: Vec<String>,
}

impl Deadlines for NamedScan {
    const NAME: &'static str = "map_scan";

    fn new(clients: u32) -> Self {
        let names = (0..clients).map(name).collect();
        Self { deadlines: HashMap::with_capacity(clients as usize), names }
    }

    fn beat(&mut self, Beat { client, deadline, .. }: Beat) {
        let name = &self.names[client as usize];
        match self.deadlines.get_mut(name) {
            Some(before) => *before = deadline,
            None => {
                self.deadlines.insert(name.clone(), deadline);
            }
        }
    }

    fn tick(&mut self, now: u64) -> usize {
        if !now.is_multiple_of(100) {
            return 0;
        }
        let before = self.deadlines.len();
        self.deadlines.retain(|_, deadline| *deadline > now);
        before - self.deadlines.len()
    }
}

/// A dictionary from name to number, and a rival for the deadlines.
struct Named<D> {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
    deadlines: D,
}

impl<D: Deadlines> Deadlines for Named<D> {
    const NAME: &'static str = D::NAME;
    const HAS_CLOCK: bool = D::HAS_CLOCK;

    fn new(clients: u32) -> Self {
        let names: Vec<String> = (0..clients).map(name).collect();
        let numbers = names.iter().cloned().zip(0..).collect();
        Self { numbers, names, deadlines: D::new(clients) }
    }

    fn beat(&mut self, beat: Beat) {
        let client = self.numbers[self.names[beat.client as usize].as_str()];
        self.deadlines.beat(Beat { client, ..beat });
    }

    fn runtime(&self) -> Option<Handle> {
        self.deadlines.runtime()
    }

    fn recall(&self, client: u32) {
        self.deadlines.recall(client);
    }

    fn pass(&mut self, now: u64) {
        self.deadlines.pass(now);
    }

    fn tick(&mut self, now: u64) -> usize {
        self.deadlines.tick(now)
    }
}
