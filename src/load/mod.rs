//! Pretend clients: the load bench, with the behaviours that real clients have.
//!
//! May import: base, wire, os, layers.
//! Never here: gateway, tracker. The load bench knows us only by what is on the wire.
//!
//! ```text
//! plan        who does what and when, from the options and a seed
//! dialect     how a client speaks: the native protocol, or MQTT                       pure
//! websocket   the native protocol in messages of a WebSocket                          pure
//! mqtt        as much of MQTT 3.1.1 as that needs                                     pure
//! client      one pretend client: what it says, hears, and what its ending means      pure
//! fleet       all of them: sockets, alarms, the course of a run                        pure
//! drive       the fleet on the real kernel
//! timers      one alarm for each client
//! tally       what is counted, with histogram
//! report      what is told about it: a table and JSON
//! ```

pub mod client;
pub mod dialect;
pub mod drive;
pub mod fleet;
pub mod histogram;
pub mod mqtt;
pub mod plan;
pub mod report;
pub mod tally;
pub mod timers;
mod websocket;
