//! Draws what `top` knows. Whatever a client said is escaped.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Sparkline, Table};
use serde_json::Value;

use crate::base::time::Span as TimeSpan;
use crate::cli::ctl::{shown, shown_value, time_of_day};
use crate::cli::top::known::{Known, Link, Row, Sort};

/// What the person wants to see.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// What clients are sorted by; `None`: by what is known of them.
    pub sort: Option<Sort>,
    /// What client ids contain.
    pub filter: String,
    /// Whether the filter is being typed.
    pub is_typing: bool,
    /// Whether the picture stands still.
    pub is_paused: bool,
}

impl Wishes {
    /// What clients are sorted by.
    pub fn sort_for(&self, known: &Known) -> Sort {
        let standard = if known.counts_beats() { Sort::Beats } else { Sort::Silence };
        self.sort.unwrap_or(standard)
    }
}

/// Draws one frame.
pub fn draw(frame: &mut Frame<'_>, known: &Known, wishes: &Wishes) {
    let area = frame.area();
    let tall = area.height >= 24;
    let [head, numbers, curves, middle, clients, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(if tall { 5 } else { 0 }),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(known, wishes), head);
    frame.render_widget(Paragraph::new(numbers_lines(known)), numbers);
    if tall {
        draw_curves(frame, known, curves);
    }
    let [reasons, events] =
        Layout::horizontal([Constraint::Length(40), Constraint::Fill(1)]).spacing(2).areas(middle);
    draw_reasons(frame, known, reasons);
    draw_events(frame, known, wishes, events);
    draw_clients(frame, known, wishes, clients);
    frame.render_widget(key_line(wishes), keys);
}

fn headline(known: &Known, wishes: &Wishes) -> Line<'static> {
    let history = &known.history;
    let up_ms = known.now().map_or(history.now_unix_ms, |now| now.at_unix_ms);
    let up = TimeSpan::from_secs(up_ms.saturating_sub(history.started_unix_ms) / 1_000);
    let shards =
        if history.shards == 1 { "1 shard" } else { &format!("{} shards", history.shards) };
    let mut line = vec![
        "heartwheel ".bold(),
        shown(&history.node).bold(),
        format!("  {}  {}  {shards}  up {up}  ", history.version, history.driver).into(),
    ];
    line.push(match &known.link {
        Link::New => "connecting".yellow(),
        Link::Live if wishes.is_paused => "paused".yellow().bold(),
        Link::Live => "live".green(),
        Link::Lost(why) => format!("LOST: {}", shown(why)).red().bold(),
    });
    if known.now().is_some_and(|now| now.draining) {
        line.push("  a drain is under way".yellow().bold());
    } else if known.now().is_some_and(|now| !now.accepting) {
        line.push("  newcomers are not let in".yellow().bold());
    }
    Line::from(line)
}

fn numbers_lines(known: &Known) -> Vec<Line<'static>> {
    let now = known.now().cloned().unwrap_or_default();
    let went: u64 = known.went().iter().map(|(_, minute, _)| minute).sum();
    let rate = known.beats_per_s().map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    let late = |share| match known.late_ms(share) {
        None => "-".to_owned(),
        Some(bound) if bound.is_infinite() => "over 60s".to_owned(),
        Some(bound) => format!("<= {bound} ms"),
    };
    let number = |text: String| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    vec![
        Line::from(vec![
            number(now.online.to_string()),
            " online   ".into(),
            number(now.connections.to_string()),
            " connections   ".into(),
            number(now.held.to_string()),
            " held   ".into(),
            number(rate),
            " beats/s".into(),
        ]),
        Line::from(vec![
            number(known.came().to_string()),
            " came   ".into(),
            number(went.to_string()),
            " went in the last minute   verdicts late: half ".into(),
            number(late(0.5)),
            "   99 of 100 ".into(),
            number(late(0.99)),
        ]),
    ]
}

