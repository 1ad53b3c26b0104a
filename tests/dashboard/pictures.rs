//! The pictures in the README: made when asked for, by
//! `HEARTWHEEL_PICTURES=src/manual/pictures cargo test --test dashboard pictures`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::browser::Browser;
use crate::gate::Caller;
use crate::http::start;
use crate::page::Beating;

/// Largest picture: it is in the repository for ever.
const BYTES_MAX: u64 = 150_000;
/// Samples before a picture that is kept, about one a second.
const SAMPLES: u64 = 280;

/// In light and in dark, with a crowd of pretend clients that come and go.
#[test]
fn pictures_are_taken_in_light_and_in_dark() {
    let wish = std::env::var_os("HEARTWHEEL_PICTURES");
    let folder = tempfile::tempdir().expect("there is room for pictures");
    let kept = wish.is_some();
    let place = wish.map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let (gate, admin) =
        start(&["--interval", "2s", "--timeout", "5s", "--node", "edge-1", "--min-interval", "1s"]);
    let mut load = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["load", "--target", &gate.address.to_string(), "--clients", "600"])
        .args(["--interval", "2s", "--for", "330s", "--id-prefix", "till-", "--connect-rate", "20"])
        .args(["--silent", "60", "--reset", "30", "--leave", "40", "--flap", "12"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut browser = Browser::start();
    browser.open(&format!("http://{admin}/"));
    browser.until_says("#chart-reasons text", "bye");
    if kept {
        // A few minutes of comings and goings.
        let samples = "fetch('/v1/stats/history').then((answer) => answer.json())\
             .then((past) => past.samples.length)";
        while browser.value(samples).as_u64().unwrap_or_default() < SAMPLES {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let silent = Caller::login(gate.address, "till-0042");
    browser.fill("#search", "till-0042");
    browser.until_says("#events tr", "heartbeat_timeout");
    drop(silent);
    browser.fill("#search", "");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.size(1_160, 1_150);
        browser.value("(document.activeElement.blur(), scrollTo(0, 0))");
        let file = place.join(format!("dashboard-{scheme}.png"));
        browser.picture(&file);
        let bytes = std::fs::metadata(&file).expect("it was written").len();
        assert!((10_000..BYTES_MAX).contains(&bytes), "{}: {bytes} bytes", file.display());
        let ground = browser.text("getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground == "rgb(15, 20, 26)", scheme == "dark", "{ground}");
    }
    browser.prefer("light");
    let _again = Beating::start(gate.address, &["till-0042"], Duration::from_millis(1_900));
    browser.value("location.hash = '#/client/till-0042'");
    browser.until_says("#evidence p", "nothing came for the whole timeout");
    browser.size(1_160, 880);
    let beats = if kept { 12 } else { 2 };
    let strokes = "document.querySelectorAll('#chart-client .s-blue').length";
    browser.until(&format!("{strokes} >= {beats}"));
    browser.picture(&place.join("dashboard-client.png"));
    let _ = load.kill();
    let _ = load.wait();
    browser.finish(&format!("http://{admin}/"));
}
