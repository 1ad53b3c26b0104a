//! The page of `examples/browser` in a real Chromium.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::Browser;
use crate::gate::Gate;
use crate::http::{post, start};

/// Serves the page to whoever asks, until the test process ends.
fn serve_page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                request.push_str(&std::mem::take(&mut line));
            }
            let name = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
            let (name, kind) = match name {
                "" => ("index.html", "text/html"),
                name => (name, "text/javascript"),
            };
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/browser");
            let body = std::fs::read(folder.join(name)).unwrap_or_default();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    address
}

fn open_page(browser: &mut Browser, page: &str, gate: &Gate) {
    browser.open(page);
    browser.fill("#url", &format!("ws://{}/", gate.address));
    browser.click("#connect");
}

#[test]
fn a_browser_comes_online_beats_is_pushed_to_and_goes_offline() {
    let page = format!("http://{}/", serve_page());
    let origin = page.trim_end_matches('/').to_owned();
    let arguments = [
        "--interval",
        "500ms",
        "--timeout",
        "20s",
        "--grace",
        "20s",
        "--websocket-origin",
        &origin,
    ];
    let (gate, admin) = start(&arguments);
    let mut browser = Browser::start();
    open_page(&mut browser, &page, &gate);
    browser.until_says("#state", "online");
    let online = gate.wait_for_event("online");
    assert_eq!(online["client"], "my-page");
    browser.until("Number(document.getElementById('beats').textContent) >= 2");
    let push = json!({ "topic": "news", "text": "hëllo", "ack": true, "wait_ms": 20_000 });
    let pushed = post(admin, "/v1/clients/my-page/push", &push.to_string());
    assert_eq!(pushed.json()["result"], "acked", "{pushed:?}");
    browser.until_says("#log", "push news: hëllo");
    browser.click("#leave");
    browser.until_says("#log", "offline: code 0, closed with 1000; for good");
    let offline = gate.wait_for_event("offline");
    assert_eq!((&offline["client"], &offline["reason"]), (&json!("my-page"), &json!("bye")));
    browser.finish(&page);
}

#[test]
fn a_browser_reads_why_it_was_closed_and_comes_back_where_it_may() {
    let page = format!("http://{}/", serve_page());
    let origin = page.trim_end_matches('/').to_owned();
    let (gate, admin) = start(&["--grace", "20s", "--websocket-origin", &origin]);
    let mut browser = Browser::start();
    open_page(&mut browser, &page, &gate);
    browser.until_says("#state", "online");
    browser.click("#connect");
    browser.until("document.querySelectorAll('#log li').length === 3");
    browser.until_says("#log li:last-child", "online: session");
    let kicked = post(admin, "/v1/clients/my-page/kick", "{}");
    assert_eq!(kicked.status, 200, "{kicked:?}");
    browser.until_says("#log", "offline: code 300, closed with 4300; for good");
    browser.finish(&page);
}

/// A page in the background has no timers, or slow ones; this one never beats.
#[test]
fn a_page_that_runs_no_script_stays_online_by_its_browser() {
    let page = format!("http://{}/", serve_page());
    let origin = page.trim_end_matches('/').to_owned();
    let arguments = ["--interval", "300ms", "--timeout", "3s", "--websocket-origin", &origin];
    let gate = Gate::start(&arguments);
    let mut browser = Browser::start();
    browser.open(&page);
    browser.value(&format!(
        "(window.quiet = new Heartwheel('ws://{}/', 'quiet', {{ mayBeat: false }}), \
         quiet.connect(), true)",
        gate.address
    ));
    assert_eq!(gate.wait_for_event("online")["client"], "quiet");
    let until = Instant::now() + Duration::from_secs(7);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if let Some(event) = gate.try_event(left) {
            assert_ne!(event["event"], "offline", "{event}");
        }
    }
    browser.finish(&page);
}

#[test]
fn a_page_of_somewhere_else_is_not_let_in() {
    let page = format!("http://{}/", serve_page());
    let gate = Gate::start(&["--websocket-origin", "https://example.org"]);
    let mut browser = Browser::start();
    open_page(&mut browser, &page, &gate);
    browser.until_says("#log", "closed with 1006");
    assert_eq!(gate.wait_for_event("started")["event"], "started");
    assert_eq!(gate.try_event(Duration::from_millis(300)), None, "nobody came in");
}
