//! The manual: prose that is checked with the code.
//!
//! May import: nothing.
//! Never here: code.

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("api.md")]
pub mod api {}

#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("journal.md")]
pub mod journal {}

#[doc = include_str!("webhook.md")]
pub mod webhook {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("security.md")]
pub mod security {}
