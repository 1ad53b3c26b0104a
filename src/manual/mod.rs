//! The manual: prose that is checked with the code.
//!
//! May import: nothing.
//! Never here: code.

#[doc = include_str!("protocol.md")]
pub mod protocol {}
