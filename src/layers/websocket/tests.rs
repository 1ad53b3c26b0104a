//! The opening handshake and every rule of the frames, in one piece and byte by byte.

use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

use crate::base::event::CloseReason;
use crate::base::introduction::{Carrier, Introduction};
use crate::base::limits;
use crate::layers::layer::{Goes, Layer};
use crate::layers::terms::Begin;
use crate::layers::websocket::{Open, Origins, Pages, Rules, WebPath, WebSocket, WebSockets};
use crate::wire::native;
use crate::wire::websocket::{CONTROL_BYTES_MAX, Head, Opcode, apply_mask, write_head};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What came of some bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Outcome {
    up: Vec<u8>,
    down: Vec<u8>,
    /// How it ended, if it did.
    end: Option<Result<Goes, CloseReason>>,
}

fn origins(names: &[&str]) -> Origins {
    names.iter().map(|name| name.parse::<Pages>().expect("an origin")).collect()
}

fn rules() -> Rules {
    Rules {
        origins: origins(&["http://a.example", "https://example.org"]),
        path: Some("/live".parse().expect("a path")),
    }
}

fn begin(rules: Rules) -> Box<dyn Layer> {
    WebSockets::new(rules).begin()
}

fn feed<'a>(layer: &mut dyn Layer, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut outcome = Outcome::default();
    for piece in pieces {
        match layer.take_in(piece, &mut outcome.up, &mut outcome.down) {
            Ok(Goes::On) => {}
            end => {
                outcome.end = Some(end);
                break;
            }
        }
    }
    outcome
}

fn request(changes: &[(&str, &str)]) -> Vec<u8> {
    let mut lines = vec![
        ("", "GET /live?as=7 HTTP/1.1".to_owned()),
        ("Host", "Host: here.example".to_owned()),
        ("Upgrade", "Upgrade: websocket".to_owned()),
        ("Connection", "Connection: keep-alive, Upgrade".to_owned()),
        ("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13".to_owned()),
        ("Sec-WebSocket-Key", format!("Sec-WebSocket-Key: {KEY}")),
    ];
    for (name, line) in changes {
        match lines.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = (*line).to_owned(),
            None => lines.push((name, (*line).to_owned())),
        }
    }
    let lines: Vec<String> =
        lines.into_iter().map(|(_, line)| line).filter(|line| !line.is_empty()).collect();
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// What a request comes to; the same in one piece and byte by byte.
fn ask(bytes: &[u8]) -> (String, Option<Result<Goes, CloseReason>>) {
    let mut layer = begin(rules());
    let whole = feed(&mut *layer, [bytes]);
    let mut layer = begin(rules());
    assert_eq!(feed(&mut *layer, bytes.chunks(1)), whole, "byte by byte");
    let mut later = Vec::new();
    layer.send(&[native::kind::GOAWAY, 0, 0, 2, 0, 101], &mut later);
    if whole.end.is_some() {
        assert_eq!(later, b"", "who was refused hears nothing more");
    }
    assert_eq!(whole.up, b"");
    (String::from_utf8(whole.down).expect("HTTP is ASCII"), whole.end)
}

