//! The manual: prose that is checked with the code.
//!
//! May import: nothing.
//! Never here: code.
