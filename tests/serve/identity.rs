//! Who may come in, and who may not: the binary with tokens of each kind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use heartwheel::wire::token;

use crate::gate::{Caller, Gate, Heard, hello_with};

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NEXT_KEY: &str = "ffffffff4b5a69788796a5b4ffffffff";
const WORD: &str = "anna's-own-word-1234";
/// In the year 2100, in seconds since 1970.
const LATER: u64 = 4_102_444_800;
const BAD_TOKEN: u16 = 301;

/// A file in a folder of its own.
pub(crate) struct Secret {
    folder: tempfile::TempDir,
}

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        let secret = Self { folder: tempfile::tempdir().expect("room for a file") };
        secret.write(text);
        secret
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("identity")
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("room for a file");
    }

    fn gate(&self, kind: &str, more: &[&str]) -> Gate {
        let path = self.path();
        let path = path.to_str().expect("a plain path");
        let arguments = ["--identity", kind, "--identity-file", path, "--log-level", "trace"];
        Gate::start(&[&arguments, more].concat())
    }
}

pub(crate) fn say_hello(gate: &Gate, client_id: &str, token: &str) -> Caller {
    let mut caller = Caller::connect(gate.address);
    caller.send(&hello_with(client_id, "", 0, token));
    caller
}

pub(crate) fn comes_in(gate: &Gate, client_id: &str, token: &str) -> bool {
    comes_in_now(gate, client_id, token).expect("somebody is there to ask")
}

/// The same, where nobody may be there to ask.
pub(crate) fn comes_in_now(gate: &Gate, client_id: &str, token: &str) -> Option<bool> {
    let heard = say_hello(gate, client_id, token).hear();
    let is_in = matches!(heard, Heard::Welcome { .. });
    (is_in || heard == Heard::Error(BAD_TOKEN)).then_some(is_in)
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heartwheel"));
    command.args(arguments).output().expect("the binary starts")
}

