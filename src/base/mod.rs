//! The words that every other room shares: ids, moments, limits, operations, completions, events.
//!
//! May import: nothing.
//! Never here: behaviour. Values only; whatever decides something lives further up.

pub mod admission;
pub mod config;
pub mod data;
pub mod event;
pub mod identity;
pub mod ids;
pub mod introduction;
pub mod io;
pub mod limits;
pub mod networks;
pub mod origin;
pub mod pulse;
pub mod reconfiguration;
pub mod time;
