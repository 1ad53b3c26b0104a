//! The dashboard: one page and what it is made of, within the program.
//!
//! It is a client of the API like any other: nothing here knows the loop. The files are the same
//! for everybody and say nothing, so they ask for no token; what they show, they ask for with one.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use siphasher::sip::SipHasher13;

use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Asked, with_type};

/// A file of the dashboard.
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $content_type:ident,)*) => {
        &[$(File { name: $name, content_type: $content_type, text: include_str!($name) },)*]
    };
}

static PAGE: File = File { name: "", content_type: HTML, text: include_str!("index.html") };

/// Everything that the page loads, by name.
static FILES: &[File] = files! {
    "style.css": STYLE,
    "icon.svg": PICTURE,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "charts.js": SCRIPT,
    "client.js": SCRIPT,
    "clients.js": SCRIPT,
    "events.js": SCRIPT,
    "format.js": SCRIPT,
    "overview.js": SCRIPT,
    "past.js": SCRIPT,
    "words.js": SCRIPT,
};

/// What the page may do: load what is served here, ask here, and nothing else. Whatever a client
/// calls itself, it runs nothing and loads nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'self'; require-trusted-types-for 'script'";

/// `GET /`
pub(crate) async fn page(asked: Asked) -> Answer {
    Ok(serve(&PAGE, &asked.headers))
}

/// `GET /dashboard/{file}`
pub(crate) async fn file(asked: Asked) -> Answer {
    let name = asked.path.first().map(String::as_str).unwrap_or_default();
    match FILES.iter().find(|file| file.name == name) {
        Some(file) => Ok(serve(file, &asked.headers)),
        None => Err(Problem::new(Kind::NoSuchPath, format!("the dashboard has no {name:?}"))),
    }
}

/// The file, or that whoever asks has it already.
fn serve(file: &File, said: &HeaderMap) -> Response {
    let tag = HeaderValue::from_str(&tag(file.text)).expect("hexadecimal digits");
    let has_it = said.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let (status, body) = match has_it {
        true => (StatusCode::NOT_MODIFIED, Body::empty()),
        false => (StatusCode::OK, Body::from(file.text)),
    };
    let mut response = with_type(status, HeaderValue::from_static(file.content_type), body);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::ETAG, tag);
    response
}

/// The same for the same text, in quotes as a header has it.
fn tag(text: &str) -> String {
    format!("\"{:016x}\"", SipHasher13::new().hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_its_files_load_nothing_that_is_not_here() {
        for file in FILES.iter().chain([&PAGE]) {
            assert!(!file.text.is_empty(), "{}", file.name);
            for (at, _) in file.text.match_indices("/dashboard/") {
                let rest = &file.text[at + "/dashboard/".len()..];
                let name = rest.split(['"', '\'']).next().expect("split gives one piece at least");
                assert!(FILES.iter().any(|file| file.name == name), "{}: {name:?}", file.name);
            }
            for (_, rest) in file
                .text
                .match_indices("from \"./")
                .map(|(at, found)| (at, &file.text[at + found.len()..]))
            {
                let name = rest.split('"').next().expect("split gives one piece at least");
                assert!(FILES.iter().any(|file| file.name == name), "{}: {name:?}", file.name);
            }
            let elsewhere = file.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
        }
    }

    #[test]
    fn no_script_writes_markup() {
        let writers = ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("];
        for file in FILES.iter().chain([&PAGE]) {
            for writer in writers {
                assert!(!file.text.contains(writer), "{} says {writer}", file.name);
            }
            assert!(!file.text.contains("style=\""), "{}: the policy forbids it", file.name);
        }
    }
}
