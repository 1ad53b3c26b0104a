//! Resume tokens: proof that a client is the one whose session it wants back.
//!
//! A token is the session's epoch and a keyed hash (SipHash-1-3, 128 bits, with a secret key of
//! this boot) of epoch and client id. Nothing is stored for it: whoever shows it is believed when
//! the hash comes out the same.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::base::limits;

/// Length of a token in bytes.
pub(crate) const TOKEN_BYTES: usize = 8 + 16;

const _: () = assert!(TOKEN_BYTES <= limits::RESUME_TOKEN_BYTES_MAX);

/// The token of a client's session.
pub(crate) fn token(key: [u64; 2], client: &str, epoch: u64) -> [u8; TOKEN_BYTES] {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    hasher.write(&epoch.to_be_bytes());
    hasher.write(client.as_bytes());
    let mut token = [0; TOKEN_BYTES];
    token[..8].copy_from_slice(&epoch.to_be_bytes());
    token[8..].copy_from_slice(&hasher.finish128().as_bytes());
    token
}

/// Whether `shown` is the token of this session. Takes as long for a wrong one as for the right
/// one.
pub(crate) fn is_token_of(key: [u64; 2], client: &str, epoch: u64, shown: &[u8]) -> bool {
    let right = token(key, client, epoch);
    if shown.len() != right.len() {
        return false;
    }
    let difference = right.iter().zip(shown).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_session_only() {
        let key = [7, 8];
        let right = token(key, "anna", 3);
        assert!(is_token_of(key, "anna", 3, &right));
        assert!(!is_token_of(key, "anna", 4, &right), "another session");
        assert!(!is_token_of(key, "bert", 3, &right), "another client");
        assert!(!is_token_of([7, 9], "anna", 3, &right), "another boot");
        assert!(!is_token_of(key, "anna", 3, &right[1..]), "a part");
        assert!(!is_token_of(key, "anna", 3, &[]), "nothing");
        for index in 0..TOKEN_BYTES {
            let mut wrong = right;
            wrong[index] ^= 1;
            assert!(!is_token_of(key, "anna", 3, &wrong), "byte {index}");
        }
    }
}
