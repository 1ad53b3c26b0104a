//! More come than there are files for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::gate::{Caller, Gate, Heard};
use crate::{PATIENCE, alone, figure, seconds};

/// `heartwheel serve` where no more than `files` may be open.
fn serve_with(files: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
    command.args([env!("CARGO_BIN_EXE_heartwheel"), "serve"]);
    command
}

/// How many connections a server says it has room for, when it is asked for too many.
fn possible(files: u32, descriptors: &str) -> u32 {
    let output = serve_with(files)
        .args(["--listen", "127.0.0.1:0", "--max-connections", "4000000"])
        .args(["--descriptors", descriptors])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    let number = said.split("this machine allows, which is ").nth(1).and_then(|rest| {
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    });
    number.unwrap_or_else(|| panic!("no number in {said:?}"))
}

#[test]
fn with_ordinary_descriptors_a_storm_beyond_the_file_limit_is_refused_and_passes() {
    let _alone = alone();
    let places = possible(300, "ordinary");
    assert!((50..300).contains(&places), "{places} places of 300 files");
    let line = storm("ordinary", places);
    figure("file limit, ordinary", line);
}

#[test]
fn with_direct_descriptors_a_storm_beyond_the_file_limit_is_refused_and_passes() {
    let _alone = alone();
    // As many as the limit really allows would be too many for this process to call from; so many
    // need more than one ring already, and each of the rings is bound by the limit.
    let places = possible(300, "direct").min(700);
    assert!(places > 300, "{places} places in rings of 300 files");
    let line = storm("direct", places);
    figure("file limit, direct", line);
}

/// Twice as many call as there are places, all at once.
fn storm(descriptors: &str, places: u32) -> String {
    let began = Instant::now();
    let mut gate = Gate::start_by(
        serve_with(300),
        &["--max-connections", &places.to_string(), "--descriptors", descriptors],
    );
    gate.read_events();
    let mut crowd: Vec<(String, Caller)> = (0..places * 2)
        .map(|number| format!("c-{number}"))
        .map(|client| (client.clone(), Caller::hello(gate.address, &client)))
        .collect();
    let mut said: HashMap<&str, usize> = HashMap::new();
    let mut inside = Vec::new();
    for (client, mut caller) in crowd.drain(..) {
        match caller.hear() {
            Heard::Welcome { .. } => inside.push(caller),
            Heard::Goaway { code: 302, reconnect_min_ms, reconnect_max_ms } => {
                assert!(reconnect_max_ms > reconnect_min_ms, "it is told when to come back");
                *said.entry("told to come back").or_default() += 1;
            }
            heard => panic!("{client} hears neither yes nor a polite no: {heard:?}"),
        }
    }
    assert_eq!(inside.len(), places as usize, "every place is taken");
    inside.iter_mut().for_each(assert_served);

    // Places are free: they are taken again.
    let left = inside.split_off(inside.len() - 20);
    drop(left);
    let newcomers = (0..20).map(|number| come_in(gate.address, &format!("new-{number}")));
    inside.extend(newcomers.collect::<Vec<_>>());
    inside.iter_mut().for_each(assert_served);
    let lines = lines_with(&mut gate, "connections ended", "busy", began);
    format!(
        "{} callers for {places} places: {places} served throughout, {} told GOAWAY 302, 20 freed \
         places taken again, {lines} lines of log, in {}",
        places * 2,
        said.get("told to come back").copied().unwrap_or_default(),
        seconds(began.elapsed())
    )
}

#[test]
fn when_the_machine_has_no_file_left_newcomers_wait_and_come_in_later() {
    let _alone = alone();
    let mut gate = Gate::start(&["--descriptors", "ordinary", "--max-connections", "1000"]);
    let mut inside: Vec<Caller> =
        (0..100).map(|number| Caller::login(gate.address, &format!("c-{number}"))).collect();
    let began = Instant::now();
    let open = std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).expect("it runs").count();
    let normal = limit_files(&gate, open as u64);
    // 64 accepts are in the kernel already, under the old limit.
    let waiting: Vec<Caller> =
        (0..300).map(|number| Caller::hello(gate.address, &format!("w-{number}"))).collect();
    gate.wait_for_log("connections cannot be accepted");
    while began.elapsed() < Duration::from_secs(3) {
        inside.iter_mut().for_each(assert_served);
        std::thread::sleep(Duration::from_millis(100));
    }
    let lines = lines_with(&mut gate, "connections cannot be accepted", "", began);
    // Whoever was in the kernel's hands under the old limit is in; the others wait, and no more.
    let (came_in, mut waiting): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .map(|mut caller| (caller.hear_within(Duration::from_millis(1)), caller))
        .partition(|(heard, _)| matches!(heard, Heard::Welcome { .. }));
    assert!(came_in.len() < 100, "{} came in: there was no shortage", came_in.len());
    assert!(waiting.iter().all(|(heard, _)| *heard == Heard::Nothing), "nobody is turned away");

    let raised = Instant::now();
    restore_files(&gate, normal);
    for (_, caller) in &mut waiting {
        let heard = caller.hear();
        assert!(matches!(heard, Heard::Welcome { .. }), "{heard:?}");
    }
    let took = raised.elapsed();
    inside.extend(came_in.into_iter().chain(waiting).map(|(_, caller)| caller));
    inside.iter_mut().for_each(assert_served);
    figure(
        "no files",
        format_args!(
            "300 callers and no file left: 100 clients served throughout, {lines} lines of log in \
             3 s; all came in {} after files were free",
            seconds(took)
        ),
    );
}

/// Allows so many open files; returns the limits of before.
fn limit_files(gate: &Gate, files: u64) -> Rlimit {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid(gate), Resource::Nofile, Rlimit { current: Some(files), maximum: hard })
        .expect("our own child")
}

fn restore_files(gate: &Gate, limits: Rlimit) {
    prlimit(pid(gate), Resource::Nofile, limits).expect("our own child");
}

fn pid(gate: &Gate) -> Option<Pid> {
    Pid::from_raw(i32::try_from(gate.pid()).expect("a process id"))
}

/// It beats and is answered.
fn assert_served(caller: &mut Caller) {
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"here" });
    assert_eq!(caller.hear(), Heard::Pong(b"here".to_vec()));
}

/// Comes in as a polite client does: again after every no.
fn come_in(address: SocketAddr, client: &str) -> Caller {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut caller = Caller::hello(address, client);
        match caller.hear() {
            Heard::Welcome { .. } => return caller,
            Heard::Goaway { code: 302, .. } => {}
            heard => panic!("{client}: {heard:?}"),
        }
        assert!(Instant::now() < deadline, "{client} finds no place, and some are free");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many lines of the log have both texts: at least one, and no more than one a second.
fn lines_with(gate: &mut Gate, text: &str, also: &str, began: Instant) -> usize {
    std::thread::sleep(Duration::from_millis(1_500));
    let lines = gate.take_logs();
    let count = lines.iter().filter(|line| line.contains(text) && line.contains(also)).count();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(count >= 1, "{lines:#?}");
    assert!(count <= seconds, "{count} lines in {seconds} seconds: {lines:#?}");
    count
}
