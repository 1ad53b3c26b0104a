//! Numbers that a stranger cannot guess.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes` from the kernel's generator.
///
/// # Panics
/// When the kernel refuses, which it does only for a system call filter that forbids `getrandom`:
/// then no key would be secret, and nothing may start.
pub fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
}

/// So many random bytes. Panics as [`fill`] does.
pub fn bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    fill(&mut bytes);
    bytes
}

/// A random number. Panics as [`fill`] does.
pub fn u64() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// A key for a keyed hash. Panics as [`fill`] does.
pub fn hash_key() -> [u64; 2] {
    [self::u64(), self::u64()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        assert_ne!(u64(), u64());
        assert_ne!(hash_key(), hash_key());
        assert_ne!(bytes::<300>()[256..], [0; 44]);
    }
}
