//! A running gateway reads its configuration again: by SIGHUP, by the API and by `ctl`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gate::{Caller, Gate, Heard as Word, PATIENCE};
use crate::http::{admin_of, ask, get, post, start};
use crate::pages::metrics;

const TOKEN: &str = "0123456789abcdef";
const OTHER_TOKEN: &str = "fedcba9876543210";

/// A configuration in a folder of its own.
struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().expect("room for files") };
        file.write(text);
        file
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self) -> String {
        self.at("heartwheel.toml").display().to_string()
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("room for a file");
    }
}

fn reload(admin: SocketAddr) -> Value {
    let heard = post(admin, "/v1/reload", "");
    assert_eq!(heard.status, 200, "{heard:?}");
    heard.json()
}

fn keys(reloaded: &Value, list: &str) -> Vec<String> {
    let entries = reloaded[list].as_array().unwrap_or_else(|| panic!("no {list}: {reloaded}"));
    entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_owned()).collect()
}

/// What a client of this class is told at its login.
fn rhythm_of(gate: &Gate, client: &str, class: &str) -> (Caller, u32, u32) {
    let mut caller = Caller::connect(gate.address);
    caller.say_hello(client, class, 0);
    let heard = caller.hear();
    let Word::Welcome { interval_ms, timeout_ms, .. } = heard else {
        panic!("{client}: {heard:?}")
    };
    (caller, interval_ms, timeout_ms)
}

#[test]
fn what_can_change_does_and_what_cannot_is_named() {
    for shards in ["1", "2"] {
        let file =
            File::new("grace = \"5s\"\n[class.lock]\ninterval = \"5s\"\ntimeout = \"12s\"\n");
        let (mut gate, admin) = start(&["--shards", shards, "--config", &file.path()]);
        let names: Vec<String> = (0..8).map(|number| format!("c-{number}")).collect();
        let before = names.iter().map(|name| rhythm_of(&gate, name, "lock"));
        let before: Vec<_> = before.collect();
        assert!(before.iter().all(|(_, interval, _)| *interval == 5_000));

        file.write(
            "grace = \"7s\"\ntick = \"20ms\"\nmax-connections = 100\n\
             [class.lock]\ninterval = \"6s\"\ntimeout = \"14s\"\n\
             [class.door]\ninterval = \"3s\"\ntimeout = \"9s\"\n",
        );
        let reloaded = reload(admin);
        let changed = keys(&reloaded, "changed");
        assert_eq!(changed, ["grace", "class.door", "class.lock", "max-connections"]);
        assert_eq!(reloaded["changed"][0], json!({"key": "grace", "old": "5s", "new": "7s"}));
        assert_eq!(keys(&reloaded, "needs_restart"), ["tick"]);
        assert_eq!(reloaded["errors"], json!([]));
        gate.wait_for_log("reloaded: grace is 7s now, was 5s");
        gate.wait_for_log("needs a restart: tick stays 10ms, the configuration says 20ms");

        // Whoever was here goes on as it was, and newcomers get what is new, in every shard.
        for (number, name) in names.iter().enumerate() {
            let old = get(admin, &format!("/v1/clients/{name}")).json();
            let told = (&old["class"], &old["interval_ms"], &old["grace_ms"]);
            assert_eq!(told, (&json!("lock"), &json!(5_000), &json!(5_000)));
            let (_caller, interval, timeout) = rhythm_of(&gate, &format!("n-{number}"), "lock");
            assert_eq!((interval, timeout), (6_000, 14_000));
            let (_caller, interval, _) = rhythm_of(&gate, &format!("d-{number}"), "door");
            assert_eq!(interval, 3_000);
        }
        let page = get(admin, "/v1/clients?class=lock&limit=1000").json();
        let count = page["clients"].as_array().expect("a list").len();
        assert!(count >= 8, "{page}");

        // A class that is gone keeps its name for those who have it.
        file.write("grace = \"7s\"\nmax-connections = 100\n[class.gate]\n");
        assert_eq!(keys(&reload(admin), "changed"), ["class.door", "class.gate", "class.lock"]);
        assert_eq!(get(admin, "/v1/clients/c-0").json()["class"], "lock");
        let (_caller, interval, _) = rhythm_of(&gate, "late", "lock");
        assert_eq!(interval, 15_000, "it names no class now");
        assert_eq!(get(admin, "/v1/clients/late").json()["class"], "");
        assert_eq!(keys(&reload(admin), "changed"), Vec::<String>::new(), "and nothing else");
        let page = get(admin, "/v1/clients?class=lock&limit=1000").json();
        assert!(!page["clients"].as_array().expect("a list").is_empty());
    }
}

