//! The classic server: a task for each connection, a dictionary of the last heartbeats, and a scan
//! of it once a second.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use heartwheel_peers::address;
use heartwheel_peers::beats::{HANDSHAKE_BYTES_MAX, Inbound, Spread, next, write_pong};
use heartwheel_peers::listen::listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, LocalSet, spawn_local};

const SCAN_EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3_600);
const FIRST_BUFFER_BYTES: usize = 256;

/// When a client was last heard, and how to end it.
struct Client {
    last_beat: Instant,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    clients: HashMap<Vec<u8>, Client>,
    spread: Spread,
}

impl Shared {
    fn touch(&mut self, name: &[u8]) {
        if let Some(client) = self.clients.get_mut(name) {
            client.last_beat = Instant::now();
        }
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = listen(address())?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let shared = Rc::new(RefCell::new(Shared::default()));
        spawn_local(scan(Rc::clone(&shared)));
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let (shared, task) = (Rc::clone(&shared), Rc::new(OnceCell::new()));
                let own = Rc::clone(&task);
                let serving = spawn_local(async move {
                    let name = serve(stream, &shared, &own).await;
                    shared.borrow_mut().clients.remove(&name);
                });
                // It runs when this task waits, and finds it there.
                task.get_or_init(|| serving.abort_handle());
            }
        }
    })
}

/// Ends everybody who was silent for too long.
async fn scan(shared: Rc<RefCell<Shared>>) {
    let mut every = tokio::time::interval(SCAN_EVERY);
    loop {
        every.tick().await;
        let now = Instant::now();
        shared.borrow_mut().clients.retain(|_, client| {
            let is_alive = now.duration_since(client.last_beat) < TIMEOUT;
            if !is_alive {
                client.task.abort();
            }
            is_alive
        });
    }
}

/// Serves a connection to its end, and returns its client's name.
async fn serve(
    mut stream: TcpStream,
    shared: &RefCell<Shared>,
    task: &OnceCell<AbortHandle>,
) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(FIRST_BUFFER_BYTES);
    let (mut name, mut answer) = (Vec::new(), Vec::new());
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(1..) if buffer.len() <= HANDSHAKE_BYTES_MAX => {}
            _ => return name,
        }
        let mut bytes = buffer.as_slice();
        while let Ok(Some(inbound)) = next(&mut bytes) {
            let mut shared = shared.borrow_mut();
            match inbound {
                Inbound::Hello { wanted_interval_ms, client_id } => {
                    name = client_id.to_vec();
                    answer.extend_from_slice(&shared.spread.welcome(wanted_interval_ms));
                    if let Some(task) = task.get().cloned() {
                        let client = Client { last_beat: Instant::now(), task };
                        shared.clients.insert(name.clone(), client);
                    }
                }
                Inbound::Ping(payload) => {
                    shared.touch(&name);
                    write_pong(payload, &mut answer);
                }
                Inbound::Beat => shared.touch(&name),
                Inbound::Bye => return name,
            }
        }
        let rest = bytes.len();
        buffer.drain(..buffer.len() - rest);
        if !answer.is_empty() {
            if stream.write_all(&answer).await.is_err() {
                return name;
            }
            answer.clear();
        }
    }
}
