//! Whether a file takes bytes without making anybody wait.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::base::time::Span;

/// Bytes that a pipe takes at once or not at all: `PIPE_BUF`.
pub const PIPE_BYTES_AT_ONCE: usize = 4_096;

/// Watches an output whose reader may sleep: a pipe, a terminal, a socket.
#[derive(Debug)]
pub struct Outlet {
    file: OwnedFd,
}

impl Outlet {
    /// Watches `file`; `None` where nobody reads at the other end, as of a file on a disk.
    ///
    /// # Errors
    /// When the machine does not say what it is, or gives no further descriptor.
    pub fn of(file: &File) -> io::Result<Option<Self>> {
        if file.metadata()?.is_file() {
            return Ok(None);
        }
        Ok(Some(Self { file: file.as_fd().try_clone_to_owned()? }))
    }

    /// Whether [`PIPE_BYTES_AT_ONCE`] would be taken without waiting, now or within so long.
    pub fn is_ready(&self, within: Span) -> bool {
        let within = Timespec {
            tv_sec: i64::try_from(within.as_nanos() / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(within.as_nanos() % 1_000_000_000).unwrap_or(0),
        };
        let mut polled = [PollFd::new(&self.file, PollFlags::OUT)];
        // What cannot be asked is tried: writing says what is wrong.
        poll(&mut polled, Some(&within)).map_or(true, |count| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_pipe_is_ready_until_it_is_full_and_again_when_it_was_read() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let mut writer = File::from(OwnedFd::from(writer));
        let outlet = Outlet::of(&writer).expect("a descriptor").expect("a pipe has a reader");
        let mut written = 0;
        while outlet.is_ready(Span::ZERO) {
            written += writer.write(&[7; PIPE_BYTES_AT_ONCE]).expect("it does not wait");
            assert!(written < 16 * 1_024 * 1_024, "pipes are finite");
        }
        assert!(!outlet.is_ready(Span::from_millis(1)));
        reader.read_exact(&mut vec![0; written]).expect("it was written");
        assert!(outlet.is_ready(Span::ZERO));
    }

    #[test]
    fn nobody_waits_for_a_disk() {
        let file = tempfile::tempfile().expect("there is room for a file");
        assert!(Outlet::of(&file).expect("it can be asked").is_none());
    }
}