fn draw_curves(frame: &mut Frame<'_>, known: &Known, area: Rect) {
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
    let samples = &known.history.samples;
    let curve = |area: Rect, title: &str, values: &dyn Fn(usize) -> u64, colour| {
        let room = usize::from(area.width);
        let first = samples.len().saturating_sub(room);
        let values: Vec<u64> = (first..samples.len()).map(values).collect();
        let most = values.iter().copied().max().unwrap_or_default();
        let title = format!("{title}, {} s, top is {most}", values.len());
        (values, titled(title), colour)
    };
    for (area, (values, block, colour)) in [
        (left, curve(left, "online", &|at| samples[at].online, Color::Blue)),
        (
            right,
            curve(
                right,
                "beats/s",
                &|at| samples[at].beats * 1_000 / samples[at].span_ms.max(1),
                Color::Cyan,
            ),
        ),
    ] {
        let line = Sparkline::default().block(block).data(values).style(Style::new().fg(colour));
        frame.render_widget(line, area);
    }
}

fn titled(title: impl Into<String>) -> Block<'static> {
    let title = Span::styled(title.into(), Style::new().add_modifier(Modifier::BOLD));
    Block::new().borders(Borders::TOP).border_style(Style::new().fg(Color::DarkGray)).title(title)
}

fn draw_reasons(frame: &mut Frame<'_>, known: &Known, area: Rect) {
    let rows: Vec<TableRow<'_>> = known
        .went()
        .into_iter()
        .map(|(reason, minute, all)| {
            TableRow::new([
                Cell::new(shown(&reason)),
                Cell::new(Line::from(minute.to_string()).right_aligned()),
                Cell::new(Line::from(all.to_string()).right_aligned()),
            ])
        })
        .collect();
    let widths = [Constraint::Fill(1), Constraint::Length(9), Constraint::Length(9)];
    let minutes = known.history.samples.len().div_ceil(60);
    let head = header(["WENT", "last min", &format!("{minutes} min")], 1);
    let table = Table::new(rows, widths).header(head).block(titled("went, by reason"));
    frame.render_widget(table, area);
}

/// Column heads; those from `right_from` on stand above numbers.
fn header<const N: usize>(names: [&str; N], right_from: usize) -> TableRow<'static> {
    let cell = |(at, name): (usize, &str)| {
        let line = Line::from(name.to_owned());
        Cell::new(if at >= right_from { line.right_aligned() } else { line })
    };
    let cells: Vec<Cell<'static>> = names.into_iter().enumerate().map(cell).collect();
    TableRow::new(cells).style(Style::new().fg(Color::DarkGray))
}

fn draw_events(frame: &mut Frame<'_>, known: &Known, wishes: &Wishes, area: Rect) {
    let lines: Vec<Line<'static>> =
        known.events_of(&wishes.filter).take(area.height.into()).map(event_line).collect();
    frame.render_widget(Paragraph::new(lines).block(titled("latest events")), area);
}

fn event_line(event: &Value) -> Line<'static> {
    let at = event["at_unix_ms"].as_u64().map(time_of_day).unwrap_or_default();
    let kind = shown_value(&event["event"]);
    let colour = match kind.as_str() {
        "online" | "resumed" => Color::Blue,
        "offline" => Color::Red,
        _ => Color::Yellow,
    };
    let mut line = vec![
        Span::styled(at.split('.').next().unwrap_or_default().to_owned(), Color::DarkGray),
        Span::styled(format!(" {kind:<9} "), colour),
    ];
    if let Some(client) = event["client"].as_str() {
        line.push(shown(client).into());
    }
    if let Some(reason) = event["reason"].as_str() {
        let silence_ms = event["silence_ms"].as_u64().unwrap_or_default();
        let silence = TimeSpan::from_millis(silence_ms);
        line.push(format!("  {}, silent {silence}", shown(reason)).into());
    }
    Line::from(line)
}

