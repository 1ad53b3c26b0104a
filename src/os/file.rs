//! Files of which nobody knows how long they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What is in the file; `None`: more than `bytes_max`, of which no more is read.
///
/// # Errors
/// When the machine does not let us read it.
pub fn read_at_most(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

/// The same of a text.
///
/// # Errors
/// When the machine does not let us read it, or it is not UTF-8.
pub fn read_text_at_most(path: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= bytes_max).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_it_may_be_is_none_and_what_never_ends_is_too() {
        let folder = tempfile::tempdir().expect("there is room for a file");
        let path = folder.path().join("file");
        std::fs::write(&path, "seven b").expect("there is room");
        assert_eq!(read_at_most(&path, 7).expect("a file").as_deref(), Some(&b"seven b"[..]));
        assert_eq!(read_at_most(&path, 6).expect("a file"), None);
        assert_eq!(read_text_at_most(&path, 7).expect("a file").as_deref(), Some("seven b"));
        assert_eq!(read_text_at_most(&path, 6).expect("a file"), None);
        assert_eq!(read_at_most(Path::new("/dev/zero"), 1_000).expect("a device"), None);
        assert!(read_at_most(&folder.path().join("none"), 7).is_err());
    }
}
