//! `top`: how a gateway is, in a terminal, as it goes on.

pub mod known;
mod listen;
pub mod screen;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use ratatui::{DefaultTerminal, Terminal};

use crate::base::time::Span;
use crate::cli::args::TopArgs;
use crate::cli::args::admin::GatewayArgs;
use crate::cli::error::CliError;
use crate::cli::signals;
use crate::cli::top::known::{Known, News};
use crate::cli::top::listen::Listener;
use crate::cli::top::screen::Wishes;
use crate::os::pause::pause;

/// Longest wait for a key before what was heard is looked at.
const KEY_PATIENCE: Duration = Duration::from_millis(100);
/// News taken in before a frame is drawn.
const NEWS_A_FRAME: usize = 4_096;
/// Between the two looks of `--once`, where beats are counted.
const ONCE_SPAN: Span = Span::from_secs(1);
/// Columns and lines of a frame that goes to no terminal.
const PAPER: (u16, u16) = (120, 48);
/// Longest filter: as long as a client id.
const FILTER_MAX: usize = crate::base::limits::CLIENT_ID_BYTES_MAX;

/// Runs `top`.
pub fn run(args: &TopArgs) -> Result<(), CliError> {
    let place = &args.gateway;
    let filter = args.filter.clone().unwrap_or_default();
    let wishes = Wishes { filter, ..Wishes::default() };
    if args.once {
        return once(place, &wishes, args.json);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(CliError::usage("top draws on a terminal; without one, use --once"));
    }
    // Whoever cannot be asked now is told so before the screen is taken.
    let history = Listener::new(place)?.history()?;
    let news = listen::start(place)?;
    let wants_end = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&wants_end);
    let watch = signals::watch(move |_| ends.store(true, Ordering::Relaxed));
    let watch =
        watch.map_err(|cause| CliError::machine(format!("cannot watch for signals: {cause}")))?;
    // From here on a panic gives the terminal back before it is told.
    let screen = |cause| CliError::machine(format!("cannot draw on this terminal: {cause}"));
    let terminal = ratatui::try_init().map_err(screen)?;
    let mut top = Top { known: Known::default(), frozen: None, wishes, news, wants_end };
    top.known.hear(News::History(history));
    let outcome = top.run(terminal);
    ratatui::restore();
    watch.end();
    outcome.map_err(screen)
}

/// One frame, as text or as JSON.
fn once(place: &GatewayArgs, wishes: &Wishes, as_json: bool) -> Result<(), CliError> {
    let listener = Listener::new(place)?;
    let mut known = Known::default();
    known.hear(News::History(listener.history()?));
    listener.events()?.into_iter().for_each(|event| known.hear(News::Event(event)));
    known.hear(listener.clients()?);
    if known.counts_beats() {
        pause(ONCE_SPAN);
        known.hear(listener.clients()?);
    }
    let text = if as_json {
        format!("{}\n", known.json(wishes.sort_for(&known), &wishes.filter))
    } else {
        let (width, height) = match io::stdout().is_terminal() {
            true => terminal::size().unwrap_or(PAPER),
            false => PAPER,
        };
        let infallible = |error| CliError::machine(format!("cannot draw: {error}"));
        let mut paper = Terminal::new(TestBackend::new(width, height)).map_err(infallible)?;
        paper.draw(|frame| screen::draw(frame, &known, wishes)).map_err(infallible)?;
        screen::text_of(paper.backend().buffer())
    };
    io::stdout().write_all(text.as_bytes()).map_err(|cause| CliError::Stdout { cause })
}

struct Top {
    known: Known,
    /// What is shown while the picture stands still.
    frozen: Option<Box<Known>>,
    wishes: Wishes,
    news: Receiver<News>,
    wants_end: Arc<AtomicBool>,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Course {
    GoesOn,
    Ends,
}

impl Top {
    fn run(&mut self, mut terminal: DefaultTerminal) -> io::Result<()> {
        loop {
            for news in self.news.try_iter().take(NEWS_A_FRAME) {
                self.known.hear(news);
            }
            let known = self.frozen.as_deref().unwrap_or(&self.known);
            terminal.draw(|frame| screen::draw(frame, known, &self.wishes))?;
            if self.wants_end.load(Ordering::Relaxed) {
                return Ok(());
            }
            // All keys that wait are taken before the next frame.
            let mut patience = KEY_PATIENCE;
            while event::poll(patience)? {
                patience = Duration::ZERO;
                if let Event::Key(key) = event::read()?
                    && key.kind == KeyEventKind::Press
                    && self.on_key(key) == Course::Ends
                {
                    return Ok(());
                }
            }
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Course {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Course::Ends;
        }
        if self.wishes.is_typing {
            self.on_typed(key.code);
            return Course::GoesOn;
        }
        if let KeyCode::Char(letter) = key.code {
            match letter {
                'q' => return Course::Ends,
                'p' | ' ' => {
                    let known = &self.known;
                    self.wishes.is_paused = self.frozen.is_none();
                    self.frozen = self.wishes.is_paused.then(|| Box::new(known.clone()));
                }
                's' => self.wishes.sort = Some(self.wishes.sort_for(&self.known).next()),
                '/' => self.wishes.is_typing = true,
                _ => {}
            }
        }
        Course::GoesOn
    }

    fn on_typed(&mut self, code: KeyCode) {
        let filter = &mut self.wishes.filter;
        if let KeyCode::Char(letter) = code {
            if filter.len() + letter.len_utf8() <= FILTER_MAX {
                filter.push(letter);
            }
        } else if code == KeyCode::Backspace {
            filter.pop();
        } else if code == KeyCode::Enter {
            self.wishes.is_typing = false;
        } else if code == KeyCode::Esc {
            filter.clear();
            self.wishes.is_typing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn top() -> Top {
        let (_, news) = channel();
        Top {
            known: Known::default(),
            frozen: None,
            wishes: Wishes::default(),
            news,
            wants_end: Arc::default(),
        }
    }

    fn press(top: &mut Top, code: KeyCode) -> Course {
        top.on_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn a_filter_is_typed_kept_and_dropped_and_its_letters_are_no_keys() {
        let mut top = top();
        for code in ['/', 'q', 'p', 'x'].map(KeyCode::Char) {
            assert_eq!(press(&mut top, code), Course::GoesOn);
        }
        press(&mut top, KeyCode::Backspace);
        press(&mut top, KeyCode::Enter);
        assert_eq!((top.wishes.filter.as_str(), top.wishes.is_typing), ("qp", false));
        assert!(top.frozen.is_none());
        press(&mut top, KeyCode::Char('/'));
        press(&mut top, KeyCode::Esc);
        assert_eq!(top.wishes.filter, "");
        for _ in 0..2 * FILTER_MAX {
            top.on_typed(KeyCode::Char('y'));
        }
        assert_eq!(top.wishes.filter.len(), FILTER_MAX);
        top.wishes.is_typing = false;
        assert_eq!(press(&mut top, KeyCode::Char('q')), Course::Ends);
    }

    #[test]
    fn a_pause_holds_the_picture_and_not_the_hearing() {
        let mut top = top();
        press(&mut top, KeyCode::Char('p'));
        top.known.hear(News::Event(serde_json::json!({ "event": "online" })));
        assert_eq!(top.frozen.as_ref().map(|known| known.events.len()), Some(0));
        press(&mut top, KeyCode::Char('p'));
        assert!(top.frozen.is_none() && top.known.events.len() == 1);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(top.on_key(control_c), Course::Ends);
    }
}
