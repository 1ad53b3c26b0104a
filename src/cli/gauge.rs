//! What a run of the load bench costs: the server's process, where it can be seen, and our own.

use std::net::SocketAddr;

use crate::base::time::Span;
use crate::cli::error::CliError;
use crate::load::drive::Wish;
use crate::load::fleet::Progress;
use crate::load::report::{Surroundings, WindowCost};
use crate::os::process;

/// Reads processor time and memory before the run, when everybody is in, and around the time for
/// which beats are counted apart.
#[derive(Debug)]
pub(super) struct Gauge {
    /// The server's process.
    server: Option<u32>,
    before: Used,
    rss_before_bytes: Option<u64>,
    clients: u64,
    measure: Option<Measure>,
    /// How far into the run everybody was in, and what the server had used by then.
    everybody_in: Option<(Span, Option<Span>)>,
    /// When the window was opened, and what was used by then.
    opened: Option<(Span, Used)>,
    window: Option<WindowCost>,
}

/// What to measure when everybody is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Measure {
    /// First let so much time pass.
    pub(super) warm_up: Span,
    /// Then measure for so long.
    pub(super) lasts: Span,
}

/// Processor time used up to some moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Used {
    server: Option<Span>,
    own: Span,
}

impl Gauge {
    /// Reads what the server's process, where it is known, and we have used up to now.
    pub(super) fn new(server: Option<u32>, clients: u32, measure: Option<Measure>) -> Self {
        Self {
            server,
            before: used(server),
            rss_before_bytes: server.and_then(process::rss_bytes),
            clients: clients.into(),
            measure,
            everybody_in: None,
            opened: None,
            window: None,
        }
    }

    /// Looks at how far the run is, and says how it goes on.
    pub(super) fn look(&mut self, progress: Progress) -> Wish {
        let Progress { elapsed, connected, .. } = progress;
        if self.everybody_in.is_none() && connected == self.clients {
            let server = self.server.and_then(process::cpu);
            self.everybody_in = Some((elapsed, since(server, self.before.server)));
        }
        let (Some(measure), Some((since_when, _))) = (self.measure, self.everybody_in) else {
            return Wish::GoOn;
        };
        match self.opened {
            None if elapsed >= since_when + measure.warm_up => {
                self.opened = Some((elapsed, used(self.server)));
                Wish::OpenWindow
            }
            Some((opened_at, before)) if elapsed >= opened_at + measure.lasts => {
                self.window.get_or_insert_with(|| window_cost(self.server, before));
                Wish::End
            }
            None | Some(_) => Wish::GoOn,
        }
    }

    /// Whether it measured what it was asked to.
    pub(super) const fn is_complete(&self) -> bool {
        self.measure.is_none() || self.window.is_some()
    }

    /// Everything that it read, on a machine of this description.
    pub(super) fn read(&self, machine: String) -> Surroundings {
        let now = used(self.server);
        Surroundings {
            machine,
            server_cpu: since(now.server, self.before.server),
            own_cpu: Some(now.own.minus(self.before.own)),
            connect_server_cpu: self.everybody_in.and_then(|(_, used)| used),
            server_rss_before_bytes: self.rss_before_bytes,
            window: self.window,
        }
    }
}

/// The server's process: who was named, or who listens on the target's port.
pub(super) fn server_of(target: SocketAddr, named: Option<u32>) -> Result<Option<u32>, CliError> {
    match named {
        Some(pid) if process::cpu(pid).is_none() => Err(CliError::usage(format!(
            "--server-pid {pid} is no process that can be seen from here; give the process id of \
             the server, or leave it out"
        ))),
        Some(pid) => Ok(Some(pid)),
        // A port of another machine says nothing about who listens on it here.
        None if target.ip().is_loopback() => Ok(process::listening_on(target.port())),
        None => Ok(None),
    }
}

fn used(server: Option<u32>) -> Used {
    Used { server: server.and_then(process::cpu), own: process::own_cpu() }
}

fn since(now: Option<Span>, before: Option<Span>) -> Option<Span> {
    Some(now?.minus(before?))
}

fn window_cost(server: Option<u32>, before: Used) -> WindowCost {
    let now = used(server);
    WindowCost {
        server_cpu: since(now.server, before.server),
        own_cpu: Some(now.own.minus(before.own)),
        server_rss_bytes: server.and_then(process::rss_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn progress(millis: u64, connected: u64) -> Progress {
        Progress { elapsed: Span::from_millis(millis), connected, ..Progress::default() }
    }

    #[test]
    fn the_process_behind_a_local_port_is_found_and_a_distant_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut target = listener.local_addr().unwrap();
        let server = server_of(target, None).unwrap();
        assert_eq!(server, Some(std::process::id()));
        let found = Gauge::new(server, 1, None);
        assert!(found.read(String::new()).server_cpu.is_some());
        assert!(found.read(String::new()).server_rss_before_bytes.is_some());
        target.set_ip("192.0.2.1".parse().unwrap());
        assert_eq!(server_of(target, None).unwrap(), None);
    }

    #[test]
    fn a_process_that_was_named_is_read_whatever_the_port_says() {
        let far = "192.0.2.1:1".parse().unwrap();
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(server_of(far, Some(own)).unwrap(), Some(own));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        assert_eq!(server_of(here, Some(child.id())).unwrap(), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        // No machine has so many.
        for nobody in [0, u32::MAX] {
            let error = server_of(here, Some(nobody)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.line().contains(&format!("--server-pid {nobody}")), "{}", error.line());
        }
    }

    #[test]
    fn it_measures_between_warm_up_and_end_once_everybody_is_in() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let measure = Measure { warm_up: Span::from_millis(200), lasts: Span::from_millis(1_000) };
        let server = server_of(listener.local_addr().unwrap(), None).unwrap();
        let mut gauge = Gauge::new(server, 10, Some(measure));
        for (millis, connected, wish) in [
            (0, 0, Wish::GoOn),
            (500, 9, Wish::GoOn),
            (600, 10, Wish::GoOn),
            (799, 10, Wish::GoOn),
            (800, 10, Wish::OpenWindow),
            (900, 10, Wish::GoOn),
            (1_799, 10, Wish::GoOn),
        ] {
            assert_eq!(gauge.look(progress(millis, connected)), wish, "at {millis} ms");
            assert!(!gauge.is_complete(), "at {millis} ms");
        }
        assert_eq!(gauge.read(String::new()).window, None);
        assert_eq!(gauge.look(progress(1_800, 10)), Wish::End);
        assert!(gauge.is_complete());
        let surroundings = gauge.read(String::new());
        assert!(surroundings.connect_server_cpu.is_some());
        let cost = surroundings.window.expect("it is complete");
        assert!(cost.server_cpu.is_some() && cost.server_rss_bytes.is_some());
        assert_eq!(gauge.look(progress(1_900, 10)), Wish::End);
        let later = gauge.read(String::new()).window;
        assert_eq!(later, Some(cost), "what comes after the end does not count");
    }

    #[test]
    fn who_asks_for_no_measure_gets_none() {
        let mut gauge = Gauge::new(None, 1, None);
        assert_eq!(gauge.look(progress(60_000, 1)), Wish::GoOn);
        assert!(gauge.is_complete());
        assert_eq!(gauge.read(String::new()).window, None);
    }
}
