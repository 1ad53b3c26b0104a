//! The admin API of `serve`: where it listens, and who may use it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::limits;
use crate::cli::args::ServeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::reload::{Prepared, Reloader, Taker};
use crate::control::api::{Api, JournalView, Told};
use crate::control::auth::{self, Token};
use crate::control::http::{self, Bound, HttpThread};
use crate::control::ledger::Ledger;
use crate::control::live::Live;
use crate::control::reload::Change;
use crate::control::webhook::{Sources, Webhooks};
use crate::os::random;

/// Where the admin API is, unless told otherwise: this machine only.
pub const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7_071);

/// Where the admin API is to be, as typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdminArg {
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// Where the admin API is to be, and who may use it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminOptions {
    /// Where; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// Whether somebody asked for this address. If nobody did, a gateway goes without rather than
    /// not at all.
    pub asked: bool,
    /// File of the token.
    pub token_file: Option<PathBuf>,
}

impl AdminOptions {
    /// No admin API.
    pub const fn nowhere() -> Self {
        Self { address: None, asked: false, token_file: None }
    }

    /// Checks what was typed.
    pub fn new(args: &ServeArgs) -> Result<Self, CliError> {
        let token_file = args.admin_token_file.clone();
        let address = match args.admin {
            None => Some(ADMIN_DEFAULT),
            Some(AdminArg::At(address)) => Some(address),
            Some(AdminArg::Off) if token_file.is_some() => {
                return Err(CliError::usage(
                    "admin-token-file says who may use the admin API, but admin is off; leave one \
                     of them out",
                ));
            }
            Some(AdminArg::Off) => None,
        };
        if let Some(address) = address.filter(|address| !address.ip().is_loopback())
            && token_file.is_none()
        {
            return Err(CliError::usage(format!(
                "admin {address} can be reached from elsewhere and needs admin-token-file; \
                 expected a file with a token, or an address such as {ADMIN_DEFAULT}"
            )));
        }
        Ok(Self { address, asked: args.admin.is_some(), token_file })
    }
}

/// The admin API before there is a loop.
pub struct Admin {
    bound: Bound,
    token: Live<Option<Token>>,
}

/// Binds the socket and reads the token. `None`: there is no admin API.
///
/// A socket that was `inherited` takes the place of the address.
pub fn bind(
    options: &AdminOptions,
    inherited: Option<TcpListener>,
) -> Result<Option<Admin>, CliError> {
    let Some(address) = options.address else {
        return match inherited {
            None => Ok(None),
            Some(_) => Err(CliError::usage(
                "a socket was passed for the admin API, but admin is off; leave one of them out",
            )),
        };
    };
    let token = token_in(options.token_file.as_deref())?;
    if let Some(socket) = inherited {
        return inherit(socket, token).map(Some);
    }
    let token = Live::new(token);
    match Bound::new(address) {
        Ok(bound) => Ok(Some(Admin { bound, token })),
        Err(cause) if options.asked => Err(CliError::machine(format!(
            "cannot serve the admin API on {address}: {cause}; choose another address with admin, \
             port 0 for any, or off"
        ))),
        Err(cause) => {
            tracing::warn!(%address, %cause, "no admin API; give it another place with --admin");
            Ok(None)
        }
    }
}

fn token_in(file: Option<&Path>) -> Result<Option<Token>, CliError> {
    let secret = file.map(auth::read_token).transpose();
    let secret = secret.map_err(|error| CliError::machine(error.to_string()))?;
    Ok(secret.map(|secret| Token::new(&secret, random::hash_key())))
}

/// Takes up another token: the file is read again, whether or not it is another file.
pub struct TokenTaker {
    token: Live<Option<Token>>,
    /// Where the API listens, which may be a socket that was passed.
    address: SocketAddr,
}

impl Taker for TokenTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let file = wanted.admin.token_file.as_deref();
        let secret = file.map(auth::read_token).transpose();
        let secret =
            secret.map_err(|error| CliError::machine(format!("admin-token-file: {error}")))?;
        let address = self.address;
        if secret.is_none() && !address.ip().is_loopback() {
            return Err(CliError::usage(format!(
                "admin-token-file: the admin API on {address} can be reached from elsewhere and \
                 needs one; expected a file with a token"
            )));
        }
        let before = self.token.get();
        let is_same = match (before.as_ref(), &secret) {
            (Some(before), Some(secret)) => before.is(secret.as_bytes()),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let text = |token: bool| token.then(|| "a token".to_owned());
        let changes = match is_same {
            true => Vec::new(),
            false => vec![Change {
                key: "admin-token-file (content)".to_owned(),
                old: text(before.is_some()),
                new: secret.as_ref().map(|_| "another token".to_owned()),
            }],
        };
        let live = self.token.clone();
        let commit = move || {
            if !is_same {
                live.set(secret.map(|secret| Token::new(&secret, random::hash_key())));
            }
        };
        Ok(Prepared { changes, commit: Box::new(commit) })
    }
}

