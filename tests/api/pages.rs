//! What the manual and the OpenAPI document say is what is served.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use crate::gate::Caller;
use crate::http::{ask, get, start};

fn page(name: &str) -> String {
    let path = format!("{}/src/manual/{name}.md", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("the page is there")
}

/// The first cells of the rows of the page's tables that begin with a backquote.
fn first_cells(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|cell| cell.0))
}

/// An example of the page.
struct Example {
    method: String,
    path: String,
    body: String,
    status: u16,
    answer: Value,
}

fn examples(page: &str) -> Vec<Example> {
    let blocks = page.split("```text\n").skip(1).filter(|block| block.starts_with("> "));
    let example = |block: &str| {
        let block = block.split("```").next().expect("a block ends");
        let side = |mark: &str| {
            block.lines().filter_map(|line| line.strip_prefix(mark)).map(str::to_owned).collect()
        };
        let (said, heard): (Vec<String>, Vec<String>) = (side("> "), side("< "));
        let (method, path) = said[0].split_once(' ').expect("a method and a path");
        Example {
            method: method.to_owned(),
            path: path.to_owned(),
            body: said[1..].concat(),
            status: heard[0].parse().expect("a status"),
            answer: serde_json::from_str(&heard[1..].concat()).expect("JSON"),
        }
    };
    blocks.map(example).collect()
}

