//! The side thread: what the loop has to tell the world is written and served here.
//!
//! May import: base, os, gateway, server.
//! Never here: truth. It asks the loop and passes on what it hears.

pub mod api;
pub mod auth;
pub mod caller;
pub mod door;
pub mod events;
pub mod feed;
pub mod from_loop;
pub mod http;
pub mod journal;
pub mod limiter;
pub mod live;
pub mod log;
mod merge;
pub mod metrics;
pub mod patient;
pub mod reload;
pub mod side;
pub mod summary;
pub mod transport;
