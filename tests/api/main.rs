//! The built binary and its admin API, over real sockets.

mod command;
mod endpoints;
mod feed;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
mod http;
mod leave;
mod messages;
#[path = "../faults/namespace.rs"]
mod namespace;
mod one;
mod pages;
mod panels;
mod past;
mod push;
mod reload;
mod roles;
mod shards;
mod slow;
mod strain;
mod tls;
mod top;
