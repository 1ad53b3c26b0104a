//! The admin API of `serve`: where it listens, and who may use it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::limits;
use crate::base::origin::Origin;
use crate::cli::args::ServeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::reload::{Prepared, Reloader, Taker};
use crate::control::api::{Api, JournalView, Told};
use crate::control::auth::Guard;
use crate::control::http::{self, Bound, HttpThread};
use crate::control::identity::counts::HookCounts;
use crate::control::ledger::Ledger;
use crate::control::live::Live;
use crate::control::reload::Change;
use crate::control::tls::{Tls, TlsError, TlsFiles};
use crate::control::tokens::{self, Secrets, Tokens};
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
    /// File of the tokens.
    pub token_file: Option<PathBuf>,
    /// Certificate and key; `None`: in the clear.
    pub tls: Option<TlsFiles>,
    /// Where pages may come from that are not served here.
    pub origins: Vec<Origin>,
}

impl AdminOptions {
    /// No admin API.
    pub const fn nowhere() -> Self {
        Self { address: None, asked: false, token_file: None, tls: None, origins: Vec::new() }
    }

    /// Checks what was typed.
    pub fn new(args: &ServeArgs) -> Result<Self, CliError> {
        let token_file = args.admin_token_file.clone();
        let (tls, origins) = (args.admin_door.tls()?, args.admin_door.origins()?);
        let needless = [
            ("admin-token-file", token_file.is_some()),
            ("admin-tls-cert", tls.is_some()),
            ("admin-cors", !origins.is_empty()),
        ];
        let address = match args.admin {
            None => Some(ADMIN_DEFAULT),
            Some(AdminArg::At(address)) => Some(address),
            Some(AdminArg::Off) => {
                if let Some((key, _)) = needless.into_iter().find(|(_, is_there)| *is_there) {
                    return Err(CliError::usage(format!(
                        "{key} says who may use the admin API and how, but admin is off; leave \
                         one of them out"
                    )));
                }
                None
            }
        };
        if let Some(address) = address.filter(|address| !address.ip().is_loopback())
            && token_file.is_none()
        {
            return Err(CliError::usage(format!(
                "admin {address} can be reached from elsewhere and needs admin-token-file; \
                 expected a file with a token, or an address such as {ADMIN_DEFAULT}"
            )));
        }
        Ok(Self { address, asked: args.admin.is_some(), token_file, tls, origins })
    }

    /// What is worth a warning where the API listens at `address`.
    pub fn warning(&self, address: SocketAddr) -> Option<String> {
        let is_open = !address.ip().is_loopback() && self.tls.is_none();
        is_open.then(|| {
            format!(
                "the admin API on {address} can be reached from elsewhere without TLS: tokens can \
                 be overheard; give it admin-tls-cert and admin-tls-key, or put it behind \
                 something that has TLS"
            )
        })
    }
}

/// The admin API before there is a loop.
pub struct Admin {
    bound: Bound,
    guard: Live<Guard>,
    tls: Live<Option<Tls>>,
}

/// Binds the socket, and reads tokens and certificate. `None`: there is no admin API.
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
    let read = read(options)?;
    let bound = match inherited {
        Some(socket) => inherit(socket, &read)?,
        None => match Bound::new(address) {
            Ok(bound) => bound,
            Err(cause) if options.asked => {
                return Err(CliError::machine(format!(
                    "cannot serve the admin API on {address}: {cause}; choose another address \
                     with admin, port 0 for any, or off"
                )));
            }
            Err(cause) => {
                let line = "no admin API; give it another place with --admin";
                tracing::warn!(%address, %cause, "{line}");
                return Ok(None);
            }
        },
    };
    if let Some(line) = options.warning(bound.address()) {
        tracing::warn!("{line}");
    }
    let Read { secrets, tls } = read;
    let guard = Live::new(guard_of(secrets.as_ref(), &options.origins));
    Ok(Some(Admin { bound, guard, tls: Live::new(tls) }))
}

/// What the files say.
struct Read {
    secrets: Option<Secrets>,
    tls: Option<Tls>,
}

fn read(options: &AdminOptions) -> Result<Read, CliError> {
    let secrets = options.token_file.as_deref().map(tokens::read_tokens).transpose();
    let secrets =
        secrets.map_err(|error| CliError::machine(format!("admin-token-file: {error}")))?;
    let tls = options.tls.as_ref().map(Tls::read).transpose().map_err(|error| {
        let key = match error {
            TlsError::NoKey { .. } => "admin-tls-key",
            TlsError::Unreadable { ref path, .. }
                if options.tls.as_ref().is_some_and(|files| files.key == *path) =>
            {
                "admin-tls-key"
            }
            TlsError::Unreadable { .. }
            | TlsError::NoCertificate { .. }
            | TlsError::Unfit { .. } => "admin-tls-cert",
        };
        CliError::machine(format!("{key}: {error}"))
    })?;
    Ok(Read { secrets, tls })
}

/// What is wrong with the files that are named, for whoever only looks.
pub fn check_files(options: &AdminOptions) -> Result<(), CliError> {
    read(options).map(drop)
}

fn guard_of(secrets: Option<&Secrets>, origins: &[Origin]) -> Guard {
    let tokens = secrets.map(|secrets| Tokens::new(secrets, random::hash_key()));
    Guard { tokens, origins: origins.to_vec() }
}