#[test]
fn a_request_that_keeps_the_rules_opens_a_websocket() {
    for (name, bytes) in [
        ("as it should be", request(&[])),
        (
            "other cases",
            request(&[("Upgrade", "uPGRADE: WebSocket"), ("Connection", "CONNECTION: upgrade")]),
        ),
        ("a page that may", request(&[("Origin", "Origin: https://example.org")])),
        ("with cookies", request(&[("Cookie", &format!("Cookie: {}", "c".repeat(3_000)))])),
    ] {
        let (answer, end) = ask(&bytes);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{name}: {answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!answer.contains("Protocol:"), "none was asked for: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(end, None, "{name}");
    }
    let protocols = ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: mqtt, heartwheel.v1");
    let (answer, _) = ask(&request(&[protocols]));
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: heartwheel.v1\r\n"), "{answer}");
}

#[test]
fn whoever_breaks_the_rules_of_the_opening_is_told_which() {
    let long = format!("Cookie: {}", "c".repeat(limits::WEBSOCKET_REQUEST_BYTES_MAX));
    let many = "X: y\r\n".repeat(limits::WEBSOCKET_HEADERS_MAX) + "X: y";
    let twice = format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Key: {KEY}");
    for (status, name, line) in [
        ("400", "", "GARBAGE / HTTP/1.1"),
        ("400", "", "GETX /live HTTP/1.1"),
        ("400", "", "GET /live HTTP/1.0"),
        ("400", "", "GET /live HTTP/2.0"),
        ("400", "", "GET  HTTP/1.1"),
        ("400", "Host", ""),
        ("400", "Host", "Host:"),
        ("400", "Host", "Host: a\r\nHost: a"),
        ("400", "Sec-WebSocket-Key", ""),
        ("400", "Sec-WebSocket-Key", "Sec-WebSocket-Key: dG9vIHNob3J0"),
        ("400", "Sec-WebSocket-Key", &twice),
        ("400", "Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: mqtt"),
        ("400", "Body", "Content-Length: 4"),
        ("400", "Body", "Transfer-Encoding: chunked"),
        ("400", "Bad", "no colon"),
        ("400", "Bad", "Bad\0: name"),
        ("403", "Origin", "Origin: https://evil.example"),
        ("403", "Origin", "Origin: https://example.org.evil.example"),
        ("403", "Origin", "Origin: http://example.org"),
        ("403", "Origin", "Origin: null"),
        ("403", "Origin", "Origin: https://EXAMPLE.org"),
        ("403", "Origin", "Origin:"),
        ("403", "Origin", "Origin: https://example.org\r\nOrigin: https://example.org"),
        ("404", "", "GET / HTTP/1.1"),
        ("404", "", "GET /live/ HTTP/1.1"),
        ("426", "Upgrade", ""),
        ("426", "Upgrade", "Upgrade: h2c"),
        ("426", "Connection", "Connection: keep-alive"),
        ("426", "Sec-WebSocket-Version", ""),
        ("426", "Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"),
        ("431", "Cookie", &long),
        ("431", "Many", &many),
    ] {
        let (answer, end) = ask(&request(&[(name, line)]));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert!(head.contains("close"), "{answer}");
        assert_eq!(head.contains("Sec-WebSocket-Version: 13"), status == "426", "{answer}");
        assert_eq!(end, Some(Err(CloseReason::BadWebsocket)), "{line}");
    }
}

#[test]
fn a_star_lets_every_page_in_and_no_path_is_any_path() {
    let all = Rules { origins: origins(&["*"]), path: None };
    let strange = request(&[("", "GET /else HTTP/1.1"), ("Origin", "Origin: null")]);
    let outcome = feed(&mut *begin(all), [&strange[..]]);
    assert!(outcome.down.starts_with(b"HTTP/1.1 101 "));
    let outcome = feed(&mut *begin(Rules::default()), [&strange[..]]);
    assert!(outcome.down.starts_with(b"HTTP/1.1 403 "), "unless configured, no page may");
}

#[test]
fn origins_and_paths_that_are_none_are_refused_with_an_example() {
    for text in ["", "example.org", "https://", "https://a/b", "://a", "https://a b", "ht tp://a"] {
        let error = text.parse::<Pages>().expect_err(text);
        assert!(error.to_string().contains("https://ops.example"), "{error}");
    }
    for text in ["https://a", "http://localhost:8080", "app+x://h", "http://[::1]:7", "*"] {
        assert_eq!(text.parse::<Pages>().expect("an origin").to_string(), text);
    }
    for text in ["", "live", "/a b", "/a?b", "/a#b"] {
        assert!(text.parse::<WebPath>().expect_err(text).to_string().contains("/live"));
    }
}

#[test]
fn a_slow_or_unwelcome_request_is_answered_in_its_own_words() {
    for (code, kind, status) in [
        (404, native::kind::ERROR, "408"),
        (302, native::kind::GOAWAY, "503"),
        (500, native::kind::ERROR, "503"),
    ] {
        let mut layer = begin(rules());
        let begun = feed(&mut *layer, [&b"GET /live"[..]]);
        assert_eq!(begun, Outcome::default());
        let [high, low] = u16::to_be_bytes(code);
        let mut down = Vec::new();
        layer.send(&[native::kind::PING, 0, 0, 0, kind, 0, 0, 2, high, low], &mut down);
        layer.finish(&mut down);
        let answer = String::from_utf8(down).expect("HTTP is ASCII");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    }
    let mut down = Vec::new();
    begin(rules()).finish(&mut down);
    assert_eq!(down, b"", "nobody has asked for anything");
}

// --- frames --------------------------------------------------------------------------------------

/// One that is open, whose client was welcomed and has said its preface.
fn open() -> Box<dyn Layer> {
    let mut layer = begin(rules());
    let opened = feed(&mut *layer, [&request(&[])[..]]);
    assert!(opened.down.starts_with(b"HTTP/1.1 101 "));
    let preface = feed(&mut *layer, [&masked(0x82, b"\xB7HWP\x01\x01\0\0")[..]]);
    assert_eq!(preface.up, b"\xB7HWP\x01\x01\0\0");
    let mut down = Vec::new();
    layer.send(&[native::kind::WELCOME, 0, 0, 0], &mut down);
    assert_eq!(down, [0x82, 4, 2, 0, 0, 0]);
    layer
}

/// A frame of a client whose first byte is this.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = payload.len() as u64;
    write_head(
        &Head { opcode: Opcode::Binary, is_final: true, mask: Some(MASK), length },
        &mut bytes,
    );
    bytes[0] = first;
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    apply_mask(MASK, 0, &mut bytes[start..]);
    bytes
}