/// The same fields with the same kinds of values; of a list its first.
fn assert_same_form(shown: &Value, heard: &Value, place: &str) {
    match (shown, heard) {
        (Value::Object(shown), Value::Object(heard)) => {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(shown), keys(heard), "{place}");
            for (key, value) in shown {
                assert_same_form(value, &heard[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(shown), Value::Array(heard)) => {
            assert_eq!(shown.len(), heard.len(), "{place}");
            for (shown, heard) in shown.iter().zip(heard) {
                assert_same_form(shown, heard, place);
            }
        }
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {}
        (shown, heard) => assert_eq!(shown, heard, "{place}"),
    }
}

#[test]
fn the_examples_of_the_page_are_answered_as_shown() {
    let (gate, admin) = start(&[]);
    let _till = Caller::login(gate.address, "till-12");
    let _other = Caller::login(gate.address, "till-13");
    let examples = examples(&page("api"));
    assert_eq!(examples.len(), 14);
    for example in examples {
        let heard = ask(admin, &example.method, &example.path, &[], &example.body);
        let text = String::from_utf8_lossy(&heard.body);
        assert_eq!(heard.status, example.status, "{}: {text}", example.path);
        assert_same_form(&example.answer, &heard.json(), &example.path);
    }
}

fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("an object");
    let verbs = |(path, item): (&String, &Value)| {
        let verbs = item.as_object().expect("an object").keys();
        verbs.map(|verb| (verb.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(verbs).collect()
}

#[test]
fn the_page_and_the_document_list_every_path() {
    let (_gate, admin) = start(&[]);
    let document = get(admin, "/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let documented: BTreeSet<String> =
        operations(&document).iter().map(|(verb, path)| format!("{verb} {path}")).collect();
    let page = page("api");
    let verbs = ["GET /", "POST /", "PUT /", "DELETE /"];
    let is_path = |cell: &&str| verbs.iter().any(|verb| cell.starts_with(verb));
    let listed: BTreeSet<String> = first_cells(&page).filter(is_path).map(str::to_owned).collect();
    assert_eq!(listed, documented);
}

/// Each operation is served, and no other method is; what it answers is one of what it documents.
#[test]
fn every_operation_of_the_document_is_served_and_no_other() {
    let (_gate, admin) = start(&[]);
    let document = get(admin, "/openapi.json").json();
    let operations = operations(&document);
    let served = |verb: &str, path: &str| {
        let is_feed = ["/v1/events", "/v1/messages"].contains(&path) || path.ends_with("/stream");
        let query = if is_feed { "?follow=false" } else { "" };
        let path = path.replace("{id}", "nobody").replace("{group}", "none") + query;
        // A body that no operation understands: nobody is drained by this.
        let body = if verb == "POST" { "[]" } else { "" };
        ask(admin, verb, &path, &[], body)
    };
    let paths: BTreeSet<&String> = operations.iter().map(|(_, path)| path).collect();
    for path in paths {
        for verb in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            let heard = served(verb, path);
            let operation = &document["paths"][path][verb.to_lowercase()];
            if operation.is_null() {
                assert_eq!(heard.problem(), "wrong-method", "{verb} {path}");
                continue;
            }
            let responses = operation["responses"].as_object().expect("an object");
            let status = heard.status.to_string();
            assert!(responses.contains_key(&status), "{verb} {path}: {status} is not documented");
            let types = responses[&status]["content"].as_object().expect("an object");
            let is_typed =
                types.keys().any(|kind| heard.head.contains(&format!("content-type: {kind}")));
            assert!(is_typed, "{verb} {path}: {}", heard.head);
        }
    }
}

#[test]
fn the_page_lists_every_problem() {
    let (_gate, admin) = start(&[]);
    let document = get(admin, "/openapi.json").json();
    let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
    let known: BTreeSet<&str> = types
        .as_array()
        .expect("a list")
        .iter()
        .map(|kind| kind.as_str().and_then(|kind| kind.rsplit(':').next()).expect("a word"))
        .collect();
    let page = page("api");
    let section = page.split("# Problems").nth(1).expect("the section is there");
    let listed: BTreeSet<&str> = first_cells(section).collect();
    assert_eq!(listed, known);
}

/// Every metric by name, with its kind and the values of its lines.
pub(crate) fn metrics(admin: SocketAddr) -> String {
    let heard = get(admin, "/metrics");
    assert!(heard.head.contains("content-type: text/plain; version=0.0.4"), "{}", heard.head);
    String::from_utf8(heard.body).expect("text")
}

#[test]
fn the_page_lists_every_metric_that_is_served() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text");
    // Nobody is there: a webhook has its metrics all the same.
    let webhook = "audit:url=http://127.0.0.1:9/hook";
    let (gate, admin) = start(&["--journal", journal, "--webhook", webhook]);
    let text = metrics(admin);
    let served: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ').map(|found| found.0))
        .collect();
    let page = page("operating");
    let is_metric = |cell: &&str| cell.starts_with("heartwheel_") || cell.starts_with("process_");
    let mut listed: BTreeSet<&str> = first_cells(&page).filter(is_metric).collect();
    // Kernels before 6.8 do not say it.
    if !served.contains("heartwheel_driver_buffers_free") {
        listed.remove("heartwheel_driver_buffers_free");
    }
    assert_eq!(listed, served);

    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<f64>().expect("a number")
    };
    let callers: Vec<_> = (0..3).map(|n| Caller::login(gate.address, &format!("c{n}"))).collect();
    drop(callers);
    let counted = (0..100).find(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let name = "heartwheel_connections_ended_total{reason=\"closed_by_peer\"}";
        (value(&metrics(admin), name) - 3.0).abs() < 0.5
    });
    assert!(counted.is_some(), "within a report: {}", metrics(admin));
    let text = metrics(admin);
    for (name, least) in [
        ("heartwheel_connections_accepted_total", 3.0),
        ("heartwheel_frames_received_total", 3.0),
        ("heartwheel_received_bytes_total", 30.0),
        ("heartwheel_events_total", 7.0),
        ("heartwheel_shards", 1.0),
        ("heartwheel_driver_enters_total", 1.0),
        ("heartwheel_driver_buffers", 1.0),
        ("heartwheel_journal_writable", 1.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_cpu_seconds_total", 0.001),
    ] {
        assert!(value(&text, name) >= least, "{name} in {text}");
    }
    let drivers = ["io_uring", "epoll"];
    let info = |driver| text.contains(&format!("heartwheel_driver_info{{driver=\"{driver}\"}} 1"));
    assert!(drivers.into_iter().any(info), "{text}");
    let bucket = "heartwheel_verdict_lateness_seconds_bucket{le=\"+Inf\"}";
    let count = value(&text, "heartwheel_verdict_lateness_seconds_count");
    assert!((value(&text, bucket) - count).abs() < 0.5, "{text}");
}
