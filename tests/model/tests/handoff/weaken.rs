//! Shows that the checks see what they are there to see: every guarantee that a file asks for is taken away once, at the
//! one place where it asks, and then some check has to fail. What nobody misses was asked for in vain, or is not checked.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe, Location};

/// What a place in a file can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// What the writer of this value did before is seen from here on.
    Acquire,
    /// Who reads this value sees what was done before.
    Release,
    /// All threads agree on the order of this access and others of its kind.
    TotalOrder,
    /// Nothing comes between the reading and the writing.
    Atomicity,
    /// Who sleeps on the word is woken.
    Wake,
    /// Nobody falls asleep on a word that has changed.
    Comparison,
}

/// A guarantee at its place. Places are in the order of their file.
type Asked = (&'static str, u32, u32, Guarantee);

/// A scenario and its name.
pub type Check = (&'static str, fn());

thread_local! {
    // loom runs all threads of a model on the thread of its test.
    static ASKED: RefCell<BTreeSet<Asked>> = const { RefCell::new(BTreeSet::new()) };
    static LOST: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// Which of these guarantees the caller's place has lost, if any.
#[track_caller]
pub fn lost(guarantees: &[Guarantee]) -> Option<Guarantee> {
    let place = Location::caller();
    let asked = guarantees.iter().map(|guarantee| (place.file(), place.line(), place.column(), *guarantee));
    if let Some(lost) = LOST.get() {
        return asked.into_iter().find(|asked| *asked == lost).map(|lost| lost.3);
    }
    ASKED.with_borrow_mut(|all| all.extend(asked));
    None
}

/// Runs the checks with each guarantee of one file taken away in turn, and expects one of them to fail each time. Checks
/// that are soon through come first in the list.
///
/// # Panics
/// A guarantee can go and no check fails, or a check fails as it is.
pub fn each_guarantee_is_needed(source: &str, file: &str, checks: &[Check]) {
    checks.iter().for_each(|(_, check)| check());
    let asked: Vec<Asked> = ASKED.take().into_iter().filter(|asked| asked.0.ends_with(file)).collect();
    assert!(!asked.is_empty(), "{file} asks for nothing");
    let mut wrong = Vec::new();
    for lost in asked {
        let line = source.lines().nth(lost.1 as usize - 1).unwrap_or_default().trim();
        let text = format!("{file}:{}:{}: {:?} of `{line}`", lost.1, lost.2, lost.3);
        LOST.set(Some(lost));
        let missed_by = checks.iter().find_map(|(name, check)| {
            let failure = first_line(&*panic::catch_unwind(AssertUnwindSafe(check)).err()?);
            // A scenario that goes round in circles has seen no mistake.
            (!failure.contains(NO_END)).then(|| format!("{name}: {failure}"))
        });
        LOST.set(None);
        match missed_by {
            Some(failure) => println!("{text}\n    {failure}"),
            None => wrong.push(format!("{text}: no check misses it")),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What loom says of a scenario that it cannot bring to an end.
const NO_END: &str = "exceeded maximum number of branches";

fn first_line(failure: &(dyn Any + Send)) -> String {
    let text = failure.downcast_ref::<String>().map(String::as_str).or(failure.downcast_ref::<&str>().copied());
    text.unwrap_or("(a panic without words)")
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .to_owned()
}
