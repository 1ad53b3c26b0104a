//! The demo's board: who is here, what a typed line means, and what to say about it. Pure.

use crate::base::config::Rhythm;
use crate::base::event::{CloseReason, Event, Record};
use crate::base::time::{Moment, WallAnchor};
use crate::load::plan::Plan;

/// Who is here, as the gateway tells, and who was silenced, as the person wants.
#[derive(Debug)]
pub struct Board {
    plan: Plan,
    wall: WallAnchor,
    clients: Vec<Seen>,
    /// How many have been online at least once.
    came: u32,
    found_dead: u64,
}

/// One client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// Has not come yet.
    Awaited,
    /// Is here.
    Online,
    /// Is here as far as the gateway knows, and says nothing more.
    Silent,
    /// Was here.
    Offline,
}

/// What a line means. Clients are numbered from 0 here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Typed {
    /// This client falls silent.
    Silence(u32),
    /// This client comes back.
    Revive(u32),
    /// Who is here?
    List,
    /// Enough.
    Quit,
    /// An empty line.
    Nothing,
    /// Something else.
    Unclear,
}

impl Board {
    /// Nobody is here yet.
    pub fn new(plan: Plan, wall: WallAnchor) -> Self {
        let clients = vec![Seen::Awaited; plan.clients() as usize];
        Self { plan, wall, clients, came: 0, found_dead: 0 }
    }

    /// The wall clock was looked at.
    pub fn set_wall(&mut self, wall: WallAnchor) {
        self.wall = wall;
    }

    /// Whether everybody has come.
    pub fn is_complete(&self) -> bool {
        self.came == self.plan.clients()
    }

    /// What is said first.
    pub fn opening(&self, rhythm: Rhythm) -> String {
        format!(
            "gateway on {}: {} clients beat every {} and are dead after {} of silence; times are \
             UTC",
            self.plan.options().target,
            self.plan.clients(),
            rhythm.interval,
            rhythm.timeout
        )
    }

    /// What is said when the keyboard is read.
    pub fn invitation(&self) -> String {
        format!(
            "{} clients are online; type a number and Enter to make that client fall silent, \
             +number to bring it back, l to list, 0 to quit",
            self.numbers(Seen::Online).count()
        )
    }

    /// What is said last.
    pub fn closing(&self) -> String {
        let Self { plan, came, found_dead, .. } = self;
        format!("the end; {came} of {} clients came; found dead: {found_dead}", plan.clients())
    }

    /// Something happened at the gateway; the line that tells it.
    pub fn on_event(&mut self, record: &Record) -> Option<String> {
        let at = self.time_of_day(record.at);
        match &record.event {
            Event::Online { client, .. } => {
                self.note(client.as_str(), Seen::Online);
                Some(format!("{at}  online   {client}"))
            }
            Event::Offline { client, reason, last_beat, .. } => {
                self.note(client.as_str(), Seen::Offline);
                self.found_dead += u64::from(*reason == CloseReason::HeartbeatTimeout);
                let silence = record.at.since(*last_beat).as_secs_f64();
                let last_beat = self.time_of_day(*last_beat);
                Some(format!(
                    "{at}  offline  {client}  {reason}, last beat {last_beat}, {silence:.3} s ago"
                ))
            }
            Event::Resumed { client, .. } => {
                self.note(client.as_str(), Seen::Online);
                Some(format!("{at}  resumed  {client}"))
            }
            Event::Contested { client, count, .. } => {
                Some(format!("{at}  contested  {client} by {count} logins"))
            }
            Event::Rhythm { client, interval, timeout, .. } => {
                Some(format!("{at}  rhythm   {client}  every {interval}, dead after {timeout}"))
            }
            Event::Stalled { gap } => Some(format!("{at}  stalled  for {gap}")),
            Event::Started { .. } | Event::Stopped => None,
        }
    }

    /// What a line means.
    pub fn read(&self, line: &str) -> Typed {
        match line {
            "" => Typed::Nothing,
            "0" => Typed::Quit,
            "l" | "L" => Typed::List,
            line => match line.strip_prefix('+') {
                Some(id) => {
                    self.plan.index_of(id.trim_start()).map_or(Typed::Unclear, Typed::Revive)
                }
                None => self.plan.index_of(line).map_or(Typed::Unclear, Typed::Silence),
            },
        }
    }

