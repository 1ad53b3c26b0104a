//! Who may come in: what was typed, the files it names, and tokens made by hand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::base::identity::{Keys, Proof, Words};
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::args::{CtlTokenArgs, IdentityArgs, IdentityKind, ServeArgs};
use crate::cli::config::{LISTEN_DEFAULT, ServeOptions, within};
use crate::cli::error::CliError;
use crate::cli::hook;
use crate::cli::reload::{Prepared, ReadProof};
use crate::cli::write_stdout;
use crate::control::identity::hook::{HookOptions, Plan};
use crate::control::identity::jwt::{Claims, Jwt};
use crate::control::identity::{Judge, Office};
use crate::control::tokens::lines;
use crate::os::clock::Clock;
use crate::os::file::read_text_at_most;
use crate::os::random;
use crate::wire::token;

/// How clients prove their ids, as meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdentityOptions {
    /// By what.
    pub kind: IdentityKind,
    /// The file with the tokens or keys.
    pub file: Option<PathBuf>,
    /// What a JWT must say.
    pub claims: Claims,
    /// Who is asked, where somebody is.
    pub hook: Option<HookOptions>,
}

impl IdentityOptions {
    /// Checks what was typed. Where everybody has to show a certificate that names it
    /// (`is_certified`), nobody comes in by carelessness, wherever that is.
    pub fn new(args: &ServeArgs, is_certified: bool) -> Result<Self, CliError> {
        let kind = args.identity.identity.unwrap_or_default();
        let file = args.identity.identity_file.clone();
        let IdentityArgs { identity_issuer, identity_audience, .. } = &args.identity;
        let claims =
            Claims { issuer: identity_issuer.clone(), audience: identity_audience.clone() };
        if kind != IdentityKind::Jwt && claims != Claims::default() {
            return Err(CliError::usage(
                "identity-issuer and identity-audience say what a JWT must have; say identity jwt, \
                 or leave them out",
            ));
        }
        let hook = hook::meant(kind, &args.identity.hook, args.handshake_timeout)?;
        let address = args.listen.unwrap_or(LISTEN_DEFAULT);
        if !is_certified && kind.is_careless_at(address) {
            return Err(careless("listen", address));
        }
        match (kind.has_file(), &file) {
            (true, None) => Err(CliError::usage(
                "identity needs identity-file; expected a file with tokens or keys, and no way \
                 for others to read it",
            )),
            (false, Some(_)) if kind == IdentityKind::Hook => Err(CliError::usage(
                "identity-file has tokens or keys, but with identity hook somebody else is asked; \
                 leave the file out; a key to sign with is in identity-secret-file",
            )),
            (false, Some(_)) => Err(CliError::usage(
                "identity-file says who may come in, but identity lets in everybody; say identity \
                 tokens or identity hmac, or leave the file out",
            )),
            (true, Some(_)) | (false, None) => Ok(Self { kind, file, claims, hook }),
        }
    }
}

fn careless(what: &str, address: SocketAddr) -> CliError {
    CliError::usage(format!(
        "{what} {address} can be reached from elsewhere, where anybody could come in under any \
         client id; say how clients prove theirs with identity tokens or identity hmac, or \
         identity anybody if that is meant"
    ))
}

/// Who may come in, as one reading of what the options name says it.
#[derive(Debug)]
pub struct Reading {
    /// What the loops ask for.
    pub proof: Proof,
    /// Who looks at what they do not look at themselves.
    pub judge: Arc<Judge>,
}

