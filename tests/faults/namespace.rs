//! Networks of our own: namespaces joined by virtual cables, that can be pulled.
//!
//! A namespace has a name only until this process holds it open. It ends with the last socket and
//! process in it, whatever becomes of the test, and its cables with it.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// One network namespace.
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A network that nothing is connected to.
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("heartwheel-test-{}-{number}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        let handle = File::open(format!("/run/netns/{name}"));
        run(&["ip", "netns", "delete", &name]);
        let namespace = Self { handle: handle.expect("made just now") };
        namespace.run(&["ip", "link", "set", "lo", "up"]);
        namespace
    }

    /// Joins `self`, as `here` on an interface of that name, with `other`, as `there`.
    pub(crate) fn join(&self, here: (&str, &str), other: &Self, there: (&str, &str)) {
        // A path that the child finds too: it has another process id and the same parent.
        let end = format!("/proc/{}/fd/{}", std::process::id(), other.handle.as_raw_fd());
        let cable = ["ip", "link", "add", here.0, "type", "veth", "peer", "name", there.0];
        self.run(&[cable.as_slice(), &["netns", &end]].concat());
        for (namespace, (interface, address)) in [(self, here), (other, there)] {
            namespace.run(&["ip", "address", "add", address, "dev", interface]);
            namespace.run(&["ip", "link", "set", interface, "up"]);
        }
    }

    /// Does something on a thread in this namespace. The sockets it makes stay in it, and so do the
    /// processes it starts.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.handle.as_fd(), network).expect("we have made it");
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command in this namespace.
    pub(crate) fn run(&self, words: &[&str]) {
        self.inside(|| run(words));
    }
}

fn run(words: &[&str]) {
    let output = match Command::new(words[0]).args(&words[1..]).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let package = if words[0] == "nft" { "nftables" } else { "iproute2" };
            panic!("{} is not installed: it is in the package {package}", words[0])
        }
        Err(error) => panic!("{words:?}: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{words:?}: {said}(network namespaces need root; without: cargo test --test faults -- \
         --skip network)"
    );
}
