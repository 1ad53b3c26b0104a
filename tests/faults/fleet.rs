//! Pretend clients: in this process, where they can be steered, and in another, where they can be
//! stopped and killed all at once.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use heartwheel::base::time::Span;
use heartwheel::load::dialect::Dialect;
use heartwheel::load::drive::{Helm, Room, Steer};
use heartwheel::load::plan::{LoadOptions, Pace, Parts, Plan, Talk};
use heartwheel::load::tally::Tally;
use heartwheel::os::machine::{self, Wanted};
use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;

/// No fleet outlives this, whatever happens to its test.
const LIFE_MAX: Duration = Duration::from_secs(120);

/// What a fleet is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crew {
    pub(crate) prefix: &'static str,
    pub(crate) clients: u32,
    pub(crate) interval_ms: u64,
}

impl Crew {
    /// The id of client `index`.
    pub(crate) fn client_id(&self, index: u32) -> String {
        format!("{}{}", self.prefix, index + 1)
    }
}

/// Clients on a thread of this process.
pub(crate) struct Fleet {
    helm: Helm,
}

impl Fleet {
    pub(crate) fn launch(target: SocketAddr, crew: Crew) -> Self {
        static FLEETS: AtomicU32 = AtomicU32::new(0);
        let survey = machine::survey();
        let room = survey.plan(Wanted::Exactly(crew.clients)).expect("the machine has the room");
        let plan = Plan::new(LoadOptions {
            target,
            clients: crew.clients,
            interval: Span::from_millis(crew.interval_ms),
            run_time: Span::from_secs(LIFE_MAX.as_secs()),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: None,
            entering_max: None,
            talk: Talk::default(),
            parts: Parts::default(),
            seed: 1,
            id_prefix: crew.prefix.to_owned(),
            source_key: std::process::id().wrapping_add(FLEETS.fetch_add(97, Ordering::Relaxed)),
            tokens: None,
        });
        Self { helm: Helm::launch(plan.expect("a plan"), Room::from(room)).expect("a fleet") }
    }

    /// Client `index` says nothing from now on, and keeps its socket open.
    pub(crate) fn silence(&self, index: u32) {
        self.steer(Steer::Silence(index));
    }

    /// Client `index`, which was sent away, comes back.
    pub(crate) fn revive(&self, index: u32) {
        self.steer(Steer::Revive(index));
    }

    /// Everybody leaves. What was counted.
    pub(crate) fn end(self) -> Tally {
        let outcome = self.helm.join().expect("the fleet comes home");
        assert_eq!(outcome.trouble, None);
        outcome.tally
    }

    fn steer(&self, steer: Steer) {
        let deadline = Instant::now() + PATIENCE;
        while !self.helm.steer(steer) {
            assert!(Instant::now() < deadline, "the fleet does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Clients in a process of their own. Its end is the end of the process.
pub(crate) struct OtherProcess {
    child: Child,
}

impl OtherProcess {
    pub(crate) fn launch(target: SocketAddr, crew: Crew) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
            .args(["load", "--target", &target.to_string()])
            .args(["--clients", &crew.clients.to_string()])
            .args(["--interval", &format!("{}ms", crew.interval_ms)])
            .args(["--for", &format!("{}s", LIFE_MAX.as_secs())])
            .args(["--id-prefix", crew.prefix])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self { child }
    }

    /// All of them fall silent in the same instant, their sockets left open.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// All of them die in the same instant, and the kernel closes their sockets.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody in this fleet had reason to complain: no living client was ended, no beat of one that
/// stayed was left without an answer.
pub(crate) fn assert_unharmed(name: &str, crew: Crew, tally: &Tally) {
    assert_eq!(tally.connected, u64::from(crew.clients), "{name}: everybody came in");
    assert_eq!(tally.false_offline, 0, "{name}: no living client is judged dead");
    assert_eq!(tally.overslept, 0, "{name}: the fleet itself was too slow, which proves nothing");
    assert_eq!(tally.sent_away, 0, "{name}: nobody is sent away");
    assert_eq!(tally.present_at_end, u64::from(crew.clients), "{name}: everybody stayed");
    assert_eq!(tally.unanswered, 0, "{name}: every beat is answered");
}