/// Reads what the options name, once. `address` is where clients come in, which may be a socket
/// that was passed.
///
/// Where everybody has to show a certificate and nothing else was asked for, that is the proof. Who
/// is still in the door when that begins has shown none, and is not let in.
pub fn read(options: &ServeOptions, address: Option<SocketAddr>) -> Result<Reading, CliError> {
    let IdentityOptions { kind, file, claims, hook } = &options.identity;
    let by_loops = |proof| Reading { proof, judge: Arc::default() };
    // Whether names count is as it was at the start.
    let is_named = options.gateway.certified_ids;
    if *kind == IdentityKind::None && is_named && options.edge.certifies_everybody() {
        return Ok(by_loops(Proof::Certificate));
    }
    if let Some(address) = address.filter(|address| kind.is_careless_at(*address)) {
        return Err(careless("the listening socket", address));
    }
    let file = file.as_deref().unwrap_or(Path::new(""));
    match kind {
        IdentityKind::None | IdentityKind::Anybody => Ok(by_loops(Proof::None)),
        IdentityKind::Tokens => {
            let words = words_of(&text_of(file)?).map_err(|why| unfit(file, &why))?;
            Ok(by_loops(Proof::Words(Arc::new(words))))
        }
        IdentityKind::Hmac => Ok(by_loops(Proof::Keys(Arc::new(read_keys(file)?)))),
        IdentityKind::Jwt => {
            let text = text_of(file)?;
            let jwt = Jwt::new(&text, claims).map_err(|error| unfit(file, &error.to_string()))?;
            let mut hash = Sha256::new();
            hash.update(format!("{claims:?}"));
            hash.update(text);
            let proof = Proof::Asked(hash.finalize().into());
            Ok(Reading { proof, judge: Arc::new(Judge::Jwt(jwt)) })
        }
        IdentityKind::Hook => {
            let plan = hook.as_ref().map(Plan::new).transpose();
            let plan = plan.map_err(|error| CliError::machine(error.to_string()))?;
            let plan = plan.expect("there are options for it, or there is no such kind");
            let proof = Proof::Asked(plan.origin());
            Ok(Reading { proof, judge: Arc::new(Judge::Hook(Arc::new(plan))) })
        }
    }
}

/// Reads it again, and makes ready for what it says.
pub fn reads_again(address: SocketAddr, office: Office) -> ReadProof {
    Box::new(move |options| {
        let Reading { proof, judge } = read(options, Some(address))?;
        open(&office, &judge)?;
        let office = office.clone();
        let commit = Box::new(move || office.appoint(&judge));
        Ok((proof, Prepared { changes: Vec::new(), commit }))
    })
}

/// Somebody is there who looks at tokens, if `judge` does.
pub fn open(office: &Office, judge: &Arc<Judge>) -> Result<(), CliError> {
    let opened = office.open_for(judge);
    opened.map_err(|cause| CliError::machine(format!("cannot start a thread: {cause}")))
}

/// The keys in a file, the one that signs first.
pub fn read_keys(file: &Path) -> Result<Keys, CliError> {
    keys_of(&text_of(file)?).map_err(|why| unfit(file, &why))
}

fn text_of(path: &Path) -> Result<String, CliError> {
    let unreadable = |cause: std::io::Error| {
        CliError::machine(format!("identity-file: cannot read {}: {cause}", path.display()))
    };
    let most = limits::IDENTITY_FILE_BYTES_MAX;
    let text = read_text_at_most(path, most).map_err(unreadable)?;
    text.ok_or_else(|| unfit(path, &format!("it has more than {most} bytes")))
}

/// No word of what is in the file.
fn unfit(path: &Path, why: &str) -> CliError {
    CliError::machine(format!("identity-file: {}: {why}", path.display()))
}

