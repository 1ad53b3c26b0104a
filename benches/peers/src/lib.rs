//! What every peer needs: as much of the native protocol as beats take, and a listening socket with
//! the options of heartwheel's.
//!
//! The bytes are those of `src/manual/protocol.md`; a test reads them there.

pub mod beats;
pub mod listen;
pub mod ring;

/// The address in the first argument; the only one.
pub fn address() -> std::net::SocketAddr {
    let argument = std::env::args().nth(1);
    argument.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        eprintln!("usage: <program> ADDRESS:PORT");
        std::process::exit(2);
    })
}
