//! One client behind TLS, on a blocking socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use heartwheel::wire::message::Message;
use heartwheel::wire::native::{self, Deframer, Inbound};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::gate::{Heard, PATIENCE, heard, hello_with};

pub(crate) struct Secured {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
    deframer: Deframer,
    received: Vec<u8>,
}

impl Secured {
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("connects");
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let stream = StreamOwned::new(client, socket);
        Self { stream, deframer: Deframer::client_side(), received: Vec::new() }
    }

    /// Connects, says HELLO and hears WELCOME.
    pub(crate) fn login(address: SocketAddr, config: &Arc<ClientConfig>, client: &str) -> Self {
        let mut secured = Self::connect(address, config);
        let answer = secured.hello(client);
        assert!(matches!(answer, Heard::Welcome { .. }), "{client}: {answer:?}");
        secured
    }

    /// Says HELLO, and what is heard then.
    pub(crate) fn hello(&mut self, client: &str) -> Heard {
        self.hello_with(client, "")
    }

    /// Says HELLO with a token, and what is heard then.
    pub(crate) fn hello_with(&mut self, client_id: &str, token: &str) -> Heard {
        let _ = self.stream.write_all(&hello_with(client_id, "", 0, token));
        self.hear()
    }

    pub(crate) fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        native::encode(message, &mut bytes);
        let _ = self.stream.write_all(&bytes);
    }

    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            let mut rest = self.received.as_slice();
            let inbound = self.deframer.next(&mut rest, 65_535).expect("the server speaks well");
            let found = inbound.map(|inbound| match inbound {
                Inbound::Message(message) => heard(&message),
                Inbound::Preface(_) | Inbound::Skipped { .. } => {
                    Heard::Other(format!("{inbound:?}"))
                }
            });
            self.received = rest.to_vec();
            if let Some(found) = found {
                return found;
            }
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::Closed,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the server says nothing")
                }
                Err(error) => return Heard::Other(error.to_string()),
            }
        }
    }
}