fn is_secret(word: &str) -> bool {
    let bounds = limits::IDENTITY_SECRET_BYTES_MIN..=limits::IDENTITY_SECRET_BYTES_MAX;
    bounds.contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a token or key looks like.
fn secret_form() -> String {
    let (min, max) = (limits::IDENTITY_SECRET_BYTES_MIN, limits::IDENTITY_SECRET_BYTES_MAX);
    format!("{min} to {max} visible ASCII characters, as from openssl rand -hex 32")
}

fn words_of(text: &str) -> Result<Words, String> {
    let mut words = Words::new(random::bytes(), Sha256::digest(text).into());
    for (number, line) in lines(text) {
        // A client id may have blanks in it, a token has none.
        let (client, word) = match line.rsplit_once([' ', '\t']) {
            Some((client, word)) => (Some(client.trim_end()), word),
            None => (None, line),
        };
        if !is_secret(word) {
            return Err(format!("line {number} has no token; expected {}", secret_form()));
        }
        let is_first = match client {
            Some(client) if ClientId::new(client).is_err() => {
                return Err(format!("line {number} begins with what is no client id"));
            }
            Some(client) => words.add(client, word.as_bytes()),
            None => words.add_for_others(word.as_bytes()),
        };
        if !is_first {
            return Err(format!("line {number} gives a second token; expected one for each"));
        }
        if words.len() > limits::IDENTITY_CLIENTS_MAX {
            let most = limits::IDENTITY_CLIENTS_MAX;
            return Err(format!("it has tokens of more than {most} clients; use hmac instead"));
        }
    }
    match words.is_empty() {
        true => Err("it has no token; expected CLIENT TOKEN in each line, or one TOKEN".into()),
        false => Ok(words),
    }
}

fn keys_of(text: &str) -> Result<Keys, String> {
    let mut keys: Vec<Box<[u8]>> = Vec::new();
    for (number, line) in lines(text) {
        if !is_secret(line) {
            return Err(format!("line {number} is no key; expected {}", secret_form()));
        }
        keys.push(line.as_bytes().into());
    }
    let most = limits::IDENTITY_KEYS_MAX;
    if !(1..=most).contains(&keys.len()) {
        return Err(format!("it has {} keys; expected 1 to {most}, one in each line", keys.len()));
    }
    Ok(Keys::new(keys, Sha256::digest(text).into()))
}

/// Runs `ctl token`: the token goes to standard output.
pub fn make(args: &CtlTokenArgs) -> Result<(), CliError> {
    let client = ClientId::new(&args.client).map_err(|error| CliError::usage(error.to_string()))?;
    let life = within("for", args.lifetime, Span::from_secs(1), limits::IDENTITY_TOKEN_LIFE_MAX)?;
    let token = make_token(&args.key, client.as_str(), life)?;
    write_stdout(format!("{token}\n").as_bytes())
}

fn make_token(key: &Path, client: &str, life: Span) -> Result<String, CliError> {
    let keys = read_keys(key)?;
    let key = keys.all().next().expect("there is at least one");
    Ok(token::make(key, client, expiry(life)))
}

/// When a token that holds for so long expires, in seconds since 1970.
pub fn expiry(life: Span) -> u64 {
    let clock = Clock::new();
    let now = clock.wall().unix_millis(clock.now());
    now.saturating_add(life.as_millis()).div_ceil(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "0123456789abcdef";

    #[test]
    fn a_file_has_a_token_for_each_client_or_one_for_all() {
        let text = format!("# ours\nanna {WORD}1\n\n two words\t{WORD}2 \n{WORD}3\n");
        let words = words_of(&text).expect("all is well");
        assert!(words.is_of("anna", format!("{WORD}1").as_bytes()));
        assert!(words.is_of("two words", format!("{WORD}2").as_bytes()));
        assert!(words.is_of("else", format!("{WORD}3").as_bytes()));
        assert!(!words.is_of("anna", format!("{WORD}3").as_bytes()));
        for (text, why) in [
            (String::new(), "it has no token"),
            ("# nothing\n".to_owned(), "it has no token"),
            ("anna short".to_owned(), "line 1 has no token"),
            (format!("anna {WORD}\nanna {WORD}"), "line 2 gives a second token"),
            (format!("{WORD}\n{WORD}"), "line 2 gives a second token"),
            (format!("a\u{7}b {WORD}"), "line 1 begins with what is no client id"),
        ] {
            let wrong = words_of(&text).err().expect(&text);
            assert!(wrong.starts_with(why), "{wrong}");
            assert!(!wrong.contains(WORD) && !wrong.contains("short"), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_a_few_keys() {
        assert_eq!(keys_of(&format!("{WORD}a\n{WORD}b\n")).expect("two").all().count(), 2);
        for text in ["", "short", &format!("{WORD}\n").repeat(limits::IDENTITY_KEYS_MAX + 1)] {
            assert!(keys_of(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_reached_from_elsewhere_is_not_open_by_carelessness() {
        let meant = |kind, file: Option<&str>, listen: &str| {
            let mut args = ServeArgs { listen: listen.parse().ok(), ..ServeArgs::default() };
            args.identity.identity = kind;
            args.identity.identity_file = file.map(PathBuf::from);
            IdentityOptions::new(&args, false).map_err(|error| error.line())
        };
        let (here, there) = ("127.0.0.1:1", "0.0.0.0:1");
        assert!(meant(None, None, here).is_ok());
        assert!(meant(Some(IdentityKind::Anybody), None, there).is_ok());
        assert!(meant(Some(IdentityKind::Hmac), Some("keys"), there).is_ok());
        for (kind, file, listen, why) in [
            (None, None, there, "identity anybody if that is meant"),
            (Some(IdentityKind::None), None, "[::]:1", "can be reached from elsewhere"),
            (Some(IdentityKind::Tokens), None, here, "needs identity-file"),
            (None, Some("keys"), here, "leave the file out"),
        ] {
            let line = meant(kind, file, listen).expect_err(why);
            assert!(line.contains(why), "{line}");
        }
    }
}
