//! What the dashboard and the alerts ask Prometheus for is there to be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::http::start;
use crate::pages::metrics;

/// Not on the dashboard: names of things, what other panels say better, and what the alerts watch.
const NOT_SHOWN: [&str; 33] = [
    "heartwheel_checks_total",
    "heartwheel_checks_under_way",
    "heartwheel_hook_requests_total",
    "heartwheel_hook_spared_total",
    "heartwheel_hook_put_off_total",
    "heartwheel_hook_requests_under_way",
    "heartwheel_hook_waiting",
    "heartwheel_hook_kept",
    "heartwheel_node_info",
    "heartwheel_driver_info",
    "heartwheel_connections_ended_total",
    "heartwheel_frames_received_total",
    "heartwheel_events_total",
    "heartwheel_events_waiting",
    "heartwheel_stalls_total",
    "heartwheel_loop_busy_longest_seconds",
    "heartwheel_questions_answered_total",
    "heartwheel_stale_completions_total",
    "heartwheel_proxied_connections_total",
    "heartwheel_tls_handshakes_total",
    "heartwheel_websockets_opened_total",
    "heartwheel_handshakes_put_off_total",
    "heartwheel_layered_connections",
    "heartwheel_journal_writable",
    "heartwheel_feed_followers",
    "heartwheel_api_connections_refused_total",
    "heartwheel_origins",
    "heartwheel_rings",
    "heartwheel_config_reloads_total",
    "heartwheel_config_last_reload_success_timestamp_seconds",
    "heartwheel_webhook_last_success_timestamp_seconds",
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
];
/// The rest of what a driver counts is for whoever looks for something.
const NOT_SHOWN_OF_DRIVERS: [&str; 6] = [
    "heartwheel_driver_receives_armed_total",
    "heartwheel_driver_interrupted_total",
    "heartwheel_driver_options_refused_total",
    "heartwheel_driver_sockets",
    "heartwheel_driver_operations",
    "heartwheel_driver_accepts_waiting",
];

fn file(name: &str) -> String {
    let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("the file is there")
}

/// Series by name, each as its labels and their values.
type Exposed = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn exposed(text: &str) -> Exposed {
    let mut exposed = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        exposed.entry(name.to_owned()).or_default().push(labels.collect());
    }
    exposed
}

/// A label that is asked for, and the value that it must have, if it must.
type Label = (String, Option<String>);

#[derive(Default)]
struct Asked {
    /// What is selected, by name, and the values that labels must have.
    selected: Vec<(String, Vec<Label>)>,
    grouped_by: BTreeSet<String>,
}

impl Asked {
    fn select(&mut self, selector: &VectorSelector) -> Result<(), String> {
        let name = selector.name.clone().ok_or("a selector has a name")?;
        let wanted = selector.matchers.matchers.iter().map(|matcher| {
            let is_exact = matches!(matcher.op, MatchOp::Equal);
            (matcher.name.clone(), is_exact.then(|| matcher.value.clone()))
        });
        self.selected.push((name, wanted.collect()));
        Ok(())
    }
}

