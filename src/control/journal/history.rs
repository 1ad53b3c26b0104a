//! One client's events out of a journal, the newest first and only so far back.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use crate::control::journal::line::{Found, Lines};
use crate::control::journal::segment::{self, Position, SegmentName};

/// What a journal has of one client.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Its latest events as JSON, oldest first.
    pub(crate) events: VecDeque<(Position, String)>,
    /// Whether the journal has no older ones.
    pub(crate) are_all: bool,
}

/// Whose an event is.
#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    client: String,
    seq: Option<u64>,
}

/// The latest events of a client that the segments in `folder` have, at most `limit`. Reads at most
/// `bytes_max` of them, from the end. What is damaged is passed over.
pub(crate) fn history(
    folder: &Path,
    client: &str,
    limit: usize,
    bytes_max: u64,
) -> io::Result<History> {
    let mut history = History::default();
    let mut bytes_left = bytes_max;
    // Whatever contains it not is not about this client: nearly every line need not be understood.
    let sign = serde_json::to_string(client).map_err(io::Error::other)?;
    for name in segment::list(folder)?.into_iter().rev() {
        let room = limit.saturating_sub(history.events.len());
        if room == 0 || bytes_left == 0 {
            return Ok(history);
        }
        let mut file = match File::open(name.path(folder)) {
            Ok(file) => file,
            // It was the oldest, and was removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let begin = length.saturating_sub(bytes_left);
        file.seek(SeekFrom::Start(begin))?;
        // The first line is cut in two where it is not the first: its checksum is wrong then.
        let lines = Lines::new(file.take(length - begin));
        let mut events = events_of(lines, name, (client, &sign), room)?;
        let were_more = events.len() > room;
        events.drain(..events.len().saturating_sub(room));
        for event in events.into_iter().rev() {
            history.events.push_front(event);
        }
        if were_more || begin > 0 {
            return Ok(history);
        }
        bytes_left -= length;
    }
    history.are_all = true;
    Ok(history)
}

/// The events of a client in one segment: the latest ones, and one more than there is room for
/// where there are more.
fn events_of(
    mut lines: Lines<impl Read>,
    name: SegmentName,
    (client, sign): (&str, &str),
    room: usize,
) -> io::Result<VecDeque<(Position, String)>> {
    let mut events = VecDeque::new();
    loop {
        let json = match lines.next_line()? {
            Found::End => return Ok(events),
            Found::Sound(json) if json.contains(sign) => json,
            Found::Sound(_) | Found::Damaged => continue,
        };
        let Ok(owner) = serde_json::from_str::<Owner>(&json) else { continue };
        // Lines without a number are no events: a snapshot's, say.
        let Some(seq) = owner.seq.filter(|_| owner.client == client) else { continue };
        if events.len() > room {
            events.pop_front();
        }
        events.push_back((Position { boot: name.boot, seq }, json));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::journal::line::append_line;

    const WHOLE: u64 = u64::MAX;

    fn segment(folder: &Path, boot: u64, first_seq: u64, lines: &[&str]) {
        let mut bytes = Vec::new();
        for line in lines {
            append_line(&mut bytes, |out| out.extend_from_slice(line.as_bytes()));
        }
        let path = SegmentName { boot, first_seq }.path(folder);
        std::fs::write(path, bytes).expect("there is room");
    }

    fn found(folder: &Path, client: &str, limit: usize, bytes_max: u64) -> (Vec<(u64, u64)>, bool) {
        let history = history(folder, client, limit, bytes_max).expect("it can be read");
        let places = history.events.iter().map(|(at, _)| (at.boot, at.seq)).collect();
        (places, history.are_all)
    }

    fn two_boots() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let lines = [
            r#"{"event":"segment","boot":1,"first_seq":1}"#,
            r#"{"event":"present","client":"anna","epoch":1}"#,
            r#"{"event":"online","seq":2,"client":"anna"}"#,
            r#"{"event":"online","seq":3,"client":"bert","class":"anna"}"#,
            r#"{"event":"offline","seq":4,"client":"anna"}"#,
        ];
        segment(folder.path(), 1, 1, &lines);
        let lines = [
            r#"{"event":"online","seq":1,"client":"anna"}"#,
            r#"{"event":"unknown to us","seq":2,"client":"anna","new":{"client":"x"}}"#,
        ];
        segment(folder.path(), 2, 1, &lines);
        segment(folder.path(), 2, 3, &[r#"{"event":"online","seq":3,"client":"b\"c"}"#]);
        folder
    }

    #[test]
    fn the_latest_events_of_a_client_are_found_over_segments_and_boots() {
        let folder = two_boots();
        let path = folder.path();
        assert_eq!(found(path, "anna", 9, WHOLE), (vec![(1, 2), (1, 4), (2, 1), (2, 2)], true));
        assert!(found(path, "anna", 4, WHOLE).1);
        assert_eq!(found(path, "anna", 3, WHOLE), (vec![(1, 4), (2, 1), (2, 2)], false));
        assert_eq!(found(path, "anna", 1, WHOLE), (vec![(2, 2)], false));
        assert_eq!(found(path, "bert", 9, WHOLE), (vec![(1, 3)], true));
        assert_eq!(found(path, "b\"c", 9, WHOLE), (vec![(2, 3)], true));
        assert_eq!(found(path, "nobody", 9, WHOLE), (vec![], true));
    }

    #[test]
    fn only_so_much_is_read_and_what_is_damaged_is_passed_over() {
        let folder = two_boots();
        let path = folder.path();
        let sizes: Vec<u64> = [(1, 1), (2, 1), (2, 3)]
            .map(|(boot, first_seq)| SegmentName { boot, first_seq }.path(path))
            .map(|path| path.metadata().expect("it is there").len())
            .into();
        let newest_two = sizes[1] + sizes[2];
        assert_eq!(found(path, "anna", 9, newest_two), (vec![(2, 1), (2, 2)], false));
        assert_eq!(found(path, "anna", 9, newest_two - 1), (vec![(2, 2)], false), "a cut line");
        assert_eq!(found(path, "anna", 9, newest_two + 70), (vec![(1, 4), (2, 1), (2, 2)], false));
        let path_two = SegmentName { boot: 2, first_seq: 1 }.path(path);
        let mut bytes = std::fs::read(&path_two).expect("it is there");
        bytes[20] ^= 1;
        std::fs::write(&path_two, bytes).expect("there is room");
        assert_eq!(found(path, "anna", 9, WHOLE), (vec![(1, 2), (1, 4), (2, 2)], true));
    }
}
