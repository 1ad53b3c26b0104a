//! What a running gateway can be told anew.

use crate::base::admission::{Admission, ClientLimits};
use crate::base::config::{
    Class, Duplicate, GatewayConfig, Preset, ProbePolicy, QueuePolicy, Rhythm,
};
use crate::base::identity::Proof;
use crate::base::limits;
use crate::base::networks::Networks;
use crate::base::time::Span;

/// The part of a configuration that can change while a gateway runs.
///
/// It is whole: each field is what holds from now on. A session keeps the rhythm, probe, grace and
/// policy for second logins that it began with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reconfiguration {
    /// Rhythm of a client that asks for none.
    pub rhythm: Rhythm,
    /// Shortest interval a client gets by wishing for it.
    pub interval_wish_min: Span,
    /// Whether a silent client is asked before it is judged.
    pub probe: ProbePolicy,
    /// For how long a session whose connection was lost is held.
    pub grace: Span,
    /// What a second login of the same client id does.
    pub duplicate: Duplicate,
    /// Classes by name, in the order of their ids; see [`GatewayConfig::classes`].
    pub classes: Vec<(String, Class)>,
    /// Those of them that are not configured any more.
    pub classes_retired: Vec<String>,
    /// Connections that all shards together should hold. What was planned at the start bounds it.
    pub connections_max: u32,
    /// From accept to a complete HELLO.
    pub handshake_timeout: Span,
    /// From the first byte of a frame to its last.
    pub frame_timeout: Span,
    /// From the order to drain to closing whoever is still there.
    pub drain_timeout: Span,
    /// From an operator's order to drain to the first GOAWAY.
    pub drain_notice: Span,
    /// Window within which drained and refused clients are asked to come back.
    pub reconnect_window: (Span, Span),
    /// Bytes that may wait for one client.
    pub outbox_bytes_max: usize,
    /// How messages wait for a client.
    pub queue: QueuePolicy,
    /// Clients that get a broadcast in a second, of all shards together; not 0.
    pub broadcast_per_second: u32,
    /// What is limited before anybody says who they are. How many bits of an address are told apart
    /// stays as it was.
    pub admission: Admission,
    /// Who comes in for others.
    pub proxies: Networks,
    /// What a client may say.
    pub client_limits: ClientLimits,
    /// How clients that come from now on prove their ids.
    pub proof: Proof,
    /// How long beats wait for each other where many come.
    pub coalesce: Span,
}

/// So many classes have had a name since the start that a further one has no number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "more than {} classes have been configured since the start; restart to forget those that are \
     gone",
    limits::CLASS_NAMES_MAX
)]
pub struct TooManyClasses;

impl Reconfiguration {
    /// What turns `now` into `wanted`, as far as that can be done at run time.
    ///
    /// # Errors
    /// When classes have come and gone too often.
    pub fn new(
        now: &GatewayConfig,
        wanted: &GatewayConfig,
        coalesce: Span,
    ) -> Result<Self, TooManyClasses> {
        let (classes, classes_retired) = join(&now.classes, &wanted.classes)?;
        Ok(Self {
            rhythm: wanted.rhythm,
            interval_wish_min: wanted.interval_wish_min,
            probe: wanted.probe,
            grace: wanted.grace,
            duplicate: wanted.duplicate,
            classes,
            classes_retired,
            connections_max: wanted.connections_max,
            handshake_timeout: wanted.handshake_timeout,
            frame_timeout: wanted.frame_timeout,
            drain_timeout: wanted.drain_timeout,
            drain_notice: wanted.drain_notice,
            reconnect_window: wanted.reconnect_window,
            outbox_bytes_max: wanted.outbox_bytes_max,
            queue: wanted.queue,
            broadcast_per_second: wanted.broadcast_per_second,
            admission: wanted.admission.with_bits_of(&now.admission),
            proxies: wanted.proxies.clone(),
            client_limits: wanted.client_limits,
            proof: wanted.proof.clone(),
            coalesce,
        })
    }
}

/// Classes by their places, and the names of those that are retired.
type Joined = (Vec<(String, Class)>, Vec<String>);

/// The classes that are wanted behind those that were there before, each in its old place, and the
/// names of those that are not wanted any more: their sessions still have their ids.
fn join(now: &[(String, Class)], wanted: &[(String, Class)]) -> Result<Joined, TooManyClasses> {
    let find = |name: &str| wanted.iter().find(|(own, _)| own == name);
    let mut classes: Vec<(String, Class)> = Vec::new();
    let mut retired = Vec::new();
    for (name, class) in now {
        match find(name) {
            Some((_, class)) => classes.push((name.clone(), *class)),
            None => {
                retired.push(name.clone());
                classes.push((name.clone(), *class));
            }
        }
    }
    for (name, class) in wanted {
        if !now.iter().any(|(own, _)| own == name) {
            classes.push((name.clone(), *class));
        }
    }
    if classes.len() > limits::CLASS_NAMES_MAX {
        return Err(TooManyClasses);
    }
    Ok((classes, retired))
}

