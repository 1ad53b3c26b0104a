//! Failing backends and dying gateways: everything arrives, in order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use heartwheel::control::journal::Position;
use heartwheel::wire::message::Message;

use crate::backend::{Answer, Backend, Delivery, follows, place};
use crate::gate::{Caller, Gate, Heard};

pub(crate) const KEY: &str = "a-key-that-nobody-knows-but-us";

/// Clients that come and go until told to stop, or until the gateway dies.
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(address: SocketAddr, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4).map(|thread| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) || !come_and_go(address, thread, number) {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }

    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    }
}

/// Whether the gateway was there.
fn come_and_go(address: SocketAddr, thread: usize, number: usize) -> bool {
    if std::net::TcpStream::connect(address).is_err() {
        return false;
    }
    let Ok(mut caller) = std::panic::catch_unwind(|| Caller::connect(address)) else {
        return false;
    };
    caller.say_hello(&format!("{thread}-{}", number % 7), "", 0);
    let heard = caller.hear_within(Duration::from_secs(20));
    let is_in = matches!(heard, Heard::Welcome { .. });
    caller.say(&Message::Bye { code: 100 });
    is_in
}

/// What the journal has, as the command tells it.
pub(crate) fn kept(journal: &str) -> BTreeSet<Position> {
    let command = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["events", "--journal", journal])
        .output()
        .expect("it runs");
    let text = String::from_utf8(command.stdout).expect("text");
    text.lines().map(|line| place(&serde_json::from_str(line).expect("JSON"))).collect()
}

/// What came, held to the promise.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) seen: BTreeSet<Position>,
    before: Option<Delivery>,
    pub(crate) repeats: usize,
}

impl Ledger {
    /// A batch is the one before again, as long as that was not taken; or the next one.
    pub(crate) fn take(&mut self, delivery: Delivery) {
        if let Some(before) = &self.before {
            let is_again = delivery.first() == before.first();
            let is_next = before.answer.has_taken() && follows(before.last(), delivery.first());
            assert!(
                is_again || is_next,
                "{:?} after {:?}, answered {:?}",
                delivery.header("heartwheel-delivery"),
                before.header("heartwheel-delivery"),
                before.answer
            );
            self.repeats += usize::from(is_again);
        }
        if delivery.answer.has_taken() {
            self.seen.extend(delivery.events().iter().map(place));
        }
        self.before = Some(delivery);
    }
}

/// One answer in three is none that counts.
fn moody(seed: u64) -> impl FnMut(&Delivery) -> Answer + Send + 'static {
    let mut rng = fastrand::Rng::with_seed(seed);
    move |_| match rng.u32(0..100) {
        0..8 => Answer::Status(500),
        8..12 => Answer::Status(429),
        12..16 => Answer::CutOff { has_taken: false },
        16..20 => Answer::CutOff { has_taken: true },
        20..23 => Answer::Silence,
        23..26 => Answer::Redirect,
        26..32 => Answer::Slowly,
        32..34 => Answer::Endlessly,
        _ => Answer::Status(204),
    }
}

/// Six lives of a gateway, five of which end in the middle of a word.
#[test]
fn every_event_arrives_in_order_however_often_all_fail() {
    let backend = Backend::start(moody(11));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("plain text").to_owned();
    std::fs::write(path("key"), KEY).expect("there is room for a file");
    let (journal, key) = (path("journal"), path("key"));
    let webhook = format!(
        "audit:url={},secret-file={key},batch-max=20,batch-wait=10ms,timeout=700ms,retry-max=250ms",
        backend.url()
    );
    let arguments = ["--journal", &journal, "--webhook", &webhook];
    let mut rng = fastrand::Rng::with_seed(5);
    let mut ledger = Ledger::default();
    let mut take = |delivery: Delivery| {
        delivery.check(Some(KEY));
        ledger.take(delivery);
    };
    for _ in 0..5 {
        let gate = Gate::start(&arguments);
        let churn = Churn::start(gate.address, Duration::from_millis(10));
        for _ in 0..rng.usize(20..60) {
            take(backend.next());
        }
        gate.signal("KILL");
        churn.end();
    }
    let mut gate = Gate::start(&arguments);
    let churn = Churn::start(gate.address, Duration::from_millis(10));
    take(backend.next());
    churn.end();
    backend.behave(|_| Answer::Status(200));
    // An attempt that was answered badly before is over by then, and what waited is taken.
    while let Some(delivery) = backend.next_within(Duration::from_secs(3)) {
        take(delivery);
    }
    gate.signal("TERM");
    let is_last = |delivery: &Delivery| {
        delivery.answer.has_taken() && delivery.events().iter().any(|it| it["event"] == "stopped")
    };
    loop {
        let delivery = backend.next();
        let is_over = is_last(&delivery);
        take(delivery);
        if is_over {
            break;
        }
    }
    assert!(gate.wait().success());
    assert!(ledger.repeats > 20, "only {} repeats: nothing failed", ledger.repeats);
    let missing: Vec<_> = kept(&journal).difference(&ledger.seen).copied().collect();
    assert!(missing.is_empty(), "{missing:?} of {}", ledger.seen.len());
}
