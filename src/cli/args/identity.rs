//! The flags that say who may come in.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::base::time::Span;
use crate::cli::args::hook::HookArgs;
use crate::cli::values::{choice, parse_span};

/// How clients prove their ids, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct IdentityArgs {
    /// How clients prove their ids: none, which only an address of this machine may do; anybody,
    /// the same on purpose everywhere; tokens, from a file; hmac, made with a key; jwt; hook,
    /// which asks somebody else (default: none)
    #[arg(long, value_name = "HOW", value_parser = choice(&IDENTITIES),
        help_heading = "Identity")]
    pub identity: Option<IdentityKind>,
    /// File for it: a client id and its token in each line, or one token for all; or the keys, one
    /// in each line; or a JWKS (default: none)
    #[arg(long, value_name = "FILE", help_heading = "Identity")]
    pub identity_file: Option<PathBuf>,
    /// What a JWT must say in iss (default: anything)
    #[arg(long, value_name = "TEXT", help_heading = "Identity")]
    pub identity_issuer: Option<String>,
    /// What a JWT must have in aud (default: anything)
    #[arg(long, value_name = "TEXT", help_heading = "Identity")]
    pub identity_audience: Option<String>,
    /// Who is asked.
    #[command(flatten)]
    pub hook: HookArgs,
}

/// How clients prove their ids.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityKind {
    /// Not at all, which is for this machine only.
    #[default]
    None,
    /// Not at all, and that is meant.
    Anybody,
    /// By a token from a file.
    Tokens,
    /// By a token that was made with a key.
    Hmac,
    /// By a JSON web token.
    Jwt,
    /// By whatever somebody else says who is asked.
    Hook,
}

/// The kinds, as words.
pub(crate) static IDENTITIES: [(&str, IdentityKind); 6] = [
    ("none", IdentityKind::None),
    ("anybody", IdentityKind::Anybody),
    ("tokens", IdentityKind::Tokens),
    ("hmac", IdentityKind::Hmac),
    ("jwt", IdentityKind::Jwt),
    ("hook", IdentityKind::Hook),
];

impl IdentityKind {
    /// Whether it needs a file.
    pub const fn has_file(self) -> bool {
        match self {
            Self::None | Self::Anybody | Self::Hook => false,
            Self::Tokens | Self::Hmac | Self::Jwt => true,
        }
    }

    /// Whether clients prove nothing, and nobody said that this is meant.
    pub fn is_careless_at(self, address: SocketAddr) -> bool {
        self == Self::None && !address.ip().is_loopback()
    }
}

/// `ctl token` as typed.
#[derive(Args, Clone, Debug)]
pub struct CtlTokenArgs {
    /// The client id it is for
    pub client: String,
    /// File with the key; with several in it the first one is taken
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// For how long it holds, from now on
    #[arg(long = "for", value_name = "D", value_parser = parse_span, default_value = "24h")]
    pub lifetime: Span,
}
