//! The built binary and its webhooks, against a backend that fails in every way.

mod authority;
mod backend;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
#[path = "../api/http.rs"]
#[allow(dead_code, reason = "shared with the tests of the admin API, which use more of it")]
mod http;
mod kills;
mod messages;
mod outage;
mod rules;
mod secure;
