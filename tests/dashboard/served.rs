//! How the files are served, without a browser.

use crate::http::{ask, get, start, token_file};

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/dashboard/style.css", "text/css; charset=utf-8"),
    ("/dashboard/main.js", "text/javascript; charset=utf-8"),
    ("/dashboard/icon.svg", "image/svg+xml"),
];

#[test]
fn every_file_comes_with_its_type_its_tag_and_the_policy() {
    let (_gate, admin) = start(&[]);
    for (path, content_type) in FILES {
        let heard = get(admin, path);
        assert_eq!(heard.status, 200, "{path}");
        for line in [
            format!("content-type: {content_type}\r\n"),
            "x-content-type-options: nosniff\r\n".to_owned(),
            "cache-control: no-cache\r\n".to_owned(),
            "cross-origin-resource-policy: same-origin\r\n".to_owned(),
            "referrer-policy: no-referrer\r\n".to_owned(),
        ] {
            assert!(heard.head.contains(&line), "{path}: {line} in {}", heard.head);
        }
        let policy = heard.head.split("content-security-policy: ").nth(1).expect("a policy");
        let policy = policy.split("\r\n").next().expect("a line");
        let rules: Vec<&str> = policy.split("; ").collect();
        let expected = [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ];
        assert!(expected.iter().all(|rule| rules.contains(rule)), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        // Of two rules of one name the first counts.
        let names: std::collections::BTreeSet<_> =
            rules.iter().map(|rule| rule.split(' ').next()).collect();
        assert_eq!(names.len(), rules.len(), "{policy}");

        let tag = heard.head.split("etag: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let line = format!("If-None-Match: {}", tag.expect("a tag"));
        let again = ask(admin, "GET", path, &[&line], "");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    assert_eq!(get(admin, "/dashboard/nothing.js").problem(), "no-such-path");
    assert_eq!(get(admin, "/dashboard/..%2fmod.rs").problem(), "no-such-path");
}

#[test]
fn the_page_needs_no_token_and_what_it_shows_does() {
    let (_folder, file) = token_file();
    let (_gate, admin) = start(&["--admin-token-file", &file]);
    for (path, _) in FILES {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    for path in ["/v1/stats/history", "/v1/stats/stream?follow=false"] {
        assert_eq!(get(admin, path).problem(), "unauthorized", "{path}");
    }
}
