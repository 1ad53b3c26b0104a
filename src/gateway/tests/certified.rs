//! Where certificates name clients, nobody is another one.

use std::sync::Arc;

use super::{Stage, config};
use crate::base::config::GatewayConfig;
use crate::base::identity::{Proof, Words};
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

/// A certificate proves its name and no other, whatever token is shown beside it; whoever has none
/// needs the token.
#[test]
fn a_certificate_is_the_proof_of_its_name_and_of_no_other() {
    let tokens = || {
        let mut words = Words::new([3; 32], [9; 32]);
        words.add("anna", b"the word of anna");
        Proof::Words(Arc::new(words))
    };
    let nobody_could_be_asked = || Proof::Asked([1; 32]);
    for (proof, name, token, is_welcome) in [
        (tokens(), Some("anna"), &b""[..], true),
        (tokens(), Some("anna"), b"another word", true),
        (tokens(), Some("bert"), b"the word of anna", false),
        (tokens(), Some(""), b"the word of anna", false),
        (tokens(), None, b"the word of anna", true),
        (tokens(), None, b"", false),
        (nobody_could_be_asked(), Some("anna"), b"", true),
        (nobody_could_be_asked(), Some("bert"), b"token", false),
        (Proof::Certificate, Some("anna"), b"", true),
        (Proof::Certificate, Some("bert"), b"", false),
        (Proof::Certificate, None, b"", false),
        (Proof::None, Some("bert"), b"", false),
        (Proof::None, None, b"", true),
    ] {
        let name_of_row = format!("{proof:?} {name:?} {token:?}");
        let mut stage = Stage::new(GatewayConfig { certified_ids: true, proof, ..config() });
        let conn = stage.connect();
        introduce(&mut stage, conn, name);
        stage.hello_with(conn, "anna", token, b"");
        let heard = stage.hear(conn).concat();
        assert_eq!(heard.contains("Welcome"), is_welcome, "{name_of_row}: {heard}");
        assert_eq!(heard.contains("code: 301"), !is_welcome, "{name_of_row}: {heard}");
        assert!(!stage.gateway.has_checks(), "{name_of_row}: there is nothing to be asked");
        stage.gateway.check();
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