/// Takes up other tokens, origins and certificates: files are read again, whether or not they are
/// other files. Whoever is connected goes on with what it has; its next request needs what counts
/// then.
pub struct AdminTaker {
    guard: Live<Guard>,
    tls: Live<Option<Tls>>,
    /// Where the API listens, which may be a socket that was passed.
    address: SocketAddr,
}

impl Taker for AdminTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let Read { secrets, tls } = read(&wanted.admin)?;
        let address = self.address;
        if secrets.is_none() && !address.ip().is_loopback() {
            return Err(CliError::usage(format!(
                "admin-token-file: the admin API on {address} can be reached from elsewhere and \
                 needs one; expected a file with a token"
            )));
        }
        let (before, tls_before) = (self.guard.get(), self.tls.get());
        let mut changes = Vec::new();
        let are_same = match (&before.tokens, &secrets) {
            (Some(before), Some(secrets)) => before.are(secrets),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !are_same {
            changes.push(Change {
                key: "admin-token-file (content)".to_owned(),
                old: before.tokens.as_ref().map(|tokens| format!("tokens: {}", tokens.summary())),
                new: secrets.as_ref().map(|others| format!("others: {}", others.summary())),
            });
        }
        if *tls_before != tls {
            changes.push(Change {
                key: "admin-tls-cert (content)".to_owned(),
                old: tls_before.as_ref().as_ref().map(|_| "a certificate".to_owned()),
                new: tls.as_ref().map(|_| "another certificate".to_owned()),
            });
        }
        let warning = wanted.admin.warning(address).filter(|_| tls_before.is_some());
        let is_same_tls = *tls_before == tls;
        let (guard, live_tls) = (self.guard.clone(), self.tls.clone());
        let origins = wanted.admin.origins.clone();
        let commit = move || {
            let tokens = match are_same {
                true => before.tokens.clone(),
                false => guard_of(secrets.as_ref(), &[]).tokens,
            };
            guard.set(Guard { tokens, origins });
            // Sessions that can be resumed are kept where nothing changed.
            if !is_same_tls {
                live_tls.set(tls);
            }
            if let Some(line) = warning {
                tracing::warn!("{line}");
            }
        };
        Ok(Prepared { changes, commit: Box::new(commit) })
    }
}

/// Whoever can be reached from elsewhere asks for a token, however it came by its socket.
fn inherit(socket: TcpListener, read: &Read) -> Result<Bound, CliError> {
    let bound = Bound::inherited(socket).map_err(|cause| {
        CliError::machine(format!("cannot use the socket passed for the admin API: {cause}"))
    })?;
    let address = bound.address();
    if !address.ip().is_loopback() && read.secrets.is_none() {
        return Err(CliError::usage(format!(
            "the socket passed for the admin API, {address}, can be reached from elsewhere and \
             needs admin-token-file; expected a file with a token, or an address such as \
             {ADMIN_DEFAULT}"
        )));
    }
    Ok(bound)
}

impl Admin {
    /// Takes up other tokens and certificates at run time.
    pub fn taker(&self) -> AdminTaker {
        AdminTaker { guard: self.guard.clone(), tls: self.tls.clone(), address: self.address() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Starts to serve what the webhooks tell others.
    pub fn serve(
        self,
        webhooks: Webhooks,
        hook: Arc<HookCounts>,
        reloader: &Arc<Reloader>,
        journal: Option<JournalView>,
    ) -> Result<HttpThread, CliError> {
        let Self { bound, guard, tls } = self;
        let (gateway, reloads) = (reloader.gateway(), reloader.counts());
        let reloader = Arc::clone(reloader);
        let told = Told { gateway, guard, reload: Arc::new(move || reloader.reload()), reloads };
        let Sources { ledger: Ledger { door, identity, .. }, hub } = webhooks.sources().clone();
        let api = Api::new(door, hub, identity, told, journal);
        let api = api.with_webhooks(webhooks).with_hook(hook);
        http::spawn(bound, tls, api)
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
        let folder = tempfile::tempdir().expect("there is room for a file");
        let path = folder.path().join("token");
        std::fs::write(&path, "x".repeat(32)).expect("there is room");
        let secrets = tokens::read_tokens(&path).expect("fine");
        let live = Live::new(guard_of(Some(&secrets), &[]));
        let mut wanted = ServeOptions::new(&ServeArgs::default()).expect("fine");
        wanted.admin.token_file = None;
        let prepare = |address: &str| {
            let address = address.parse().expect("an address");
            let mut taker = AdminTaker { guard: live.clone(), tls: Live::new(None), address };
            taker.prepare(&wanted).map(|ready| ready.changes)
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

    #[test]
    fn elsewhere_without_tls_is_worth_a_warning() {
        let here = options(None, None).expect("fine");
        let elsewhere = "10.0.0.1:7071".parse().expect("an address");
        assert_eq!(here.warning(ADMIN_DEFAULT), None);
        let line = here.warning(elsewhere).expect("tokens in the clear");
        assert!(line.contains("admin-tls-cert"), "{line}");
        let files = TlsFiles { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(AdminOptions { tls: Some(files), ..here }.warning(elsewhere), None);
    }
}
