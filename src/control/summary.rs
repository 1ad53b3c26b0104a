//! How verdicts go, in one line of the log.

use crate::gateway::Stats;

/// Logs how many verdicts there were, how late they came, and how often they were wrong.
pub fn log(stats: &Stats) {
    let lateness = &stats.lateness;
    tracing::info!(
        verdicts = lateness.count,
        late_p50 = %lateness.quantile(0.5),
        late_p99 = %lateness.quantile(0.99),
        late_max = %lateness.max,
        rescued = stats.rescued,
        probes_sent = stats.pings_sent,
        probes_answered = stats.pings_answered,
        stalls = stats.stalls,
        stalled = %stats.stalled,
        returned = stats.returned,
        false_offline = stats.false_offline,
        false_offline_share = false_offline_share(stats),
        online = stats.online,
        held = stats.held,
        resumed = stats.resumed,
        "verdicts so far"
    );
}

/// The share of verdicts of which it is known that they were wrong, from 0 to 1.
fn false_offline_share(stats: &Stats) -> f64 {
    match stats.lateness.count {
        0 => 0.0,
        count => stats.false_offline as f64 / count as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Lateness;

    #[test]
    fn the_share_of_wrong_verdicts_is_one_of_verdicts() {
        assert!(false_offline_share(&Stats::default()).abs() < f64::EPSILON, "of none, none");
        let lateness = Lateness { count: 8, ..Lateness::default() };
        let stats = Stats { lateness, false_offline: 2, returned: 5, ..Stats::default() };
        assert!((false_offline_share(&stats) - 0.25).abs() < f64::EPSILON);
    }
}
