//! The opening handshake: who may open a WebSocket here, and what the others hear.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use httparse::{EMPTY_HEADER, Header, Request, Status};

use crate::base::limits;
use crate::base::origin::{NoOrigin, Origin};
use crate::wire::websocket::{SUBPROTOCOL, accept_key, is_key};

/// What a client has to ask for, and from where.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// Pages of these origins may open a WebSocket. Who is no browser names none, and may.
    pub origins: Origins,
    /// The path that has to be asked for; `None`: any.
    pub path: Option<WebPath>,
}

/// Pages of one origin, or every page there is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pages {
    /// `*`
    All,
    /// Those of this origin.
    Of(Origin),
}

/// What is no origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is none; {cause}; or * for all pages there are")]
pub struct NoPages {
    /// What was said.
    pub text: String,
    /// What should have been.
    pub cause: NoOrigin,
}

impl FromStr for Pages {
    type Err = NoPages;

    fn from_str(text: &str) -> Result<Self, NoPages> {
        let no_pages = |cause| NoPages { text: text.to_owned(), cause };
        match text.trim() {
            "*" => Ok(Self::All),
            text => text.parse().map(Self::Of).map_err(no_pages),
        }
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Of(origin) => origin.fmt(f),
        }
    }
}

/// Some origins.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(Vec<Pages>);

impl Origins {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a page of this origin may, which a browser has named. O(how many they are).
    fn have(&self, origin: &[u8]) -> bool {
        self.0.iter().any(|pages| match pages {
            Pages::All => true,
            Pages::Of(known) => known.is_said_by(origin),
        })
    }
}

