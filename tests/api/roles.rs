//! Who may do what: every route with every role, and what a GET leaves as it is.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gate::Caller;
use crate::http::{Heard, ask, get, post, start};

const READ: &str = "a-token-that-may-only-look";
const PUSH: &str = "a-token-of-some-backend";
const ADMIN: &str = "a-token-of-an-operator";
/// From the least to the most.
const ROLES: [(&str, &str); 3] = [("read", READ), ("push", PUSH), ("admin", ADMIN)];

/// What each operation needs: a change in the table of routes is a change here.
const NEEDED: &[(&str, &str)] = &[
    ("listClients", "read"),
    ("showClient", "read"),
    ("showHistory", "read"),
    ("kickClient", "admin"),
    ("setRhythm", "admin"),
    ("pushToClient", "push"),
    ("pushToClients", "push"),
    ("listGroups", "read"),
    ("joinGroup", "push"),
    ("leaveGroup", "push"),
    ("pushToGroup", "push"),
    ("broadcast", "push"),
    ("showBroadcast", "read"),
    ("drain", "admin"),
    ("rebalance", "admin"),
    ("reload", "admin"),
    ("takeSnapshot", "read"),
    ("showStats", "read"),
    ("showStatsHistory", "read"),
    ("followStats", "read"),
    ("followEvents", "read"),
    ("followTransport", "read"),
    ("followMessages", "push"),
    ("listWebhooks", "read"),
    ("metrics", "read"),
    ("health", ""),
    ("readiness", ""),
    ("openapi", "read"),
];

fn roles_file() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let file = folder.path().join("tokens");
    let lines: String = ROLES.iter().map(|(role, token)| format!("{role} {token}\n")).collect();
    std::fs::write(&file, format!("# for tests\n{lines}")).expect("there is room");
    let path = file.to_str().expect("plain text").to_owned();
    (folder, path)
}

fn ask_as(admin: SocketAddr, token: &str, method: &str, path: &str, body: &str) -> Heard {
    let line = format!("Authorization: Bearer {token}");
    ask(admin, method, path, &[&line], body)
}

/// An operation of the document, as it is asked here.
struct Operation {
    id: String,
    method: String,
    path: String,
    about: Value,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, verbs) in document["paths"].as_object().expect("an object") {
        for (method, about) in verbs.as_object().expect("an object") {
            let parameters = about["parameters"].as_array().expect("a list");
            let follows = parameters.iter().any(|parameter| parameter["name"] == "follow");
            let mut path = path.replace("{id}", "nobody").replace("{group}", "none");
            if follows {
                path.push_str("?follow=false");
            }
            let id = about["operationId"].as_str().expect("a text").to_owned();
            let method = method.to_uppercase();
            operations.push(Operation { id, method, path, about: about.clone() });
        }
    }
    operations
}

#[test]
fn every_route_asks_for_its_role_and_lets_in_who_has_it() {
    let (_folder, file) = roles_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    let document = ask_as(admin, READ, "GET", "/openapi.json", "").json();
    let operations = operations(&document);
    assert_eq!(operations.len(), NEEDED.len());
    for Operation { id, method, path, about } in &operations {
        let found = NEEDED.iter().find(|(own, _)| own == id);
        let needed = found.unwrap_or_else(|| panic!("{id} has no row here")).1;
        assert_eq!(about["x-role"].as_str().unwrap_or_default(), needed, "{id}");
        if needed.is_empty() {
            assert!(about.get("security").is_none(), "{id}");
            assert_eq!(get(admin, path).status, 200, "{id} is open");
            continue;
        }
        assert_eq!(about["security"][0]["token"], json!([needed]), "{id}");
        for status in ["401", "403"] {
            assert!(about["responses"].get(status).is_some(), "{id} says nothing of {status}");
        }
        // What is let in is not understood, where it would do something.
        let body = if about.get("requestBody").is_some() { "nonsense" } else { "" };
        for token in ["", "a-token-of-nobody-at-all"] {
            let heard = ask_as(admin, token, method, path, body);
            assert_eq!((heard.status, heard.problem().as_str()), (401, "unauthorized"), "{id}");
            assert!(heard.head.contains("www-authenticate: bearer realm="), "{}", heard.head);
        }
        let place = |role: &str| ROLES.iter().position(|(own, _)| *own == role);
        for (role, token) in ROLES {
            let heard = ask_as(admin, token, method, path, body);
            if place(role) >= place(needed) {
                assert!(![401, 403, 405].contains(&heard.status), "{id} as {role}: {heard:?}");
                continue;
            }
            assert_eq!((heard.status, heard.problem().as_str()), (403, "forbidden"), "{id} {role}");
            let problem = heard.json();
            assert_eq!(problem["role"], needed, "{problem}");
            let detail = problem["detail"].as_str().expect("a text");
            assert!(detail.contains(needed) && detail.contains(role), "{detail}");
            let scope = format!("error=\"insufficient_scope\", scope=\"{needed}\"");
            assert!(heard.head.contains(&scope), "{}", heard.head);
        }
    }
    assert_eq!(get(admin, "/readyz").status, 200, "and nobody was drained");
    for path in ["/nope", "/v1/drain"] {
        assert_eq!(get(admin, path).status, 401, "{path}: what is there is nobody's business");
        assert!([404, 405].contains(&ask_as(admin, READ, "GET", path, "").status), "{path}");
    }
}

