//! More come than there are files for.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use heartwheel::base::limits;
use heartwheel::wire::message::{Message, Reply};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::gate::{Caller, Gate, Heard};
use crate::{PATIENCE, alone, figure, seconds};

/// Callers for whom there is no file.
const CALLERS: usize = 500;

/// `heartwheel serve` where no more than `files` may be open.
pub(crate) fn serve_with(files: u32) -> Command {
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
pub(crate) fn with_ordinary_descriptors_a_storm_beyond_the_file_limit_is_refused_and_passes() {
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
    let mut refused = 0;
    let mut inside = Vec::new();
    for (client, mut caller) in crowd.drain(..) {
        let heard = caller.hear();
        if matches!(heard, Heard::Welcome { .. }) {
            inside.push(caller);
        } else {
            assert_polite(&client, &heard);
            refused += 1;
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
        "{} callers for {places} places: {places} served throughout, {refused} told GOAWAY 302, \
         20 freed places taken again, {lines} lines of log, in {}",
        places * 2,
        seconds(began.elapsed())
    )
}

#[test]
pub(crate) fn when_no_file_is_left_newcomers_wait_and_come_in_later() {
    let _alone = alone();
    figure("no files, ordinary", run_short(2_000, "ordinary", 100));
}

#[test]
fn when_no_file_is_left_for_another_ring_newcomers_wait_and_come_in_later() {
    let _alone = alone();
    // A ring has a table of 300 here: more connections need another ring.
    figure("no files, direct", run_short(300, "direct", 300));
}

/// The files run out behind the server's back, and come back. At most `room` more come in without.
fn run_short(files: u32, descriptors: &str, room: usize) -> String {
    let places = ["--max-connections", "1000", "--descriptors", descriptors];
    let mut gate = Gate::start_by(serve_with(files), &places);
    gate.read_events();
    let mut inside: Vec<Caller> =
        (0..100).map(|number| Caller::login(gate.address, &format!("c-{number}"))).collect();
    let began = Instant::now();
    let open = std::fs::read_dir(format!("/proc/{}/fd", gate.pid())).expect("it runs").count();
    limit_files(&gate, open as u64, files);
    let waiting: Vec<Caller> =
        (0..CALLERS).map(|number| Caller::hello(gate.address, &format!("w-{number}"))).collect();
    gate.wait_for_log("connections cannot be accepted");
    while began.elapsed() < Duration::from_secs(2) {
        inside.iter_mut().for_each(assert_served);
        std::thread::sleep(Duration::from_millis(100));
    }
    let (lines, tries) = shortage_logged(&mut gate, began);
    // Whoever the kernel had room for is in: accepts under way have a file, and a ring has a table.
    // The others wait, and no more.
    let (came_in, mut waiting): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .map(|mut caller| (heard_already(&mut caller), caller))
        .partition(|(heard, _)| matches!(heard, Heard::Welcome { .. }));
    assert!(came_in.len() <= room, "{} came in: there was no shortage", came_in.len());
    assert!(waiting.iter().all(|(heard, _)| *heard == Heard::Nothing), "nobody is turned away");

    let waited = waiting.len();
    let shortage = began.elapsed();
    let raised = Instant::now();
    limit_files(&gate, files.into(), files);
    for (_, caller) in &mut waiting {
        let heard = caller.hear();
        assert!(matches!(heard, Heard::Welcome { .. }), "{heard:?}");
    }
    let took = raised.elapsed();
    inside.extend(came_in.into_iter().chain(waiting).map(|(_, caller)| caller));
    inside.iter_mut().for_each(assert_served);
    format!(
        "{CALLERS} callers and no file left: 100 clients served throughout, {waited} had to wait, \
         {tries} accepts failed meanwhile, told in {lines} lines of log in {}; \
         all came in {} after files were free",
        seconds(shortage),
        seconds(took)
    )
}

/// Allows so many open files from now on, of as many as were ever allowed.
fn limit_files(gate: &Gate, files: u64, ever: u32) {
    let pid = Pid::from_raw(i32::try_from(gate.pid()).expect("a process id"));
    let limit = Rlimit { current: Some(files), maximum: Some(ever.into()) };
    prlimit(pid, Resource::Nofile, limit).expect("our own child");
}

/// What it has heard by now, without waiting.
fn heard_already(caller: &mut Caller) -> Heard {
    caller.stream.set_nonblocking(true).expect("an option");
    let heard = caller.hear_within(PATIENCE);
    caller.stream.set_nonblocking(false).expect("an option");
    heard
}

/// It beats and is answered.
fn assert_served(caller: &mut Caller) {
    caller.say(&Message::Ping { reply: Reply::Wanted, payload: b"here" });
    assert_eq!(caller.hear(), Heard::Pong(b"here".to_vec()));
}

/// A no that says when to come again.
fn assert_polite(client: &str, heard: &Heard) {
    let Heard::Goaway { code: 302, reconnect_min_ms, reconnect_max_ms } = heard else {
        panic!("{client} hears neither yes nor a polite no: {heard:?}")
    };
    assert!(reconnect_max_ms > reconnect_min_ms, "it is told when to come back");
}

/// Comes in as a polite client does: again after every no.
fn come_in(address: SocketAddr, client: &str) -> Caller {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut caller = Caller::hello(address, client);
        let heard = caller.hear();
        if matches!(heard, Heard::Welcome { .. }) {
            return caller;
        }
        assert_polite(client, &heard);
        assert!(Instant::now() < deadline, "{client} finds no place, and some are free");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many lines tell of the shortage, and of how many accepts that failed in all. Who has no file
/// waits before trying again.
fn shortage_logged(gate: &mut Gate, began: Instant) -> (usize, u64) {
    std::thread::sleep(Duration::from_millis(1_200));
    let lines = gate.take_logs();
    let short = lines.iter().filter(|line| line.contains("connections cannot be accepted"));
    let tries = short.clone().map(|line| {
        let number = line.split("faults=").nth(1).and_then(|rest| rest.split(' ').next());
        number.and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| panic!("{line}"))
    });
    let (count, tries) = (short.clone().count(), tries.sum());
    assert_seldom(count, began, &lines);
    let pauses = began.elapsed().as_millis() / u128::from(limits::ACCEPT_PAUSE.as_millis());
    let tries_max = (u64::try_from(pauses).unwrap() + 2) * u64::from(limits::ACCEPTS_MAX);
    assert!(tries <= tries_max, "{tries} failed accepts");
    (count, tries)
}

/// How many lines of the log have both texts: at least one, and no more than one a second.
fn lines_with(gate: &mut Gate, text: &str, also: &str, began: Instant) -> usize {
    std::thread::sleep(Duration::from_millis(1_200));
    let lines = gate.take_logs();
    let count = lines.iter().filter(|line| line.contains(text) && line.contains(also)).count();
    assert_seldom(count, began, &lines);
    count
}

fn assert_seldom(count: usize, began: Instant, lines: &[String]) {
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(count >= 1, "{lines:#?}");
    assert!(count <= seconds, "{count} lines in {seconds} seconds: {lines:#?}");
}
