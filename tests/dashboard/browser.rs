//! A real Chromium without a window, told what to do over a pair of pipes by its own protocol:
//! messages of JSON, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything: the machine may be busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether something is so.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// One browser at a time: each is a handful of processes.
static TURN: Mutex<()> = Mutex::new(());

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last_id: u64,
    session: String,
    /// What the page said that nobody asked for.
    told: Vec<Value>,
    profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path)
        .flat_map(|folder| NAMES.map(|name| folder.join(name)))
        .filter(|file| file.is_file());
    found
        .next()
        .expect("a Chromium: install the package chromium, for the dashboard is tested in one")
}

impl Browser {
    pub(crate) fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().expect("room for a profile");
        // The protocol is spoken on descriptors 3 and 4.
        let mut child = Command::new("bash")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>\"$0\""])
            .arg(profile.path().join("stderr"))
            .arg(chromium())
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-extensions",
                "--disable-sync",
                "--no-first-run",
                "--no-default-browser-check",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let to = child.stdin.take().expect("piped");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let (message_in, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("JSON");
                if message_in.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, told) = (String::new(), Vec::new());
        let mut browser = Self { child, to, from, last_id: 0, session, told, profile, _turn: turn };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let made = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = made["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = self.call("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().expect("a text").clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        self.size(1_240, 900);
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap_or_else(|error| panic!("{error}: {}", self.stderr()));
        loop {
            let message = self.from.recv_timeout(PATIENCE);
            let message =
                message.unwrap_or_else(|error| panic!("{method}: {error}: {}", self.stderr()));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.told.push(message);
        }
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("stderr")).unwrap_or_default()
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", &params);
    }

    /// Has the machine's wish be `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    pub(crate) fn open(&mut self, address: &str) {
        let went = self.call("Page.navigate", &json!({ "url": address }));
        assert!(went["errorText"].is_null(), "{address}: {went}");
        self.until("document.readyState === 'complete'");
    }

    /// What an expression is in the page, or what it promises.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let answer = self.call("Runtime.evaluate", &params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.value(expression)
            .as_str()
            .unwrap_or_else(|| panic!("{expression}: no text"))
            .to_owned()
    }

    /// Waits until an expression holds.
    pub(crate) fn until(&mut self, expression: &str) {
        self.until_within(PATIENCE, expression);
    }

    pub(crate) fn until_within(&mut self, patience: Duration, expression: &str) {
        let deadline = Instant::now() + patience;
        while !is_true(&self.value(&format!("Boolean({expression})"))) {
            if Instant::now() >= deadline {
                let seen = self.text("document.body.innerText");
                panic!(
                    "never: {expression}\nthe page says:\n{seen}\nand told {:#?}",
                    self.complaints()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until an element is there whose text contains `text`.
    pub(crate) fn until_says(&mut self, selector: &str, text: &str) {
        self.until(&format!(
            "[...document.querySelectorAll({})].some((one) => one.checkVisibility() \
             && one.textContent.includes({}))",
            Value::from(selector),
            Value::from(text)
        ));
    }

    /// Clicks where an element is, as a hand would: what lies over it gets it instead.
    pub(crate) fn click(&mut self, selector: &str) {
        let selector = Value::from(selector);
        self.until(&format!("document.querySelector({selector})?.checkVisibility()"));
        let place = self.value(&format!(
            "(() => {{ const one = document.querySelector({selector}); \
             one.scrollIntoView({{ block: 'center' }}); const box = one.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", &params);
        }
    }

    /// Types into a field, instead of what was in it.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector);
        let selector = Value::from(selector);
        self.value(&format!("document.querySelector({selector}).select()"));
        if text.is_empty() {
            for kind in ["keyDown", "keyUp"] {
                let key = json!({ "type": kind, "key": "Delete", "windowsVirtualKeyCode": 46 });
                self.call("Input.dispatchKeyEvent", &key);
            }
        } else {
            self.call("Input.insertText", &json!({ "text": text }));
        }
    }

    /// A picture of what is seen, as PNG.
    pub(crate) fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let bytes = base64(shot["data"].as_str().expect("a text"));
        std::fs::write(file, bytes).expect("there is room for a picture");
    }

    /// What the page complained about: errors, exceptions, what its policy refused. That an answer
    /// of the API was a refusal, or none came, the browser tells by itself, whatever the page makes
    /// of it.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let is_complaint = |told: &&Value| match told["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => told["params"]["type"] != "log",
            "Log.entryAdded" => {
                let entry = &told["params"]["entry"];
                let is_of_api = entry["url"].as_str().is_some_and(|url| url.contains("/v1/"));
                entry["source"] != "network" || !is_of_api
            }
            _ => false,
        };
        self.told.iter().filter(is_complaint).collect()
    }

    /// Every address that the page asked for.
    pub(crate) fn asked(&self) -> Vec<&str> {
        let requests =
            self.told.iter().filter(|told| told["method"] == "Network.requestWillBeSent");
        requests.filter_map(|told| told["params"]["request"]["url"].as_str()).collect()
    }

    /// Ends it, and holds the page to what is true of every visit: no complaint, and nothing asked
    /// for elsewhere.
    pub(crate) fn finish(mut self, origin: &str) {
        // Whatever was told before this is here by then.
        self.value("1");
        let elsewhere: Vec<_> =
            self.asked().into_iter().filter(|url| !url.starts_with(origin)).collect();
        let is_empty_page = elsewhere.iter().all(|url| *url == "about:blank");
        assert!(is_empty_page, "asked elsewhere: {elsewhere:?}");
        assert!(self.complaints().is_empty(), "{:#?}", self.complaints());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let mut message = json!({ "id": 0, "method": "Browser.close" }).to_string().into_bytes();
        message.push(0);
        let _ = self.to.write_all(&message);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').collect();
    let group = |four: &[u8]| {
        let bits = four.iter().fold(0, |bits, byte| bits << 6 | digit(*byte));
        let bits = bits << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn pictures_are_decoded() {
    assert_eq!(base64("aGVhcnR3aGVlbA=="), b"heartwheel");
    assert_eq!(base64("aGVhcnQ="), b"heart");
    assert_eq!(base64("+/+/"), [0xfb, 0xff, 0xbf]);
}
