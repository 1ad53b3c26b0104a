//! Beside the loop: what it has to tell the world is written, served and sent here, by threads that
//! it never waits for.
//!
//! May import: base, os, gateway, layers, server.
//! Never here: truth. It asks the loop and passes on what it hears.

pub mod api;
pub mod auth;
pub mod caller;
mod dashboard;
pub mod door;
pub mod events;
pub mod feed;
pub mod from_loop;
pub mod http;
pub mod hub;
pub mod identity;
pub mod journal;
pub mod ledger;
pub mod limiter;
pub mod live;
pub mod log;
mod merge;
pub mod messages;
pub mod metrics;
pub mod past;
pub mod patient;
pub mod reload;
mod seats;
pub mod side;
pub mod summary;
pub mod tls;
pub mod tokens;
pub mod transport;
pub mod watchdog;
pub mod webhook;
