//! The results as pictures, and as numbers for whoever wants to draw their own.

use std::fs;
use std::path::Path;

use plotters::prelude::{BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange};
use plotters::prelude::{LineSeries, PathElement, RGBColor, SVGBackend, TRANSPARENT, Text, WHITE};
use serde_json::json;

use crate::compare::{Beats, Pause, Results};
use crate::rivals::{CoarseHashWheel, Deadlines, EagerList, HashWheel, HeartWheel, LazyList};
use crate::rivals::{MapScan, Order, TokioDelayQueue, Tree, spread_of};

const SIZE: (u32, u32) = (900, 560);

/// What one line is called, and its points.
type Line = (&'static str, Vec<(f64, f64)>);

/// Writes `wheel-beat.svg`, `wheel-tick.svg` and `wheel.json`.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(folder)?;
    let new_order = results.beats.iter().filter(|beats| beats.order == Order::New);
    let beats = lines(new_order.map(|beats| {
        let [_, median, _] = spread_of(&beats.nanos);
        (beats.name, beats.clients, median)
    }));
    let title = "A beat with its share of ticks, nanoseconds (median)";
    draw(&folder.join("wheel-beat.svg"), title, "ns", &beats)?;
    let ticks = lines(
        results
            .pauses
            .iter()
            .map(|pause| (pause.name, pause.clients, pause.longest.as_secs_f64() * 1e6)),
    );
    let title = "The longest tick in 300 s in which nobody dies, microseconds";
    draw(&folder.join("wheel-tick.svg"), title, "\u{b5}s", &ticks)?;
    let beats: Vec<_> = results.beats.iter().map(beats_json).collect();
    let pauses: Vec<_> = results.pauses.iter().map(pause_json).collect();
    let text = serde_json::to_string_pretty(&json!({ "beats": beats, "ticks": pauses }))?;
    fs::write(folder.join("wheel.json"), text + "\n")?;
    Ok(())
}

fn beats_json(beats: &Beats) -> serde_json::Value {
    let round = |values: &[f64]| spread_of(values).map(|value| (value * 100.0).round() / 100.0);
    json!({
        "name": beats.name,
        "clients": beats.clients,
        "order": format!("{:?}", beats.order).to_lowercase(),
        "rounds": beats.nanos.len(),
        "ns_quartiles": round(&beats.nanos),
        "times_bare_store_quartiles": round(&beats.of_store),
        "times_wheel_quartiles": round(&beats.of_wheel),
    })
}

fn pause_json(pause: &Pause) -> serde_json::Value {
    let nanos = |duration: std::time::Duration| {
        u64::try_from(duration.as_nanos()).expect("less than 584 years")
    };
    json!({
        "name": pause.name,
        "clients": pause.clients,
        "tick_ns_at_most_in_999_of_1000": nanos(pause.usual),
        "longest_tick_ns_in_every_run": nanos(pause.longest),
        "longest_tick_ns_once": nanos(pause.longest_once),
        "all_die_ns_each": (pause.death_nanos * 100.0).round() / 100.0,
    })
}

/// Points gathered by name, in the order of their first.
fn lines(points: impl Iterator<Item = (&'static str, u32, f64)>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (name, clients, value) in points {
        let point = (f64::from(clients), value);
        match lines.iter_mut().find(|line| line.0 == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    lines
}

/// Both axes logarithmic: what grows as the number of clients does is a line at 45 degrees.
fn draw(
    path: &Path,
    title: &str,
    unit: &str,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MAX, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN, f64::max);
    let x = least(&mut points().map(|(x, _)| x)) * 0.8..most(&mut points().map(|(x, _)| x)) * 1.25;
    let y = least(&mut points().map(|(_, y)| y)) * 0.6..most(&mut points().map(|(_, y)| y)) * 1.6;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (chart_area, names_area) = root.split_horizontally(620);
    let mut chart = ChartBuilder::on(&chart_area)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("clients")
        .y_desc(unit)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value}"))
        .draw()?;
    // Names stand beside the chart, the highest line first, as they end.
    let mut sorted: Vec<&Line> = lines.iter().collect();
    let last = |line: &Line| line.1.last().map_or(0.0, |(_, y)| *y);
    sorted.sort_by(|one, other| last(other).total_cmp(&last(one)));
    for (row, (name, points)) in (0..).zip(sorted) {
        let (color, width) = style_of(name);
        let style = color.stroke_width(width);
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        let y = 60 + 24 * row;
        names_area.draw(&PathElement::new(vec![(8, y), (30, y)], style))?;
        names_area.draw(&Text::new(*name, (36, y - 7), ("sans-serif", 14)))?;
    }
    root.present()?;
    Ok(())
}

/// Ours is red and thick, the limit black; the others are told apart, alike in every picture.
fn style_of(name: &str) -> (RGBColor, u32) {
    const OTHERS: [(&str, RGBColor); 7] = [
        (EagerList::NAME, RGBColor(31, 119, 180)),
        (LazyList::NAME, RGBColor(23, 190, 207)),
        (MapScan::NAME, RGBColor(44, 160, 44)),
        (Tree::NAME, RGBColor(188, 189, 34)),
        (TokioDelayQueue::NAME, RGBColor(148, 103, 189)),
        (HashWheel::NAME, RGBColor(140, 86, 75)),
        (CoarseHashWheel::NAME, RGBColor(227, 119, 194)),
    ];
    if name == HeartWheel::NAME {
        return (RGBColor(214, 39, 40), 3);
    }
    let other = OTHERS.iter().find(|(other, _)| *other == name);
    other.map_or((BLACK, 2), |(_, color)| (*color, 1))
}
