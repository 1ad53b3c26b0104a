//! Groups are the session's: they last as long as it does, and are counted exactly.

use super::{Stage, config};
use crate::base::config::GatewayConfig;
use crate::base::ids::{ClientId, GroupName};
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::{Command, Filter, Reply};
use crate::wire::message::Message;

fn client(name: &str) -> ClientId {
    ClientId::new(name).expect("a client id")
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("a name")
}

fn ask(stage: &mut Stage, command: Command) -> Reply {
    let reply = stage.gateway.on_command(command, stage.now);
    stage.settle();
    reply
}

fn join(stage: &mut Stage, name: &str, to: &str) -> Reply {
    ask(stage, Command::Join { client: client(name), group: group(to) })
}

fn sizes(stage: &mut Stage) -> Vec<(String, usize)> {
    let Reply::Groups(groups) = ask(stage, Command::Groups { after: None, limit: 10 }) else {
        panic!("groups were asked for");
    };
    groups.iter().map(|(name, size)| (name.to_string(), *size)).collect()
}

fn members(stage: &mut Stage, of: &str) -> Vec<String> {
    let filter = Filter { group: Some(group(of)), ..Filter::default() };
    let Reply::Sessions { sessions, .. } =
        ask(stage, Command::Sessions { from_slot: 0, limit: 100, filter })
    else {
        panic!("sessions were asked for");
    };
    sessions.iter().map(|view| view.presence.client.to_string()).collect()
}

#[test]
fn a_client_is_in_the_groups_it_was_put_into() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    stage.login("bert");
    assert_eq!(join(&mut stage, "anna", "tills"), Reply::Done);
    assert_eq!(join(&mut stage, "anna", "tills"), Reply::Done, "twice is once");
    assert_eq!(join(&mut stage, "bert", "tills"), Reply::Done);
    assert_eq!(join(&mut stage, "bert", "north"), Reply::Done);
    assert_eq!(join(&mut stage, "carl", "north"), Reply::NoSuchClient);
    assert_eq!(sizes(&mut stage), [("north".into(), 1), ("tills".into(), 2)]);
    assert_eq!(members(&mut stage, "tills"), ["anna", "bert"]);
    let leave = Command::Leave { client: client("bert"), group: group("tills") };
    assert_eq!(ask(&mut stage, leave.clone()), Reply::Done);
    assert_eq!(ask(&mut stage, leave), Reply::Done, "it is out already");
    assert_eq!(members(&mut stage, "tills"), ["anna"]);
    let page = ask(&mut stage, Command::Groups { after: Some(group("north")), limit: 5 });
    assert_eq!(page, Reply::Groups(vec![(group("tills"), 1)]));
}

#[test]
fn groups_end_with_the_session_and_go_on_with_it() {
    let grace = Span::from_secs(60);
    let mut stage = Stage::new(GatewayConfig { grace, ..config() });
    let conn = stage.login("anna");
    join(&mut stage, "anna", "tills");
    stage.is_lost(conn);
    assert_eq!(members(&mut stage, "tills"), ["anna"], "it is held");
    let token = stage.token("anna", 1);
    let conn = stage.come_back("anna", &token, None);
    assert_eq!(members(&mut stage, "tills"), ["anna"], "it goes on");
    let other = stage.come_back("anna", &token, None);
    assert_eq!(members(&mut stage, "tills"), ["anna"], "from a connection that was not lost yet");
    assert_ne!(conn, other);
    stage.hear(other);
    stage.is_lost(other);
    stage.pass(grace + Span::from_secs(1));
    assert_eq!(sizes(&mut stage), [], "the grace is over");
    let conn = stage.login("anna");
    assert_eq!(members(&mut stage, "tills"), [""; 0], "a new session begins with none");
    join(&mut stage, "anna", "tills");
    stage.say(conn, &Message::Bye { code: 100 });
    assert_eq!(sizes(&mut stage), []);
}

#[test]
fn a_client_is_in_so_many_groups_and_no_more() {
    let mut stage = Stage::new(config());
    stage.login("anna");
    for number in 0..limits::GROUPS_OF_CLIENT_MAX {
        assert_eq!(join(&mut stage, "anna", &format!("group-{number}")), Reply::Done);
    }
    assert_eq!(join(&mut stage, "anna", "one more"), Reply::GroupsFull);
    assert_eq!(join(&mut stage, "anna", "group-3"), Reply::Done, "it is in there already");
}