    /// Whether this client can be silenced.
    pub fn may_silence(&self, index: u32) -> bool {
        self.clients[index as usize] == Seen::Online
    }

    /// Whether this client can be brought back.
    pub fn may_revive(&self, index: u32) -> bool {
        matches!(self.clients[index as usize], Seen::Silent | Seen::Offline)
    }

    /// Somebody typed that; the answer.
    pub fn on_typed(&mut self, typed: Typed) -> Option<String> {
        let number = |index: u32| u64::from(index) + 1;
        match typed {
            Typed::Silence(index) if self.may_silence(index) => {
                self.clients[index as usize] = Seen::Silent;
                Some(format!("client {} falls silent, its socket left open", number(index)))
            }
            Typed::Silence(index) => Some(format!("client {} says nothing", number(index))),
            Typed::Revive(index) if self.may_revive(index) => {
                let seen = &mut self.clients[index as usize];
                if *seen == Seen::Silent {
                    *seen = Seen::Online;
                    return Some(format!("client {} beats again", number(index)));
                }
                Some(format!("client {} comes back", number(index)))
            }
            Typed::Revive(index) => Some(format!("client {} is alive", number(index))),
            Typed::List => Some(self.list()),
            Typed::Unclear => {
                Some(format!("type 1 to {}, + and such a number, l, or 0", self.plan.clients()))
            }
            Typed::Nothing | Typed::Quit => None,
        }
    }

    fn list(&self) -> String {
        let mut lines = Vec::new();
        for (word, seen) in [
            ("online ", Seen::Online),
            ("silent ", Seen::Silent),
            ("offline", Seen::Offline),
            ("awaited", Seen::Awaited),
        ] {
            let count = self.numbers(seen).count();
            if count > 0 || seen == Seen::Online {
                lines.push(format!("{word} {count}: {}", ranges(self.numbers(seen))));
            }
        }
        lines.join("\n")
    }

    /// The numbers, from 1 on, of those who are seen so.
    fn numbers(&self, wanted: Seen) -> impl Iterator<Item = usize> + '_ {
        let numbered = self.clients.iter().zip(1..);
        numbered.filter(move |(seen, _)| **seen == wanted).map(|(_, number)| number)
    }

    fn note(&mut self, client: &str, seen: Seen) {
        let Some(index) = self.plan.index_of(client) else { return };
        let before = &mut self.clients[index as usize];
        if *before == Seen::Awaited {
            self.came += 1;
        }
        *before = seen;
    }

    fn time_of_day(&self, moment: Moment) -> String {
        const DAY: u64 = 24 * 60 * 60 * 1_000;
        let millis = self.wall.unix_millis(moment) % DAY;
        let (secs, millis) = (millis / 1_000, millis % 1_000);
        let (hours, minutes, secs) = (secs / 3_600, secs / 60 % 60, secs % 60);
        format!("{hours:02}:{minutes:02}:{secs:02}.{millis:03}")
    }
}

