//! The PROXY protocol, versions 1 and 2: who stands behind a load balancer.
//!
//! Read by the crate `proxy-header`; here stands how long one may be, and what is made of it.

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

use crate::base::limits;

/// What a header said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// For whom the proxy speaks; `None`: for itself, to see whether we are there.
    pub source: Option<SocketAddr>,
    /// Bytes of the header.
    pub length: usize,
}

/// What came is no header, or longer than one may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no PROXY header of at most {} bytes", limits::PROXY_HEADER_BYTES_MAX)]
pub struct NoHeader;

/// Reads the header that `bytes` begin with; `None`: it is not complete.
///
/// # Errors
/// When none can come of them.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let head = &bytes[..bytes.len().min(limits::PROXY_HEADER_BYTES_MAX)];
    match ProxyHeader::parse(head, ParseConfig::default()) {
        Ok((header, length)) => {
            let proxied = header.proxied_address();
            if proxied.is_some_and(|proxied| proxied.protocol != Protocol::Stream) {
                return Err(NoHeader);
            }
            // An IPv4 address that a proxy has put into an IPv6 one is one.
            let source = proxied.map(|proxied| {
                SocketAddr::new(proxied.source.ip().to_canonical(), proxied.source.port())
            });
            Ok(Some(Header { source, length }))
        }
        Err(Error::BufferTooShort) if head.len() < limits::PROXY_HEADER_BYTES_MAX => Ok(None),
        Err(_) => Err(NoHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    fn v2(source: &str) -> Vec<u8> {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let destination = if source.starts_with('[') { "[::1]:7" } else { "127.0.0.1:7" };
        let addresses = ProxiedAddress::stream(address(source), address(destination));
        let mut bytes = vec![0; 1_024];
        let header = ProxyHeader::with_address(addresses);
        let length = header.encode_to_slice_v2(&mut bytes).expect("there is room");
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn a_header_says_who_is_there_and_where_it_ends() {
        for (name, bytes, source) in [
            ("1", b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 7\r\n".to_vec(), Some("192.0.2.7:4711")),
            (
                "1, IPv6",
                b"PROXY TCP6 2001:db8::7 ::1 4711 7\r\n".to_vec(),
                Some("[2001:db8::7]:4711"),
            ),
            ("1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), None),
            ("2", v2("192.0.2.7:4711"), Some("192.0.2.7:4711")),
            ("2, IPv6", v2("[2001:db8::7]:4711"), Some("[2001:db8::7]:4711")),
            ("2, IPv4 in IPv6", v2("[::ffff:192.0.2.7]:4711"), Some("192.0.2.7:4711")),
            ("2, local", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), None),
        ] {
            let source = source.map(|text| text.parse().expect("an address"));
            let expected = Header { source, length: bytes.len() };
            let mut more = bytes.clone();
            more.extend_from_slice(b"\xB7HWP");
            assert_eq!(read(&more), Ok(Some(expected)), "{name}");
            for length in 1..bytes.len() {
                assert_eq!(read(&bytes[..length]), Ok(None), "{name}, {length} bytes of it");
            }
        }
    }

    #[test]
    fn what_is_none_is_refused_at_once_and_what_does_not_end_in_time() {
        for (name, bytes) in [
            ("native", b"\xB7HWP".to_vec()),
            ("TLS", vec![0x16, 3, 1]),
            ("HTTP", b"GET / HTTP/1.1".to_vec()),
            ("an address that is none", b"PROXY TCP4 192.0.2.700 127.0.0.1 1 2\r\n".to_vec()),
            ("a line that does not end", [&b"PROXY "[..], &[b'1'; 200]].concat()),
            ("datagrams", {
                let mut bytes = v2("192.0.2.7:4711");
                bytes[13] = 0x12;
                bytes
            }),
            ("too long", {
                let mut bytes = v2("192.0.2.7:4711");
                bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
                bytes.resize(limits::PROXY_HEADER_BYTES_MAX, 0);
                bytes
            }),
        ] {
            assert_eq!(read(&bytes), Err(NoHeader), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_alike_in_whatever_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            start in prop_oneof![
                Just(&b""[..]),
                Just(&b"PROXY TCP4 "[..]),
                Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..])
            ],
        ) {
            let bytes = [start, &bytes].concat();
            let whole = read(&bytes);
            for length in 0..bytes.len() {
                match read(&bytes[..length]) {
                    Ok(None) => {}
                    early => {
                        prop_assert_eq!(early, whole);
                        break;
                    }
                }
            }
        }
    }
}
