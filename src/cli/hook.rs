//! Who is asked about tokens: what was typed, as meant.

use crate::base::limits;
use crate::base::time::Span;
use crate::cli::args::{HookArgs, IdentityKind};
use crate::cli::config::within;
use crate::cli::error::CliError;
use crate::control::auth::is_this_machine;
use crate::control::identity::hook::HookOptions;
use crate::control::webhook::target::Scheme;

/// The keys about whoever is asked.
pub const HOOK_KEYS: [&str; 6] = [
    "identity-url",
    "identity-secret-file",
    "identity-ca-file",
    "identity-timeout",
    "identity-cache",
    "identity-cache-age",
];

/// Checks what was typed. `None`: nobody is asked.
pub fn meant(
    kind: IdentityKind,
    args: &HookArgs,
    handshake_timeout: Option<Span>,
) -> Result<Option<HookOptions>, CliError> {
    let refuse = |text: &str| Err(CliError::usage(text));
    if kind != IdentityKind::Hook {
        return match said(args) {
            None => Ok(None),
            Some(key) => Err(CliError::usage(format!(
                "{key} is about whoever is asked, but nobody is; say identity hook, or leave it out"
            ))),
        };
    }
    let Some(url) = args.identity_url.clone() else {
        return refuse(
            "identity hook needs identity-url; expected one such as https://backend.example/may-in",
        );
    };
    if args.identity_ca_file.is_some() && url.scheme == Scheme::Http {
        return refuse(
            "identity-ca-file says who vouches for whoever is asked, but identity-url is http, \
             where nobody does; leave it out, or take https",
        );
    }
    let timeout = args.identity_timeout.unwrap_or(limits::HOOK_TIMEOUT_DEFAULT);
    let (min, max) = (limits::HOOK_TIMEOUT_MIN, limits::HOOK_TIMEOUT_MAX);
    let timeout = within("identity-timeout", timeout, min, max)?;
    let handshake_timeout = handshake_timeout.unwrap_or(limits::HANDSHAKE_TIMEOUT);
    if timeout >= handshake_timeout {
        return Err(CliError::usage(format!(
            "identity-timeout {timeout} is no less than handshake-timeout {handshake_timeout}, \
             which goes on meanwhile; make one shorter or the other longer"
        )));
    }
    let entries = args.identity_cache.unwrap_or(limits::HOOK_CACHE_DEFAULT);
    let age = args.identity_cache_age.unwrap_or(limits::HOOK_CACHE_AGE_DEFAULT);
    Ok(Some(HookOptions {
        url,
        secret_file: args.identity_secret_file.clone(),
        ca_file: args.identity_ca_file.clone(),
        timeout,
        cache_entries: within("identity-cache", entries, 0, limits::HOOK_CACHE_MAX)?,
        cache_age: within("identity-cache-age", age, Span::ZERO, limits::HOOK_CACHE_AGE_MAX)?,
    }))
}

/// The first key about whoever is asked that was typed.
fn said(args: &HookArgs) -> Option<&'static str> {
    let said = [
        args.identity_url.is_some(),
        args.identity_secret_file.is_some(),
        args.identity_ca_file.is_some(),
        args.identity_timeout.is_some(),
        args.identity_cache.is_some(),
        args.identity_cache_age.is_some(),
    ];
    HOOK_KEYS.into_iter().zip(said).find_map(|(key, is_said)| is_said.then_some(key))
}

/// What is worth knowing of whom is asked, and is no mistake.
pub fn warning(options: &HookOptions) -> Option<String> {
    let is_near = is_this_machine(&options.url.host);
    (options.url.scheme == Scheme::Http && !is_near).then(|| {
        format!(
            "{} is asked in the clear, where anybody between reads tokens; take https for \
             identity-url",
            options.url
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::layers;

    fn typed(flags: &[&str]) -> Result<Option<HookOptions>, String> {
        let args = layers::join(&layers::flags_of(flags), |_| None).expect("flags are fine");
        let kind = args.identity.identity.unwrap_or(IdentityKind::Hook);
        meant(kind, &args.identity.hook, args.handshake_timeout).map_err(|error| error.line())
    }

    #[test]
    fn whoever_is_asked_has_a_url_and_an_answer_comes_before_the_deadline() {
        let url = "--identity-url=https://b.example/in?key=secret";
        let options = typed(&[url]).expect("all is well").expect("somebody is asked");
        assert_eq!(options.timeout, limits::HOOK_TIMEOUT_DEFAULT);
        assert_eq!(options.cache_entries, limits::HOOK_CACHE_DEFAULT);
        assert_eq!(options.cache_age, limits::HOOK_CACHE_AGE_DEFAULT);
        assert!(typed(&[url, "--identity-timeout=5s", "--handshake-timeout=6s"]).is_ok());
        for (flags, why) in [
            (&[][..], "needs identity-url"),
            (&["--identity-url=http://b/", "--identity-ca-file=ca.pem"], "take https"),
            (&[url, "--identity-timeout=10s"], "no less than handshake-timeout 10s"),
            (&[url, "--identity-timeout=5s", "--handshake-timeout=5s"], "no less than"),
            (&[url, "--identity-timeout=1ms"], "out of bounds"),
            (&[url, "--identity-cache=99999999"], "out of bounds"),
            (&[url, "--identity-cache-age=25h"], "out of bounds"),
            (&[url, "--identity=jwt"], "say identity hook"),
        ] {
            let line = typed(flags).expect_err(why);
            assert!(line.contains(why) && !line.contains("secret"), "{line}");
        }
    }

    #[test]
    fn tokens_in_the_clear_are_worth_a_warning() {
        for (url, is_worth) in [
            ("http://127.0.0.1:1/", false),
            ("http://[::1]/", false),
            ("http://localhost/", false),
            ("https://b.example/", false),
            ("http://b.example/?a=secret", true),
            ("http://192.0.2.1/", true),
        ] {
            let options = typed(&[&format!("--identity-url={url}")]).expect("fine").expect("one");
            let warning = warning(&options);
            assert_eq!(warning.is_some(), is_worth, "{url}");
            assert!(!warning.unwrap_or_default().contains("secret"), "{url}");
        }
    }
}
