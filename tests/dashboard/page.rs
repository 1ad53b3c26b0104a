//! What is on the page, and what its buttons do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::browser::{Browser, PATIENCE};
use crate::gate::{Caller, Gate, Heard as Word};
use crate::http::{TOKEN, post, start, token_file};

/// Clients that beat until they are dropped.
pub(crate) struct Beating {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Beating {
    pub(crate) fn start(address: SocketAddr, names: &[&str], every: Duration) -> Self {
        let mut callers: Vec<Caller> =
            names.iter().map(|name| Caller::login(address, name)).collect();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ends = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                callers.iter_mut().for_each(Caller::beat);
                std::thread::sleep(every);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn origin(admin: SocketAddr) -> String {
    format!("http://{admin}/")
}

const EVERY: Duration = Duration::from_millis(100);
/// Nobody dies of a slow machine by this one.
pub(crate) const CALM: [&str; 4] = ["--interval", "1min", "--timeout", "10min"];
const RHYTHM: [&str; 4] = ["--interval", "2s", "--timeout", "6s"];

#[test]
fn numbers_move_and_an_end_is_shown_as_it_happens_with_its_reason() {
    let (gate, admin) = start(&RHYTHM);
    let _beating = Beating::start(gate.address, &["till-1", "till-2", "till-3"], EVERY);
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.until_says("#tile-online b", "3");
    browser.until_says("#link-text", "live");
    browser.until("parseFloat(document.querySelector('#tile-beats b').textContent) > 5");
    browser.until("document.querySelector('#chart-connected .s-blue').getAttribute('d')");
    browser.until("document.querySelector('#chart-busy .s-blue').getAttribute('d')");
    browser.until_says("#read-busy", "µs on average, 99 of 100 at most");
    browser.until_says("#facts", "io_uring");
    let before = browser.text("document.querySelector('#chart-beats .s-blue').getAttribute('d')");
    let before = serde_json::Value::from(before);
    browser.until(&format!(
        "document.querySelector('#chart-beats .s-blue').getAttribute('d') !== {before}"
    ));

    let silent = Caller::login(gate.address, "silent-1");
    browser.until_says("#events tr", "silent-1");
    browser.until_says("#tile-online b", "4");
    browser.until_says("#events tr", "heartbeat_timeout");
    browser.until_says("#chart-reasons text", "heartbeat_timeout");
    browser.until_says("#tile-late b", "≤");
    browser.until_says("#tile-online b", "3");
    drop(silent);
    drop(Caller::login(gate.address, "gone-1"));
    browser.until_says("#chart-reasons text", "closed_by_peer");

    searches(&mut browser, &gate);
    browser.finish(&origin(admin));
}

fn searches(browser: &mut Browser, gate: &Gate) {
    let rows = "[...document.querySelectorAll('#events tr')].map((row) => row.innerText)";
    browser.fill("#search", "SILENT");
    browser
        .until(&format!("{rows}.length === 2 && {rows}.every((row) => row.includes('silent-1'))"));
    browser.fill("#search", "closed_by");
    browser.until(&format!("{rows}.length === 1 && {rows}[0].includes('gone-1')"));
    browser.fill("#search", "nobody at all");
    browser.until_says("#events-empty", "No event has that");
    browser.fill("#search", "");
    browser.value(
        "(() => { const kind = document.querySelector('#kind'); kind.value = 'offline'; \
         kind.dispatchEvent(new Event('change')); })()",
    );
    browser
        .until(&format!("{rows}.length === 2 && {rows}.every((row) => row.includes('offline'))"));
    browser.click("#pause");
    drop(Caller::login(gate.address, "gone-2"));
    browser.until("/more/.test(document.querySelector('#pause').textContent)");
    browser.until(&format!("{rows}.length === 2"));
    browser.click("#pause");
    browser.until(&format!("{rows}.length === 3 && {rows}[0].includes('gone-2')"));
    // Whoever goes through the list by keyboard is not thrown out of it by what comes.
    browser.value("document.querySelector('#events tr a').focus()");
    drop(Caller::login(gate.address, "gone-3"));
    browser.until(&format!("{rows}.length === 4 && {rows}[0].includes('gone-3')"));
    assert_eq!(browser.text("document.activeElement.textContent"), "gone-2");
}

#[test]
fn a_client_has_a_page_with_its_timeline_its_evidence_and_a_kick_that_kicks() {
    let (gate, admin) = start(&CALM);
    drop(Caller::login(gate.address, "anna"));
    let mut anna = Caller::login(gate.address, "anna");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        anna.beat();
    }
    let mut browser = Browser::start();
    browser.open(&format!("{}#/client/anna", origin(admin)));
    // From before the page was opened: gaps that the gateway remembers.
    browser.until("document.querySelectorAll('#chart-client .pale').length >= 2");
    browser.until_says("#client-state", "live");
    browser.until_says("#client-facts", "127.0.0.1");
    browser.until_says("#evidence p", "its end closed the connection without a BYE");
    browser.until_says("#evidence p", "Last heard at");
    browser.until("document.querySelectorAll('#timeline tr').length === 3");
    // By the history of this client, not by what the page heard of all.
    browser.until("document.querySelector('#timeline-source').textContent === ''");
    assert!(browser.asked().iter().any(|url| url.contains("/v1/clients/anna/history?limit=")));
    anna.beat();
    browser.until("document.querySelectorAll('#chart-client .s-blue').length >= 2");

    browser.click("#kick-open");
    browser.until("document.querySelector('#kick').open");
    browser.fill("#kick-code", "999");
    browser.click("#kick-form .danger");
    browser.until_says("#kick-problem", "expected 300, or 1000 and above");
    anna.beat();
    browser.fill("#kick-code", "1001");
    browser.fill("#kick-text", "moved to another till");
    browser.click("#kick-form .danger");
    browser.until_says("#client-said", "Its session has ended.");
    browser.until("!document.querySelector('#kick').open");
    let heard = (0..10).map(|_| anna.hear()).find(|word| matches!(word, Word::Error(_)));
    assert_eq!(heard, Some(Word::Error(1_001)));
    browser.until_says("#client-state", "offline");
    browser.until_says("#evidence p", "somebody ended the session (kicked, 300)");
    browser.until("document.querySelectorAll('#timeline tr').length === 4");
    browser.until("document.querySelector('#kick-open').disabled");
    pushes(&mut browser, &gate);
    browser.finish(&origin(admin));
}

/// The form sends what it says, and the client hears it.
fn pushes(browser: &mut Browser, gate: &Gate) {
    let mut anna = Caller::login(gate.address, "anna");
    browser.until_says("#client-state", "live");
    browser.click("#push-open");
    browser.fill("#push-topic", "news");
    browser.fill("#push-text", "the shop closes at six");
    browser.click("#push-form .primary");
    browser.until_says("#client-said", "Pushed: delivered");
    let heard = anna.hear();
    let body = format!("body: {:?} }}", b"the shop closes at six");
    let is_it = matches!(&heard, Word::Other(text)
        if text.contains(r#"topic: "news""#) && text.ends_with(&body));
    assert!(is_it, "{heard:?}");
    let counted = "[...document.querySelectorAll('#client-facts dt')]\
         .find((name) => name.textContent === 'Messages to it').nextSibling.textContent";
    browser.until(&format!("{counted} === '1'"));
}

#[test]
fn a_token_is_asked_for_and_kept_in_the_tab_alone() {
    let (_folder, file) = token_file();
    let arguments = ["--admin-token-file", &file];
    let gate = Gate::start(&[&["--admin", "127.0.0.1:0"], &arguments[..], &CALM[..]].concat());
    let admin = crate::http::admin_of(&gate);
    let _anna = Caller::login(gate.address, "anna");
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.until_says("#view-login h1", "asks for a token");
    browser.fill("#token", "wrong-horse-battery");
    browser.click("#login .primary");
    browser.until_says("#login-problem", "not the token");
    browser.fill("#token", TOKEN);
    browser.click("#login .primary");
    browser.until_says("#tile-online b", "1");
    browser.until_says("#link-text", "live");
    browser.until_says("#events tr", "anna");
    let kept = browser.text("JSON.stringify([localStorage, document.cookie, location.href])");
    assert!(!kept.contains("battery"), "{kept}");
    assert!(browser.text("JSON.stringify(sessionStorage)").contains(TOKEN));
    assert!(browser.asked().iter().all(|url| !url.contains("battery")));
    browser.call("Page.reload", &serde_json::json!({}));
    browser.until_says("#tile-online b", "1");
    browser.finish(&origin(admin));
}

#[test]
fn a_restart_of_the_gateway_is_said_and_outlived() {
    let (mut gate, admin) = start(&CALM);
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.until_says("#link-text", "live");
    gate.signal("KILL");
    gate.wait();
    browser.until_says("#banner-lost", "lost");
    let admin_again = admin.to_string();
    let deadline = Instant::now() + PATIENCE;
    // Connections of the one before may hold the port for a moment.
    while std::net::TcpListener::bind(admin).is_err() {
        assert!(Instant::now() < deadline, "the port stays taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    let again = Gate::start(&[&["--admin", &admin_again], &CALM[..]].concat());
    let _bert = Caller::login(again.address, "bert");
    browser.until_says("#link-text", "live");
    browser.until("document.querySelector('#banner-lost').hidden");
    browser.until_says("#tile-online b", "1");
    browser.until_says("#events tr", "bert");
    browser.finish(&origin(admin));
}

#[test]
fn a_drain_is_said() {
    let (gate, admin) = start(&CALM);
    let _anna = Caller::login(gate.address, "anna");
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.until_says("#link-text", "live");
    assert_eq!(browser.value("document.querySelector('#banner-drain').hidden"), true);
    assert_eq!(post(admin, "/v1/drain", r#"{"within_ms": 60000}"#).status, 202);
    browser.until_says("#banner-drain", "A drain is under way");
    browser.finish(&origin(admin));
}

#[test]
fn the_list_of_clients_is_filtered_and_has_pages() {
    let (gate, admin) = start(&CALM);
    let names: Vec<String> = (0..130).map(|number| format!("c-{number:03}")).collect();
    let _callers: Vec<_> = names.iter().map(|name| Caller::login(gate.address, name)).collect();
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.click("#to-clients");
    let rows = "document.querySelectorAll('#clients tr').length";
    browser.until(&format!("{rows} === 100"));
    browser.click("#clients-next");
    browser.until(&format!("{rows} === 30"));
    browser.until("document.querySelector('#clients-next').disabled");
    browser.fill("#prefix", "c-01");
    browser.until(&format!("{rows} === 10"));
    browser.click("#clients tr a");
    browser.until_says("#client-id", "c-01");
    browser.until_says("#client-state", "live");
    // Everything can be had without a mouse.
    let reached = browser.value(
        "[...document.querySelectorAll('a[href], button, input, select')]\
         .every((one) => one.tabIndex >= 0)",
    );
    assert_eq!(reached, true);
    browser.finish(&origin(admin));
}

/// Of everything that is seen: how far its colour is from what lies under it, as WCAG counts it.
const FAINTEST: &str = "(() => { \
    const parts = (text) => text.match(/[0-9.]+/g).map(Number); \
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255) \
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4) \
      .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0); \
    const under = (one) => { for (let each = one; each; each = each.parentElement) { \
      const ground = parts(getComputedStyle(each).backgroundColor); \
      if (ground.length === 3 || ground[3] === 1) return ground; } return [255, 255, 255]; }; \
    let faintest = [21, 'nothing']; \
    for (const one of document.querySelectorAll('body *')) { \
      const says = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()); \
      if (!says || !one.checkVisibility() || one.disabled) continue; \
      if (one.closest('.hidden, .skip')) continue; \
      const style = getComputedStyle(one); \
      const ink = parts(one.closest('svg') ? style.fill : style.color); \
      const [a, b] = [light(ink), light(under(one))].sort((a, b) => b - a); \
      const ratio = (a + 0.05) / (b + 0.05); \
      if (ratio < faintest[0]) faintest = [ratio, one.outerHTML.slice(0, 200)]; \
    } return faintest; })()";

#[test]
fn everything_can_be_read_in_light_and_in_dark() {
    let (gate, admin) = start(&RHYTHM);
    let _beating = Beating::start(gate.address, &["till-1"], EVERY);
    drop(Caller::login(gate.address, "anna"));
    let mut browser = Browser::start();
    browser.open(&origin(admin));
    browser.until_says("#chart-reasons text", "closed_by_peer");
    for scheme in ["light", "dark", "light by button", "dark by button"] {
        match scheme.split_once(" by ") {
            None => browser.prefer(scheme),
            // The one that the machine does not want, by the button that goes round.
            Some((theme, _)) => {
                browser.prefer(if theme == "light" { "dark" } else { "light" });
                browser.value("location.hash = '#/'");
                browser.click("#theme");
                browser.until_says("#theme", &format!("Theme: {theme}"));
            }
        }
        for (hash, row) in
            [("#/", "#events tr"), ("#/clients", "#clients tr"), ("#/client/anna", "#timeline tr")]
        {
            browser.value(&format!("location.hash = '{hash}'"));
            browser.until(&format!("document.querySelector('{row}')?.checkVisibility()"));
            let faintest = browser.value(FAINTEST);
            let ratio = faintest[0].as_f64().expect("a number");
            assert!(ratio >= 4.5, "{scheme} {hash}: {faintest}");
        }
    }
    browser.finish(&origin(admin));
}
