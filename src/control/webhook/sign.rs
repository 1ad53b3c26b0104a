//! The signature of a batch, and the keys it is made with.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::base::limits;

/// The name of the header that has it.
pub(crate) const SIGNATURE: &str = "heartwheel-signature";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The machine does not let us read it.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// Nothing that could be a key.
    #[error(
        "{} has no key; expected a line of {} to {} characters without blanks, as from openssl \
         rand -hex 32, or two lines, new key and old key",
        path.display(),
        limits::WEBHOOK_SECRET_BYTES_MIN,
        limits::WEBHOOK_SECRET_BYTES_MAX
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads the keys: one, or while keys are changed two, a line each.
pub(crate) fn read_keys(path: &Path) -> Result<Vec<String>, SecretError> {
    let unreadable = |cause| SecretError::Unreadable { path: path.to_owned(), cause };
    let mut text = String::new();
    let most = 2 * (limits::WEBHOOK_SECRET_BYTES_MAX as u64 + 2) + 1;
    File::open(path)
        .map_err(unreadable)?
        .take(most)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let keys: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    let bounds = limits::WEBHOOK_SECRET_BYTES_MIN..=limits::WEBHOOK_SECRET_BYTES_MAX;
    let is_key = |key: &String| {
        bounds.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !(1..=2).contains(&keys.len()) || !keys.iter().all(is_key) {
        return Err(SecretError::NoKey { path: path.to_owned() });
    }
    Ok(keys)
}

/// `t=UNIX,v1=HEX`: HMAC-SHA256 of the seconds, a full stop and the body; one `v1` for each key.
pub(crate) fn signature(keys: &[String], unix_secs: u64, body: &[u8]) -> String {
    let mut text = format!("t={unix_secs}");
    for key in keys {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length will do");
        mac.update(unix_secs.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        text.push_str(",v1=");
        for byte in mac.finalize().into_bytes() {
            write!(text, "{byte:02x}").expect("a text takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the hmac module of Python.
    #[test]
    fn signatures_are_those_that_others_make() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let long = "k".repeat(100);
        for (key, unix_secs, body, expected) in [
            (
                "0123456789abcdef",
                1_795_420_800,
                "{}",
                "31357169478cda27fa38ea0b01abfbd6e32a45018b13511854d7f5a74032ffeb",
            ),
            (
                "a-key-of-24-characters--",
                1,
                "",
                "80d1b44ef195fb96ed005907fd581460e70db622224f659af378671b3c1a7d91",
            ),
            (
                long.as_str(),
                1_795_420_800,
                "{\"node\":\"edge-ä\"}",
                "7463342981eaed1ae57e81e47d621f0a268e7304c379e41bb10ceff5c58b0687",
            ),
        ] {
            let made = signature(&keys(&[key]), unix_secs, body.as_bytes());
            assert_eq!(made, format!("t={unix_secs},v1={expected}"));
        }
        let both =
            signature(&keys(&["new-key-new-key-", "0123456789abcdef"]), 1_795_420_800, b"{}");
        assert!(
            both.ends_with(",v1=31357169478cda27fa38ea0b01abfbd6e32a45018b13511854d7f5a74032ffeb"),
            "{both}"
        );
        assert_eq!(both.matches("v1=").count(), 2);
    }

    #[test]
    fn a_file_has_one_key_or_two() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("there is room for a file");
            read_keys(&path)
        };
        let long = "x".repeat(limits::WEBHOOK_SECRET_BYTES_MAX);
        for (text, count) in [
            ("0123456789abcdef", 1),
            ("0123456789abcdef\n", 1),
            ("0123456789abcdef\r\nfedcba9876543210\r\n", 2),
            (&format!("{long}\n{long}\n"), 2),
        ] {
            assert_eq!(read(text).expect(text).len(), count, "{text}");
        }
        let too_long = format!("{long}x");
        for text in ["", "\n", "short", "0123456789 abcdef", "0123456789abcdef\n\n", &too_long] {
            assert!(matches!(read(text), Err(SecretError::NoKey { .. })), "{text}");
        }
        assert!(matches!(read_keys(folder.path()), Err(SecretError::Unreadable { .. })));
    }
}
