//! SIGHUP and `POST /v1/reload`: the configuration is read again, and what can change does.
//!
//! All or nothing: everything is checked and prepared before anything changes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use clap::ArgMatches;

use crate::base::config::{GatewayConfig, TransportEvents};
use crate::base::identity::Proof;
use crate::base::reconfiguration::Reconfiguration;
use crate::cli::admin::{AdminArg, AdminOptions};
use crate::cli::args::IdentityKind;
use crate::cli::config::{ConnectionsFrom, ServeOptions};
use crate::cli::configuration::{self, Configuration};
use crate::cli::error::CliError;
use crate::cli::keys::{self, KEYS, OnReload};
use crate::cli::layers::{self, KEY_CLASS, KEY_WEBHOOK};
use crate::cli::mistakes::Mistakes;
use crate::cli::webhooks;
use crate::control::live::Live;
use crate::control::reload::{Change, ReloadCounts, Reloaded};
use crate::control::webhook::target::Target;
use crate::gateway::Command;
use crate::os::clock::Clock;
use crate::os::supervisor::Supervisor;
use crate::server::shards::Switchboard;

/// Stands for the two keys behind it, which tell.
const KEY_PRESET: &str = "preset";
const KEY_CONNECTIONS: &str = "max-connections";

/// Somebody beside the loop who takes up another configuration.
pub trait Taker: Send {
    /// Makes ready for what is `wanted` and says what will change, without changing anything yet.
    ///
    /// # Errors
    /// When it cannot be had: then nothing changes anywhere.
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError>;
}

/// What a [`Taker`] will do.
pub struct Prepared {
    /// What changes by it and shows in no key's value.
    pub changes: Vec<Change>,
    /// Does it.
    pub commit: Box<dyn FnOnce() + Send>,
}

/// Reads the tokens or keys that the options name: what the loops ask for, and what whoever looks
/// at tokens beside them will do.
pub type ReadProof = Box<dyn Fn(&ServeOptions) -> Result<(Proof, Prepared), CliError> + Send>;

/// Reads the configuration again, as often as it is asked to.
pub struct Reloader {
    inner: Mutex<Inner>,
    counts: Arc<ReloadCounts>,
    clock: Clock,
}

struct Inner {
    flags: ArgMatches,
    /// What is in effect.
    running: ServeOptions,
    /// Connections that the machine was asked for at the start.
    connections_planned: u32,
    gateway: Live<GatewayConfig>,
    asker: Arc<Mutex<Switchboard>>,
    takers: Vec<Box<dyn Taker>>,
    read_proof: ReadProof,
}

impl Reloader {
    /// What `flags` said at the start is `running`, with as many connections as were planned.
    pub fn new(
        flags: ArgMatches,
        running: ServeOptions,
        gateway: Live<GatewayConfig>,
        asker: Arc<Mutex<Switchboard>>,
        takers: Vec<Box<dyn Taker>>,
        read_proof: ReadProof,
        clock: Clock,
    ) -> Self {
        let connections_planned = running.gateway.connections_max;
        let inner =
            Inner { flags, running, connections_planned, gateway, asker, takers, read_proof };
        let counts = ReloadCounts::new(clock.wall().unix_millis(clock.now()));
        Self { inner: Mutex::new(inner), counts: Arc::new(counts), clock }
    }

    /// How often it was asked to.
    pub fn counts(&self) -> Arc<ReloadCounts> {
        Arc::clone(&self.counts)
    }

    /// What is in force for the loops.
    pub fn gateway(&self) -> Live<GatewayConfig> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).gateway.clone()
    }

    /// Reads the configuration again, and tells the log what became of it.
    pub fn reload(&self) -> Reloaded {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = inner.reload(|name| std::env::var_os(name));
        drop(inner);
        match outcome {
            Ok(reloaded) => {
                self.counts.note_success(self.clock.wall().unix_millis(self.clock.now()));
                log_success(&reloaded);
                reloaded
            }
            Err(wrong) => {
                self.counts.note_failure();
                let errors = wrong.lines();
                for error in &errors {
                    tracing::error!("not reloaded, nothing changed: {error}");
                }
                Reloaded { errors, ..Reloaded::default() }
            }
        }
    }
}