impl GatewayConfig {
    /// Takes over what can change at run time, except how many connections there may be, which the
    /// plan of the machine bounds.
    pub fn take_over(&mut self, new: &Reconfiguration) {
        self.rhythm = new.rhythm;
        self.interval_wish_min = new.interval_wish_min;
        self.probe = new.probe;
        self.grace = new.grace;
        self.duplicate = new.duplicate;
        self.classes.clone_from(&new.classes);
        self.classes_retired.clone_from(&new.classes_retired);
        self.handshake_timeout = new.handshake_timeout;
        self.frame_timeout = new.frame_timeout;
        self.drain_timeout = new.drain_timeout;
        self.drain_notice = new.drain_notice;
        self.reconnect_window = new.reconnect_window;
        self.outbox_bytes_max = new.outbox_bytes_max;
        self.queue = new.queue;
        self.broadcast_per_second = new.broadcast_per_second;
        self.admission = new.admission;
        self.proxies.clone_from(&new.proxies);
        self.client_limits = new.client_limits;
        self.proof.clone_from(&new.proof);
    }

    /// The classes that are configured at the moment.
    pub fn classes_in_force(&self) -> impl Iterator<Item = &(String, Class)> {
        self.classes.iter().filter(|(name, _)| !self.classes_retired.contains(name))
    }

    /// Every name that a session's class may have, in the order of their ids.
    pub fn class_places(&self) -> impl Iterator<Item = &str> {
        let is_own = |name: &&str| Preset::from_word(name).is_none();
        let own = self.classes.iter().map(|(name, _)| name.as_str()).filter(is_own);
        Preset::ALL.iter().map(|preset| preset.word()).chain(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> GatewayConfig {
        let own = GatewayConfig::default().class("own");
        let classes = names.iter().map(|name| ((*name).to_owned(), own)).collect();
        GatewayConfig { classes, ..GatewayConfig::default() }
    }

    fn reloaded(config: &GatewayConfig, names: &[&str]) -> GatewayConfig {
        let new = Reconfiguration::new(config, &classes(names), Span::ZERO).expect("few");
        let mut config = config.clone();
        config.take_over(&new);
        config
    }

    #[test]
    fn an_id_means_the_same_class_for_ever() {
        let first = classes(&["lock", "door", "mobile"]);
        let lists: [&[&str]; 5] =
            [&["door"], &["gate", "mobile", "door"], &[], &["lock"], &["typical", "door", "lock"]];
        let known = ["lock", "door", "mobile", "typical", "demanding"];
        let ids = known.map(|name| first.class_id(name));
        let mut config = first;
        for list in lists {
            config = reloaded(&config, list);
            for (name, id) in known.iter().zip(ids) {
                assert_eq!(config.class_name(id), *name, "after {list:?}");
                let is_in_force = list.contains(name) || Preset::from_word(name).is_some();
                let expected = if is_in_force { id } else { Default::default() };
                assert_eq!(config.class_id(name), expected, "{name} after {list:?}");
                assert_eq!(config.class_known(name), Some(id), "{name} after {list:?}");
            }
            assert_eq!(config.classes_in_force().count(), list.len());
        }
    }

    #[test]
    fn a_class_that_is_gone_has_the_policies_it_had() {
        let mut first = classes(&["lock"]);
        first.classes[0].1.grace = Span::from_secs(9);
        let id = first.class_id("lock");
        let second = reloaded(&first, &[]);
        assert_eq!(second.class_named(id).grace, Span::from_secs(9));
        assert_eq!(second.class("lock").grace, Span::ZERO, "for newcomers it is none");
        let mut third = classes(&["lock"]);
        third.classes[0].1.grace = Span::from_secs(5);
        let new = Reconfiguration::new(&second, &third, Span::ZERO).expect("few");
        let mut config = second;
        config.take_over(&new);
        assert_eq!((config.class_id("lock"), config.class("lock").grace), (id, Span::from_secs(5)));
    }

    #[test]
    fn names_do_not_run_out_unnoticed() {
        let mut config = GatewayConfig::default();
        let mut taken = 0;
        loop {
            let name = format!("c{taken}");
            match Reconfiguration::new(&config, &classes(&[&name]), Span::ZERO) {
                Ok(new) => config.take_over(&new),
                Err(TooManyClasses) => break,
            }
            taken += 1;
            let id = config.class_id(&name);
            assert_eq!(config.class_name(id), name);
            assert!(taken <= limits::CLASS_NAMES_MAX);
        }
        assert_eq!(taken, limits::CLASS_NAMES_MAX);
    }
}
