//! Who does not speak our language is sent away, and told why where that makes sense.

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::gateway::tests::{Stage, config};
use crate::wire::message::Message;
use crate::wire::native;

#[test]
fn strangers_are_sent_away() {
    let hello_twice = |stage: &mut Stage, conn| {
        stage.hello(conn, "anna", "", 0);
        stage.hear(conn);
        let mut bytes = Vec::new();
        let hello = Message::Hello {
            wanted_interval_ms: 0,
            client_id: "anna",
            class: "",
            token: &[],
            resume: &[],
            last_seq: 0,
            before: None,
        };
        native::encode(&hello, &mut bytes);
        stage.receive(conn, &bytes);
    };
    type Act = Box<dyn Fn(&mut Stage, ConnId)>;
    let acts: [(&str, CloseReason, Option<&str>, Act); 5] = [
        (
            "HTTP",
            CloseReason::BadPreface,
            None,
            Box::new(|stage, conn| stage.receive(conn, b"GET / HTTP/1.1\r\n\r\n")),
        ),
        (
            "a frame before HELLO",
            CloseReason::UnexpectedFrame,
            Some("code: 402"),
            Box::new(|stage, conn| {
                stage.receive(conn, b"\xb7HWP\x01\x01\0\0");
                stage.say(conn, &Message::Pong { payload: b"" });
            }),
        ),
        ("two HELLOs", CloseReason::UnexpectedFrame, Some("code: 402"), Box::new(hello_twice)),
        (
            "a frame too long",
            CloseReason::FrameTooLong,
            Some("code: 401"),
            Box::new(|stage, conn| stage.receive(conn, b"\xb7HWP\x01\x01\0\0\x01\0\xff\xff")),
        ),
        (
            "an unknown frame before HELLO",
            CloseReason::UnexpectedFrame,
            Some("code: 402"),
            Box::new(|stage, conn| {
                stage.receive(conn, b"\xb7HWP\x01\x01\0\0");
                stage.receive(conn, b"\x70\0\0\0");
            }),
        ),
    ];
    for (name, reason, word, act) in acts {
        let mut stage = Stage::new(config());
        let conn = stage.connect();
        act(&mut stage, conn);
        let heard = stage.hear(conn);
        match word {
            Some(word) => assert!(heard[0].contains(word), "{name}: {heard:?}"),
            None => assert!(heard.is_empty(), "{name}: {heard:?}"),
        }
        assert!(stage.closes(conn).is_some(), "{name}");
        assert_eq!(stage.gateway.stats().ended(reason), 1, "{name}");
        assert_eq!(stage.gateway.stats().connections, 0, "{name}");
    }
}