/// Whoever can be reached from elsewhere asks for a token, however it came by its socket.
fn inherit(socket: TcpListener, token: Option<Token>) -> Result<Admin, CliError> {
    let bound = Bound::inherited(socket).map_err(|cause| {
        CliError::machine(format!("cannot use the socket passed for the admin API: {cause}"))
    })?;
    let address = bound.address();
    if !address.ip().is_loopback() && token.is_none() {
        return Err(CliError::usage(format!(
            "the socket passed for the admin API, {address}, can be reached from elsewhere and \
             needs admin-token-file; expected a file with a token, or an address such as \
             {ADMIN_DEFAULT}"
        )));
    }
    Ok(Admin { bound, token: Live::new(token) })
}

impl Admin {
    /// Takes up another token at run time.
    pub fn taker(&self) -> TokenTaker {
        TokenTaker { token: self.token.clone(), address: self.address() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Starts to serve what the webhooks tell others.
    pub fn serve(
        self,
        webhooks: Webhooks,
        reloader: &Arc<Reloader>,
        journal: Option<JournalView>,
    ) -> Result<HttpThread, CliError> {
        let Self { bound, token, .. } = self;
        let (gateway, reloads) = (reloader.gateway(), reloader.counts());
        let reloader = Arc::clone(reloader);
        let told = Told { gateway, token, reload: Arc::new(move || reloader.reload()), reloads };
        let Sources { ledger: Ledger { door, identity, .. }, hub } = webhooks.sources().clone();
        let api = Api::new(door, hub, identity, told, journal).with_webhooks(webhooks);
        http::spawn(bound, api)
            .map_err(|cause| CliError::machine(format!("cannot serve the admin API: {cause}")))
    }
}

/// Waits until those who follow have heard the end.
pub fn finish(thread: Option<HttpThread>) {
    if let Some(thread) = thread {
        thread.finish(limits::HTTP_END_PATIENCE.times(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(admin: Option<&str>, token_file: Option<&str>) -> Result<AdminOptions, String> {
        let at = |text: &str| match text {
            "off" => AdminArg::Off,
            text => AdminArg::At(text.parse().expect("an address")),
        };
        let args = ServeArgs {
            admin: admin.map(at),
            admin_token_file: token_file.map(PathBuf::from),
            ..ServeArgs::default()
        };
        AdminOptions::new(&args).map_err(|error| error.line())
    }

    #[test]
    fn it_is_on_this_machine_unless_told_otherwise() {
        let default = options(None, None).expect("fine");
        assert_eq!((default.address, default.asked), (Some(ADMIN_DEFAULT), false));
        assert_eq!(options(Some("off"), None).expect("fine").address, None);
        assert!(options(Some("[::1]:0"), None).expect("fine").asked);
    }

    #[test]
    fn a_passed_socket_that_is_elsewhere_keeps_its_token() {
        let live = Live::new(Some(Token::new(&"x".repeat(32), [0, 0])));
        let mut wanted = ServeOptions::new(&ServeArgs::default()).expect("fine");
        wanted.admin.token_file = None;
        let prepare = |address: &str| {
            let address = address.parse().expect("an address");
            TokenTaker { token: live.clone(), address }.prepare(&wanted).map(|ready| ready.changes)
        };
        assert_eq!(prepare("127.0.0.1:1").expect("nobody else can").len(), 1);
        let line = prepare("10.0.0.1:1").expect_err("anybody could drain us").line();
        assert!(line.contains("can be reached from elsewhere"), "{line}");
    }

    #[test]
    fn elsewhere_it_needs_a_token() {
        for address in ["0.0.0.0:7071", "10.0.0.1:7071", "[::]:7071"] {
            let line = options(Some(address), None).expect_err("anybody could drain us");
            assert!(line.contains("needs admin-token-file"), "{line}");
            assert!(options(Some(address), Some("/some/file")).is_ok());
        }
        assert!(options(Some("off"), Some("/some/file")).is_err());
    }
}
