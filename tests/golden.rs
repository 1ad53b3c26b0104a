//! Holds the code to the page: `src/manual/protocol.md` shows the bytes of every frame, and this
//! test reads them there. Neither can change without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use heartwheel::base::config::{Mode, Preset};
use heartwheel::base::event::{CloseReason, ComeBack};
use heartwheel::base::limits;
use heartwheel::layers::layer::{Goes, Layer};
use heartwheel::layers::terms::Begin;
use heartwheel::layers::websocket::{Rules, WebSockets};
use heartwheel::wire::error::WireError;
use heartwheel::wire::message::{AckWanted, Before, EndedBy, Message, Reply};
use heartwheel::wire::native::{Deframer, Inbound, Preface, encode, encode_preface};
use heartwheel::wire::websocket::close_code;

const PAGE: &str = include_str!("../src/manual/protocol.md");

/// What the page calls a block, and what its bytes say.
const GOLDEN: [(&str, Message<'static>); 17] = [
    (
        "HELLO",
        Message::Hello {
            wanted_interval_ms: 0,
            client_id: "device-7",
            class: "",
            token: b"",
            resume: b"",
            last_seq: 0,
            before: None,
        },
    ),
    (
        "HELLO with everything",
        Message::Hello {
            wanted_interval_ms: 5_000,
            client_id: "gerät7",
            class: "mobile",
            token: b"secret",
            resume: &[1, 2, 3, 4, 5, 6, 7, 8],
            last_seq: 42,
            before: None,
        },
    ),
    (
        "HELLO after a loss",
        Message::Hello {
            wanted_interval_ms: 0,
            client_id: "device-7",
            class: "",
            token: b"",
            resume: &[
                0, 0, 0, 0, 0, 0, 0, 9, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9,
                0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF,
            ],
            last_seq: 42,
            before: Some(Before { last_beat_ago_ms: 5_000, ended_by: EndedBy::Server }),
        },
    ),
    (
        "WELCOME",
        Message::Welcome {
            version: 1,
            mode: Mode::Client,
            resumed: false,
            epoch: 9,
            interval_ms: 15_000,
            timeout_ms: 35_000,
            first_beat_ms: 4_200,
            payload_max: 16_384,
            server_unix_ms: 1_763_700_000_000,
            resume: b"",
        },
    ),
    ("PING", Message::Ping { reply: Reply::Wanted, payload: b"" }),
    ("PING with a number", Message::Ping { reply: Reply::Wanted, payload: &[0, 0, 0, 7] }),
    ("PING without reply", Message::Ping { reply: Reply::NotWanted, payload: b"" }),
    (
        "PROBE",
        Message::Ping {
            reply: Reply::AtOnce,
            payload: &[0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7],
        },
    ),
    ("PONG", Message::Pong { payload: &[0, 0, 0, 7] }),
    ("DATA", Message::Data { seq: 3, ack: AckWanted::Yes, topic: "temp", body: b"21.5" }),
    ("ACK", Message::Ack { seq: 3 }),
    (
        "GOAWAY",
        Message::Goaway {
            code: 101,
            reconnect_min_ms: 1_000,
            reconnect_max_ms: 10_000,
            address: "",
            text: "shutting down...",
        },
    ),
    (
        "GOAWAY to another address",
        Message::Goaway {
            code: 302,
            reconnect_min_ms: 0,
            reconnect_max_ms: 500,
            address: "10.0.0.9:7070",
            text: "",
        },
    ),
    ("BYE", Message::Bye { code: 100 }),
    ("ERROR", Message::Error { code: 403, text: "malformed" }),
    ("BEAT", Message::Beat { interval_ms: 30_000, timeout_ms: 70_000 }),
    ("DATA without topic", Message::Data { seq: 4, ack: AckWanted::No, topic: "", body: b"" }),
];

/// The blocks of the page whose first line is `word` and a name: the name, and the bytes.
fn blocks(word: &str) -> BTreeMap<String, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    for block in PAGE.split("```text\n").skip(1) {
        let block = block.split("```").next().expect("split yields at least one piece");
        let mut lines = block.lines();
        let Some(name) = lines.next().and_then(|line| line.strip_prefix(word)) else { continue };
        let bytes: Vec<u8> = lines
            .flat_map(|line| line.split('|').next().unwrap_or("").split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).expect("the page shows bytes in hex"))
            .collect();
        let twice = blocks.insert(name.trim().to_owned(), bytes);
        assert!(twice.is_none(), "{name} stands on the page twice");
    }
    blocks
}

