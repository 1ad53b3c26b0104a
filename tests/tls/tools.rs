//! Clients that are not ours: OpenSSL, Python, and our own load bench.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::gate::{Gate, hello};
use crate::papers::Papers;
use crate::{QUICK, start};

/// Runs `openssl s_client` against the gate, and says `input` to it.
fn s_client(gate: &Gate, papers: &Papers, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &gate.address.to_string(), "-servername", "localhost"])
        .args(["-CAfile", &papers.path("ca.pem"), "-verify_return_error"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let says = thread::spawn(move || {
        let _ = stdin.write_all(&input);
        // The end of the input ends it, and the answer should come before.
        thread::sleep(Duration::from_millis(500));
    });
    let output = child.wait_with_output().expect("our own child");
    says.join().expect("it does not panic");
    output
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn openssl_comes_in_with_both_versions_and_comes_back_with_its_ticket() {
    let papers = Papers::new();
    // It stays until it is sent away.
    let gate = start(&papers, &QUICK);
    for (version, word) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let session = papers.path("session");
        let flags = [version, "-quiet", "-alpn", "heartwheel/1", "-sess_out", &session];
        let client = format!("openssl{version}");
        s_client(&gate, &papers, &flags, &hello(&client, "", 0));
        assert_eq!(gate.wait_for_event("online")["client"], client.as_str());
        let again = s_client(&gate, &papers, &[version, "-sess_in", &session], b"Q\n");
        let told = text(&again);
        assert!(told.contains(word) && told.contains("Reused, "), "{version}: {told}");
        let asked = s_client(&gate, &papers, &[version, "-alpn", "heartwheel/1"], b"Q\n");
        assert!(text(&asked).contains("ALPN protocol: heartwheel/1"), "{}", text(&asked));
    }
    for (asked, told) in [("h2,http/1.1", "ALPN protocol: http/1.1"), ("h2", "alert")] {
        let asked = s_client(&gate, &papers, &["-alpn", asked], b"Q\n");
        assert!(text(&asked).contains(told), "{told}: {}", text(&asked));
    }
    for old in ["-tls1_1", "-tls1"] {
        let refused = s_client(&gate, &papers, &[old, "-cipher", "ALL:@SECLEVEL=0"], b"Q\n");
        assert!(!refused.status.success(), "{old}: {}", text(&refused));
    }
}

#[test]
fn nobody_renegotiates() {
    let papers = Papers::new();
    let gate = start(&papers, &[]);
    let renegotiated = s_client(&gate, &papers, &["-tls1_2"], b"R\nR\n");
    let told = text(&renegotiated);
    assert!(told.contains("RENEGOTIATING"), "{told}");
    assert!(told.contains("no renegotiation") || !renegotiated.status.success(), "{told}");
    let plain = crate::gate::Caller::login(gate.address, "still-here");
    drop(plain);
}

/// What a client in Python's own library says: HELLO of `python`, whose WELCOME it prints.
const PYTHON: &str = "
import socket, ssl, sys
host, port, ca, hello = sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(['heartwheel/1'])
with socket.create_connection((host, port), timeout=20) as plain:
    with context.wrap_socket(plain, server_hostname='localhost') as stream:
        stream.sendall(hello)
        print(stream.version(), stream.selected_alpn_protocol(), stream.recv(4096).hex())
";

#[test]
fn a_client_in_python_is_welcomed() {
    let papers = Papers::new();
    let gate = start(&papers, &[]);
    let hex: String = hello("python", "", 0).iter().map(|byte| format!("{byte:02x}")).collect();
    let (ip, port) = (gate.address.ip().to_string(), gate.address.port().to_string());
    let output = Command::new("python3")
        .args(["-c", PYTHON, &ip, &port, &papers.path("ca.pem"), &hex])
        .output()
        .expect("python3 is installed");
    let told = text(&output);
    // WELCOME is the frame of type 2.
    assert!(told.starts_with("TLSv1.3 heartwheel/1 02"), "{told}");
    assert_eq!(gate.wait_for_event("online")["client"], "python");
}

fn load(gate: &Gate, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heartwheel"))
        .args(["load", "--target", &gate.address.to_string(), "--interval", "200ms"])
        .args(arguments)
        .output()
        .expect("the binary starts")
}

#[test]
fn the_load_bench_plays_clients_that_speak_tls() {
    let papers = Papers::new();
    let gate = start(&papers, &[&QUICK[..], &["--min-interval", "200ms"]].concat());
    let (ca, json) = (papers.path("ca.pem"), papers.path("report.json"));
    let crowd = ["--clients", "60", "--for", "4s", "--silent", "5", "--leave", "5", "--flap", "5"];
    let tls = ["--tls", "--tls-ca", &ca, "--json", &json];
    let output = load(&gate, &[&crowd[..], &tls].concat());
    assert!(output.status.success(), "{}", text(&output));
    let report = std::fs::read(&json).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["protocol"], "native over TLS");
    assert_eq!(report["connected"], 60, "{report:#}");
    assert_eq!(report["false_offline"], 0, "{report:#}");
    assert_eq!((&report["fell_silent"], &report["undetected"]), (&5.into(), &0.into()));
    assert!(report["pongs_received"].as_u64() > Some(300), "{report:#}");

    let others = Papers::new();
    let ca = others.path("ca.pem");
    let output = load(&gate, &["--clients", "3", "--for", "2s", "--tls", "--tls-ca", &ca]);
    assert_eq!(output.status.code(), Some(1), "an authority that has not signed it");
    assert!(text(&output).contains("bad_tls"), "{}", text(&output));
}

