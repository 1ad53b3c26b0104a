//! Sockets that are about to connect.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::base::io::Connect;
use crate::os::socket::raw;

/// A socket that is bound where it should come from.
pub(crate) fn open(connect: &Connect, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let family = if connect.target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(source) = connect.source {
        if source.port() == 0 {
            raw::set_bind_address_no_port(socket.as_fd())?;
        } else {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &source)?;
    }
    Ok(socket)
}
