//! The dashboard in a real Chromium, against the built binary.

mod browser;
mod foreign;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
mod hostile;
#[path = "../api/http.rs"]
#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
mod http;
mod page;
mod pictures;
mod served;