#[test]
fn a_limit_holds_at_once_and_never_beyond_the_plan() {
    let file = File::new("max-connections = 3\n");
    let (gate, admin) = start(&["--config", &file.path()]);
    let _two = [Caller::login(gate.address, "a"), Caller::login(gate.address, "b")];
    file.write("max-connections = 2\n");
    assert_eq!(keys(&reload(admin), "changed"), ["max-connections"]);
    let mut refused = Caller::hello(gate.address, "c");
    let busy = refused.hear();
    assert!(matches!(busy, Word::Goaway { .. } | Word::Error(_)), "{busy:?}");
    drop(refused);
    file.write("max-connections = 5\n");
    let reloaded = reload(admin);
    assert_eq!(keys(&reloaded, "needs_restart"), ["max-connections"]);
    assert_eq!(reloaded["changed"], json!([]), "it stays at two");
    file.write("");
    let reloaded = reload(admin);
    assert_eq!(reloaded["changed"][0]["new"], "3", "what the process was started for");
    let _third = Caller::login(gate.address, "c");
}

#[test]
fn a_broken_file_changes_nothing_and_every_mistake_is_told() {
    let file = File::new("grace = \"5s\"\n");
    let (mut gate, admin) = start(&["--config", &file.path()]);
    file.write("grace = \"9s\"\ngraze = \"1s\"\ncoalesce = \"9s\"\nmode = \"both\"\n");
    let reloaded = reload(admin);
    assert_eq!((&reloaded["changed"], &reloaded["needs_restart"]), (&json!([]), &json!([])));
    let errors: Vec<&str> =
        reloaded["errors"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for part in [":2: unknown key 'graze'", ":3: coalesce 9s is out", ":4: invalid value 'both'"] {
        assert!(errors.iter().any(|error| error.contains(part)), "{part}: {errors:#?}");
    }
    assert_eq!(errors.len(), 3, "{errors:#?}");
    gate.wait_for_log("not reloaded, nothing changed: ");
    let _caller = Caller::login(gate.address, "anna");
    assert_eq!(get(admin, "/v1/clients/anna").json()["grace_ms"], 5_000);
    let output = Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["ctl", "reload", "--admin", &admin.to_string()])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(told.lines().filter(|line| line.starts_with("wrong: ")).count(), 3, "{told}");

    fs::remove_file(file.path()).expect("it is there");
    assert!(reload(admin)["errors"][0].as_str().expect("a line").starts_with("cannot read "));
    // What is checked against something that needs a restart is checked against what runs.
    file.write("max-payload = 512\noutbox-bytes = 2000\n");
    let reloaded = reload(admin);
    let error = reloaded["errors"][0].as_str().expect("a line");
    assert!(error.contains("beside what needs a restart: outbox-bytes 2000"), "{error}");

    let text = metrics(admin);
    let number = |text: &str, name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    };
    let at = "heartwheel_config_last_reload_success_timestamp_seconds";
    let [ok, failed] = ["ok", "failed"]
        .map(|word| format!("heartwheel_config_reloads_total{{outcome=\"{word}\"}}"));
    assert_eq!((number(&text, &ok), number(&text, &failed)), (0.0, 4.0));
    let started = number(&text, at);
    assert!(started > 1.6e9, "the start counts, {started}");
    file.write("grace = \"9s\"\n");
    assert_eq!(keys(&reload(admin), "changed"), ["grace"]);
    let text = metrics(admin);
    assert_eq!((number(&text, &ok), number(&text, &failed)), (1.0, 4.0));
    assert!(number(&text, at) > started);
}

