//! Pages that were served elsewhere, in a real browser: what they can ask of a gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::http::{get, start, token_file};

/// An empty page at an address of its own, as long as the tests run.
fn page_from_elsewhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\
                  Connection: close\r\n\r\n<!doctype html>",
            );
        }
    });
    address
}

/// What the page hears when it asks: the status and the body, or that it was kept from hearing.
fn heard(browser: &mut Browser, address: &str, options: &Value) -> String {
    browser.text(&format!(
        "fetch({}, {options}).then((answer) => answer.text().then((body) => \
         `${{answer.status}} ${{body}}`), () => 'kept from it')",
        Value::from(address)
    ))
}

/// A page that happens to be open in the browser of somebody on this machine.
#[test]
fn a_page_from_elsewhere_hears_nothing_and_does_nothing() {
    let elsewhere = page_from_elsewhere();
    let (_gate, admin) = start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{elsewhere}/"));
    let drain = format!("http://{admin}/v1/drain");
    for options in [
        json!({}),
        json!({ "headers": { "Authorization": "Bearer x" } }),
        json!({ "mode": "no-cors" }),
    ] {
        let said = heard(&mut browser, &format!("http://{admin}/v1/clients"), &options);
        assert!(said == "kept from it" || said == "0 ", "{options}: {said}");
    }
    // Such a request is sent without asking first, and only its answer is kept from the page.
    for mode in ["no-cors", "cors"] {
        let options = json!({ "method": "POST", "mode": mode, "body": "{\"within_ms\":0}" });
        let said = heard(&mut browser, &drain, &options);
        assert!(said == "kept from it" || said == "0 ", "{mode}: {said}");
    }
    browser.value(&format!(
        "(() => {{ const form = document.createElement('form'); form.method = 'post'; \
         form.action = {}; document.body.append(form); form.submit(); }})()",
        Value::from(drain.as_str())
    ));
    browser.until("document.body.innerText.includes('foreign')");
    let stats = get(admin, "/v1/stats").json();
    assert_eq!(stats["draining"], false, "nobody was drained");
    assert_eq!(get(admin, "/readyz").status, 200);
}

/// A page of operators' own, which was named to the gateway.
#[test]
fn a_page_that_was_named_asks_with_its_token_and_is_told_what_is_refused() {
    let elsewhere = page_from_elsewhere();
    let (_folder, file) = token_file();
    let token = std::fs::read_to_string(&file).expect("written just now");
    let token = token.trim();
    std::fs::write(&file, format!("push {token}\n")).expect("there is room");
    let origin = format!("http://{elsewhere}");
    let (_gate, admin) = start(&["--admin-token-file", &file, "--admin-cors", &origin]);
    let mut browser = Browser::start();
    browser.open(&format!("{origin}/"));
    let headers = json!({
        "Authorization": format!("Bearer {token}"), "Content-Type": "application/json",
    });
    for (method, path, expected, part) in [
        ("GET", "/v1/clients", "200 ", "\"clients\":[]"),
        ("GET", "/v1/events?follow=false", "200 ", "id: "),
        ("PUT", "/v1/groups/g/clients/nobody", "404 ", "no-such-client"),
        ("DELETE", "/v1/groups/g/clients/nobody", "404 ", "no-such-client"),
        ("POST", "/v1/push", "422 ", "out-of-bounds"),
        ("POST", "/v1/drain", "403 ", "\"role\":\"admin\""),
    ] {
        let options = json!({ "method": method, "headers": headers });
        let said = heard(&mut browser, &format!("http://{admin}{path}"), &options);
        assert!(said.starts_with(expected) && said.contains(part), "{method} {path}: {said}");
    }
    let said = heard(&mut browser, &format!("http://{admin}/v1/clients"), &json!({}));
    assert!(said.starts_with("401 "), "its origin is no token: {said}");
}