/// The cells of the rows that follow the line `head`.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(head).unwrap_or_else(|| panic!("no table {head}"));
    PAGE[start..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

/// Runs `bytes` through the server's side; what the server says to them.
fn refusal(bytes: &[u8]) -> Option<WireError> {
    let mut deframer = Deframer::server_side();
    let mut rest = bytes;
    loop {
        match deframer.next(&mut rest, limits::HELLO_PAYLOAD_BYTES_MAX) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

#[test]
fn every_golden_block_is_written_and_read_as_the_page_shows() {
    let mut blocks = blocks("golden ");
    let preface = blocks.remove("PREFACE").expect("the page shows the preface");
    let mut out = Vec::new();
    encode_preface(1..=1, &mut out);
    assert_eq!(out, preface, "PREFACE");
    let inbound = Inbound::Preface(Preface { version_min: 1, version_max: 1 });
    assert_eq!(Deframer::server_side().next(&mut out.as_slice(), 0), Ok(Some(inbound)));

    for (name, message) in GOLDEN {
        let bytes = blocks.remove(name).unwrap_or_else(|| panic!("the page has no {name}"));
        let mut out = Vec::new();
        encode(&message, &mut out);
        assert_eq!(out, bytes, "{name}: written (left) and on the page (right)");
        let mut rest = bytes.as_slice();
        let read =
            Deframer::client_side().next(&mut rest, limits::PAYLOAD_BYTES_LIMIT).map(|read| {
                assert_eq!(read, Some(Inbound::Message(message)), "{name}");
            });
        assert_eq!(read, Ok(()), "{name}");
        assert!(rest.is_empty(), "{name}");
    }
    assert!(blocks.is_empty(), "on the page, and not in this test: {blocks:?}");
}

/// A WebSocket that is open, and has said nothing of the native protocol.
fn open_websocket() -> Box<dyn Layer> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut layer = WebSockets::new(Rules::default()).begin();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    assert_eq!(layer.take_in(request, &mut up, &mut down), Ok(Goes::On));
    assert!(down.starts_with(b"HTTP/1.1 101 "));
    layer
}

#[test]
fn a_websocket_carries_frames_as_the_page_shows() {
    let golden = blocks("golden ");
    let mut blocks = blocks("websocket ");
    for name in ["PONG", "PROBE", "ERROR"] {
        let mut down = Vec::new();
        open_websocket().send(&golden[name], &mut down);
        let shown = blocks.remove(&format!("server {name}"));
        assert_eq!(Some(down), shown, "{name}: written (left) and on the page (right)");
    }
    let mut layer = open_websocket();
    for (name, expected) in [
        ("HELLO", [&golden["PREFACE"][..], &golden["HELLO"]].concat()),
        ("PONG", vec![0x04, 0, 0, 0]),
    ] {
        let bytes = blocks.remove(&format!("client {name}")).expect("it is on the page");
        let (mut up, mut down) = (Vec::new(), Vec::new());
        assert_eq!(layer.take_in(&bytes, &mut up, &mut down), Ok(Goes::On), "{name}");
        assert_eq!(up, expected, "{name}");
        layer.send(&golden["WELCOME"], &mut down);
    }
    assert!(blocks.is_empty(), "on the page, and not in this test: {blocks:?}");
}

#[test]
fn close_codes_of_a_websocket_are_as_the_page_says() {
    let rows: Vec<_> =
        table("| close code | when |").into_iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(rows, ["1000", "1002", "1003", "1007", "1008", "4000 + code", "3000 to 4999"]);
    for reason in CloseReason::ALL {
        let mut layer = open_websocket();
        let goaway = Message::Goaway {
            code: reason.code(),
            reconnect_min_ms: 0,
            reconnect_max_ms: 0,
            address: "",
            text: "",
        };
        let (mut bytes, mut down) = (Vec::new(), Vec::new());
        encode(&goaway, &mut bytes);
        layer.send(&bytes, &mut down);
        down.clear();
        layer.finish(&mut down);
        assert_eq!(down[2..4], (4_000 + reason.code()).to_be_bytes(), "{reason}");
        assert_eq!(&down[4..], reason.word().as_bytes());
    }
    assert_eq!([3_000, 4_999, 1_000].map(close_code), [3_000, 4_999, 4_300]);
    let longest = limits::WEBSOCKET_REQUEST_BYTES_MAX;
    let longest = format!("{},{:03} bytes", longest / 1_000, longest % 1_000);
    assert!(PAGE.contains(&longest), "{longest}");
    assert!(PAGE.contains(&format!("{} headers", limits::WEBSOCKET_HEADERS_MAX)));
    let empty = limits::WEBSOCKET_EMPTY_FRAMES_MAX;
    assert!(PAGE.contains(&format!("more than {empty} frames in a row")));
}

#[test]
fn every_frame_type_has_a_row_a_section_and_a_golden_block() {
    let blocks = blocks("golden ");
    let rows = table("| type | name | sent by | flags |");
    assert_eq!(rows.len(), 10);
    for row in rows {
        let (number, name) = (row[0], row[1]);
        assert!(PAGE.contains(&format!("\n## {number} {name}\n")), "no section {number} {name}");
        let kind = u8::from_str_radix(number.trim_start_matches("0x"), 16).expect("a number");
        assert_eq!(blocks[name][0], kind, "{name}");
    }
}

#[test]
fn every_refused_block_ends_with_its_code() {
    let blocks = blocks("refused ");
    let mut codes = BTreeSet::new();
    for (name, bytes) in &blocks {
        let (code, _) = name.split_once(' ').expect("a code and a name");
        let error = refusal(bytes).unwrap_or_else(|| panic!("{name} is not refused"));
        assert_eq!(error.reason().code().to_string(), code, "{name}: {error}");
        codes.insert(error.reason());
        let before_the_last = &bytes[..bytes.len() - 1];
        assert_eq!(refusal(before_the_last), None, "{name}: refused at its last byte, not before");
    }
    assert_eq!(codes.len(), 6, "one for every kind of error of the wire");
}

#[test]
fn the_table_of_codes_is_the_registry() {
    let rows: Vec<String> = table("| code | word | then | meaning |")
        .into_iter()
        .map(|row| row[..3].join(" | "))
        .collect();
    let registry = CloseReason::ALL.map(|reason| {
        let then = match reason.come_back() {
            ComeBack::Resume => "resume",
            ComeBack::Reconnect => "reconnect",
            ComeBack::StayAway => "stay away",
        };
        format!("{} | {} | {then}", reason.code(), reason.word())
    });
    assert_eq!(rows, registry);
}

#[test]
fn what_a_hello_says_of_the_connection_before_may_be_left_out() {
    let blocks = blocks("golden ");
    let whole = &blocks["HELLO after a loss"];
    let tail_bytes = 4 + 1;
    for (name, left_out, ended_by, expected) in [
        ("all of it", 0, 1, Some(EndedBy::Server)),
        ("the client gave up", 0, 2, Some(EndedBy::Client)),
        ("not said", 0, 0, None),
        ("no code", 1, 1, None),
        ("half a number", 3, 1, None),
        ("as before there were these fields", tail_bytes, 1, None),
        ("a later version's word", 0, 3, None),
    ] {
        let mut bytes = whole.clone();
        *bytes.last_mut().expect("a frame") = ended_by;
        bytes.truncate(whole.len() - left_out);
        let payload_bytes = u8::try_from(bytes.len() - limits::FRAME_HEADER_BYTES);
        bytes[3] = payload_bytes.expect("a short HELLO");
        let mut rest = bytes.as_slice();
        let read =
            Deframer::client_side().next(&mut rest, limits::HELLO_PAYLOAD_BYTES_MAX).map(|read| {
                match read {
                    Some(Inbound::Message(Message::Hello { last_seq: 42, before, .. })) => {
                        before.map(|before| before.ended_by)
                    }
                    other => panic!("{name}: {other:?}"),
                }
            });
        assert_eq!(read, Ok(expected), "{name}");
    }
}

#[test]
fn classes_and_limits_are_as_the_page_says() {
    let classes: Vec<String> = table("| class | interval_ms | timeout_ms | for |")
        .into_iter()
        .map(|row| row[..3].join(" "))
        .collect();
    let presets = Preset::ALL.map(|preset| {
        let rhythm = preset.rhythm();
        let (interval, timeout) = (rhythm.interval.as_millis(), rhythm.timeout.as_millis());
        format!("`{}` {interval} {timeout}", preset.word())
    });
    assert_eq!(classes, presets);

    for (what, bytes) in [
        ("preface and HELLO together", limits::HANDSHAKE_BYTES_MAX),
        ("client id", limits::CLIENT_ID_BYTES_MAX),
        ("class", limits::CLASS_BYTES_MAX),
        ("resume token", limits::RESUME_TOKEN_BYTES_MAX),
        ("payload of PING and PONG", limits::PING_BYTES_MAX),
        ("topic, address, text", limits::TOPIC_BYTES_MAX),
        ("topic, address, text", limits::ADDRESS_BYTES_MAX),
        ("topic, address, text", limits::TEXT_BYTES_MAX),
        ("payload after WELCOME", usize::from(limits::PAYLOAD_BYTES_DEFAULT)),
        ("payload after WELCOME", limits::PAYLOAD_BYTES_LIMIT),
    ] {
        let rows = table("| what | bytes |");
        let row = rows.iter().find(|row| row[0] == what).unwrap_or_else(|| panic!("no {what}"));
        let said = row[1].replace(',', "");
        assert!(said.split_whitespace().any(|word| word == bytes.to_string()), "{what}: {said}");
    }
    let window = limits::CONTEST_WINDOW.as_millis() / 1_000;
    let fight = format!("After {} takeovers within {window} seconds", limits::CONTEST_FREE);
    assert!(PAGE.contains(&fight), "{fight}");
    let longest = limits::CONTEST_WAIT_MAX.as_millis() / 1_000;
    assert!(PAGE.contains(&format!("4, 8 and so on up to {longest}")), "{longest}");
    let probe = (limits::PROBE_DEFAULT_MAX.as_millis(), limits::PROBE_PATIENCE_MIN.as_millis());
    let probe = format!(
        "at most {} s; none where that difference is below {} s",
        probe.0 / 1_000,
        probe.1 / 1_000
    );
    assert!(PAGE.contains(&probe), "{probe}");
    assert!(PAGE.contains(&format!("longer than {} bytes before WELCOME", {
        let bytes = limits::HELLO_PAYLOAD_BYTES_MAX;
        format!("{},{:03}", bytes / 1_000, bytes % 1_000)
    })));
}

#[test]
fn the_fuzzers_start_from_the_page() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame");
    for word in ["golden ", "refused "] {
        for (name, bytes) in blocks(word) {
            let file = corpus.join(name.to_lowercase().replace(' ', "_"));
            let seed = std::fs::read(&file)
                .unwrap_or_else(|error| panic!("seed of {name}: {}: {error}", file.display()));
            assert_eq!(seed, bytes, "{name}");
        }
    }
}
