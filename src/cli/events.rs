//! `events`: what a journal holds, as JSON lines.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::base::limits;
use crate::cli::args::EventsArgs;
use crate::cli::error::CliError;
use crate::control::journal::{Entry, Position, Present, ReadError, Reader, Snapshot};
use crate::os::pause;

/// Runs `events`: until all is printed, or for ever when the journal is followed.
pub fn run(args: &EventsArgs) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let folder = &args.journal;
    let mut reader = match (args.snapshot, args.after) {
        (true, _) => {
            let (snapshot, reader) = Reader::snapshot(folder).map_err(told)?;
            print(&mut out, |out| write_snapshot(out, &snapshot))?;
            if !args.follow {
                return Ok(());
            }
            reader
        }
        (false, Some(position)) => Reader::after(folder, position).map_err(told)?,
        (false, None) => Reader::from_oldest(folder).map_err(told)?,
    };
    loop {
        while let Some(entry) = reader.next_entry().map_err(told)? {
            print(&mut out, |out| write_entry(out, &entry))?;
        }
        print(&mut out, |out| out.flush())?;
        if !args.follow {
            return Ok(());
        }
        pause::pause(limits::JOURNAL_FOLLOW_PAUSE);
    }
}

fn told(error: ReadError) -> CliError {
    CliError::machine(error.to_string())
}

fn print<W>(out: &mut W, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), CliError> {
    write(out).map_err(|cause| CliError::Stdout { cause })
}

/// The line before those of the clients.
#[derive(Serialize)]
struct SnapshotLine {
    event: &'static str,
    boot: u64,
    seq: u64,
    clients: usize,
}

#[derive(Serialize)]
struct PresentLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    present: &'a Present,
}

/// What stands for records that are missing.
#[derive(Serialize)]
struct MissingLine {
    event: &'static str,
    boot: u64,
    from_seq: u64,
    to_seq: u64,
    count: u64,
}

fn write_snapshot(out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
    let Position { boot, seq } = snapshot.position;
    let clients = snapshot.clients.len();
    write_line(out, &SnapshotLine { event: "snapshot", boot, seq, clients })?;
    for present in snapshot.clients.values() {
        write_line(out, &PresentLine { event: "present", present })?;
    }
    out.flush()
}

fn write_entry(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let (event, from, to_seq) = match entry {
        Entry::Record { json, .. } => return writeln!(out, "{json}"),
        Entry::Gap { from, to_seq } => ("gap", from, *to_seq),
        Entry::Damaged { from, to_seq } => ("damaged", from, *to_seq),
    };
    let (boot, from_seq) = (from.boot, from.seq);
    let count = (to_seq - from_seq).saturating_add(1);
    write_line(out, &MissingLine { event, boot, from_seq, to_seq, count })
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
