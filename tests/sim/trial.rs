//! Living through a world in which a promise may break, and finding the smallest one in which it
//! still does.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::faults::Fault;
use crate::link::Sabotage;
use crate::world::{Outcome, live};

/// Worlds that are tried for a smaller one.
const TRIALS_MAX: usize = 600;

/// Courses that are tried of every smaller world: without some of its parts the rest of it goes
/// another way, on which the failure may not lie.
const COURSES: u64 = 6;

/// Which world: everything follows from this.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) seed: u64,
    pub(crate) scene: Scene,
    /// Only these devices, where not all of them.
    pub(crate) devices: Option<Vec<usize>>,
    /// Only these faults, where not all that the seed turns on.
    pub(crate) faults: Option<Vec<Fault>>,
    /// Only so many turns before everybody is asked to leave.
    pub(crate) turns: Option<u64>,
    /// Which of the courses that this world can take.
    pub(crate) course: u64,
    pub(crate) sabotage: Option<Sabotage>,
}

/// What stands between clients and the gateway in a world.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Scene {
    #[default]
    Bare,
    /// Proxies, TLS, WebSockets, as the seed will have it.
    Layered,
}

/// The scenes that are named on the command line.
pub(crate) const SCENES: [(Scene, &str); 2] = [(Scene::Bare, "bare"), (Scene::Layered, "layered")];

impl Scene {
    pub(crate) fn word(self) -> &'static str {
        SCENES[self as usize].1
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        SCENES.iter().find(|(_, known)| *known == word).map(|(scene, _)| *scene)
    }
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) bounds: Bounds,
    /// Where in the source it was noticed.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// How far a world came, told while it runs, for when it ends before its time.
#[derive(Clone, Debug, Default)]
struct Progress {
    devices: Vec<usize>,
    faults: Vec<Fault>,
    turns: u64,
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
    static PROGRESS: RefCell<Progress> = RefCell::new(Progress::default());
}

/// A world begins, with these devices and faults.
pub(crate) fn tell_begin(devices: &[usize], faults: Vec<Fault>) {
    let progress = Progress { devices: devices.to_vec(), faults, turns: 0 };
    PROGRESS.with(|cell| *cell.borrow_mut() = progress);
}

/// A turn begins.
pub(crate) fn tell_turn(turns: u64) {
    PROGRESS.with(|cell| cell.borrow_mut().turns = turns);
}

/// Lives through a world.
pub(crate) fn attempt(bounds: &Bounds) -> Result<Outcome, Box<Failure>> {
    keep_panics_to_ourselves();
    IS_QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| live(bounds)));
    IS_QUIET.set(false);
    result.map_err(|panic| {
        let progress = PROGRESS.with(|cell| cell.borrow().clone());
        Box::new(Failure {
            bounds: Bounds {
                seed: bounds.seed,
                scene: bounds.scene,
                devices: Some(progress.devices),
                faults: Some(progress.faults),
                turns: Some(progress.turns),
                course: bounds.course,
                sabotage: bounds.sabotage,
            },
            place: PLACE.with(|cell| cell.borrow().clone()),
            text: text_of(&*panic),
        })
    })
}

/// The smallest world found in which the same promise is broken at the same place: first fewer
/// faults, then fewer devices.
pub(crate) fn shrink(failure: Box<Failure>) -> Box<Failure> {
    let mut best = failure;
    let mut trials = 0;
    loop {
        let before = best.bounds.clone();
        best = without(best, &mut trials, |bounds| &mut bounds.faults);
        best = without(best, &mut trials, |bounds| &mut bounds.devices);
        if best.bounds == before || trials >= TRIALS_MAX {
            return best;
        }
    }
}

/// Leaves out parts of a list, halves first, as long as the failure stays.
fn without<T: Clone>(
    mut best: Box<Failure>,
    trials: &mut usize,
    list: impl Fn(&mut Bounds) -> &mut Option<Vec<T>>,
) -> Box<Failure> {
    let count = |best: &Failure| list(&mut best.bounds.clone()).as_ref().map_or(0, Vec::len);
    let mut size = count(&best).div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < count(&best) && *trials < TRIALS_MAX {
            let mut smaller = best.bounds.clone();
            if let Some(parts) = list(&mut smaller) {
                let upto = (from + size).min(parts.len());
                parts.drain(from..upto);
            }
            match still_fails(&smaller, &best.place, trials) {
                Some(failure) => best = failure,
                None => from += size,
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    best
}

/// Whether the promise is broken in this world too, on one of its courses.
fn still_fails(bounds: &Bounds, place: &str, trials: &mut usize) -> Option<Box<Failure>> {
    (0..COURSES).find_map(|nth| {
        *trials += 1;
        let bounds = Bounds { course: (bounds.course + nth) % COURSES, ..bounds.clone() };
        attempt(&bounds).err().filter(|failure| failure.place == place)
    })
}

/// Panics of a trial are kept instead of printed: most worlds that are tried on the way to the
/// smallest are of no interest.
fn keep_panics_to_ourselves() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            PLACE.with(|cell| *cell.borrow_mut() = place);
            if !IS_QUIET.get() {
                before(info);
            }
        }));
    });
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_default()
}

impl fmt::Display for Bounds {
    /// As it is said on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SEED={}", self.seed)?;
        if self.scene != Scene::Bare {
            write!(f, " SCENE={}", self.scene.word())?;
        }
        if let Some(devices) = &self.devices {
            let devices: Vec<_> = devices.iter().map(usize::to_string).collect();
            write!(f, " CLIENTS={}", devices.join(","))?;
        }
        if let Some(faults) = &self.faults {
            let faults: Vec<_> = faults.iter().map(|fault| fault.word()).collect();
            write!(f, " FAULTS={}", faults.join(","))?;
        }
        if self.course > 0 {
            write!(f, " COURSE={}", self.course)?;
        }
        match self.turns {
            Some(turns) => write!(f, " TURNS={turns}"),
            None => Ok(()),
        }
    }
}
