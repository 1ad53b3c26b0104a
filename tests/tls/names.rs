//! Certificates of clients, and the ids in them.

use rustls::version::{TLS12, TLS13};

use crate::gate::{Caller, Heard};
use crate::papers::Papers;
use crate::secured::Secured;
use crate::start;

#[test]
fn whoever_has_to_show_a_certificate_and_has_none_is_not_let_in() {
    let (papers, others) = (Papers::new(), Papers::new());
    papers.issue("anna", &["anna"]);
    let ca = papers.path("ca.pem");
    let gate = start(&papers, &["--tls-client-ca", &ca]);
    for version in [&TLS13, &TLS12] {
        let mut nobody = Secured::connect(gate.address, &papers.client(&[version], None));
        assert!(matches!(nobody.hello("anna"), Heard::Other(_) | Heard::Closed), "{version:?}");
        let known = papers.client(&[version], Some("anna"));
        let _online = Secured::login(gate.address, &known, "not-anna");
        assert_eq!(gate.wait_for_event("online")["client"], "not-anna", "names are not asked for");
    }
    drop(others);
}

#[test]
fn the_name_is_the_id_where_that_is_said_over_shards_too() {
    let papers = Papers::new();
    let ca = papers.path("ca.pem");
    let flags = ["--tls-client-ca", &ca, "--tls-client-cert", "optional"];
    let gate =
        start(&papers, &[&flags[..], &["--tls-client-name", "id", "--shards", "2"]].concat());
    for number in 0..8 {
        let (name, other) = (format!("mill-{number}"), format!("mill-{}", number + 1));
        papers.issue(&name, &[&name, "second.name"]);
        let known = papers.client(&[&TLS13], Some(&name));
        let mut liar = Secured::connect(gate.address, &known);
        let heard = liar.hello(&other);
        assert!(matches!(heard, Heard::Goaway { code: 301, .. } | Heard::Error(301)), "{heard:?}");
        let mut second = Secured::connect(gate.address, &known);
        let heard = second.hello("second.name");
        assert!(matches!(heard, Heard::Goaway { code: 301, .. } | Heard::Error(301)), "{heard:?}");
        let _online = Secured::login(gate.address, &known, &name);
        assert_eq!(gate.wait_for_event("online")["client"], name.as_str(), "nobody else came in");
    }
    // Certificates are optional, and so are names.
    let _without = Secured::login(gate.address, &papers.client(&[&TLS13], None), "free");
    let _plain = Caller::login(gate.address, "plain");
}