/// What comes of these bytes; the same in one piece and byte by byte.
fn hear(bytes: &[u8]) -> Outcome {
    let whole = feed(&mut *open(), [bytes]);
    assert_eq!(feed(&mut *open(), bytes.chunks(1)), whole, "byte by byte");
    whole
}

#[test]
fn every_rule_of_the_frames_has_its_close_code() {
    let unmasked = [0x82, 1, 7];
    let two = |first: &[u8], second: &[u8]| [first, second].concat();
    for (name, bytes, code) in [
        ("unmasked", unmasked.to_vec(), 1_002),
        ("RSV1", masked(0xC2, b""), 1_002),
        ("RSV2", masked(0xA2, b""), 1_002),
        ("RSV3", masked(0x92, b""), 1_002),
        ("no such data", masked(0x83, b""), 1_002),
        ("no such control", masked(0x8B, b""), 1_002),
        ("text", masked(0x81, b"beat"), 1_003),
        ("text in fragments", masked(0x01, b"beat"), 1_003),
        ("a fragment of nothing", masked(0x80, b""), 1_002),
        ("a message in a message", two(&masked(0x02, b""), &masked(0x82, b"")), 1_002),
        ("a text in a message", two(&masked(0x02, b""), &masked(0x81, b"")), 1_003),
        ("a ping in fragments", masked(0x09, b""), 1_002),
        ("a long ping", masked(0x89, &[0; CONTROL_BYTES_MAX + 1]), 1_002),
        ("half a code", masked(0x88, &[3]), 1_002),
        ("a code nobody says", masked(0x88, &1_005_u16.to_be_bytes()), 1_002),
        ("a code of nobody", masked(0x88, &5_000_u16.to_be_bytes()), 1_002),
        ("a reason not in UTF-8", masked(0x88, &[3, 0xE8, 0xC3]), 1_007),
    ] {
        let outcome = hear(&bytes);
        assert_eq!(outcome.end, Some(Err(CloseReason::BadWebsocket)), "{name}");
        assert_eq!(outcome.down[0], 0x88, "{name}");
        assert_eq!(outcome.down[2..4], u16::to_be_bytes(code), "{name}");
        assert_eq!(outcome.up, b"", "{name}");
    }
}

#[test]
fn messages_and_fragments_carry_one_stream() {
    let stream = b"\x03\0\0\0\x05\0\0\x07seven..";
    for (name, bytes) in [
        ("one message", masked(0x82, stream)),
        ("two messages", [masked(0x82, &stream[..6]), masked(0x82, &stream[6..])].concat()),
        (
            "fragments",
            [masked(0x02, &stream[..2]), masked(0x00, &stream[2..5]), masked(0x80, &stream[5..])]
                .concat(),
        ),
        ("an empty end", [masked(0x02, stream), masked(0x80, b"")].concat()),
        ("an empty message", [masked(0x82, b""), masked(0x82, stream)].concat()),
    ] {
        assert_eq!(hear(&bytes), Outcome { up: stream.to_vec(), ..Outcome::default() }, "{name}");
    }
    let long = [&[5, 0, 0xFF, 0xFF][..], &[9; 65_535]].concat();
    assert_eq!(hear(&masked(0x82, &long)).up, long, "a length of eight bytes");
}