/// What a gateway is, as far as anybody could change it by asking.
fn state(admin: SocketAddr) -> Value {
    let stats = get(admin, "/v1/stats").json();
    let counts = ["seq", "online", "held", "draining", "accepting", "leavers_told"];
    let counts: Value = counts
        .iter()
        .map(|name| {
            assert!(!stats[name].is_null(), "{name} is no count");
            (name.to_string(), stats[name].clone())
        })
        .collect();
    let clients = get(admin, "/v1/clients").json();
    let fixed = ["client", "epoch", "state", "conn", "interval_ms", "timeout_ms", "groups"];
    let clients: Vec<Value> = clients["clients"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| fixed.iter().map(|name| (name.to_string(), one[name].clone())).collect())
        .collect();
    let broadcast = get(admin, "/v1/broadcasts/1").status;
    json!({
        "counts": counts,
        "clients": clients,
        "groups": get(admin, "/v1/groups").json(),
        "broadcast": broadcast,
    })
}

/// Every GET of the document, with a body and the lines by which others are told to do something
/// else, leaves everything as it is; and every path that does something knows no GET.
#[test]
fn a_get_changes_nothing() {
    let (gate, admin) = start(&["--interval", "1h", "--timeout", "2h"]);
    let _clients = [Caller::login(gate.address, "anna"), Caller::login(gate.address, "nobody")];
    assert_eq!(ask(admin, "PUT", "/v1/groups/none/clients/anna", &[], "").status, 200);
    let document = get(admin, "/openapi.json").json();
    let operations = operations(&document);
    let before = state(admin);
    assert_eq!(before["clients"].as_array().map(Vec::len), Some(2), "{before}");
    let gets: Vec<_> = operations.iter().filter(|one| one.method == "GET").collect();
    assert!(gets.len() > 15, "{} are few", gets.len());
    for Operation { id, path, .. } in &gets {
        for method in ["GET", "HEAD"] {
            let lines = ["X-HTTP-Method-Override: DELETE", "X-Method-Override: POST"];
            let heard = ask(admin, method, path, &lines, "");
            assert!(![405, 500].contains(&heard.status), "{method} {id}: {heard:?}");
        }
        let heard = ask(admin, "GET", path, &[], r#"{"fraction":1,"within_ms":0,"text":"x"}"#);
        assert_ne!(heard.status, 500, "{id}");
    }
    for Operation { id, method, path, .. } in operations.iter().filter(|one| one.method != "GET") {
        let is_read_too = gets.iter().any(|get| get.path == *path);
        let heard = get(admin, path);
        assert_eq!(heard.status == 405, !is_read_too, "{method} {id}: {heard:?}");
    }
    assert_eq!(state(admin), before);
}

const ORIGIN: &str = "Origin: https://ops.example";

#[test]
fn pages_of_a_configured_origin_may_ask_and_no_others() {
    let (_folder, file) = roles_file();
    let others = "https://ops.example,http://127.0.0.1:3000";
    let (_gate, admin) = start(&["--admin-token-file", &file, "--admin-cors", others]);
    let wish = "Access-Control-Request-Method: POST";
    let site = "Sec-Fetch-Site: cross-site";
    let heard = ask(admin, "OPTIONS", "/v1/drain", &[ORIGIN, wish, site], "");
    assert_eq!((heard.status, heard.body.len()), (204, 0), "{heard:?}");
    for line in [
        "access-control-allow-origin: https://ops.example\r\n",
        "access-control-allow-methods: get, post, put, delete\r\n",
        "access-control-allow-headers: authorization, content-type, last-event-id\r\n",
        "vary: origin\r\n",
    ] {
        assert!(heard.head.contains(line), "{line} in {}", heard.head);
    }
    assert!(!heard.head.contains("allow-credentials"), "{}", heard.head);
    let token = format!("Authorization: Bearer {READ}");
    for (path, lines, status) in [
        ("/v1/clients", vec![token.as_str()], 200),
        ("/v1/events?follow=false", vec![token.as_str()], 200),
        ("/v1/clients", vec![], 401),
        ("/v1/drain", vec![token.as_str()], 405),
        ("/nope", vec![token.as_str()], 404),
    ] {
        let heard = ask(admin, "GET", path, &[&lines[..], &[ORIGIN, site]].concat(), "");
        assert_eq!(heard.status, status, "{path}: {heard:?}");
        let allowed = "access-control-allow-origin: https://ops.example\r\n";
        assert!(heard.head.contains(allowed), "{path}: {}", heard.head);
    }
    // Whoever is not in the list is refused and told nothing, with the token too.
    for origin in ["https://evil.example", "http://ops.example", "https://ops.example:8443", "null"]
    {
        let origin = format!("Origin: {origin}");
        for (method, lines) in
            [("OPTIONS", vec![wish, &origin]), ("GET", vec![token.as_str(), &origin])]
        {
            let heard = ask(admin, method, "/v1/clients", &lines, "");
            assert_eq!((heard.status, heard.problem().as_str()), (403, "foreign"), "{origin}");
            assert!(!heard.head.contains("access-control"), "{}", heard.head);
            assert!(heard.head.contains("vary: origin\r\n"), "{}", heard.head);
        }
    }
    // Without an origin it is no page's question, and no preflight.
    assert_eq!(ask(admin, "OPTIONS", "/v1/drain", &[wish], "").status, 401);
    assert_eq!(ask(admin, "OPTIONS", "/v1/drain", &[&token], "").status, 405);
}

#[test]
fn no_page_from_elsewhere_is_let_in_unless_somebody_says_so() {
    let (_gate, admin) = start(&[]);
    let wish = "Access-Control-Request-Method: POST";
    let heard = ask(admin, "OPTIONS", "/v1/drain", &[ORIGIN, wish], "");
    assert_eq!((heard.status, heard.problem().as_str()), (403, "foreign"));
    assert!(!heard.head.contains("access-control") && !heard.head.contains("vary"), "{heard:?}");
    let own = format!("Origin: http://{admin}");
    assert_eq!(ask(admin, "GET", "/v1/stats", &[&own], "").status, 200, "the dashboard");
    let secure = format!("Origin: https://{admin}");
    assert_eq!(ask(admin, "GET", "/v1/stats", &[&secure], "").status, 403, "it is not that");
}

#[test]
fn origins_come_and_go_by_a_reload() {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let file = folder.path().join("heartwheel.toml");
    std::fs::write(&file, "").expect("there is room");
    let (_gate, admin) = start(&["--config", file.to_str().expect("plain text")]);
    let status = || ask(admin, "GET", "/v1/stats", &[ORIGIN], "").status;
    for (text, expected) in [("admin-cors = \"https://ops.example\"\n", 200), ("", 403)] {
        std::fs::write(&file, text).expect("there is room");
        let reloaded = post(admin, "/v1/reload", "").json();
        assert_eq!(reloaded["changed"][0]["key"], "admin-cors", "{reloaded}");
        assert_eq!(status(), expected, "{text}");
    }
}

/// Answers are kept by nobody, shown in no frame and taken for nothing else.
#[test]
fn every_answer_says_how_it_may_be_used() {
    let (_gate, admin) = start(&[]);
    for path in ["/v1/stats", "/healthz", "/metrics", "/nope", "/v1/drain", "/"] {
        let heard = get(admin, path);
        assert!(heard.head.contains("x-content-type-options: nosniff\r\n"), "{path}");
        let policy = heard.head.split("content-security-policy: ").nth(1).expect("a policy");
        let policy = policy.split("\r\n").next().unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        let kept = if path == "/" { "no-cache" } else { "no-store" };
        assert!(heard.head.contains(&format!("cache-control: {kept}\r\n")), "{path}");
    }
}

#[test]
fn tokens_are_replaced_without_a_gap() {
    let (_folder, file) = roles_file();
    let (mut gate, admin) = start(&["--admin-token-file", &file]);
    let status = |token: &str| ask_as(admin, token, "GET", "/v1/stats", "").status;
    let new = "the-next-token-of-an-operator";
    let write = |text: String| std::fs::write(&file, text).expect("there is room");
    write(format!("admin {new}\nadmin {ADMIN}\n"));
    gate.signal("HUP");
    let line = gate.wait_for_log("admin-token-file (content) is others: 2 admin now");
    assert!(
        line.contains("was tokens: 1 read, 1 push, 1 admin") && !line.contains(ADMIN),
        "{line}"
    );
    assert_eq!([status(new), status(ADMIN), status(READ)], [200, 200, 401]);
    write(format!("admin {new}\nroot {ADMIN}\n"));
    gate.signal("HUP");
    let line = gate.wait_for_log("not reloaded, nothing changed: admin-token-file: ");
    assert!(line.contains(":2: expected `ROLE TOKEN`") && !line.contains(ADMIN), "{line}");
    assert_eq!([status(new), status(ADMIN)], [200, 200], "nothing changed");
    write(format!("read {new}\n"));
    gate.signal("HUP");
    gate.wait_for_log("is others: 1 read now");
    assert_eq!([status(new), status(ADMIN)], [200, 401]);
    assert_eq!(ask_as(admin, new, "POST", "/v1/drain", "nonsense").problem(), "forbidden");
    assert_eq!(post(admin, "/v1/reload", "").status, 401);
}
