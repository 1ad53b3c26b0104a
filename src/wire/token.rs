//! Tokens that whoever has the key makes for a client: `hw1.EXPIRES.MAC`.
//!
//! `EXPIRES` is in seconds since 1970, in decimal. `MAC` is the HMAC-SHA256 of what the token says
//! and of the client id, in base64url without padding. The id itself stands in HELLO.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What such a token begins with.
const PREFIX: &str = "hw1.";
/// Separates these MACs from all others that the key may be used for.
const CONTEXT: &[u8] = b"heartwheel token 1\0";
/// Bytes of a MAC.
const MAC_BYTES: usize = 32;
/// Digits of a time that is to be believed: up to the year 33658.
const DIGITS_MAX: usize = 12;

/// A token that has the right form. Whether it is true is another question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// When it ceases to hold, in seconds since 1970.
    pub expires_unix_s: u64,
    mac: [u8; MAC_BYTES],
}

/// Makes a token for a client. Its length depends on the time only.
pub fn make(key: &[u8], client: &str, expires_unix_s: u64) -> String {
    let mac = mac(key, client, expires_unix_s).finalize().into_bytes();
    format!("{PREFIX}{expires_unix_s}.{}", URL_SAFE_NO_PAD.encode(mac))
}

impl Sealed {
    /// Reads a token. There is one way to write each, and no other is read.
    pub fn read(token: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(token).ok()?.strip_prefix(PREFIX)?;
        let (digits, mac) = rest.split_once('.')?;
        let is_plain = digits.len() <= DIGITS_MAX
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        let expires_unix_s = digits.parse().ok().filter(|_| is_plain)?;
        let mut bytes = [0; MAC_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(mac, &mut bytes).ok()?;
        (length == MAC_BYTES).then_some(Self { expires_unix_s, mac: bytes })
    }

    /// Whether it was made with this key for this client. How long that takes says nothing about
    /// the right MAC.
    pub fn is_by(&self, key: &[u8], client: &str) -> bool {
        mac(key, client, self.expires_unix_s).verify_slice(&self.mac).is_ok()
    }

    /// Whether it does not hold any more at this time.
    pub fn is_over(&self, unix_ms: u64) -> bool {
        self.expires_unix_s <= unix_ms / 1_000
    }
}

fn mac(key: &[u8], client: &str, expires_unix_s: u64) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(CONTEXT);
    mac.update(&expires_unix_s.to_be_bytes());
    mac.update(client.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_is_for_one_client_one_key_and_one_time() {
        let token = make(KEY, "anna", 1_800_000_000);
        let sealed = Sealed::read(token.as_bytes()).expect("it was made here");
        assert_eq!(sealed.expires_unix_s, 1_800_000_000);
        assert!(sealed.is_by(KEY, "anna"));
        assert!(!sealed.is_by(KEY, "bert"), "another client");
        assert!(!sealed.is_by(b"another key", "anna"), "another key");
        let later = token.replace("1800000000", "1800000001");
        let later = Sealed::read(later.as_bytes()).expect("the form is right");
        assert!(!later.is_by(KEY, "anna"), "another time");
        assert!(!sealed.is_over(1_799_999_999_999));
        assert!(sealed.is_over(1_800_000_000_000));
    }

    #[test]
    fn no_changed_byte_leaves_a_token_true() {
        let token = make(KEY, "anna", 1_800_000_000).into_bytes();
        for place in 0..token.len() {
            for bit in 0..8 {
                let mut other = token.clone();
                other[place] ^= 1 << bit;
                let is_true = Sealed::read(&other).is_some_and(|sealed| sealed.is_by(KEY, "anna"));
                assert!(!is_true, "{place} {bit}");
            }
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_token() {
        let token = make(KEY, "anna", 1_800_000_000);
        let mac = token.rsplit('.').next().expect("the MAC").to_owned();
        for wrong in [
            String::new(),
            "hw1.".to_owned(),
            "hw1..".to_owned(),
            format!("hw2.1800000000.{mac}"),
            format!("hw1.01800000000.{mac}"),
            format!("hw1.+1800000000.{mac}"),
            format!("hw1. 1800000000.{mac}"),
            format!("hw1.1800000000000.{mac}"),
            format!("hw1.1800000000.{mac}="),
            format!("hw1.1800000000.{mac}A"),
            format!("hw1.1800000000.{}", &mac[1..]),
            format!("hw1.1800000000.{mac}.{mac}"),
            format!("hw1.1800000000.{mac}\n"),
            format!("hw1..{mac}"),
        ] {
            assert_eq!(Sealed::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Sealed::read(&[0xff; 60]), None);
    }
}