impl ExprVisitor for Asked {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        #[allow(clippy::wildcard_enum_match_arm, reason = "only these name anything")]
        match expr {
            Expr::VectorSelector(selector) => self.select(selector)?,
            Expr::MatrixSelector(matrix) => self.select(&matrix.vs)?,
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                    self.grouped_by.extend(labels.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Checks a query against what is exposed, and says which series it selects.
fn check(expr: &str, exposed: &Exposed) -> Vec<String> {
    let filled = expr.replace("$__rate_interval", "5m").replace("$instance", ".*");
    let parsed = parser::parse(&filled).unwrap_or_else(|error| panic!("{expr}: {error}"));
    let mut asked = Asked::default();
    walk_expr(&mut asked, &parsed).unwrap_or_else(|error| panic!("{expr}: {error}"));
    assert!(!asked.selected.is_empty(), "{expr} selects nothing");
    let mut labels: BTreeSet<String> = BTreeSet::from(["instance".to_owned()]);
    for (name, wanted) in &asked.selected {
        let series = exposed.get(name).unwrap_or_else(|| panic!("{expr}: there is no {name}"));
        labels.extend(series.iter().flat_map(|series| series.keys().cloned()));
        for (label, value) in wanted.iter().filter(|(label, _)| label != "instance") {
            let fits = series.iter().any(|series| match value {
                Some(value) => series.get(label) == Some(value),
                None => series.contains_key(label),
            });
            assert!(fits, "{expr}: no {name} has {label} {value:?}");
        }
    }
    assert!(asked.grouped_by.is_subset(&labels), "{expr}: {:?}", asked.grouped_by);
    asked.selected.into_iter().map(|(name, _)| name).collect()
}

/// The metric of a series: a histogram has several.
fn metric_of<'a>(series: &'a str, kinds: &BTreeSet<&str>) -> &'a str {
    let suffixes = ["_bucket", "_sum", "_count"].into_iter();
    let mut bases = suffixes.filter_map(|suffix| series.strip_suffix(suffix));
    bases.find(|base| kinds.contains(base)).unwrap_or(series)
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is_and_the_rest_is_listed() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let journal = folder.path().to_str().expect("plain text");
    // Nobody is there: a webhook has its metrics all the same.
    let webhook = "audit:url=http://127.0.0.1:9/hook";
    let (_gate, admin) = start(&["--journal", journal, "--webhook", webhook]);
    let text = metrics(admin);
    let exposed = exposed(&text);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut kinds: BTreeSet<&str> = types.map(|(name, _)| name).collect();

    let dashboard: Value = serde_json::from_str(&file("grafana/heartwheel.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut exprs: Vec<&str> =
        targets.map(|target| target["expr"].as_str().expect("one")).collect();
    assert!(exprs.len() > 40, "{}", exprs.len());
    // Kernels before 6.8 do not say it.
    if !kinds.contains("heartwheel_driver_buffers_free") {
        exprs.retain(|expr| !expr.contains("heartwheel_driver_buffers_free"));
    }
    let selected: Vec<String> = exprs.iter().flat_map(|expr| check(expr, &exposed)).collect();
    let shown: BTreeSet<&str> = selected.iter().map(|name| metric_of(name, &kinds)).collect();
    kinds.retain(|kind| !shown.contains(kind));
    let listed: BTreeSet<&str> = NOT_SHOWN.into_iter().chain(NOT_SHOWN_OF_DRIVERS).collect();
    assert_eq!(kinds, listed, "every metric is shown, or is listed here");

    let alerts = file("prometheus/alerts.yml");
    let exprs = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: '"));
    let exprs: Vec<&str> = exprs.map(|expr| expr.trim_end_matches('\'')).collect();
    assert_eq!(exprs.len(), alerts.matches("- alert: ").count());
    exprs.iter().for_each(|expr| drop(check(expr, &exposed)));
    check_by_promtool(folder.path(), &text);
}

/// By Prometheus's own tool, where this machine has it; where not, that is said.
fn check_by_promtool(folder: &std::path::Path, text: &str) {
    let exposition = folder.join("metrics.txt");
    fs::write(&exposition, text).expect("there is room");
    let rules = format!("{}/deploy/prometheus/alerts.yml", env!("CARGO_MANIFEST_DIR"));
    let input = fs::File::open(&exposition).expect("it is there");
    let checks: [(&[&str], Stdio); 2] =
        [(&["check", "rules", &rules], Stdio::null()), (&["check", "metrics"], input.into())];
    for (words, input) in checks {
        match Command::new("promtool").args(words).stdin(input).output() {
            Ok(output) => assert!(output.status.success(), "{words:?}: {output:?}"),
            Err(_) => eprintln!("not checked by promtool, which is not here: {words:?}"),
        }
    }
}
