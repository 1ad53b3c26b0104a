//! Signatures and TLS.

use std::net::SocketAddr;
use std::process::Command;

use crate::authority::authority;
use crate::backend::{Answer, Backend};
use crate::gate::{Caller, Gate};

const OLD: &str = "the-old-key-of-30-characters--";
const NEW: &str = "the-new-key-of-30-characters--";

#[test]
fn a_private_authority_vouches_for_a_backend_and_no_other_does() {
    let (ours, other) = (authority(), authority());
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("plain text").to_owned();
    std::fs::write(path("ours.pem"), &ours.pem).expect("there is room for a file");
    std::fs::write(path("other.pem"), &other.pem).expect("there is room for a file");
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let backend = Backend::start_at(address, Some(ours.acceptor.clone()), |_| Answer::Status(200));
    let port = backend.address.port();
    for host in ["localhost", "127.0.0.1"] {
        let webhook = format!("a:url=https://{host}:{port}/x,ca-file={}", path("ours.pem"));
        let gate = Gate::start(&["--webhook", &webhook]);
        let delivery = backend.next_taken();
        delivery.check(None);
        assert_eq!(delivery.events()[0]["event"], "started");
        let _caller = Caller::login(gate.address, "anna");
        let next = backend.next_taken();
        assert_eq!(next.events()[0]["client"], "anna");
        assert_eq!(next.connection, delivery.connection, "one connection serves both");
    }
    let webhook = format!("a:url=https://localhost:{port}/x,ca-file={}", path("other.pem"));
    let mut gate = Gate::start(&["--webhook", &webhook]);
    let line = gate.wait_for_log("a webhook fails");
    assert!(line.contains("no TLS with it"), "{line}");
    assert!(backend.next_within(std::time::Duration::from_secs(1)).is_none(), "nothing is told");
}

/// Keys are changed by writing the file anew; in between both count.
#[test]
fn a_key_is_changed_without_a_restart() {
    let backend = Backend::start(|_| Answer::Status(200));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, OLD).expect("there is room for a file");
    let webhook = format!("a:url={},secret-file={}", backend.url(), path.display());
    let gate = Gate::start(&["--webhook", &webhook]);
    let mut callers = Vec::new();
    for (name, keys, by_old, by_new) in [
        ("first", format!("{OLD}\n"), true, false),
        ("both", format!("{NEW}\n{OLD}\n"), true, true),
        ("second", format!("{NEW}\n"), false, true),
    ] {
        std::fs::write(&path, keys).expect("there is room for a file");
        callers.push(Caller::login(gate.address, name));
        let delivery = loop {
            let delivery = backend.next_taken();
            if delivery.events().iter().any(|event| event["client"] == name) {
                break delivery;
            }
        };
        assert_eq!((delivery.is_signed_by(OLD), delivery.is_signed_by(NEW)), (by_old, by_new));
    }
}

/// The example of the manual accepts what is sent, and nothing else.
#[test]
fn the_manuals_example_verifies_a_signature() {
    let manual = format!("{}/src/manual/webhook.md", env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(manual).expect("the page is there");
    let example = manual.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.expect("the page has an example");
    let backend = Backend::start(|_| Answer::Status(200));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, format!("{NEW}\n{OLD}\n")).expect("there is room for a file");
    let webhook = format!("a:url={},secret-file={}", backend.url(), path.display());
    let _gate = Gate::start(&["--webhook", &webhook]);
    let delivery = backend.next_taken();
    let body = folder.path().join("body");
    std::fs::write(&body, &delivery.body).expect("there is room for a file");
    let header = delivery.header("heartwheel-signature").expect("it is signed");
    let stale = header.replacen("t=1", "t=0", 1);
    for (key, header, expected) in [
        (OLD, header, "True"),
        (NEW, header, "True"),
        ("another-key-of-30-characters--", header, "False"),
        (OLD, stale.as_str(), "False"),
        (OLD, "t=1,v1=00", "False"),
    ] {
        let script = format!(
            "{example}\nimport sys\nprint(is_ours(sys.argv[1].encode(), sys.argv[2], \
             open(sys.argv[3], 'rb').read()))"
        );
        let output = Command::new("python3")
            .args(["-c", &script, key, header])
            .arg(&body)
            .output()
            .expect("python3 is installed");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(said, expected, "{key} {header}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
