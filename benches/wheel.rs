//! The wheel against everything else that could keep the deadlines.
//!
//! ```sh
//! cargo bench --bench wheel                     # criterion: one question each; then the tables
//! cargo bench --bench wheel -- wheel/idle       # criterion alone, what the filter lets through
//! cargo bench --bench wheel -- --compare        # the tables alone, under four minutes
//! cargo bench --bench wheel -- --plot FOLDER    # the same, as plots and wheel.json in a folder
//! ```
//!
//! For the tables all live the same days in turn, A B C, C B A, in one process; what is told is the
//! median over the rounds, and the ratios within a round.

mod rivals;

#[path = "wheel/compare.rs"]
mod compare;
#[path = "wheel/plot.rs"]
mod plot;
#[path = "wheel/reach.rs"]
mod reach;

use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use heartwheel::tracker::{Progress, Tick, Wheel};

use rivals::{BareStore, CoarseHashWheel, EagerList, HashWheel, HeartWheel, LazyList, MapScan};
use rivals::{Day, Deadlines, Order, Pace, TokioDelayQueue, Tree};

fn main() {
    // cargo test runs this as `--test` or without `--bench`; criterion looks at the same words.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let says = |word: &str| args.iter().any(|arg| arg == word);
    let is_trial = !says("--bench") || says("--test");
    if let Some(at) = args.iter().position(|arg| arg == "--plot") {
        let Some(folder) = args.get(at + 1) else {
            eprintln!("--plot needs a folder to write to");
            std::process::exit(2);
        };
        return tables(is_trial, Some(Path::new(folder)));
    }
    if says("--compare") {
        return tables(is_trial, None);
    }
    questions(if is_trial { &[1_000] } else { &[10_000, 100_000, 1_000_000] });
    if args.iter().all(|arg| arg.starts_with("--")) {
        tables(is_trial, None);
    }
}

fn tables(is_trial: bool, folder: Option<&Path>) {
    let results = compare::run(is_trial);
    reach::run(is_trial);
    let Some(folder) = folder else { return };
    match plot::write(&results, folder) {
        Ok(()) => println!("\nplots and wheel.json are in {}", folder.display()),
        Err(error) => {
            eprintln!("cannot write to {}: {error}", folder.display());
            std::process::exit(1);
        }
    }
}

fn questions(sizes: &[u32]) {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    for &clients in sizes {
        beats::<BareStore>(&mut criterion, clients);
        beats::<HeartWheel>(&mut criterion, clients);
        beats::<EagerList>(&mut criterion, clients);
        beats::<LazyList>(&mut criterion, clients);
        beats::<MapScan>(&mut criterion, clients);
        beats::<Tree>(&mut criterion, clients);
        beats::<TokioDelayQueue>(&mut criterion, clients);
        beats::<HashWheel>(&mut criterion, clients);
        beats::<CoarseHashWheel>(&mut criterion, clients);
    }
    idle(&mut criterion);
    criterion.final_summary();
}

/// What does a beat cost, its share of ticks included?
fn beats<D: Deadlines>(criterion: &mut Criterion, clients: u32) {
    let mut group = criterion.benchmark_group("wheel/beat");
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

/// What does a tick cost in which nothing is due, and an hour that passes at once?
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
                wheel.arm(1, Tick(now + HOUR_TICKS + Pace::USUAL.timeout));
                assert_eq!(wheel.advance(Tick(now), 1, &mut fired), Progress::Done);
                wheel.next_wake()
            });
        });
    }
    group.finish();
}