#[test]
fn a_ping_is_answered_and_proves_life_as_a_pong_does() {
    let (ping, pong) = ([native::kind::PING, native::flag::NO_REPLY, 0, 0], [4, 0, 0, 0]);
    let outcome = hear(&masked(0x89, b"there?"));
    assert_eq!((&outcome.down[..], &outcome.up[..]), (&b"\x8A\x06there?"[..], &ping[..]));
    let outcome = hear(&masked(0x8A, b""));
    assert_eq!((&outcome.down[..], &outcome.up[..]), (&b""[..], &pong[..]));
    // Between fragments, but not within a native frame.
    let data = b"\x05\0\0\x03abc";
    let within =
        [masked(0x02, &data[..5]), masked(0x8A, b""), masked(0x80, &[&data[5..], data].concat())];
    let outcome = hear(&within.concat());
    assert_eq!(outcome.up, [&data[..], &pong, data].concat());
    let between = [masked(0x02, data), masked(0x8A, b""), masked(0x80, data)];
    assert_eq!(hear(&between.concat()).up, [&data[..], &pong, data].concat());
}

#[test]
fn before_welcome_a_pong_proves_nothing() {
    let mut layer = begin(rules());
    feed(&mut *layer, [&request(&[])[..]]);
    assert_eq!(feed(&mut *layer, [&masked(0x8A, b"")[..]]), Outcome::default());
    let outcome = feed(&mut *layer, [&masked(0x89, b"x")[..]]);
    assert_eq!((outcome.up, outcome.down), (Vec::new(), b"\x8A\x01x".to_vec()));
    let preface = b"\xB7HWP\x01\x01\0\0";
    let then = [masked(0x82, preface), masked(0x8A, b""), masked(0x82, &[1, 0, 0, 0])];
    let expected = [&preface[..], &[1, 0, 0, 0]].concat();
    assert_eq!(feed(&mut *layer, [&then.concat()[..]]).up, expected, "nor behind the preface");
}

#[test]
fn frames_that_say_nothing_are_counted_for_nobody_else_does() {
    let most = usize::from(limits::WEBSOCKET_EMPTY_FRAMES_MAX);
    let refused = |outcome: &Outcome| {
        outcome.end == Some(Err(CloseReason::BadWebsocket))
            && outcome.down.windows(2).any(|code| code == 1_008_u16.to_be_bytes())
    };
    let empty = |count: usize| masked(0x82, b"").repeat(count);
    assert_eq!(hear(&empty(most)).end, None);
    assert!(refused(&hear(&empty(most + 1))), "empty messages");
    let fragments = [masked(0x02, b""), masked(0x00, b"").repeat(most)].concat();
    assert!(refused(&hear(&fragments)), "empty fragments");
    let something = masked(0x82, &[3, 0, 0, 0]);
    assert_eq!(hear(&[empty(most), something, empty(most)].concat()).end, None);
    let pings = masked(0x89, b"x").repeat(most + 1);
    assert_eq!(hear(&pings).end, None, "these the gateway counts");
    let mut early = begin(rules());
    feed(&mut *early, [&request(&[])[..]]);
    assert!(refused(&feed(&mut *early, [&pings[..]])), "before WELCOME nobody does");
}

#[test]
fn both_sides_say_that_they_close() {
    for (name, frame, answer) in [
        ("a code", masked(0x88, &[3, 0xE9]), &[0x88, 2, 3, 0xE9][..]),
        ("a code and a text", masked(0x88, b"\x03\xE8bye"), &[0x88, 2, 3, 0xE8]),
        ("nothing", masked(0x88, b""), &[0x88, 0]),
    ] {
        let outcome = hear(&frame);
        assert_eq!(outcome.down, answer, "{name}");
        assert_eq!(outcome.end, Some(Ok(Goes::Over)), "{name}");
        let mut layer = open();
        let mut down = Vec::new();
        layer.finish(&mut down);
        assert_eq!(down, [0x88, 2, 3, 0xE8], "{name}: we are done");
        let outcome = feed(&mut *layer, [&frame[..]]);
        assert_eq!((&outcome.down[..], outcome.end), (&b""[..], Some(Ok(Goes::Over))), "{name}");
        layer.send(&[3, 0, 0, 0], &mut down);
        layer.finish(&mut down);
        assert_eq!(down.len(), 4, "nothing is said behind a close frame");
    }
}

