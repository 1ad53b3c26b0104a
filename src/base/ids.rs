//! Names of things: connections, clients and groups of clients.

use std::borrow::Borrow;
use std::fmt;

use smol_str::SmolStr;

use crate::base::limits::{CLIENT_ID_BYTES_MAX, GROUP_BYTES_MAX};

/// One accepted connection, for as long as it exists.
///
/// A slot is used again; its generation is not. An id kept too long is therefore recognised as
/// stale and never taken for a stranger's connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId {
    /// Index in the table of connections.
    pub slot: u32,
    /// How often the slot was used before, wrapping.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// What a client calls itself: 1 to 128 bytes of UTF-8 without control characters.
///
/// 24 bytes, and for a text of more than 23 bytes a shared copy on the heap. A clone allocates
/// nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(SmolStr);

/// Why a text is not a client id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClientIdError {
    /// It has no bytes.
    #[error("a client id has at least one byte")]
    Empty,
    /// It has more bytes than a client id may have.
    #[error("a client id has at most {CLIENT_ID_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Its bytes are not UTF-8.
    #[error("a client id is UTF-8")]
    NotUtf8,
    /// It contains a control character, which would spoil logs and terminals.
    #[error("a client id has no control characters")]
    Control,
}

impl ClientId {
    /// Takes `text` as a client id.
    pub fn new(text: &str) -> Result<Self, ClientIdError> {
        Self::validate(text)?;
        Ok(Self(SmolStr::new(text)))
    }

    /// Whether `text` may be a client id, without making one.
    pub fn validate(text: &str) -> Result<(), ClientIdError> {
        if text.is_empty() {
            return Err(ClientIdError::Empty);
        }
        if text.len() > CLIENT_ID_BYTES_MAX {
            return Err(ClientIdError::TooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(ClientIdError::Control);
        }
        Ok(())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ClientId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What a group of clients is called: 1 to 64 bytes of UTF-8 without control characters. A clone
/// allocates nothing.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupName(SmolStr);

/// A text is not the name of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the name of a group has 1 to {GROUP_BYTES_MAX} bytes and no control characters")]
pub struct GroupNameError;

impl GroupName {
    /// Takes `text` as the name of a group.
    pub fn new(text: &str) -> Result<Self, GroupNameError> {
        let is_name = (1..=GROUP_BYTES_MAX).contains(&text.len());
        match is_name && !text.chars().any(char::is_control) {
            true => Ok(Self(SmolStr::new(text))),
            false => Err(GroupNameError),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_the_name_of_a_group() {
        assert!(GroupName::new("tills/zürich").is_ok());
        assert!(GroupName::new(&"x".repeat(GROUP_BYTES_MAX)).is_ok());
        for bad in ["", "a\nb", "\u{9b}", &"x".repeat(GROUP_BYTES_MAX + 1)] {
            assert_eq!(GroupName::new(bad), Err(GroupNameError), "{bad:?}");
        }
    }

    #[test]
    fn what_may_be_a_client_id() {
        let longest = "x".repeat(CLIENT_ID_BYTES_MAX);
        let longer = "x".repeat(CLIENT_ID_BYTES_MAX + 1);
        for (name, text, expected) in [
            ("plain", "device-7", Ok(())),
            ("not ASCII", "gerät/7", Ok(())),
            ("longest", longest.as_str(), Ok(())),
            ("empty", "", Err(ClientIdError::Empty)),
            ("too long", longer.as_str(), Err(ClientIdError::TooLong { bytes: 129 })),
            ("newline", "a\nb", Err(ClientIdError::Control)),
            ("escape", "a\u{1b}[2J", Err(ClientIdError::Control)),
            ("C1 control", "a\u{9b}b", Err(ClientIdError::Control)),
        ] {
            assert_eq!(ClientId::validate(text), expected, "{name}");
        }
    }
}
