//! The files of one upload: stored where nobody sees them, and published together.

use super::reply::{Refusal, Stored};
use super::{Broom, name};
use crate::site::sidecar;
use crate::sys::deposit::{Destination, Temporary};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The files of an upload to one folder, of which the last may still grow.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) destination: Destination,
    files: Vec<File>,
    /// Such files of all uploads in this process.
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct File {
    temporary: Temporary,
    /// What the client calls it.
    asked: String,
    bytes: u64,
    _counted: Counted,
}

/// Such files on the way to another process, without their descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Packed(Vec<PackedFile>);

#[derive(Debug, Serialize, Deserialize)]
struct PackedFile {
    asked: String,
    bytes: u64,
    hidden: Option<String>,
}

impl Files {
    pub(super) fn new(destination: Destination, open: Arc<AtomicUsize>) -> Files {
        Files { destination, files: Vec::new(), open }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Begins another file.
    pub(super) fn begin(&mut self, asked: String) -> Result<(), Refusal> {
        if self.files.len() == FILES_MAX {
            return Err(Refusal::new(
                413,
                format!("a form may have {FILES_MAX} files; send the others in another one"),
            ));
        }
        let counted = Counted::new(&self.open);
        if self.open.load(Ordering::Relaxed) > OPEN_FILES_MAX {
            return Err(Refusal::of(Errno::MFILE));
        }
        let temporary = self.destination.create()?;
        self.files.push(File { temporary, asked, bytes: 0, _counted: counted });
        Ok(())
    }

    /// Adds to the last one.
    pub(super) fn write(&mut self, content: &[u8]) -> Result<(), Refusal> {
        let Some(file) = self.files.last_mut() else { return Ok(()) };
        file.temporary.write(content)?;
        file.bytes += content.len() as u64;
        Ok(())
    }

    /// Gives each of them a name that nothing has: all of them or none.
    pub(super) fn publish(&mut self, broom: &mut Broom) -> Result<Vec<Stored>, Refusal> {
        self.files.iter().try_for_each(|file| file.temporary.sync())?;
        broom.sweep(&self.destination);
        let mut stored: Vec<Stored> = Vec::new();
        for file in &mut self.files {
            match publish_as(&self.destination, &mut file.temporary, &file.asked) {
                Ok(name) => stored.push(Stored { asked: file.asked.clone(), name, bytes: file.bytes }),
                Err(refusal) => {
                    self.take_back(&stored);
                    return Err(refusal);
                }
            }
        }
        if let Err(error) = self.destination.sync() {
            self.take_back(&stored);
            return Err(error.into());
        }
        self.files.clear();
        Ok(stored)
    }

    fn take_back(&self, stored: &[Stored]) {
        for (file, stored) in self.files.iter().zip(stored) {
            self.destination.take_back(&file.temporary, &stored.name);
        }
    }

    /// Puts the one file there is in the place of what has its name, and says how large it is. It has been synced before.
    pub(super) fn replace(&mut self, is_new: bool) -> Result<(), Errno> {
        let Some(file) = self.files.last_mut() else { return Ok(()) };
        match is_new {
            true => self.destination.publish(&mut file.temporary, &file.asked),
            false => self.destination.replace(&mut file.temporary, &file.asked),
        }
    }

    /// The one file there is: itself, and how large it is.
    pub(super) fn only(&self) -> Option<(&Temporary, u64)> {
        self.files.last().map(|file| (&file.temporary, file.bytes))
    }

    /// Forgets all of them.
    pub(super) fn discard(&mut self) {
        for file in self.files.drain(..) {
            self.destination.discard(file.temporary);
        }
    }

    /// For another process: what is known of them, and the files themselves.
    pub(super) fn pack(&mut self) -> (Packed, Vec<OwnedFd>) {
        let mut descriptors = Vec::new();
        let pack = |File { temporary, asked, bytes, .. }| {
            let (descriptor, hidden) = temporary.into_parts();
            descriptors.push(descriptor);
            PackedFile { asked, bytes, hidden }
        };
        (Packed(self.files.drain(..).map(pack).collect()), descriptors)
    }

    /// Goes on with those of another process. False if there is one file and no descriptor for it, or the reverse.
    pub(super) fn unpack(&mut self, Packed(files): Packed, descriptors: Vec<OwnedFd>) -> bool {
        let is_complete = files.len() == descriptors.len();
        let files = files.into_iter().zip(descriptors);
        self.files.extend(files.map(|(PackedFile { asked, bytes, hidden }, descriptor)| {
            let temporary = Temporary::from_parts(descriptor, hidden);
            File { temporary, asked, bytes, _counted: Counted::new(&self.open) }
        }));
        is_complete
    }
}

/// An open file among those of all uploads.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has no name is gone by itself; what has a hidden one has to be removed.
impl Drop for Files {
    fn drop(&mut self) {
        self.discard();
    }
}

fn publish_as(destination: &Destination, temporary: &mut Temporary, asked: &str) -> Result<String, Refusal> {
    for number in 0..=NUMBER_MAX {
        let name = name::numbered(asked, number);
        // SECURITY: beside `a.html` the site would send `a.html.gz` in its stead, so that who may add files could replace one.
        if let Some(original) = sidecar::original(&name)
            && destination.look(original)?.is_some()
        {
            continue;
        }
        match destination.publish(temporary, &name) {
            Ok(()) => return Ok(name.into_owned()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::new(409, format!("there are {NUMBER_MAX} files of that name already")))
}

/// Files of one form. Each is open until all are published, and all of them travel in one message to another worker.
const FILES_MAX: usize = 48;

/// Files of all uploads of one worker: connections need descriptors, too.
pub const OPEN_FILES_MAX: usize = 1024;

/// The highest number that a name gets.
const NUMBER_MAX: u32 = 9_999;
