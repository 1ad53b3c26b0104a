//! Asking clients to leave: all of them, or a part.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::base::limits;
use crate::base::time::Span;
use crate::control::api::clients::unexpected;
use crate::control::api::problem::{Kind, Problem};
use crate::control::api::{Answer, Asked, json, present};
use crate::gateway::{Command, Drain, Pace, Rebalance, Reply};

/// A million parts are all.
const ALL_PARTS: f64 = 1_000_000.0;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    #[serde(default, deserialize_with = "present")]
    within_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    per_second: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    notice_ms: Option<u64>,
}

#[derive(Serialize)]
struct Draining {
    draining: bool,
    /// Missing where the rate decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    within_ms: Option<u64>,
    notice_ms: u64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RebalanceBody {
    #[serde(default, deserialize_with = "present")]
    fraction: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    within_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    per_second: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    window_min_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    window_max_ms: Option<u64>,
}

#[derive(Serialize)]
struct Rebalancing {
    rebalancing: bool,
    fraction: f64,
}

/// `POST /v1/drain`
pub(crate) async fn drain(asked: Asked) -> Answer {
    let body: DrainBody = asked.json()?;
    let gateway = asked.api.gateway.get();
    let typed = span("within_ms", body.within_ms)?;
    let within = match body.per_second {
        Some(_) => typed,
        None => Some(typed.unwrap_or(gateway.drain_timeout)),
    };
    let notice = span("notice_ms", body.notice_ms)?.unwrap_or(gateway.drain_notice);
    let drain = Drain { within, notice, pace: pace(body.per_second)? };
    tracing::info!(?drain, "stopping by the API: clients are asked to leave");
    asked.api.door.ask(Command::Drain(drain)).await?;
    let within_ms = within.map(Span::as_millis);
    let notice = within.map_or(notice, |within| notice.min(within.divided_by(2)));
    let draining = Draining { draining: true, within_ms, notice_ms: notice.as_millis() };
    json(StatusCode::ACCEPTED, &draining)
}

/// `POST /v1/rebalance`
pub(crate) async fn rebalance(asked: Asked) -> Answer {
    let body: RebalanceBody = asked.json()?;
    let fraction = body.fraction.ok_or_else(|| Problem::bad("expected fraction, such as 0.1"))?;
    let window = match (body.window_min_ms, body.window_max_ms) {
        (None, None) => None,
        (min, max) => {
            let min = span("window_min_ms", min)?.unwrap_or_default();
            let max = span("window_max_ms", max)?.unwrap_or_default();
            if min > max {
                let detail = "window_min_ms: expected at most window_max_ms";
                return Err(Problem::new(Kind::OutOfBounds, detail));
            }
            Some((min, max))
        }
    };
    let rebalance = Rebalance {
        parts_per_million: parts_per_million(fraction)?,
        within: span("within_ms", body.within_ms)?,
        pace: pace(body.per_second)?,
        window,
    };
    tracing::info!(?rebalance, "by the API: a part of the clients is asked to go elsewhere");
    match asked.api.door.ask(Command::Rebalance(rebalance)).await? {
        Reply::Done => {
            let rebalancing = Rebalancing { rebalancing: fraction > 0.0, fraction };
            json(StatusCode::ACCEPTED, &rebalancing)
        }
        Reply::Draining => Err(Problem::new(Kind::Draining, "everybody is asked to leave already")),
        Reply::NoSuchClient
        | Reply::OtherSession
        | Reply::NotConnected
        | Reply::OutOfBounds { .. }
        | Reply::Session(_)
        | Reply::Sessions { .. }
        | Reply::GroupsFull
        | Reply::Groups(_)
        | Reply::TooLong { .. }
        | Reply::Pushed(_)
        | Reply::Outcomes(_)
        | Reply::Broadcast(_)
        | Reply::Stats(_)
        | Reply::Clients { .. } => Err(unexpected()),
    }
}

fn span(name: &str, millis: Option<u64>) -> Result<Option<Span>, Problem> {
    let span = millis.map(Span::from_millis);
    if span.is_some_and(|span| span > limits::DEADLINE_MAX) {
        let detail = format!("{name}: expected at most {}", limits::DEADLINE_MAX.as_millis());
        return Err(Problem::new(Kind::OutOfBounds, detail));
    }
    Ok(span)
}

fn pace(per_second: Option<u32>) -> Result<Pace, Problem> {
    match per_second {
        None => Ok(Pace::Spread),
        Some(0) => Err(Problem::new(Kind::OutOfBounds, "per_second: expected at least 1")),
        Some(count) => Ok(Pace::PerSecond(count)),
    }
}

fn parts_per_million(fraction: f64) -> Result<u32, Problem> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Problem::new(Kind::OutOfBounds, "fraction: expected 0 to 1"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is 0 to a million"
    )]
    let parts = (fraction * ALL_PARTS).round() as u32;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_parts_of_a_million_and_nothing_else_is() {
        for (fraction, parts) in [(0.0, 0), (0.1, 100_000), (1e-6, 1), (1.0, 1_000_000)] {
            assert_eq!(parts_per_million(fraction), Ok(parts));
        }
        for fraction in [-0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert!(parts_per_million(fraction).is_err(), "{fraction}");
        }
    }
}
