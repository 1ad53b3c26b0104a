//! Clients that come by WebSocket: bare ones that break the rules, foreign ones that keep them, and
//! a page in a real Chromium.

#[path = "../dashboard/browser.rs"]
#[allow(dead_code, reason = "shared with the tests of the dashboard, which use more of it")]
mod browser;
mod foreign;
#[path = "../serve/gate.rs"]
#[allow(dead_code, reason = "shared with the tests of serve, which use more of it")]
mod gate;
mod hostile;
#[path = "../api/http.rs"]
#[allow(dead_code, reason = "shared with the tests of the API, which use more of it")]
mod http;
mod load;
mod page;
