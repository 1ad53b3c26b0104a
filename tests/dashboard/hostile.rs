//! Clients that call themselves something that is meant to do harm.

use std::net::TcpListener;

use crate::browser::Browser;
use crate::gate::Caller;
use crate::http::start;
use crate::page::CALM;

fn names() -> Vec<String> {
    let plain = [
        "<img src=x onerror=\"window.harmed=1\">",
        "\"><script>window.harmed=1</script>",
        "'; window.harmed=1; //",
        "javascript:window.harmed=1",
        "${window.harmed=1}",
        "</td></table><h1>owned</h1>",
        "a/b?c#d%25&e=f",
        "%2e%2e%2f",
        "ab\u{202e}dc\u{2066}ef",
        "\u{5d0}\u{5d1}\u{5d2}-\u{1f4a5}",
        "__proto__",
    ];
    let mut names: Vec<String> = plain.map(str::to_owned).into();
    names.push("w".repeat(128));
    names
}

#[test]
fn whatever_a_client_calls_itself_it_is_shown_and_does_no_harm() {
    let (gate, admin) = start(&CALM);
    let names = names();
    let _callers: Vec<_> = names.iter().map(|name| Caller::login(gate.address, name)).collect();
    drop(Caller::login(gate.address, "<b>left</b>"));
    let mut browser = Browser::start();
    browser.open(&format!("http://{admin}/"));
    browser.until_says("#events tr", "<b>left</b>");
    browser.until(&format!("document.querySelectorAll('#events tr').length >= {}", names.len()));
    browser.until_says("#events tr", "ab\\u{202e}dc\\u{2066}ef");
    browser.click("#to-clients");
    browser.until(&format!("document.querySelectorAll('#clients tr').length === {}", names.len()));
    for name in &names {
        let link = serde_json::Value::from(name.as_str());
        browser.value(&format!("location.hash = '#/client/' + encodeURIComponent({link})"));
        let end = name.rsplit('\u{2066}').next().expect("rsplit gives one piece at least");
        browser.until_says("#client-id", end);
        browser.until_says("#client-state", "live");
        browser.until_says("#timeline tr", "online");
    }
    // Nobody can be asked for by these from a browser, which takes them for steps in a path.
    browser.value("location.hash = '#/client/..'");
    browser.until_says("#client-none", "heartwheel ctl");
    assert_eq!(browser.value("window.harmed ?? null"), serde_json::Value::Null);
    let made = browser.value("document.querySelectorAll('td h1, td b, td img, td script').length");
    assert_eq!(made, 0);
    narrow(&mut browser);
    browser.finish(&format!("http://{admin}/"));
}

/// At the width of a small phone nothing sticks out, long names neither.
fn narrow(browser: &mut Browser) {
    browser.size(360, 740);
    for hash in ["#/", "#/clients", "#/client/wwww"] {
        browser.value(&format!("location.hash = '{hash}'"));
        let view = match hash {
            "#/" => "overview",
            "#/clients" => "clients",
            _ => "client",
        };
        browser.until(&format!("!document.querySelector('#view-{view}').hidden"));
        browser.until("document.documentElement.scrollWidth <= 360");
    }
}

#[test]
fn the_policy_keeps_the_page_from_what_it_has_no_business_with() {
    let (_gate, admin) = start(&[]);
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("an option");
    let other = elsewhere.local_addr().expect("bound");
    let mut browser = Browser::start();
    browser.open(&format!("http://{admin}/"));
    browser.until_says("#link-text", "live");
    browser.value(
        "window.refused = []; document.addEventListener('securitypolicyviolation', \
         (event) => refused.push(event.effectiveDirective))",
    );
    browser.value(&format!("fetch('http://{other}/').catch(() => null)"));
    browser.value(&format!("(() => {{ new Image().src = 'http://{other}/x.png'; }})()"));
    browser.value(
        "(() => { const one = document.createElement('p'); one.setAttribute('style', \
         'color: red'); document.body.append(one); })()",
    );
    browser.value(
        "(() => { try { document.body.insertAdjacentHTML('beforeend', \
         '<img src=x onerror=\"window.harmed=1\">'); } catch { refused.push('markup'); } })()",
    );
    for directive in ["connect-src", "img-src", "style-src-attr", "markup"] {
        browser.until(&format!("refused.includes('{directive}')"));
    }
    assert_eq!(browser.value("window.harmed ?? null"), serde_json::Value::Null);
    assert!(elsewhere.accept().is_err(), "nobody came");
}