/// Ascending numbers as a person writes them: `1-3, 5, 8-9`.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            Some(_) | None => runs.push((number, number)),
        }
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if words.is_empty() { "nobody".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Evidence;
    use crate::base::ids::{ClientId, ConnId};
    use crate::base::time::Span;
    use crate::load::dialect::Dialect;
    use crate::load::plan::{LoadOptions, Pace, Parts, Talk};

    const RHYTHM: Rhythm = Rhythm { interval: Span::from_secs(2), timeout: Span::from_secs(7) };

    fn board() -> Board {
        let options = LoadOptions {
            target: "127.0.0.1:7070".parse().unwrap(),
            clients: 10,
            interval: RHYTHM.interval,
            run_time: Span::from_secs(100),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: None,
            entering_max: None,
            talk: Talk::default(),
            parts: Parts::default(),
            seed: 0,
            id_prefix: String::new(),
            source_key: 0,
            tokens: None,
        };
        // At moment zero it is one o'clock.
        let wall = WallAnchor { unix_millis_at_zero: 3_600_000 };
        Board::new(Plan::new(options).unwrap(), wall)
    }

    fn online(client: &str) -> Record {
        let event = Event::Online {
            client: ClientId::new(client).unwrap(),
            epoch: 1,
            conn: ConnId { slot: 0, generation: 0 },
            remote: "127.0.0.1:1".parse().unwrap(),
            interval: RHYTHM.interval,
            timeout: RHYTHM.timeout,
            flaps: 0,
        };
        Record { seq: 1, at: Moment::from_millis(61_001), event }
    }

    fn offline(client: &str, reason: CloseReason) -> Record {
        let event = Event::Offline {
            client: ClientId::new(client).unwrap(),
            epoch: 1,
            conn: ConnId { slot: 0, generation: 0 },
            remote: "127.0.0.1:1".parse().unwrap(),
            reason,
            last_beat: Moment::from_millis(61_500),
            evidence: Evidence::default(),
        };
        Record { seq: 2, at: Moment::from_millis(68_505), event }
    }

    #[test]
    fn a_line_means_one_thing() {
        for (line, typed) in [
            ("7", Typed::Silence(6)),
            ("10", Typed::Silence(9)),
            ("+7", Typed::Revive(6)),
            ("+ 7", Typed::Revive(6)),
            ("l", Typed::List),
            ("0", Typed::Quit),
            ("", Typed::Nothing),
            ("11", Typed::Unclear),
            ("+0", Typed::Unclear),
            ("07", Typed::Unclear),
            ("quit", Typed::Unclear),
            ("99999999999999999999", Typed::Unclear),
        ] {
            assert_eq!(board().read(line), typed, "{line:?}");
        }
    }

    #[test]
    fn comings_and_goings_are_told_with_their_times() {
        let mut board = board();
        assert_eq!(board.on_event(&online("3")).unwrap(), "01:01:01.001  online   3");
        assert_eq!(
            board.on_event(&offline("3", CloseReason::HeartbeatTimeout)).unwrap(),
            "01:01:08.505  offline  3  heartbeat_timeout, last beat 01:01:01.500, 7.005 s ago"
        );
        assert_eq!(board.closing(), "the end; 1 of 10 clients came; found dead: 1");
        board.set_wall(WallAnchor { unix_millis_at_zero: 0 });
        assert_eq!(board.on_event(&online("3")).unwrap(), "00:01:01.001  online   3");
    }

    #[test]
    fn the_board_is_complete_when_everybody_has_come_once() {
        let mut board = board();
        for number in 1..=10 {
            assert!(!board.is_complete());
            board.on_event(&online(&number.to_string()));
            board.on_event(&online("1"));
        }
        assert!(board.is_complete());
    }

    #[test]
    fn who_is_silenced_and_revived_is_seen_on_the_list() {
        let mut board = board();
        for number in [1, 2, 3, 5, 7, 8] {
            board.on_event(&online(&number.to_string()));
        }
        let mut type_in = |line: &str| {
            let typed = board.read(line);
            board.on_typed(typed).unwrap()
        };
        for (line, answer) in [
            ("l", "online  6: 1-3, 5, 7-8\nawaited 4: 4, 6, 9-10"),
            ("2", "client 2 falls silent, its socket left open"),
            ("2", "client 2 says nothing"),
            ("4", "client 4 says nothing"),
            ("+5", "client 5 is alive"),
            ("l", "online  5: 1, 3, 5, 7-8\nsilent  1: 2\nawaited 4: 4, 6, 9-10"),
            ("+2", "client 2 beats again"),
            ("x", "type 1 to 10, + and such a number, l, or 0"),
        ] {
            assert_eq!(type_in(line), answer, "{line}");
        }
        board.on_typed(Typed::Silence(1));
        board.on_event(&offline("2", CloseReason::HeartbeatTimeout));
        assert!(board.list().contains("offline 1: 2"), "{}", board.list());
        assert_eq!(board.on_typed(Typed::Revive(1)).unwrap(), "client 2 comes back");
    }

    #[test]
    fn what_is_said_first_names_the_rhythm() {
        let opening = board().opening(RHYTHM);
        assert!(opening.contains("every 2s and are dead after 7s"), "{opening}");
        assert!(board().list().starts_with("online  0: nobody"));
    }
}
