//! One batch: what is sent at once, and what makes it ready.

use bytes::Bytes;
use serde::Serialize;

use crate::base::limits;
use crate::control::events::Identity;
use crate::control::journal::Position;
use crate::control::webhook::target::Stream;

/// What is sent at once. Sent again, it is the same to the last byte.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) first: Position,
    pub(crate) last: Position,
    /// How many entries it has.
    pub(crate) count: usize,
    pub(crate) body: Bytes,
}

impl Batch {
    /// What marks it, however often it is sent.
    pub(crate) fn key(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }
}

/// What stands before the entries.
#[derive(Serialize)]
struct Head<'a> {
    node: &'a str,
    boot: u64,
    stream: &'static str,
    first: String,
    last: String,
}

/// Entries that gather.
#[derive(Debug)]
pub(crate) struct Gathering {
    stream: Stream,
    entries_max: usize,
    /// Right behind the last entry.
    at: Position,
    first: Option<Position>,
    count: usize,
    /// The entries as JSON, with commas between.
    entries: Vec<u8>,
}

impl Gathering {
    /// Entries of `stream` that follow `at`, at most so many.
    pub(crate) fn new(stream: Stream, at: Position, entries_max: usize) -> Self {
        Self { stream, entries_max, at, first: None, count: 0, entries: Vec::new() }
    }

    /// Takes an entry; `end` is the place behind it.
    pub(crate) fn add(&mut self, end: Position, json: &[u8]) {
        let first = match self.stream {
            // An entry can stand for many events that are missing: the first is what follows.
            Stream::Events if end.boot == self.at.boot => self.at.seq + 1,
            Stream::Events => 1,
            // Between two of them others may be that are not for this target.
            Stream::Messages | Stream::Transport => end.seq,
        };
        self.first.get_or_insert(Position { boot: end.boot, seq: first });
        self.at = end;
        self.count += 1;
        self.append(json);
    }

    /// Puts something before the first entry that is none.
    pub(crate) fn announce(&mut self, json: &[u8]) {
        self.append(json);
    }

    fn append(&mut self, json: &[u8]) {
        if !self.entries.is_empty() {
            self.entries.push(b',');
        }
        self.entries.extend_from_slice(json);
    }

    /// Goes on from another place; nothing was added yet.
    pub(crate) fn restart(&mut self, at: Position) {
        self.at = at;
        self.entries.clear();
    }

    /// Right behind the last entry.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// How many more entries may be asked for.
    pub(crate) fn room(&self) -> usize {
        let is_long = self.entries.len() >= limits::WEBHOOK_BODY_BYTES_MAX;
        let room = self.entries_max.saturating_sub(self.count);
        if is_long { 0 } else { room.min(limits::FEED_BATCH_MAX) }
    }

    /// How many more bytes it takes, about; at least one, so that an entry of any length can begin.
    pub(crate) fn room_bytes(&self) -> usize {
        limits::WEBHOOK_BODY_BYTES_MAX.saturating_sub(self.entries.len()).max(1)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The batch; `None` without an entry.
    pub(crate) fn finish(self, identity: &Identity) -> Option<Batch> {
        let (first, last) = (self.first?, self.at);
        let head = Head {
            node: &identity.node,
            boot: identity.boot,
            stream: self.stream.word(),
            first: first.to_string(),
            last: last.to_string(),
        };
        let mut body = serde_json::to_vec(&head).expect("texts and numbers");
        // The entries are JSON already, and go before the brace that closes it.
        body.pop();
        body.extend_from_slice(b",\"");
        body.extend_from_slice(self.stream.word().as_bytes());
        body.extend_from_slice(b"\":[");
        body.extend_from_slice(&self.entries);
        body.extend_from_slice(b"]}");
        Some(Batch { first, last, count: self.count, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { node: "edge \"1\"".to_owned(), boot: 9 }
    }

    fn place(boot: u64, seq: u64) -> Position {
        Position { boot, seq }
    }

    fn json(batch: &Batch) -> serde_json::Value {
        serde_json::from_slice(&batch.body).expect("JSON")
    }

    #[test]
    fn a_batch_names_its_first_and_its_last() {
        let mut gathering = Gathering::new(Stream::Events, place(9, 4), 10);
        for seq in 5..=7 {
            gathering.add(place(9, seq), format!("{{\"seq\":{seq}}}").as_bytes());
        }
        let batch = gathering.finish(&identity()).expect("three entries");
        assert_eq!(batch.key(), "9:5-9:7");
        assert_eq!(batch.count, 3);
        let expected = serde_json::json!({
            "node": "edge \"1\"", "boot": 9, "stream": "events", "first": "9:5", "last": "9:7",
            "events": [{ "seq": 5 }, { "seq": 6 }, { "seq": 7 }],
        });
        assert_eq!(json(&batch), expected);
    }

    #[test]
    fn a_batch_goes_over_boots_and_gaps() {
        let mut gathering = Gathering::new(Stream::Events, place(8, 4), 10);
        gathering.add(place(8, 9), b"{\"event\":\"gap\"}");
        gathering.add(place(9, 1), b"{\"event\":\"started\"}");
        assert_eq!(gathering.finish(&identity()).expect("two entries").key(), "8:5-9:1");
        let mut gathering = Gathering::new(Stream::Events, place(8, 4), 10);
        gathering.add(place(9, 1), b"{}");
        assert_eq!(gathering.finish(&identity()).expect("an entry").key(), "9:1-9:1");
    }

    #[test]
    fn what_is_announced_is_no_entry() {
        let mut gathering = Gathering::new(Stream::Events, place(9, 4), 1);
        gathering.announce(b"{\"event\":\"reset\"}");
        assert_eq!(gathering.room(), 1);
        gathering.add(place(9, 5), b"{}");
        assert_eq!(gathering.room(), 0);
        let batch = gathering.finish(&identity()).expect("an entry");
        assert_eq!((batch.count, json(&batch)["events"][0]["event"].as_str()), (1, Some("reset")));
        let mut empty = Gathering::new(Stream::Events, place(9, 4), 1);
        empty.announce(b"{}");
        assert!(empty.finish(&identity()).is_none(), "it waits for an entry");
    }

    #[test]
    fn a_batch_is_bounded_in_entries_and_in_bytes() {
        let mut gathering = Gathering::new(Stream::Events, place(9, 0), 100_000);
        let entry = format!("\"{}\"", "x".repeat(1_000));
        let mut seq = 0;
        while gathering.room() > 0 {
            for _ in 0..gathering.room() {
                seq += 1;
                gathering.add(place(9, seq), entry.as_bytes());
            }
        }
        let bytes = gathering.finish(&identity()).expect("entries").body.len();
        let slack = (limits::FEED_BATCH_MAX + 1) * limits::JOURNAL_LINE_BYTES_MAX;
        assert!(bytes >= limits::WEBHOOK_BODY_BYTES_MAX);
        assert!(bytes < limits::WEBHOOK_BODY_BYTES_MAX + slack);
    }
}