fn testssl(arguments: &[&str]) -> Output {
    Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/testssl.py"))
        .args(arguments)
        .output()
        .expect("python3 is installed, as the README asks")
}

/// The whole of it takes minutes, and is done by hand; this shows that it still can be.
#[test]
fn testssl_finds_two_versions_at_both_ports() {
    let program = env!("CARGO_BIN_EXE_heartwheel");
    let output = testssl(&["--program", program, "--small"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("versions: TLS1_2, TLS1_3\n").count(), 2, "{told}");
    assert!(told.contains("nothing but what is known"), "{told}");
}

#[test]
fn what_the_script_for_testssl_needs_it_says_in_one_line() {
    let program = env!("CARGO_BIN_EXE_heartwheel");
    for (arguments, words) in [
        (["--testssl", "/no/such/file", "--program", program], "testssl.sh is not installed"),
        (["--testssl", "/bin/true", "--program", "/no/such/file"], "there is no /no/such/file"),
        (["--testssl", "/bin/true", "--program", "/bin/false"], "the gateway did not start"),
        // It runs, and nothing comes of it.
        (["--testssl", "/bin/true", "--program", program], "testssl.sh found nothing"),
    ] {
        let output = testssl(&arguments);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(words) && told.lines().count() == 1, "{arguments:?}: {told}");
    }
}

/// Stands in for testssl.sh: finds what is in a file.
const FINDS: &str = "#!/bin/sh
while [ $# -gt 1 ]; do
    [ \"$1\" = --jsonfile ] && cp \"$(dirname \"$0\")/findings\" \"$2\"
    shift
done
";

#[test]
fn whatever_testssl_finds_beyond_what_is_known_fails_the_script() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("there is room for files");
    let tool = folder.path().join("testssl");
    std::fs::write(&tool, FINDS).expect("there is room");
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let tool = tool.display().to_string();
    let finding = |id: &str, severity: &str, told: &str| -> Value {
        serde_json::json!({ "id": id, "severity": severity, "finding": told })
    };
    let new = finding("TLS1_2", "OK", "offered");
    let newest = finding("TLS1_3", "OK", "offered with final");
    for (more, code, words) in [
        (finding("cipher_order", "HIGH", "none"), 0, "nothing but what is known"),
        (finding("heartbleed", "CRITICAL", "VULNERABLE"), 1, "heartbleed (CRITICAL): VULNERABLE"),
        (finding("TLS1", "LOW", "offered (deprecated)"), 1, "nothing older"),
    ] {
        let findings = serde_json::json!([new, newest, more]).to_string();
        std::fs::write(folder.path().join("findings"), findings).expect("there is room");
        let program = env!("CARGO_BIN_EXE_heartwheel");
        let output = testssl(&["--testssl", &tool, "--program", program, "--small"]);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(code), "{more}: {told}");
        assert!(told.contains(words), "{more}: {told}");
    }
}
