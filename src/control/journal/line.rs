//! One line of the journal: eight hex digits of CRC-32, a space, one JSON object, a line end.

use std::io::{self, Read};

use crate::base::limits;

/// Digits of the checksum, and the space behind them.
const SUM_BYTES: usize = 9;
/// Bytes asked of the file at once.
const READ_BYTES: usize = 64 * 1_024;

/// Appends a line whose JSON is what `write_json` appends.
pub(crate) fn append_line(out: &mut Vec<u8>, write_json: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(b"........ ");
    write_json(out);
    let sum = crc32fast::hash(&out[start + SUM_BYTES..]);
    out[start..start + SUM_BYTES - 1].copy_from_slice(format!("{sum:08x}").as_bytes());
    out.push(b'\n');
}

/// The JSON of a line without its line end, if the checksum vouches for it.
fn sound_json(line: &[u8]) -> Option<&str> {
    let (sum, json) = line.split_at_checked(SUM_BYTES)?;
    // Compared as text: one sum has one spelling, so no flipped bit in it goes unnoticed.
    let expected = format!("{:08x} ", crc32fast::hash(json));
    if sum != expected.as_bytes() {
        return None;
    }
    std::str::from_utf8(json).ok()
}

/// What was found next in a file of lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// A line whose checksum is right: its JSON.
    Sound(String),
    /// A line whose checksum is wrong, or one that is too long.
    Damaged,
    /// Nothing more for now: what is left, if anything, has no line end.
    End,
}

/// Reads a file line by line, with one buffer of bounded size. At its end it can be asked again:
/// the file may have grown.
pub(crate) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out.
    start: usize,
    /// Bytes of `buffer` without a line end behind `start`.
    searched: usize,
    /// Where `start` is in the file.
    offset: u64,
    /// Whether we are inside a line that is too long.
    line: LineKind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LineKind {
    Ordinary,
    TooLong,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            offset: 0,
            line: LineKind::Ordinary,
        }
    }

    /// Where the next line begins in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line, if it is complete.
    pub(crate) fn next_line(&mut self) -> io::Result<Found> {
        loop {
            let unsearched = &self.buffer[self.start + self.searched..];
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                return Ok(self.take_line(self.searched + at));
            }
            self.searched = self.buffer.len() - self.start;
            if self.searched > limits::JOURNAL_LINE_BYTES_MAX {
                self.line = LineKind::TooLong;
                self.pass_over(self.searched);
            }
            if !self.fill()? {
                return Ok(Found::End);
            }
        }
    }

    /// Hands out the line of `length` bytes at the front.
    fn take_line(&mut self, length: usize) -> Found {
        let kind = std::mem::replace(&mut self.line, LineKind::Ordinary);
        let line = &self.buffer[self.start..self.start + length];
        let json = sound_json(line).filter(|_| kind == LineKind::Ordinary).map(str::to_owned);
        self.pass_over(length + 1);
        json.map_or(Found::Damaged, Found::Sound)
    }

    fn pass_over(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
        self.searched = 0;
    }

    /// Reads more; `false` at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let outcome = loop {
            match self.source.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let count = *outcome.as_ref().unwrap_or(&0);
        self.buffer.truncate(filled + count);
        outcome.map(|count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        append_line(&mut out, |out| out.extend_from_slice(json.as_bytes()));
        out
    }

    fn all(bytes: &[u8]) -> Vec<Found> {
        let mut lines = Lines::new(bytes);
        let mut found = Vec::new();
        loop {
            match lines.next_line().expect("memory can be read") {
                Found::End => return found,
                other @ (Found::Sound(_) | Found::Damaged) => found.push(other),
            }
        }
    }

    #[test]
    fn a_line_can_be_read_with_ordinary_tools() {
        assert_eq!(line("123456789"), b"cbf43926 123456789\n", "the check value of CRC-32");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = [line("{\"a\":1}"), line("{\"b\":2}"), line("{\"c\":3}")].concat();
        let texts = ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"];
        assert_eq!(all(&sound), texts.map(|text| Found::Sound(text.to_owned())));
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = all(&bytes);
            let kept = found.iter().filter(|line| **line != Found::Damaged).count();
            assert!(kept <= 2, "bit {bit}: {found:?}");
            for line in found {
                let known = |text: &str| line == Found::Sound(text.to_owned());
                assert!(line == Found::Damaged || texts.into_iter().any(known), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_awaited() {
        let bytes = line("{}");
        for cut in 0..bytes.len() {
            let mut lines = Lines::new(&bytes[..cut]);
            assert_eq!(lines.next_line().expect("memory"), Found::End);
            assert_eq!(lines.offset(), 0);
            lines.source = &bytes[cut..];
            assert_eq!(lines.next_line().expect("memory"), Found::Sound("{}".to_owned()));
            assert_eq!(lines.offset(), bytes.len() as u64);
        }
    }

    #[test]
    fn an_endless_line_costs_a_bounded_buffer() {
        let mut bytes = vec![b'x'; 10 * limits::JOURNAL_LINE_BYTES_MAX + 5 * READ_BYTES];
        bytes.push(b'\n');
        bytes.extend(line("{}"));
        let mut lines = Lines::new(bytes.as_slice());
        assert_eq!(lines.next_line().expect("memory"), Found::Damaged);
        assert!(lines.buffer.capacity() <= 4 * READ_BYTES);
        assert_eq!(lines.next_line().expect("memory"), Found::Sound("{}".to_owned()));
        assert_eq!(lines.offset(), bytes.len() as u64);
    }
}
