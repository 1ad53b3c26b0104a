//! Tokens that are made with a key: any bytes are read or refused, and what is read is what was
//! written.

use heartwheel::wire::token::{Sealed, make};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// What is read can be written in one way only, and counts only where it was made with the key.
pub(crate) fn any_bytes_are_a_token_or_none(bytes: &[u8]) {
    let Some(sealed) = Sealed::read(bytes) else { return };
    let right = make(KEY, "anna", sealed.expires_unix_s);
    assert_eq!(sealed.is_by(KEY, "anna"), bytes == right.as_bytes());
    assert_eq!(right.len(), bytes.len(), "there is one form");
    assert!(!sealed.is_by(KEY, "bert") || !sealed.is_by(KEY, "anna"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_of_the_fuzzer_hold() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/token");
        for file in std::fs::read_dir(corpus).expect("the seeds are there") {
            let seed = std::fs::read(file.expect("a file").path()).expect("a file");
            any_bytes_are_a_token_or_none(&seed);
        }
    }

    /// Made by another program from what the manual says.
    #[test]
    fn the_form_is_the_one_in_the_manual() {
        let token = "hw1.1800000000.-mw4EctRM5X13-gHgT3m545A-3PA9yNksa3I8ot-tng";
        assert_eq!(make(KEY, "anna", 1_800_000_000), token);
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_none(text in "(hw1\\.)?[0-9]{0,14}\\.?[A-Za-z0-9_=-]{0,50}") {
            any_bytes_are_a_token_or_none(text.as_bytes());
        }

        #[test]
        fn every_token_is_read_as_it_was_made(
            client in "[a-z]{1,20}",
            expires in 1_u64..1_000_000_000_000,
            place in any::<prop::sample::Index>(),
            other in any::<u8>(),
        ) {
            let token = make(KEY, &client, expires).into_bytes();
            let sealed = Sealed::read(&token).expect("it was made here");
            prop_assert_eq!(sealed.expires_unix_s, expires);
            prop_assert!(sealed.is_by(KEY, &client));
            let mut changed = token.clone();
            changed[place.index(token.len())] = other;
            let is_true = Sealed::read(&changed).is_some_and(|it| it.is_by(KEY, &client));
            prop_assert_eq!(is_true, changed == token);
            any_bytes_are_a_token_or_none(&changed);
        }
    }
}
