//! The example of the tracker in somebody else's server does what it says.

#[path = "../examples/embedded_tracker.rs"]
#[allow(dead_code, reason = "an example has a main of its own")]
mod example;

#[test]
fn the_embedded_tracker_sees_everybody_come_and_go() {
    let story = example::run().unwrap();
    for client in ["polite", "steady", "silent"] {
        let online = story.iter().position(|line| *line == format!("{client} is online"));
        let offline = story.iter().position(|line| line.starts_with(&format!("{client} is off")));
        assert!(online.is_some(), "{client} never came: {story:#?}");
        assert!(online < offline, "{client} never went: {story:#?}");
    }
    assert!(story.iter().any(|line| line.starts_with("silent is offline: heartbeat_timeout")));
    assert_eq!(story.len(), 6, "each comes once and goes once: {story:#?}");
}
