//! From the kernel's news to completions.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketAddrAny, SocketFlags, sockopt};

use crate::base::ids::ConnId;
use crate::base::io::{Completion, Found, ReceiveEnd, SocketHandle};
use crate::base::limits::RECEIVE_BUFFER_BYTES;
use crate::base::time::Span;
use crate::os::driver::{Drained, More};
use crate::os::epoll::due::Due;
use crate::os::epoll::poll::{News, Waited};
use crate::os::epoll::sockets::Owner;
use crate::os::epoll::table::{Operation, Until};
use crate::os::epoll::{Backlog, Driver, EpollError, LISTENER, Tried, WAKER};
use crate::os::facts::tcp_facts;
use crate::os::fault::fault_of_error;

/// Whether news changed anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Concerns {
    Somebody,
    Nobody,
}

impl Driver {
    /// Hands over what is there without sleeping, at most `budget` completions. Each connection is
    /// read once at most, so that whoever asks can answer in between.
    ///
    /// A caller that lets time advance reads the clock first, and then drains until there is
    /// nothing more: so it has seen all that arrived before that moment.
    pub fn drain(
        &mut self,
        budget: usize,
        mut each: impl FnMut(Completion<'_>),
    ) -> Result<Drained, EpollError> {
        assert!(budget > 0, "no budget is no progress");
        let mut handled = self.answer_due(budget, &mut each);
        // What the latest sleep brought is old news; the kernel is asked again behind it.
        handled += self.take_news(budget - handled);
        let mut more = More::Maybe;
        if handled < budget && self.poll.is_empty() {
            more = match self.look(Some(Span::ZERO))? {
                Waited::ToTheEnd | Waited::ForNews => More::Nothing,
                Waited::ForMany | Waited::InVain => More::Maybe,
            };
            handled += self.take_news(budget - handled);
        }
        handled += self.accept(budget - handled, &mut each);
        handled += self.answer_due(budget - handled, &mut each);
        handled += self.read_each_once(budget - handled, &mut each);
        self.stats.completions += handled as u64;
        if self.has_work() {
            more = More::Maybe;
        }
        Ok(Drained { completions: handled, more })
    }

    /// Hands over what is there without asking for news, at most `budget` completions, and says how
    /// many. Fewer than `budget`: all that there was, for connections are read in turn until
    /// nothing is left.
    ///
    /// Bytes may have come after the latest [`enter`](Self::enter) returned.
    pub fn reap(&mut self, budget: usize, mut each: impl FnMut(Completion<'_>)) -> usize {
        assert!(budget > 0, "no budget is no progress");
        let mut handled = self.answer_due(budget, &mut each);
        handled += self.accept(budget - handled, &mut each);
        while handled < budget && !self.ready.is_empty() {
            handled += self.read_each_once(budget - handled, &mut each);
        }
        self.stats.completions += handled as u64;
        handled
    }

    /// Hands over the answers that are due, at most `budget`.
    fn answer_due(&mut self, budget: usize, each: &mut impl FnMut(Completion<'_>)) -> usize {
        let count = self.due.len().min(budget);
        for _ in 0..count {
            match self.due.pop().expect("so many are there") {
                Due::AcceptFailed { fault } => each(Completion::AcceptFailed { fault }),
                Due::Connected { ticket, socket } => each(Completion::Connected { ticket, socket }),
                Due::ConnectFailed { ticket, fault } => {
                    each(Completion::ConnectFailed { ticket, fault });
                }
                Due::Sent { conn, chunk, result } => {
                    self.table.end(conn, Operation::Send);
                    each(Completion::Sent { conn, chunk, result });
                }
                Due::Look { conn } => self.answer_look(conn, each),
                Due::Paused { conn } => {
                    if self.table.end_pause(conn) {
                        let end = ReceiveEnd::Paused;
                        each(Completion::ReceiveEnded { conn, end });
                    }
                }
                Due::Closed { conn } => {
                    self.table.release(conn);
                    each(Completion::Closed { conn });
                }
                Due::Moved { conn } => {
                    self.table.release(conn);
                    each(Completion::Moved { conn });
                }
                Due::Arrived { socket, peer, bytes, baggage } => {
                    self.moves.arriving -= 1;
                    each(Completion::Arrived { socket, peer, bytes: &bytes, baggage });
                }
                Due::ArrivalFailed { fault } => each(Completion::ArrivalFailed { fault }),
            }
        }
        count
    }

    fn answer_look(&mut self, conn: ConnId, each: &mut impl FnMut(Completion<'_>)) {
        if !self.table.end(conn, Operation::Look) {
            return; // it was closed meanwhile, and perhaps the slot has a new life
        }
        let file = self.sockets.file(self.table.socket(conn));
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let found = match rustix::net::recv(file, &mut [0_u8; 1], flags) {
            Ok((0, _)) => Found::Eof,
            Ok(_) => Found::Bytes,
            Err(Errno::AGAIN | Errno::INTR) => Found::Nothing,
            Err(errno) => Found::Fault(fault_of_error(errno)),
        };
        let tcp = if found == Found::Nothing { tcp_facts(file) } else { None };
        if found != Found::Nothing {
            // Whatever is there is read, should its news have been missed.
            self.enqueue(conn, Until::Dry);
        }
        each(Completion::Looked { conn, found, tcp });
    }

    /// Takes the news that is there, and finds out whom it concerns. What concerns nobody counts
    /// against `budget`; the rest counts when it is handed over.
    pub(super) fn take_news(&mut self, budget: usize) -> usize {
        let mut idle = 0;
        while idle < budget
            && let Some(news) = self.poll.next()
        {
            idle += usize::from(self.on_news(news) == Concerns::Nobody);
        }
        idle
    }

    fn on_news(&mut self, news: News) -> Concerns {
        match news.token {
            // The count need not be read: each ring is an edge of its own.
            WAKER => return Concerns::Nobody,
            LISTENER => {
                self.accepts.backlog = Backlog::Unknown;
                return Concerns::Somebody;
            }
            _ => {}
        }
        let socket = SocketHandle(news.token);
        match self.sockets.owner(socket) {
            Some(Owner::Connection(slot)) => self.on_connection(slot, socket, news),
            Some(Owner::Attempt(ticket)) if news.is_writable() => {
                self.on_connect(ticket, socket);
                Concerns::Somebody
            }
            Some(Owner::Attempt(_) | Owner::Nobody) | None => Concerns::Nobody,
        }
    }

    fn on_connection(&mut self, slot: u32, socket: SocketHandle, news: News) -> Concerns {
        let conn = self.table.conn(slot);
        let mut concerns = Concerns::Nobody;
        if news.is_writable()
            && let Some(chunk) = self.table.unblock(conn)
        {
            concerns = Concerns::Somebody;
            match self.try_send(socket, &chunk) {
                Tried::Over(result) => self.due.push(Due::Sent { conn, chunk, result }),
                Tried::NoRoom => self.table.block(conn, chunk),
            }
        }
        if news.is_readable() {
            let until = if news.is_last() { Until::Dry } else { Until::Short };
            let before = self.ready.len();
            self.enqueue(conn, until);
            if self.ready.len() > before {
                concerns = Concerns::Somebody;
            }
        }
        concerns
    }

    fn on_connect(&mut self, ticket: u32, socket: SocketHandle) {
        let outcome = sockopt::socket_error(self.sockets.file(socket));
        match outcome.unwrap_or_else(Err) {
            Ok(()) => {
                self.sockets.give(socket, Owner::Nobody);
                self.due.push(Due::Connected { ticket, socket });
            }
            Err(errno) => {
                self.sockets.close(socket);
                let fault = fault_of_error(errno);
                self.due.push(Due::ConnectFailed { ticket, fault });
            }
        }
    }

    /// Accepts whom it may, at most `budget`.
    fn accept(&mut self, budget: usize, each: &mut impl FnMut(Completion<'_>)) -> usize {
        let mut handled = 0;
        while handled < budget && self.may_accept() {
            let Some(listener) = &self.accepts.listener else { break };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let accepted = rustix::net::acceptfrom_with(listener.socket(), flags);
            if matches!(accepted, Err(Errno::AGAIN)) {
                self.accepts.backlog = Backlog::Empty;
                break;
            }
            handled += 1;
            match accepted.and_then(|(file, peer)| Ok((self.keep(file)?, peer))) {
                Ok((socket, peer)) => {
                    self.accepts.owed -= 1;
                    self.stats.accepted += 1;
                    each(Completion::Accepted { socket, peer: address_of(peer) });
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.accepts.owed -= 1;
                    each(Completion::AcceptFailed { fault: fault_of_error(errno) });
                }
            }
        }
        handled
    }

    /// Keeps an accepted socket, and hears of it from now on.
    pub(super) fn keep(&mut self, file: OwnedFd) -> Result<SocketHandle, Errno> {
        let socket = self.sockets.keep(file, Owner::Nobody);
        let added = self.poll.add(self.sockets.file(socket), socket.0);
        added.map(|()| socket).inspect_err(|_| self.sockets.close(socket))
    }

    /// Reads each connection of the queue once, as far as `budget` goes.
    fn read_each_once(&mut self, budget: usize, each: &mut impl FnMut(Completion<'_>)) -> usize {
        let mut handled = 0;
        for _ in 0..self.ready.len() {
            if handled == budget {
                break;
            }
            let conn = self.ready.pop_front().expect("so many are there");
            handled += self.read_once(conn, budget - handled, each);
        }
        handled
    }

    /// Reads a connection. Bytes count as on a ring, where they come in pieces: or a turn whose
    /// budget is in completions would be as long as a flood likes.
    fn read_once(
        &mut self,
        conn: ConnId,
        budget: usize,
        each: &mut impl FnMut(Completion<'_>),
    ) -> usize {
        let Some((socket, until)) = self.table.dequeue(conn) else { return 1 };
        let room = self.buffer.len().min(budget.saturating_mul(RECEIVE_BUFFER_BYTES));
        let (file, buffer) = (self.sockets.file(socket), &mut self.buffer[..room]);
        let end = match rustix::net::recv(file, buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => ReceiveEnd::Eof,
            Ok((count_bytes, _)) => {
                if count_bytes == room || until == Until::Dry {
                    self.enqueue(conn, until);
                }
                self.stats.received += 1;
                each(Completion::Received { conn, bytes: &self.buffer[..count_bytes] });
                return count_bytes.div_ceil(RECEIVE_BUFFER_BYTES);
            }
            Err(Errno::AGAIN) => {
                self.table.is_dry(conn);
                return 1;
            }
            Err(Errno::INTR) => {
                self.enqueue(conn, until);
                return 1;
            }
            Err(errno) => ReceiveEnd::Fault(fault_of_error(errno)),
        };
        self.table.end(conn, Operation::Receive);
        each(Completion::ReceiveEnded { conn, end });
        1
    }
}

/// Who connected. An IPv4 peer of an IPv6 listener has its IPv4 address; a peer of no family that
/// we listen on has an unspecified one.
fn address_of(peer: Option<SocketAddrAny>) -> SocketAddr {
    match peer.map(SocketAddr::try_from) {
        Some(Ok(SocketAddr::V6(v6))) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => SocketAddr::V6(v6),
        },
        Some(Ok(v4)) => v4,
        Some(Err(_)) | None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_as_they_are_and_mapped_ones_as_what_they_stand_for() {
        for (peer, told) in [
            ("192.0.2.7:8080", "192.0.2.7:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("[fe80::1%7]:8080", "[fe80::1%7]:8080"),
            ("[::ffff:192.0.2.7]:8080", "192.0.2.7:8080"),
        ] {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(address_of(Some(peer.into())), told.parse().unwrap());
        }
        assert!(address_of(None).ip().is_unspecified());
    }
}