fn draw_clients(frame: &mut Frame<'_>, known: &Known, wishes: &Wishes, area: Rect) {
    let sort = wishes.sort_for(known);
    let found = known.sorted(sort, &wishes.filter);
    let mut title = format!("clients by {}: {}", sort.word(), found.len());
    if !wishes.filter.is_empty() {
        title.push_str(&format!(" with \"{}\"", shown(&wishes.filter)));
    }
    if known.more {
        title.push_str(&format!(" of the first {}", known.rows.len()));
    }
    let rows = found.into_iter().take(area.height.into()).map(client_row);
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(22),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let names = ["CLIENT", "STATE", "CLASS", "REMOTE", "EVERY", "SILENT", "BEATS/S", "OUTBOX"];
    let table = Table::new(rows, widths).header(header(names, 4)).block(titled(title));
    frame.render_widget(table, area);
}

fn client_row(row: &Row) -> TableRow<'static> {
    let text = |key: &str| shown_value(&row.client[key]);
    let span = |key: &str| {
        let ms = row.client[key].as_u64().unwrap_or_default();
        TimeSpan::from_millis(ms).to_string()
    };
    let state = text("state");
    let colour = if state == "live" { Color::Green } else { Color::Yellow };
    let rate = row.beats_per_s.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    let numbers = [span("interval_ms"), span("silence_ms"), rate, text("outbox_bytes")];
    let texts = [
        Cell::new(text("client")),
        Cell::new(Span::styled(state, colour)),
        Cell::new(text("class")),
        Cell::new(text("remote")),
    ];
    let numbers = numbers.map(|number| Cell::new(Line::from(number).right_aligned()));
    TableRow::new(texts.into_iter().chain(numbers))
}

fn key_line(wishes: &Wishes) -> Line<'static> {
    if wishes.is_typing {
        return Line::from(vec![
            "filter: ".bold(),
            shown(&wishes.filter).into(),
            "_   Enter keeps it, Esc drops it".dark_gray(),
        ]);
    }
    let keys = "q quit   p pause   s sort   / filter";
    Line::from(keys.dark_gray())
}

/// A drawn frame as lines of text, without colours and blanks at their ends.
pub fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::known::{News, Sample};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    fn known() -> Known {
        let mut known = Known::default();
        known.history.node = "north\u{1b}[2J".to_owned();
        known.history.shards = 1;
        let went = [("heartbeat_timeout".to_owned(), 3)].into();
        known.hear(News::Sample(Sample {
            at_unix_ms: 1_000,
            span_ms: 1_000,
            online: 1_234,
            beats: 99,
            accepting: true,
            went,
            ..Sample::default()
        }));
        known.hear(News::Event(json!({
            "event": "offline", "client": "\u{202e}x\u{7}", "reason": "reset", "silence_ms": 1500,
        })));
        let client = json!({ "client": "till\u{9b}1", "epoch": 1, "state": "live" });
        let at = crate::base::time::Moment::ZERO;
        known.hear(News::Clients { clients: vec![client], more: true, at });
        known
    }

    fn frame(width: u16, height: u16, wishes: &Wishes) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("no terminal");
        terminal.draw(|frame| draw(frame, &known(), wishes)).expect("no terminal");
        text_of(terminal.backend().buffer())
    }

    #[test]
    fn a_frame_says_what_is_known_and_nothing_steers_the_terminal() {
        let text = frame(120, 40, &Wishes::default());
        for part in [
            "1234 online",
            "99.0 beats/s",
            "heartbeat_timeout",
            "north\\u{1b}[2J",
            "\\u{202e}x\\u{7}  reset, silent 1500ms",
            "till\\u{9b}1",
            "of the first 1",
            "live",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn a_frame_fits_into_any_terminal() {
        let wishes = Wishes { is_typing: true, filter: "x".repeat(300), ..Wishes::default() };
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (81, 23), (500, 100)] {
            let text = frame(width, height, &wishes);
            assert_eq!(text.lines().count(), usize::from(height));
        }
    }
}