fn log_success(reloaded: &Reloaded) {
    let shown =
        |value: &Option<String>| value.as_deref().unwrap_or("(none)").escape_debug().to_string();
    for Change { key, old, new } in &reloaded.changed {
        tracing::info!(
            "reloaded: {} is {} now, was {}",
            key.escape_debug(),
            shown(new),
            shown(old)
        );
    }
    for Change { key, old, new } in &reloaded.needs_restart {
        tracing::warn!(
            "needs a restart: {} stays {}, the configuration says {}",
            key.escape_debug(),
            shown(old),
            shown(new)
        );
    }
    if reloaded.changed.is_empty() {
        tracing::info!("reloaded: nothing changed");
    }
}

impl Inner {
    fn reload(
        &mut self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Reloaded, Mistakes> {
        if let Some(path) = layers::file_named(&self.flags, &variable) {
            check_regular(&path)?;
        }
        let (configuration, mut wrong) = configuration::read(&self.flags, variable);
        let mut wanted = match wrong.is_empty() {
            true => wrong.keep(self.beside_what_stays(&configuration), self.running.clone()),
            // Good enough to find further mistakes.
            false => configuration.options.clone(),
        };
        // The file is read again, whether or not it is another file.
        let former = self.gateway.get().proof.clone();
        let (mut before, mut prepared) = (Vec::new(), Vec::new());
        match (self.read_proof)(&wanted) {
            Ok((proof, ready)) => {
                wanted.gateway.proof = proof;
                // Loops that begin to ask find somebody there, and who asks already goes on.
                match former {
                    Proof::Asked(_) => prepared.push(ready),
                    Proof::None | Proof::Certificate | Proof::Words(_) | Proof::Keys(_) => {
                        before.push(ready);
                    }
                }
            }
            Err(error) => wrong.add(error),
        }
        for taker in &mut self.takers {
            match taker.prepare(&wanted) {
                Ok(ready) => prepared.push(ready),
                Err(error) => wrong.add(error),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut reloaded = self.compare(&configuration.options, &wanted);
        if wanted.gateway.proof != former
            && !reloaded.changed.iter().any(|change| change.key.starts_with("identity"))
        {
            reloaded.changed.push(proof_change(&wanted, &former));
        }
        before.into_iter().for_each(|ready| (ready.commit)());
        self.tell_loops(&wanted)?;
        for Prepared { changes, commit } in prepared {
            reloaded.changed.extend(changes);
            commit();
        }
        self.running = wanted;
        Ok(reloaded)
    }

    /// What the configuration means while what needs a restart stays as it is.
    fn beside_what_stays(&self, found: &Configuration) -> Result<ServeOptions, Mistakes> {
        let running = &self.running;
        // What can change is checked against these.
        let mut args = found.args.clone();
        args.tick = Some(running.gateway.tick);
        args.max_payload = Some(running.gateway.payload_bytes_max.into());
        args.events = Some(running.events.clone());
        args.transport_events = match running.gateway.transport_events {
            TransportEvents::Told => Some(running.transport_events.clone()),
            TransportEvents::Untold => None,
        };
        if let Some(address) = running.admin.address {
            args.admin = Some(AdminArg::At(address));
        }
        args.listen = Some(running.listener.address);
        let (wanted, wrong) = ServeOptions::meant(&args);
        if !wrong.is_empty() {
            let mut beside = Mistakes::default();
            for line in wrong.lines() {
                beside.add(CliError::usage(format!("beside what needs a restart: {line}")));
            }
            return Err(beside);
        }
        Ok(self.with_what_stays(wanted))
    }

    /// `wanted` with every value that needs a restart as it is.
    fn with_what_stays(&self, wanted: ServeOptions) -> ServeOptions {
        let running = &self.running;
        let connections_max = self.connections(&wanted).unwrap_or(running.gateway.connections_max);
        let gateway = GatewayConfig {
            mode: running.gateway.mode,
            tick: running.gateway.tick,
            payload_bytes_max: running.gateway.payload_bytes_max,
            user_timeout: running.gateway.user_timeout,
            transport_events: running.gateway.transport_events,
            up_bytes_max: running.gateway.up_bytes_max,
            admission: wanted.gateway.admission.with_bits_of(&running.gateway.admission),
            certified_ids: running.gateway.certified_ids,
            connections_max,
            ..wanted.gateway
        };
        let admin = AdminOptions {
            address: running.admin.address,
            asked: running.admin.asked,
            ..wanted.admin
        };
        ServeOptions {
            gateway,
            admin,
            coalesce: wanted.coalesce,
            log_level: wanted.log_level,
            webhooks: wanted.webhooks,
            edge: wanted.edge,
            identity: wanted.identity,
            ..running.clone()
        }
    }

    /// How many connections there may be; `None`: more than the process was started for.
    fn connections(&self, wanted: &ServeOptions) -> Option<u32> {
        let count = wanted.gateway.connections_max;
        match wanted.connections_from {
            ConnectionsFrom::Default => Some(count.min(self.connections_planned)),
            ConnectionsFrom::Asked => {
                Some(count).filter(|count| *count <= self.connections_planned)
            }
        }
    }

    /// What changes, and what was `found` and cannot.
    fn compare(&self, found: &ServeOptions, wanted: &ServeOptions) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let running = &self.running;
        for key in KEYS.iter().filter(|key| key.name != KEY_PRESET) {
            let old = (key.value)(running);
            let change = |new| Change { key: key.name.to_owned(), old: old.clone(), new };
            match key.on_reload {
                OnReload::Applied if key.name == KEY_CLASS => {
                    reloaded.changed.extend(class_changes(&running.gateway, &wanted.gateway));
                }
                OnReload::Applied if key.name == KEY_WEBHOOK => {
                    reloaded.changed.extend(webhook_changes(running, wanted));
                }
                OnReload::Applied => {
                    let new = (key.value)(wanted);
                    if new != old {
                        reloaded.changed.push(change(new));
                    }
                }
                OnReload::Restart => {
                    let new = (key.value)(found);
                    if new != old {
                        reloaded.needs_restart.push(change(new));
                    }
                }
            }
            if key.name == KEY_CONNECTIONS && self.connections(found).is_none() {
                reloaded.needs_restart.push(change((key.value)(found)));
            }
        }
        reloaded
    }

    /// One command to all loops.
    fn tell_loops(&self, wanted: &ServeOptions) -> Result<(), Mistakes> {
        let before = self.gateway.get();
        let new = Reconfiguration::new(&before, &wanted.gateway, wanted.coalesce)
            .map_err(|error| CliError::machine(error.to_string()))?;
        let mut after = GatewayConfig::clone(&before);
        after.take_over(&new);
        after.connections_max = new.connections_max;
        // Names before those who have them: nobody hears of a class that is not known here.
        self.gateway.set(after);
        let mut asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(busy) = asker.ask(Command::Reconfigure(Box::new(new))) {
            self.gateway.set(before);
            return Err(CliError::machine(busy.to_string()).into());
        }
        Ok(())
    }
}

/// What changes though every key is as it was.
fn proof_change(wanted: &ServeOptions, former: &Proof) -> Change {
    let (key, new) = match wanted.identity.kind {
        _ if wanted.gateway.proof == Proof::Certificate => {
            ("identity (by what TLS asks)", "the names in certificates")
        }
        _ if *former == Proof::Certificate => ("identity (by what TLS asks)", "no certificates"),
        IdentityKind::Hook => {
            ("identity-url (what it does not show)", "another query, key or authority")
        }
        IdentityKind::None
        | IdentityKind::Anybody
        | IdentityKind::Tokens
        | IdentityKind::Hmac
        | IdentityKind::Jwt => ("identity-file (content)", "other tokens or keys"),
    };
    let (old, new) = (Some("what it was".to_owned()), Some(new.to_owned()));
    Change { key: key.to_owned(), old, new }
}

fn class_changes(running: &GatewayConfig, wanted: &GatewayConfig) -> Vec<Change> {
    let mut names: Vec<&String> = running.classes.iter().map(|(name, _)| name).collect();
    names.extend(wanted.classes.iter().map(|(name, _)| name));
    names.sort();
    names.dedup();
    let text = |config: &GatewayConfig, name: &str| {
        let found = config.classes.iter().find(|(own, _)| own == name);
        found.map(|(_, class)| keys::class_text(class))
    };
    let changes = names.into_iter().map(|name| Change {
        key: format!("{KEY_CLASS}.{name}"),
        old: text(running, name),
        new: text(wanted, name),
    });
    changes.filter(|change| change.old != change.new).collect()
}

/// Targets that came, went or are others. What is secret in a URL is not told, and makes it another
/// one all the same.
fn webhook_changes(running: &ServeOptions, wanted: &ServeOptions) -> Vec<Change> {
    fn find<'a>(options: &'a ServeOptions, name: &str) -> Option<&'a Target> {
        options.webhooks.iter().find(|target| target.name == name)
    }
    let all = running.webhooks.iter().chain(&wanted.webhooks);
    let mut names: Vec<&String> = all.map(|target| &target.name).collect();
    names.sort();
    names.dedup();
    let mut changes = Vec::new();
    for name in names {
        let (old, new) = (find(running, name), find(wanted, name));
        if old == new {
            continue;
        }
        let (old, mut new) = (old.map(webhooks::target_text), new.map(webhooks::target_text));
        if old == new {
            new = new.map(|text| format!("{text} (with another query in url)"));
        }
        changes.push(Change { key: format!("{KEY_WEBHOOK}.{name}"), old, new });
    }
    changes
}

