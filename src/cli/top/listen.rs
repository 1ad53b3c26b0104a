//! Hears a gateway for `top`: what it tells goes through one bounded queue, and whatever breaks off
//! is begun again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde_json::Value;

use crate::base::time::Span;
use crate::cli::args::admin::GatewayArgs;
use crate::cli::ctl::{Feed, understood};
use crate::cli::error::CliError;
use crate::cli::top::known::{History, News, Sample};
use crate::control::caller::{CallError, Caller};
use crate::os::clock::Clock;
use crate::os::pause::pause;

/// News that wait to be taken.
const NEWS_MAX: usize = 1_024;
/// Between two looks at who is online.
const LOOK_EVERY: Span = Span::from_secs(2);
/// Before a gateway that does not answer is asked again.
const AGAIN_AFTER: Span = Span::from_secs(1);
/// Events from before.
const EVENTS_BEFORE: u64 = 100;
/// Clients looked at: the first page.
const CLIENTS: usize = 1_000;

/// Why a listener stops for a while, or for good.
enum Stop {
    /// Nobody takes the news any more.
    Unheard,
    /// The gateway is not heard.
    Lost(String),
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Self::Lost(error.line())
    }
}

/// Somebody who asks.
pub(super) struct Listener {
    caller: Caller,
}

impl Listener {
    /// One who asks at `place`.
    pub(super) fn new(place: &GatewayArgs) -> Result<Self, CliError> {
        Ok(Self { caller: place.caller()? })
    }

    /// Who speaks, and how things were.
    pub(super) fn history(&self) -> Result<History, CliError> {
        let answer = self.caller.get("/v1/stats/history")?;
        serde_json::from_slice(&answer)
            .map_err(|error| CliError::machine(format!("the answer is not understood: {error}")))
    }

    /// Who is online, of the first so many.
    pub(super) fn clients(&self) -> Result<News, CliError> {
        let mut page = understood(&self.caller.get(&format!("/v1/clients?limit={CLIENTS}"))?)?;
        let more = page["next"].is_string();
        let clients = match page["clients"].take() {
            Value::Array(clients) => clients,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => Vec::new(),
        };
        Ok(News::Clients { clients, more, at: Clock::new().now() })
    }

    fn position_before(&self) -> Result<String, CliError> {
        let stats = understood(&self.caller.get("/v1/stats")?)?;
        let seq = stats["seq"].as_u64().unwrap_or_default();
        Ok(format!("{}:{}", stats["boot"], seq.saturating_sub(EVENTS_BEFORE)))
    }

    /// The latest events, if they are still there.
    pub(super) fn events(&self) -> Result<Vec<Value>, CliError> {
        let path = format!("/v1/events?follow=false&after={}", self.position_before()?);
        let (mut feed, mut events) = (Feed::default(), Vec::new());
        let outcome = self.caller.follow(&path, None, |piece| {
            feed.take(piece, |json| {
                events.push(understood(json.as_bytes())?);
                Ok(())
            })
        });
        match outcome {
            Ok(()) => Ok(events),
            // So much happens that those are gone already.
            Err(_) if events.is_empty() => Ok(events),
            Err(error) => Err(error),
        }
    }

    fn follow_samples(&self, out: &SyncSender<News>) -> Result<(), Stop> {
        tell(out, News::History(self.history()?))?;
        let mut feed = Feed::default();
        let mut heard = Ok(());
        self.caller.follow("/v1/stats/stream", None, |piece| {
            feed.take(piece, |json| {
                let sample = serde_json::from_str::<Sample>(json);
                let sample = sample.map_err(|error| CliError::machine(error.to_string()))?;
                heard = tell(out, News::Sample(sample));
                match heard {
                    Ok(()) => Ok(()),
                    Err(_) => Err(CliError::machine("nobody looks any more")),
                }
            })
        })?;
        heard?;
        Err(Stop::Lost("the gateway has ended the conversation".to_owned()))
    }

    fn follow_events(
        &self,
        last_id: &mut Option<String>,
        out: &SyncSender<News>,
    ) -> Result<(), Stop> {
        let path = match last_id {
            Some(_) => "/v1/events".to_owned(),
            None => format!("/v1/events?after={}", self.position_before()?),
        };
        let mut feed = Feed::after(last_id.clone());
        let mut is_unheard = false;
        let outcome = self.caller.follow(&path, last_id.as_deref(), |piece| {
            feed.take(piece, |json| {
                is_unheard = tell(out, News::Event(understood(json.as_bytes())?)).is_err();
                match is_unheard {
                    false => Ok(()),
                    true => Err(CliError::machine("nobody looks any more")),
                }
            })
        });
        // What follows is gone, or another boot has begun that did not keep it: from now on, then.
        let is_gone = feed.reset.is_some() || feed.last_id == *last_id;
        *last_id = if is_gone { None } else { feed.last_id };
        if is_unheard { Err(Stop::Unheard) } else { outcome.map_err(Stop::from) }
    }

    fn look(&self, out: &SyncSender<News>) -> Result<(), Stop> {
        loop {
            tell(out, self.clients()?)?;
            pause(LOOK_EVERY);
        }
    }
}

fn tell(out: &SyncSender<News>, news: News) -> Result<(), Stop> {
    out.send(news).map_err(|_| Stop::Unheard)
}

/// Starts to listen; it goes on until nobody takes what is heard.
pub(super) fn start(place: &GatewayArgs) -> Result<Receiver<News>, CliError> {
    let (out, news) = sync_channel(NEWS_MAX);
    let mut last_id = None;
    spawn("samples", place, out.clone(), Says::Lost, |listener, out| listener.follow_samples(out))?;
    spawn("events", place, out.clone(), Says::Nothing, move |listener, out| {
        listener.follow_events(&mut last_id, out)
    })?;
    spawn("clients", place, out, Says::Nothing, |listener, out| listener.look(out))?;
    Ok(news)
}

/// What a listener says when the gateway is not heard. One of them is enough.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Says {
    Lost,
    Nothing,
}

fn spawn(
    name: &str,
    place: &GatewayArgs,
    out: SyncSender<News>,
    says: Says,
    mut listen: impl FnMut(&Listener, &SyncSender<News>) -> Result<(), Stop> + Send + 'static,
) -> Result<(), CliError> {
    let listener = Listener::new(place)?;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            match listen(&listener, &out) {
                Err(Stop::Unheard) => return,
                Err(Stop::Lost(why)) if says == Says::Lost => {
                    if tell(&out, News::Lost(why)).is_err() {
                        return;
                    }
                }
                Ok(()) | Err(Stop::Lost(_)) => {}
            }
            pause(AGAIN_AFTER);
        }
    });
    spawned.map(drop).map_err(|cause| CliError::machine(format!("no further thread: {cause}")))
}
