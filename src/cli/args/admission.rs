//! Flags of `serve` on who may come in, how often, and how much a client may say.

use clap::Args;

use crate::base::admission::{Admission, ClientLimits, Crowding, PrefixBits, Rate};
use crate::base::config::GatewayConfig;
use crate::base::limits;
use crate::base::time::Span;
use crate::cli::config::within;
use crate::cli::mistakes::Mistakes;
use crate::cli::values::ValueError;

/// A limit as typed: a value, or none at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound<T>(pub Option<T>);

/// Who may come in and how much a client may say, as typed.
#[derive(Args, Clone, Debug, Default)]
pub struct AdmissionArgs {
    /// Connections of one address at a time (default: off)
    #[arg(long, value_name = "N|off", value_parser = parse_bound, help_heading = "Admission")]
    pub address_connections: Option<Bound<u32>>,
    /// New connections of one address, such as 10/s, 90/min, or 10/s:50 for 50 at once (default:
    /// off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub address_connects: Option<Bound<Rate>>,
    /// Connections of one network at a time (default: off)
    #[arg(long, value_name = "N|off", value_parser = parse_bound, help_heading = "Admission")]
    pub prefix_connections: Option<Bound<u32>>,
    /// New connections of one network (default: off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub prefix_connects: Option<Bound<Rate>>,
    /// Bits of an address of IPv4 and of IPv6 that make one address (default: 32/64)
    #[arg(long, value_name = "V4/V6", value_parser = parse_bits, help_heading = "Admission")]
    pub address_bits: Option<PrefixBits>,
    /// Bits of an address of IPv4 and of IPv6 that make one network (default: 24/48)
    #[arg(long, value_name = "V4/V6", value_parser = parse_bits, help_heading = "Admission")]
    pub prefix_bits: Option<PrefixBits>,
    /// New connections of everybody, before anything is read; beyond it they are closed (default:
    /// off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub accept_rate: Option<Bound<Rate>>,
    /// HELLOs of clients that do not resume a session; beyond it they are asked to come back when
    /// it is their turn (default: off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub newcomer_rate: Option<Bound<Rate>>,
    /// Frames of one client; beyond it the session is closed (default: off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub client_frames: Option<Bound<Rate>>,
    /// Bytes of one client; beyond it the session is closed (default: off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub client_bytes: Option<Bound<Rate>>,
    /// PINGs of one client that are answered; further ones are beats without an answer (default:
    /// off)
    #[arg(long, value_name = "RATE|off", value_parser = parse_rate, help_heading = "Admission")]
    pub client_beats: Option<Bound<Rate>>,
}

/// The units of time that a rate can have, by their words.
const UNITS: [(&str, u64); 3] = [("s", 1), ("min", 60), ("h", 3_600)];

/// A number, or `off`.
pub fn parse_bound(text: &str) -> Result<Bound<u32>, ValueError> {
    if text == "off" {
        return Ok(Bound(None));
    }
    let count = text.parse().ok().filter(|count| *count > 0);
    count.map(|count| Bound(Some(count))).ok_or(ValueError::Bound)
}

/// A rate such as `10/s`, `600/min` or `10/s:50`, or `off`.
pub fn parse_rate(text: &str) -> Result<Bound<Rate>, ValueError> {
    if text == "off" {
        return Ok(Bound(None));
    }
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let count_of = |text: &str| {
        let count = text.parse().ok();
        count.filter(|count| (1..=limits::RATE_LIMIT).contains(count)).ok_or(ValueError::Rate)
    };
    let (count, unit) = rate.split_once('/').ok_or(ValueError::Rate)?;
    let (_, secs) = UNITS.iter().find(|(word, _)| *word == unit).ok_or(ValueError::Rate)?;
    let count = count_of(count)?;
    let burst = burst.map_or(Ok(count), count_of)?;
    Ok(Bound(Some(Rate { count, per: Span::from_secs(*secs), burst })))
}

/// Two numbers of bits, such as `24/48`.
pub fn parse_bits(text: &str) -> Result<PrefixBits, ValueError> {
    let (v4, v6) = text.split_once('/').ok_or(ValueError::Bits)?;
    let bits = |text: &str, most: u8| {
        let bits = text.parse::<u8>().ok();
        bits.filter(|bits| *bits <= most).ok_or(ValueError::Bits)
    };
    Ok(PrefixBits { v4: bits(v4, 32)?, v6: bits(v6, 128)? })
}

