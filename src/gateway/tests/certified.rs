//! Where certificates name clients, nobody is another one.

use super::{Stage, config};
use crate::base::config::GatewayConfig;
use crate::base::ids::ConnId;
use crate::base::introduction::Introduction;
use crate::base::io::{Completion, ReceiveEnd};

fn introduce(stage: &mut Stage, conn: ConnId, name: Option<&str>) {
    let as_what = Introduction { name: name.map(Box::from), ..Introduction::default() };
    stage.complete(Completion::Introduced { conn, as_what: &as_what });
}

#[test]
fn a_client_is_who_its_certificate_says() {
    for (certified_ids, name, is_welcome) in [
        (true, Some("anna"), true),
        (true, Some("bert"), false),
        (true, Some("ann"), false),
        (true, Some(""), false),
        (true, None, true),
        (false, Some("bert"), true),
    ] {
        let mut stage = Stage::new(GatewayConfig { certified_ids, ..config() });
        let conn = stage.connect();
        introduce(&mut stage, conn, name);
        stage.hello(conn, "anna", "", 0);
        let heard = stage.hear(conn).concat();
        assert_eq!(heard.contains("Welcome"), is_welcome, "{certified_ids} {name:?}: {heard}");
        assert_eq!(heard.contains("code: 301"), !is_welcome, "{certified_ids} {name:?}: {heard}");
        assert_eq!(stage.gateway.certified.len(), 0, "it is not needed any more");
    }
}

#[test]
fn a_name_goes_with_its_connection() {
    let mut stage = Stage::new(GatewayConfig { certified_ids: true, ..config() });
    let conn = stage.connect();
    introduce(&mut stage, conn, Some("anna"));
    assert_eq!(stage.gateway.certified.len(), 1);
    stage.complete(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
    stage.complete(Completion::Closed { conn });
    assert_eq!(stage.gateway.certified.len(), 0);
    let next = stage.connect();
    assert_eq!(next.slot, conn.slot);
    stage.hello(next, "bert", "", 0);
    assert!(stage.hear(next).concat().contains("Welcome"), "it is nobody's by now");
}
