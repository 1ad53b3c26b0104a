//! The broker rumqttd, its library as it is, with room for every client and no pause between two
//! connections (its example has one of a millisecond).

use std::collections::HashMap;

use heartwheel_peers::address;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

fn main() {
    let server = ServerSettings {
        name: "v4".into(),
        listen: address(),
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let router = RouterConfig {
        max_connections: 20_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 104_857_600,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let v4 = Some(HashMap::from([("v4".to_owned(), server)]));
    let config = Config { router, v4, ..Config::default() };
    if let Err(error) = Broker::new(config).start() {
        eprintln!("rumqttd: {error}");
        std::process::exit(1);
    }
}
