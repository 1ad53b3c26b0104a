//! The wheel against everything else that could keep the deadlines.
//!
//! `cargo bench --bench wheel` measures beats with criterion, then prints a table of pauses: the
//! longest tick of a working day, and what the death of everybody costs.

mod rivals;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use heartwheel::base::limits::EXPIRE_BATCH_MAX;
use heartwheel::tracker::{Progress, Tick, Wheel};

use rivals::{BareStore, Deadlines, HashWheel, HeartWheel, MapScan, TokioDelayQueue, Tree};
use rivals::{TIMEOUT_TICKS, Workload, mass_expiry_nanos, own_time};

/// How large the measured things are: whole, or just large enough to see that they run.
struct Scale {
    clients: &'static [u32],
    pause_clients: u32,
    pause_ticks: u64,
}

const WHOLE: Scale =
    Scale { clients: &[10_000, 100_000, 1_000_000], pause_clients: 1_000_000, pause_ticks: 30_000 };
const TRIAL: Scale = Scale { clients: &[1_000], pause_clients: 1_000, pause_ticks: 300 };

fn main() {
    // cargo test runs this as `--test` or without `--bench`; criterion looks at the same words.
    let measures = std::env::args().any(|arg| arg == "--bench");
    let tries = std::env::args().any(|arg| arg == "--test");
    let scale = if measures && !tries { WHOLE } else { TRIAL };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    for &clients in scale.clients {
        beats::<BareStore>(&mut criterion, clients);
        beats::<HeartWheel>(&mut criterion, clients);
        beats::<MapScan>(&mut criterion, clients);
        beats::<Tree>(&mut criterion, clients);
        beats::<TokioDelayQueue>(&mut criterion, clients);
        beats::<HashWheel>(&mut criterion, clients);
    }
    idle(&mut criterion);
    criterion.final_summary();
    if std::env::args().skip(1).all(|arg| arg.starts_with("--")) {
        pauses(&scale);
    }
}

/// One beat with its share of ticks.
fn beats<D: Deadlines>(criterion: &mut Criterion, clients: u32) {
    let mut group = criterion.benchmark_group("wheel/beat");
    group.throughput(Throughput::Elements(1));
    // Made when it is measured first: a filter leaves most of them out.
    let mut made = None;
    group.bench_function(BenchmarkId::new(D::NAME, clients), |bencher| {
        let (workload, deadlines) = made.get_or_insert_with(|| {
            let (mut workload, mut deadlines) = (Workload::new(clients), D::new(clients));
            workload.connect(&mut deadlines);
            (workload, deadlines)
        });
        bencher.iter_custom(|beats| workload.measure(deadlines, beats));
    });
    group.finish();
}

/// A tick in which nothing is due, and an hour that passes at once.
fn idle(criterion: &mut Criterion) {
    const CLIENTS: u32 = 1_000;
    const HOUR_TICKS: u64 = 360_000;
    let mut group = criterion.benchmark_group("wheel/idle");
    for (name, step) in [("tick", 1), ("hour", HOUR_TICKS)] {
        group.bench_function(name, |bencher| {
            let mut now = 0;
            let mut wheel = Wheel::with_capacity(Tick(now), CLIENTS);
            let mut fired = Vec::new();
            bencher.iter(|| {
                now += step;
                wheel.arm(1, Tick(now + HOUR_TICKS + TIMEOUT_TICKS));
                assert_eq!(wheel.advance(Tick(now), 1, &mut fired), Progress::Done);
                wheel.next_wake()
            });
        });
    }
    group.finish();
}

fn pauses(scale: &Scale) {
    let Scale { pause_clients: clients, pause_ticks: ticks, .. } = *scale;
    println!("\n{clients} clients, {ticks} ticks after all connected");
    let columns = ["99.9 % of ticks", "longest tick", "death of all, ns each"];
    println!("{:<32} {:>16} {:>16} {:>22}", "", columns[0], columns[1], columns[2]);
    pause::<HeartWheel>(clients, ticks);
    pause::<MapScan>(clients, ticks);
    pause::<Tree>(clients, ticks);
    pause::<TokioDelayQueue>(clients, ticks);
    pause::<HashWheel>(clients, ticks);
    println!("heartwheel, 1,024 deaths at a time: longest call {:?}", longest_slice(clients));
}

fn pause<D: Deadlines>(clients: u32, ticks: u64) {
    let (mut workload, mut deadlines) = (Workload::new(clients), D::new(clients));
    workload.connect(&mut deadlines);
    let took = workload.ticks(&mut deadlines, ticks);
    let (usual, longest) = (took[took.len() * 999 / 1_000], took[took.len() - 1]);
    let death = mass_expiry_nanos::<D>(clients);
    println!("{:<32} {usual:>16?} {longest:>16?} {death:>22.1}", D::NAME);
}

/// The longest call when everybody dies and is handed out in slices.
fn longest_slice(clients: u32) -> Duration {
    let mut wheel = Wheel::with_capacity(Tick(0), clients);
    (0..clients).for_each(|client| wheel.arm(client, Tick(TIMEOUT_TICKS)));
    let mut fired = Vec::with_capacity(clients as usize);
    let mut longest = Duration::ZERO;
    let mut progress = Progress::More;
    while progress == Progress::More {
        let call = || progress = wheel.advance(Tick(TIMEOUT_TICKS), EXPIRE_BATCH_MAX, &mut fired);
        longest = longest.max(own_time(call));
    }
    assert_eq!(fired.len(), clients as usize);
    longest
}
