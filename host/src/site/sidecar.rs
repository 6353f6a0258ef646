//! Files beside a file that have its content compressed: `style.css.br`, `style.css.zst`, `style.css.gz`.
//!
//! One counts if it is a regular file beneath the root, as any file of the site, and
//!
//! - *not older than the original*: an author who changes the original has not compressed it again yet, and what is sent would be
//!   what was there before, for as long as nobody notices. (Compressors give their output the time of its original, so that
//!   the same time is right.) A time in the future says nothing of this: it would be newer than every change to come.
//! - *at rest for a second*: compressors write in place, bit by bit, under the final name; what is there meanwhile is a part.
//!
//! Whether it has the same content is its author's responsibility.

use crate::http::accept::{Coding, Codings};
use crate::sys::files::{Folder, Identity, Kind, Opened};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For so long a file must not have changed to be taken for complete.
const REST: Duration = Duration::from_secs(1);

/// What there is beside a file.
#[derive(Debug, Default)]
pub(super) struct Sidecars {
    opened: [Option<Opened>; Coding::ALL.len()],
    /// The codings of those that count.
    pub(super) codings: Codings,
    /// One may come to count in a moment.
    pub(super) is_waiting: bool,
}

/// The end of the name of a sidecar with this coding, as the usual compressors choose it.
fn suffix(coding: Coding) -> &'static [u8] {
    match coding {
        Coding::Brotli => b".br",
        Coding::Zstandard => b".zst",
        Coding::Gzip => b".gz",
    }
}

/// The name of the file beside which one of this name would be taken for its compressed form.
pub(super) fn original(name: &str) -> Option<&str> {
    Coding::ALL.into_iter().find_map(|coding| name.strip_suffix(std::str::from_utf8(suffix(coding)).ok()?))
}

/// The path of the sidecar of the file at `relative`.
pub(super) fn path(relative: &[u8], coding: Coding) -> Vec<u8> {
    [relative, suffix(coding)].concat()
}

/// Looks for the sidecars of the file at `relative`, which is `original`. What is one itself has none.
pub(super) fn look(folder: &Folder, relative: &[u8], original: &Identity, now: SystemTime) -> Sidecars {
    let mut sidecars = Sidecars::default();
    if Coding::ALL.into_iter().any(|coding| relative.ends_with(suffix(coding))) {
        return sidecars;
    }
    for coding in Coding::ALL {
        match open(folder, relative, coding, original, now) {
            Found::Sidecar(opened) => {
                sidecars.opened[coding as usize - 1] = Some(opened);
                sidecars.codings = sidecars.codings.with(coding);
            }
            Found::Waiting => sidecars.is_waiting = true,
            Found::Nothing => {}
        }
    }
    sidecars
}

impl Sidecars {
    /// The one with this coding.
    pub(super) fn take(&mut self, coding: Coding) -> Option<Opened> {
        self.opened[coding as usize - 1].take()
    }
}

/// What [`open`] finds.
pub(super) enum Found {
    Sidecar(Opened),
    /// It will count when it has not changed for long enough.
    Waiting,
    Nothing,
}

/// Opens the sidecar of the file at `relative`, which is `original`, if it counts.
pub(super) fn open(folder: &Folder, relative: &[u8], coding: Coding, original: &Identity, now: SystemTime) -> Found {
    let Ok(opened) = folder.open_beneath(&path(relative, coding)) else { return Found::Nothing };
    let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    if opened.kind != Kind::File || !(original.modified_ns..=now_ns).contains(&opened.identity.modified_ns) {
        return Found::Nothing;
    }
    match opened.identity.changed_ns + REST.as_nanos() as i128 <= now_ns {
        true => Found::Sidecar(opened),
        false => Found::Waiting,
    }
}