/// A pipe says its configuration once, and would be an empty one now, or be waited for.
fn check_regular(path: &Path) -> Result<(), Mistakes> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(CliError::usage(format!(
            "{} is no ordinary file and cannot be read again; name one that can",
            path.display()
        ))
        .into()),
        // Whatever else is wrong with it is said by whoever reads it.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Rings for a reload, which then takes place on a thread of its own: signals are heeded while a
/// disk is slow. However often it is rung meanwhile, there is one more.
#[derive(Clone, Debug)]
pub struct ReloadBell(SyncSender<()>);

impl ReloadBell {
    /// Starts the thread, which ends with the last bell. `supervisor` hears when a reload begins,
    /// and when it has ended how things are.
    ///
    /// # Errors
    /// When the machine gives no further thread.
    pub fn new(
        reloader: Arc<Reloader>,
        supervisor: Supervisor,
        status: impl Fn(&GatewayConfig) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let (bell, rings) = sync_channel(1);
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let gateway = reloader.gateway();
            for () in rings {
                supervisor.reloading();
                reloader.reload();
                // It goes on as before when something was wrong.
                supervisor.ready(&status(&gateway.get()));
            }
        })?;
        Ok(Self(bell))
    }

    /// Asks for a reload.
    pub fn ring(&self) {
        match self.0.try_send(()) {
            // The one that waits reads what is there now.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("nobody is there to reload"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Shard;
    use crate::os::wake::Waker;
    use crate::server::mailbox;

    /// A value of each key that is another one than the default.
    const OTHERS: &[(&str, &str)] = &[
        ("listen", "127.0.0.1:1"),
        ("node", "north"),
        ("shards", "3"),
        ("interval", "7s"),
        ("timeout", "21s"),
        ("mode", "either"),
        ("min-interval", "2s"),
        ("probe", "3s"),
        ("tick", "20ms"),
        ("coalesce", "3ms"),
        ("grace", "9s"),
        ("duplicate", "reject"),
        ("class", "lock:grace=1s"),
        ("max-connections", "77"),
        ("identity", "jwt"),
        ("identity-file", "/tmp/none"),
        ("identity-issuer", "us"),
        ("identity-audience", "gate"),
        ("handshake-timeout", "3s"),
        ("frame-timeout", "3s"),
        ("max-payload", "1000"),
        ("outbox-bytes", "70000"),
        ("up-bytes", "2000000"),
        ("proxy-from", "10.0.0.0/8"),
        ("address-connections", "77"),
        ("address-connects", "7/s"),
        ("prefix-connections", "770"),
        ("prefix-connects", "70/s:700"),
        ("address-bits", "32/56"),
        ("prefix-bits", "16/32"),
        ("accept-rate", "7000/s"),
        ("newcomer-rate", "700/min:9"),
        ("client-frames", "77/s"),
        ("client-bytes", "77/s:99999"),
        ("client-beats", "7/s"),
        ("websocket-origin", "https://example.org"),
        ("websocket-path", "/live"),
        ("tls-cert", "/tmp/cert"),
        ("tls-key", "/tmp/key"),
        ("tls-only", "on"),
        ("tls-client-ca", "/tmp/ca"),
        ("tls-crl", "/tmp/crl"),
        ("tls-client-cert", "optional"),
        ("tls-client-name", "id"),
        ("queue-bytes", "100000"),
        ("queue-ttl", "9s"),
        ("slow-policy", "close"),
        ("broadcast-rate", "77"),
        ("keepalive-idle", "9s"),
        ("keepalive-interval", "8s"),
        ("keepalive-count", "7"),
        ("user-timeout", "9s"),
        ("driver", "epoll"),
        ("descriptors", "ordinary"),
        ("drain-timeout", "9s"),
        ("drain-notice", "9s"),
        ("reconnect-window", "2s..3s"),
        ("events", "/tmp/none"),
        ("journal", "/tmp/none"),
        ("journal-segment-bytes", "65536"),
        ("journal-retain-bytes", "2000000000"),
        ("transport-events", "/tmp/other"),
        ("webhook", "audit:url=http://127.0.0.1:3/"),
        ("admin", "127.0.0.1:2"),
        ("admin-token-file", "/tmp/token"),
        ("admin-tls-cert", "/tmp/cert.pem"),
        ("admin-tls-key", "/tmp/key.pem"),
        ("admin-cors", "https://ops.example,http://127.0.0.1:3000"),
        ("log-format", "json"),
        ("log-level", "warn"),
    ];
    /// The same of keys that cannot stand beside `identity jwt`, instead of those that can.
    const OTHERS_OF_HOOK: &[(&str, &str)] = &[
        ("identity", "hook"),
        ("identity-url", "http://127.0.0.1:3/"),
        ("identity-secret-file", "/tmp/key"),
        ("identity-timeout", "2s"),
        ("identity-cache", "77"),
        ("identity-cache-age", "7s"),
    ];
    const OTHERS_OF_SAFE_HOOK: &[(&str, &str)] = &[
        ("identity", "hook"),
        ("identity-url", "https://127.0.0.1:3/"),
        ("identity-ca-file", "/tmp/ca.pem"),
        ("identity-timeout", "2s"),
    ];
    /// Off where others say how it is on.
    const EXCLUDED: [&str; 3] = ["keepalive", "websocket", KEY_PRESET];

    fn inner(flags: &[String], wake: &Waker) -> (Inner, mailbox::Inside) {
        let (inside, asker, _reader) = mailbox::open(wake.clone());
        let running = layers::options_of::<&str>(&[]);
        let gateway = Live::new(running.gateway.clone());
        let asker = Arc::new(Mutex::new(Switchboard::new(vec![asker], Shard::ONLY)));
        let connections_planned = running.gateway.connections_max;
        let flags = layers::flags_of(flags);
        let takers = Vec::new();
        let nothing = || Prepared { changes: Vec::new(), commit: Box::new(|| ()) };
        let read_proof: ReadProof = Box::new(move |_| Ok((Proof::None, nothing())));
        let inner =
            Inner { flags, running, connections_planned, gateway, asker, takers, read_proof };
        (inner, inside)
    }

    /// What the table of keys says is what a reload does, key by key.
    #[test]
    fn every_key_is_taken_up_or_left_alone_as_the_table_says() {
        for key in KEYS {
            let mut all = [OTHERS, OTHERS_OF_HOOK, OTHERS_OF_SAFE_HOOK].into_iter().flatten();
            let is_there = all.any(|(name, _)| *name == key.name);
            assert!(is_there || EXCLUDED.contains(&key.name), "{} has no other value", key.name);
        }
        let others = OTHERS.iter().filter(|(key, _)| !key.starts_with("identity"));
        for of_identity in [OTHERS_OF_HOOK, OTHERS_OF_SAFE_HOOK] {
            let others: Vec<_> = others.clone().chain(of_identity).copied().collect();
            are_as_the_table_says(&others);
        }
        are_as_the_table_says(OTHERS);
    }

    fn are_as_the_table_says(others: &[(&str, &str)]) {
        let flags: Vec<String> =
            others.iter().map(|(key, value)| format!("--{key}={value}")).collect();
        let wake = Waker::new().expect("an eventfd");
        let (mut inner, mut inside) = inner(&flags, &wake);
        let before = inner.running.clone();
        let found = layers::options_of(&flags);
        let reloaded = inner.reload(|_| None).expect("all is well");
        for (name, _) in others {
            let key = keys::find(name).expect("a key");
            let [was, is, said] = [&before, &inner.running, &found].map(|it| (key.value)(it));
            assert_ne!(was, said, "{name}");
            let (list, holds) = match key.on_reload {
                OnReload::Applied => (&reloaded.changed, said),
                OnReload::Restart => (&reloaded.needs_restart, was),
            };
            assert_eq!(is, holds, "{name}");
            let is_it = |change: &&Change| change.key.split('.').next() == Some(*name);
            assert_eq!(list.iter().filter(is_it).count(), 1, "{name}: {reloaded:#?}");
        }
        let Some((_, Command::Reconfigure(told))) = inside.next_question() else {
            panic!("the loop was told nothing")
        };
        let mut gateway = before.gateway;
        gateway.take_over(&told);
        gateway.connections_max = told.connections_max;
        inner.running.gateway = gateway;
        for key in KEYS.iter().filter(|key| key.on_reload == OnReload::Applied) {
            let [is, said] = [&inner.running, &found].map(|it| (key.value)(it));
            assert_eq!(is, said, "{} did not reach the loop", key.name);
        }
        assert_eq!(told.coalesce, found.coalesce);
        let again = inner.reload(|_| None).expect("all is well");
        assert_eq!(again.changed, [], "it is in effect");
        assert_eq!(again.needs_restart, reloaded.needs_restart, "it is not");
    }

    #[test]
    fn a_loop_that_takes_no_question_keeps_everything_as_it_is() {
        let wake = Waker::new().expect("an eventfd");
        let (mut inner, _inside) = inner(&["--grace=9s".to_owned()], &wake);
        while inner.asker.lock().expect("no panic").ask(Command::Stats).is_ok() {}
        let wrong = inner.reload(|_| None).expect_err("there is no room");
        assert!(wrong.lines()[0].contains("ask again later"), "{:?}", wrong.lines());
        assert_eq!(inner.running.gateway.grace, crate::base::time::Span::ZERO);
        assert_eq!(inner.gateway.get().grace, crate::base::time::Span::ZERO);
    }

    #[test]
    fn one_who_cannot_take_it_keeps_all_others_from_it() {
        struct Cannot;
        impl Taker for Cannot {
            fn prepare(&mut self, _wanted: &ServeOptions) -> Result<Prepared, CliError> {
                Err(CliError::machine("cannot"))
            }
        }
        let wake = Waker::new().expect("an eventfd");
        let (mut inner, mut inside) = inner(&["--grace=9s".to_owned()], &wake);
        inner.takers.push(Box::new(Cannot));
        assert_eq!(inner.reload(|_| None).expect_err("it cannot").lines(), ["cannot"]);
        assert!(inside.next_question().is_none());
        assert_eq!(inner.running.gateway.grace, crate::base::time::Span::ZERO);
    }
}