fn make(key: &Path, client: &str, life: &str) -> String {
    let key = key.to_str().expect("a plain path");
    let output = run(&["ctl", "token", client, "--key", key, "--for", life]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is ASCII").trim().to_owned()
}

/// Whatever it logged at the most talkative level.
pub(crate) fn everything_logged(mut gate: Gate) -> String {
    gate.signal("TERM");
    assert!(gate.wait().success());
    std::thread::sleep(std::time::Duration::from_millis(100));
    gate.take_logs().join("\n")
}

#[test]
fn a_word_from_the_file_lets_in_its_client_in_every_shard() {
    let mut text = format!("anna {WORD}\n");
    for client in 0..8 {
        text.push_str(&format!("client-{client} word-of-client-{client}\n"));
    }
    let secret = Secret::new(&text);
    let gate = secret.gate("tokens", &["--shards", "2"]);
    assert!(comes_in(&gate, "anna", WORD));
    for client in 0..8 {
        let (name, word) = (format!("client-{client}"), format!("word-of-client-{client}"));
        assert!(comes_in(&gate, &name, &word), "{name}");
        assert!(!comes_in(&gate, &name, WORD), "another client's: {name}");
        assert!(!comes_in(&gate, &name, ""), "none: {name}");
    }
    assert!(!comes_in(&gate, "nobody", WORD));
    let logged = everything_logged(gate);
    assert!(!logged.contains(WORD) && !logged.contains("word-of-client"), "{logged}");
}

#[test]
fn a_token_made_with_the_key_lets_in_its_client_until_it_expires() {
    let secret = Secret::new(&format!("{KEY}\n"));
    let gate = secret.gate("hmac", &["--shards", "2"]);
    let token = make(&secret.path(), "anna", "1h");
    assert!(comes_in(&gate, "anna", &token));
    assert!(comes_in(&gate, "anna", &token), "again, until it expires");
    assert!(!comes_in(&gate, "bert", &token), "another client's");
    assert!(!comes_in(&gate, "anna", &token[..token.len() - 1]));
    assert!(!comes_in(&gate, "anna", &token::make(b"another key than that", "anna", LATER)));
    assert!(!comes_in(&gate, "anna", &token::make(KEY.as_bytes(), "anna", 1_000)), "expired");
    let short = make(&secret.path(), "anna", "2s");
    assert!(comes_in(&gate, "anna", &short));
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    assert!(!comes_in(&gate, "anna", &short), "replayed after its end");
    let logged = everything_logged(gate);
    assert!(!logged.contains("hw1.") && !logged.contains(KEY), "{logged}");
}

#[test]
fn other_keys_are_taken_up_without_a_restart() {
    let secret = Secret::new(&format!("{KEY}\n"));
    let mut gate = secret.gate("hmac", &["--shards", "2"]);
    let (old, new) = (
        token::make(KEY.as_bytes(), "anna", LATER),
        token::make(NEXT_KEY.as_bytes(), "anna", LATER),
    );
    assert!(comes_in(&gate, "anna", &old) && !comes_in(&gate, "anna", &new));
    secret.write(&format!("{NEXT_KEY}\n{KEY}\n"));
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity-file (content)");
    assert!(comes_in(&gate, "anna", &old) && comes_in(&gate, "anna", &new), "both for a while");
    secret.write("short\n");
    gate.signal("HUP");
    gate.wait_for_log("not reloaded, nothing changed: identity-file: ");
    assert!(comes_in(&gate, "anna", &new));
    secret.write(&format!("{NEXT_KEY}\n"));
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity-file (content)");
    assert!(!comes_in(&gate, "anna", &old) && comes_in(&gate, "anna", &new));
}

#[test]
fn a_fleet_logs_in_with_tokens_of_its_own() {
    let secret = Secret::new(&format!("{KEY}\n"));
    let gate = secret.gate("hmac", &[]);
    let (target, path) = (gate.address.to_string(), secret.path());
    let path = path.to_str().expect("a plain path");
    let load = ["load", "--target", &target, "--clients", "5", "--interval", "1s", "--for", "3s"];
    let output = run(&[&load[..], &["--token-key", path]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count = (0..5).filter(|_| gate.wait_for_event("online")["event"] == "online").count();
    assert_eq!(count, 5);
}

#[test]
fn nobody_opens_the_door_to_everybody_by_carelessness() {
    for (arguments, why) in [
        (&["--listen", "0.0.0.0:0"][..], "identity anybody if that is meant"),
        (&["--identity", "hmac"], "identity needs identity-file"),
        (&["--identity", "hmac", "--identity-file", "/no/such/file"], "cannot read"),
    ] {
        let output = run(&[&["serve", "--admin", "off"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    let gate = Gate::start(&["--listen", "0.0.0.0:0", "--identity", "anybody"]);
    assert_ne!(gate.address.port(), 0);
}

/// A key of a JWKS, and a token that was made with it.
fn jwt(client: &str, expires: u64) -> (String, String) {
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    let claims = serde_json::json!({ "sub": client, "exp": expires, "aud": "gate" });
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims, &key).expect("it can be signed");
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::HS256);
    let jwk = serde_json::to_value(jwk.expect("a key")).expect("it is JSON");
    (serde_json::json!({ "keys": [jwk] }).to_string(), token)
}

#[test]
fn a_json_web_token_lets_in_its_subject_in_every_shard() {
    let (jwks, token) = jwt("anna", LATER);
    let secret = Secret::new(&jwks);
    let mut gate = secret.gate("jwt", &["--shards", "2", "--identity-audience", "gate"]);
    assert!(comes_in(&gate, "anna", &token));
    assert!(!comes_in(&gate, "bert", &token), "another client's");
    assert!(!comes_in(&gate, "anna", &jwt("anna", 1_000).1), "expired");
    assert!(!comes_in(&gate, "anna", "no.such.token"));
    assert!(!comes_in(&gate, "anna", ""));
    for client in 0..8 {
        let name = format!("client-{client}");
        assert!(comes_in(&gate, &name, &jwt(&name, LATER).1), "{name}");
    }
    secret.write("{}");
    gate.signal("HUP");
    gate.wait_for_log("not reloaded, nothing changed: identity-file: ");
    let other = jsonwebtoken::EncodingKey::from_secret(&[KEY.as_bytes(), b"2"].concat());
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&other, jsonwebtoken::Algorithm::HS256);
    let jwk = serde_json::to_value(jwk.expect("a key")).expect("it is JSON");
    secret.write(&serde_json::json!({ "keys": [jwk] }).to_string());
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity-file (content)");
    // The loops hear of it before the one who looks at tokens does.
    let deadline = std::time::Instant::now() + crate::gate::PATIENCE;
    while comes_in_now(&gate, "anna", &token) != Some(false) {
        assert!(std::time::Instant::now() < deadline, "the old key still counts");
    }
    let logged = everything_logged(gate);
    assert!(!logged.contains(&token) && !logged.contains("eyJ"), "{logged}");
}

/// How many threads look at tokens.
fn lookers(gate: &Gate) -> usize {
    let tasks = format!("/proc/{}/task", gate.pid());
    let names = std::fs::read_dir(tasks).expect("it runs").filter_map(|task| {
        // A thread may end meanwhile.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| name.trim() == "identity").count()
}

#[test]
fn a_file_of_keys_is_read_once_at_start_and_once_at_a_reload() {
    let (jwks, token) = jwt("anna", LATER);
    let folder = tempfile::tempdir().expect("room for a file");
    let pipe = folder.path().join("keys");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    let write = |text: String| {
        let pipe = pipe.clone();
        // Whoever opens it to read has this and an end; whoever did so again would wait.
        std::thread::spawn(move || std::fs::write(pipe, text).expect("somebody reads it"))
    };
    let written = write(jwks);
    let path = pipe.to_str().expect("a plain path");
    let mut gate = Gate::start(&["--identity", "jwt", "--identity-file", path]);
    written.join().expect("it was read");
    assert!(comes_in(&gate, "anna", &token));
    let (_, other) = jwt("bert", LATER);
    let written = write(jwt("bert", LATER).0.replace("\"keys\"", " \"keys\""));
    gate.signal("HUP");
    gate.wait_for_log("reloaded: identity-file (content)");
    written.join().expect("it was read");
    assert!(comes_in(&gate, "bert", &other));
}

#[test]
fn a_thread_looks_at_tokens_only_where_a_loop_does_not() {
    let (jwks, token) = jwt("anna", LATER);
    let keys = Secret::new(&jwks);
    let config = Secret::new("identity = \"anybody\"\n");
    let config_path = config.path();
    let mut gate =
        Gate::start(&["--config", config_path.to_str().expect("a plain path"), "--shards", "2"]);
    assert_eq!(lookers(&gate), 0);
    let path = keys.path();
    config.write(&format!("identity = \"jwt\"\nidentity-file = \"{}\"\n", path.display()));
    for _ in 0..2 {
        gate.signal("HUP");
        gate.wait_for_log("reloaded: ");
        assert_eq!(lookers(&gate), 1, "one for all loops");
    }
    for client in 0..8 {
        let name = format!("client-{client}");
        assert!(comes_in(&gate, &name, &jwt(&name, LATER).1), "{name}");
    }
    assert!(!comes_in(&gate, "bert", &token), "another client's");
}