#[test]
fn sighup_reloads_and_a_new_token_holds() {
    let file = File::new("");
    fs::write(file.at("token"), TOKEN).expect("room");
    file.write(&format!("admin-token-file = {:?}\nlog-level = \"info\"\n", file.at("token")));
    let mut gate =
        Gate::start(&["--admin", "127.0.0.1:0", "--shards", "2", "--config", &file.path()]);
    let admin = admin_of(&gate);
    let status = |token: &str| {
        let line = format!("Authorization: Bearer {token}");
        ask(admin, "GET", "/v1/stats", &[&line], "").status
    };
    assert_eq!((status(TOKEN), status(OTHER_TOKEN)), (200, 401));

    fs::write(file.at("token"), "short").expect("room");
    gate.signal("HUP");
    gate.wait_for_log("not reloaded, nothing changed: admin-token-file: ");
    assert_eq!(status(TOKEN), 200, "a bad token leaves the old one");

    fs::write(file.at("token"), OTHER_TOKEN).expect("room");
    file.write(&format!(
        "admin-token-file = {:?}\nlog-level = \"debug\"\ninterval = \"4s\"\ntimeout = \"9s\"\n",
        file.at("token")
    ));
    gate.signal("HUP");
    let line = gate.wait_for_log("admin-token-file (content)");
    assert!(!line.contains(OTHER_TOKEN) && !line.contains(TOKEN), "{line}");
    assert_eq!((status(TOKEN), status(OTHER_TOKEN)), (401, 200));
    // The loops are told by the same command, a moment later.
    let until = Instant::now() + PATIENCE;
    for number in 0.. {
        let (_caller, interval, _) = rhythm_of(&gate, &format!("c-{number}"), "");
        if interval == 4_000 {
            break;
        }
        assert!(Instant::now() < until, "the rhythm stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    gate.wait_for_log("DEBUG");
    gate.signal("TERM");
    assert!(gate.wait().success());
}

#[test]
fn without_a_file_there_is_nothing_to_change() {
    let (_gate, admin) = start(&["--grace", "3s"]);
    assert_eq!(reload(admin), json!({"changed": [], "needs_restart": [], "errors": []}));
    assert_eq!(post(admin, "/v1/reload", "{}").status, 400);
}

/// A pipe has said its configuration, and would now say nothing at all.
#[test]
fn a_pipe_is_not_read_twice() {
    let file = File::new("");
    let pipe = file.at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, "grace = \"5s\"\n")
    });
    let (_gate, admin) = start(&["--config", pipe.to_str().expect("text")]);
    writer.join().expect("no panic").expect("it was read");
    let reloaded = reload(admin);
    let error = reloaded["errors"][0].as_str().expect("a line");
    assert!(error.contains("is no ordinary file"), "{error}");
}

/// The targets that are told something, by name.
fn targets(admin: SocketAddr) -> Vec<String> {
    let rows = get(admin, "/v1/webhooks").json();
    let rows = rows["webhooks"].as_array().expect("a list");
    rows.iter().map(|row| row["target"].as_str().expect("a name").to_owned()).collect()
}

fn wait_for_targets(admin: SocketAddr, expected: &[&str]) {
    let until = Instant::now() + PATIENCE;
    while targets(admin) != expected {
        assert!(Instant::now() < until, "{:?} are not {expected:?}", targets(admin));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn webhooks_come_and_go_and_one_with_a_mistake_changes_nothing() {
    let file = File::new("grace = \"5s\"\n");
    let (mut gate, admin) = start(&["--config", &file.path()]);
    assert!(targets(admin).is_empty());
    // Nobody is there, which is no mistake.
    let audit = "[webhook.audit]\nurl = \"http://127.0.0.1:9/hook?key=secret\"\n";
    file.write(&format!("grace = \"5s\"\n{audit}"));
    let reloaded = reload(admin);
    assert_eq!(keys(&reloaded, "changed"), ["webhook.audit"]);
    assert!(!reloaded.to_string().contains("secret"), "{reloaded}");
    wait_for_targets(admin, &["audit"]);

    let other = "[webhook.other]\nurl = \"http://127.0.0.1:9/\"\nsecret-file = \"/nowhere\"\n";
    file.write(&format!("grace = \"6s\"\n{audit}{other}"));
    let reloaded = reload(admin);
    assert_eq!((&reloaded["changed"], &reloaded["needs_restart"]), (&json!([]), &json!([])));
    assert!(reloaded["errors"][0].as_str().is_some_and(|line| line.starts_with("webhook other: ")));
    assert_eq!(targets(admin), ["audit"]);

    let another = audit.replace("secret", "another");
    file.write(&format!("grace = \"5s\"\n{another}"));
    assert_eq!(keys(&reload(admin), "changed"), ["webhook.audit"], "it goes elsewhere now");
    file.write("grace = \"5s\"\n");
    assert_eq!(keys(&reload(admin), "changed"), ["webhook.audit"]);
    wait_for_targets(admin, &[]);
    gate.signal("TERM");
    assert!(gate.wait().success());
}

#[test]
fn webhooks_can_begin_where_there_is_no_admin_api() {
    let file = File::new("admin = \"off\"\n");
    let mut gate = Gate::start(&["--config", &file.path()]);
    file.write("admin = \"off\"\n[webhook.audit]\nurl = \"http://127.0.0.1:9/\"\n");
    gate.signal("HUP");
    gate.wait_for_log("a webhook begins");
    gate.signal("TERM");
    assert!(gate.wait().success());
}