#[test]
fn our_own_frames_are_messages_and_questions_are_pings() {
    let say = |bytes: &[u8]| {
        let (mut layer, mut down) = (open(), Vec::new());
        layer.send(bytes, &mut down);
        layer.finish(&mut down);
        down
    };
    let done = [0x88, 2, 3, 0xE8];
    for (name, native, framed) in [
        ("PONG", &[4, 0, 0, 0][..], &[0x82, 4, 4, 0, 0, 0][..]),
        (
            "two frames",
            &[4, 0, 0, 0, 6, 0, 0, 4, 0, 0, 0, 1],
            &[0x82, 4, 4, 0, 0, 0, 0x82, 8, 6, 0, 0, 4, 0, 0, 0, 1],
        ),
        ("PING", &[3, 0, 0, 1, 7], &[0x89, 1, 7]),
        ("PROBE", &[3, 2, 0, 0], &[0x89, 0]),
        ("PING without reply", &[3, 1, 0, 0], &[0x82, 4, 3, 1, 0, 0]),
    ] {
        assert_eq!(say(native), [framed, &done].concat(), "{name}");
    }
    let goaway = [7, 0, 0, 4, 0, 101, 0, 0];
    assert_eq!(say(&goaway)[10..], *b"\x88\x07\x10\x05drain", "the code closes it");
    let error = [9, 0, 0, 2, 1, 0x93];
    assert_eq!(say(&error)[8..], *b"\x88\x0B\x11\x33malformed", "at once, and once");
    let own = [9, 0, 0, 2, 0x0F, 0xA1];
    assert_eq!(say(&own)[8..], [0x88, 2, 0x0F, 0xA1], "an application's own");
}

#[test]
fn it_is_small_and_what_it_is_told() {
    let mut introduction = Introduction::default();
    open().introduce(&mut introduction);
    assert_eq!(introduction.carrier, Carrier::WebSocket);
    assert!(begin(rules()).is_costly());
    assert!(!open().is_costly());
    let bytes = size_of::<WebSocket>() + size_of::<Open>();
    assert!(bytes <= 160, "{bytes}");
}

/// Frames of a client that keeps the rules, and what is in them.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let native = (proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|body| {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&[5, 0, length[0], length[1]], &body[..]].concat()
    });
    let stream = proptest::collection::vec(native, 0..8).prop_map(|frames| frames.concat());
    (stream, proptest::collection::vec((1_usize..200, 0_u8..6), 0..40)).prop_map(
        |(stream, cuts)| {
            let (mut bytes, mut rest, mut is_in_message) = (Vec::new(), &stream[..], false);
            for (count, what) in cuts {
                match what {
                    0 => bytes.extend(masked(0x89, &vec![9; count.min(CONTROL_BYTES_MAX)])),
                    1 => bytes.extend(masked(0x8A, b"")),
                    _ => {
                        let (part, behind) = rest.split_at(count.min(rest.len()));
                        rest = behind;
                        let is_final = what % 2 == 0;
                        let opcode = if is_in_message { 0 } else { 2 };
                        bytes.extend(masked(opcode | if is_final { 0x80 } else { 0 }, part));
                        is_in_message = !is_final;
                    }
                }
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_goes_up(
        bytes in conversation(),
        cuts in proptest::collection::vec(1_usize..100, 1..60),
    ) {
        let whole = feed(&mut *open(), [&bytes[..]]);
        prop_assert_eq!(&whole.end, &None);
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        prop_assert_eq!(feed(&mut *open(), pieces), whole);
    }

    #[test]
    fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let whole = feed(&mut *open(), [&bytes[..]]);
        prop_assert_eq!(feed(&mut *open(), bytes.chunks(1)), whole);
    }
}