impl FromIterator<Pages> for Origins {
    fn from_iter<T: IntoIterator<Item = Pages>>(origins: T) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, origin) in self.0.iter().enumerate() {
            write!(f, "{}{origin}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// A path of a URL: `/live`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebPath(Box<str>);

/// What is no path.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is no path; expected a slash and what may stand in a URL behind it: /live")]
pub struct NoPath {
    /// What was said.
    pub text: String,
}

impl FromStr for WebPath {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        let is_path = text.starts_with('/')
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        match is_path {
            true => Ok(Self(text.into())),
            false => Err(NoPath { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for WebPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why nobody may open a WebSocket like this. The text is what the client reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    #[error("this is not a request of HTTP/1.1")]
    NoRequest,
    #[error("a request for a WebSocket is a GET without a body")]
    NotGet,
    #[error("the header Host has to be there once")]
    NoHost,
    #[error("the header Sec-WebSocket-Key has to be there once, 16 bytes in base64")]
    NoKey,
    #[error("only the subprotocol heartwheel.v1 is spoken here")]
    OtherProtocol,
    #[error("pages of this origin may not connect; see --websocket-origin")]
    Origin,
    #[error("there is nothing at this path")]
    Path,
    #[error("the request took too long")]
    TooSlow,
    #[error("this port speaks WebSocket: ask for an upgrade")]
    NoUpgrade,
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    Version,
    #[error("the request is too long")]
    TooLong,
    #[error("not now; come back later")]
    Unavailable,
}

impl Refused {
    const fn status(self) -> &'static str {
        match self {
            Self::NoRequest | Self::NotGet | Self::NoHost | Self::NoKey | Self::OtherProtocol => {
                "400 Bad Request"
            }
            Self::Origin => "403 Forbidden",
            Self::Path => "404 Not Found",
            Self::TooSlow => "408 Request Timeout",
            Self::NoUpgrade | Self::Version => "426 Upgrade Required",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }

    /// Appends what the client hears.
    pub(super) fn write(self, down: &mut Vec<u8>) {
        let mut answer = format!("HTTP/1.1 {}\r\n", self.status());
        if matches!(self, Self::NoUpgrade | Self::Version) {
            answer.push_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            answer.push_str("Connection: Upgrade, close\r\n");
        } else {
            answer.push_str("Connection: close\r\n");
        }
        let text = format!("{self}\n");
        // Into a string nothing fails to be written.
        let _ = write!(
            answer,
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{text}",
            text.len(),
        );
        down.extend_from_slice(answer.as_bytes());
    }
}

/// A request of which not everything came.
#[derive(Debug, Default)]
pub(super) struct Begun(Vec<u8>);

const METHOD: &[u8] = b"GET ";
const END: &[u8] = b"\r\n\r\n";

impl Begun {
    /// Takes bytes of the request from the front of `*bytes`; answers to `down` when it is complete
    /// and nothing speaks against it, and says whether it is.
    pub(super) fn take_in(
        &mut self,
        bytes: &mut &[u8],
        rules: &Rules,
        down: &mut Vec<u8>,
    ) -> Result<bool, Refused> {
        let before = self.0.len();
        let room = limits::WEBSOCKET_REQUEST_BYTES_MAX - before;
        self.0.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if self.0.iter().zip(METHOD).any(|(byte, expected)| byte != expected) {
            return Err(Refused::NoRequest);
        }
        let searched = before.saturating_sub(END.len() - 1);
        let end = self.0[searched..].windows(END.len()).position(|window| window == END);
        let Some(end) = end else {
            return if bytes.len() < room { Ok(false) } else { Err(Refused::TooLong) };
        };
        let length = searched + end + END.len();
        *bytes = &bytes[length - before..];
        answer(&self.0[..length], rules, down)?;
        self.0 = Vec::new();
        Ok(true)
    }
}

/// Judges a whole request, and appends the answer to one that is granted.
fn answer(request: &[u8], rules: &Rules, down: &mut Vec<u8>) -> Result<(), Refused> {
    let mut headers = [EMPTY_HEADER; limits::WEBSOCKET_HEADERS_MAX];
    let mut parsed = Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(Status::Complete(length)) if length == request.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLong),
        Ok(_) | Err(_) => return Err(Refused::NoRequest),
    }
    if parsed.version != Some(1) {
        return Err(Refused::NoRequest);
    }
    let headers = Headers(parsed.headers);
    if parsed.method != Some("GET")
        || headers.has("content-length")
        || headers.has("transfer-encoding")
    {
        return Err(Refused::NotGet);
    }
    let path = parsed.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if rules.path.as_ref().is_some_and(|wanted| *wanted.0 != *path) {
        return Err(Refused::Path);
    }
    if !headers.list("upgrade").any(|word| word.eq_ignore_ascii_case("websocket"))
        || !headers.list("connection").any(|word| word.eq_ignore_ascii_case("upgrade"))
    {
        return Err(Refused::NoUpgrade);
    }
    if headers.once("sec-websocket-version") != Some(b"13") {
        return Err(Refused::Version);
    }
    headers.once("host").filter(|host| !host.is_empty()).ok_or(Refused::NoHost)?;
    let key = headers.once("sec-websocket-key").filter(|key| is_key(key)).ok_or(Refused::NoKey)?;
    if headers.has("origin") && !headers.once("origin").is_some_and(|from| rules.origins.have(from))
    {
        return Err(Refused::Origin);
    }
    let wants_protocol = headers.has("sec-websocket-protocol");
    if wants_protocol && !headers.list("sec-websocket-protocol").any(|word| word == SUBPROTOCOL) {
        return Err(Refused::OtherProtocol);
    }
    let mut granted = String::from("HTTP/1.1 101 Switching Protocols\r\n");
    let _ = write!(
        granted,
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(key),
    );
    if wants_protocol {
        let _ = write!(granted, "Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n");
    }
    granted.push_str("\r\n");
    down.extend_from_slice(granted.as_bytes());
    Ok(())
}

struct Headers<'h, 'b>(&'h [Header<'b>]);

impl<'b> Headers<'_, 'b> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    fn has(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    /// Its value, if it is there exactly once.
    fn once(&self, name: &'static str) -> Option<&'b [u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The words between its commas, wherever it stands.
    fn list(&self, name: &'static str) -> impl Iterator<Item = &'b str> {
        self.all(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }
}