/// A rate as one would type it.
pub fn rate_text(rate: Rate) -> String {
    let unit = UNITS.iter().find(|(_, secs)| Span::from_secs(*secs) == rate.per);
    let unit = unit.map_or("s", |(word, _)| word);
    let Rate { count, burst, .. } = rate;
    if burst == count { format!("{count}/{unit}") } else { format!("{count}/{unit}:{burst}") }
}

/// Bits as one would type them.
pub fn bits_text(bits: PrefixBits) -> String {
    format!("{}/{}", bits.v4, bits.v6)
}

impl AdmissionArgs {
    /// What was typed, as meant; what is `wrong` with it has its default. `payload_bytes_max` is
    /// the largest payload of a frame.
    pub fn apply(
        &self,
        gateway: GatewayConfig,
        payload_bytes_max: u16,
        wrong: &mut Mistakes,
    ) -> GatewayConfig {
        let defaults = Admission::default();
        let crowding = |bits: Option<PrefixBits>, default: Crowding, connections, connects| {
            Crowding { bits: bits.unwrap_or(default.bits), connections, connects }
        };
        let admission = Admission {
            address: crowding(
                self.address_bits,
                defaults.address,
                value(self.address_connections),
                value(self.address_connects),
            ),
            prefix: crowding(
                self.prefix_bits,
                defaults.prefix,
                value(self.prefix_connections),
                value(self.prefix_connects),
            ),
            accepts: value(self.accept_rate),
            newcomers: value(self.newcomer_rate),
        };
        // The largest frame must fit into a burst, whatever came before it.
        let bytes_min = u32::from(payload_bytes_max) + limits::METER_BYTES_MIN;
        let mut bytes = value(self.client_bytes);
        if let Some(rate) = bytes {
            let burst = within("burst of client-bytes", rate.burst, bytes_min, limits::RATE_LIMIT);
            bytes = wrong.keep(burst.map(|_| bytes), None);
        }
        let client_limits = ClientLimits {
            frames: value(self.client_frames),
            bytes,
            beats: value(self.client_beats),
        };
        GatewayConfig { admission, client_limits, ..gateway }
    }
}

fn value<T>(typed: Option<Bound<T>>) -> Option<T> {
    typed.and_then(|bound| bound.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_typed_as_they_are_told() {
        for text in ["10/s", "90/min", "1/h", "10/s:50", "1000000000/s:1"] {
            let rate = parse_rate(text).expect("a rate").0.expect("it is on");
            assert_eq!(rate_text(rate), text);
        }
        assert_eq!(parse_rate("7/s:7"), Ok(Bound(Some(Rate::per_second(7)))));
        assert_eq!((parse_rate("off"), parse_bound("off")), (Ok(Bound(None)), Ok(Bound(None))));
        for text in ["", "10", "0/s", "10/d", "10/s:0", "10/s:", "-1/s", "1e9/s", "5000000000/s"] {
            assert_eq!(parse_rate(text), Err(ValueError::Rate), "{text}");
        }
        for text in ["", "0", "-1", "many"] {
            assert_eq!(parse_bound(text), Err(ValueError::Bound), "{text}");
        }
        let bits = PrefixBits { v4: 24, v6: 48 };
        assert_eq!((parse_bits("24/48"), bits_text(bits)), (Ok(bits), "24/48".to_owned()));
        for text in ["24", "33/48", "24/129", "24/", "a/b"] {
            assert_eq!(parse_bits(text), Err(ValueError::Bits), "{text}");
        }
    }

    #[test]
    fn the_largest_frame_fits_into_a_burst() {
        let typed = |text| AdmissionArgs {
            client_bytes: Some(parse_rate(text).expect("a rate")),
            ..AdmissionArgs::default()
        };
        let mut wrong = Mistakes::default();
        typed("1000/s:2000").apply(GatewayConfig::default(), 1_000, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        typed("1000/s").apply(GatewayConfig::default(), 1_000, &mut wrong);
        assert!(wrong.lines()[0].contains("burst of client-bytes 1000 is out of bounds"));
    }
}
