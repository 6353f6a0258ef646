//! Builds: from a changed file to a checked private copy.
//!
//! Steps: look modules up (`lookup`, `cargo`), notice changes (`watcher`, and a slow poll), wait until the writer is done
//! and copy (`take`, `private`), check in a process of its own (`checker`), tell (`Notice`). All of it runs on threads
//! of its own (`pipeline`); nothing here loads a module.

mod cargo;
mod checker;
mod command;
mod first;
mod job;
mod last_states;
mod lookup;
mod module;
mod pipeline;
mod private;
mod take;
mod watcher;

pub use command::{check_file, command};
pub use last_states::LastStates;

use crate::handler::check::Report;
use anyhow::{Context as _, bail};
use pipeline::{Message, Pipeline};
use rustix::fs::StatVfsMountFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The running pipeline; dropping it stops its threads, and ends checks that are under way.
#[derive(Debug)]
pub struct Builds {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What the pipeline needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of handlers.
    pub handlers: PathBuf,
    /// An existing folder of mode 0700 that is ours alone, for the private copies. Libraries must be executable there.
    pub runtime: PathBuf,
    /// Whether changes are noticed; if not, only [`Builds::rescan`] looks again.
    pub reload: bool,
    /// Symbols that a module must export because the configuration names them, by module. Any other module must export
    /// `application`.
    pub symbols: BTreeMap<String, Vec<String>>,
    /// What a pipeline before this one knew, by module.
    pub known: BTreeMap<String, Known>,
    /// How long constructors and `init` of a build may take when it is checked.
    pub check_timeout: Duration,
    /// What a new build of a module that has its state kept is tried with.
    pub states: LastStates,
}

/// What a pipeline is told of a module that another one had.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The number of its last sound build: the next one has the next number.
    pub generation: u64,
    /// Whether it was there until now. If it is not found for a second, it is [`Notice::Gone`].
    pub is_present: bool,
}

/// What the pipeline tells. Notices come one at a time, from one thread.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one or two exist at a time, and each is moved a few times")]
pub enum Notice {
    /// The first look is complete: every module that was found has had its `Sound`, `Refused` or `NotBuilt`. Comes once.
    Scanned {
        /// Everything that was found.
        modules: Vec<Found>,
    },
    /// A new build may serve.
    Sound(Build),
    /// A new build must not serve. The one before it, if any, is untouched by this.
    Refused {
        /// The module.
        module: String,
        /// The user's file.
        file: PathBuf,
        /// Why, and what to do about it, in words that follow the file's name.
        reason: String,
    },
    /// A module that had a `Sound` or `Refused` build, or none, has had no file for a second.
    Gone {
        /// The module.
        module: String,
    },
    /// There is a crate for this module, and no build of it.
    NotBuilt {
        /// The module.
        module: String,
        /// The command that builds it: `cargo build -p sayhello`.
        hint: String,
    },
}

/// One module of the first look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub module: String,
    /// The user's file; none if it is not built.
    pub file: Option<PathBuf>,
    /// As [`Build::note`].
    pub note: String,
}

/// A sound build: a private copy of a module's file that passed the check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Build {
    /// The module's name, such as `ctime` or `admin/ctime`.
    pub module: String,
    /// Counts the sound builds of this module from 1; never reused.
    pub generation: u64,
    /// The user's file.
    pub source: PathBuf,
    /// The copy to load. This path is never reused.
    pub copy: PathBuf,
    /// The folder of this build alone, which holds `copy` and all that goes with it.
    pub folder: PathBuf,
    /// Why this file and not another: `newer than release`. Often empty.
    pub note: String,
    /// What the check found.
    pub report: Report,
    /// When the file was first seen in the state that was copied.
    #[serde(skip, default = "Instant::now")]
    pub noticed: Instant,
    /// Where the time went since `noticed`.
    #[serde(skip)]
    pub steps: Steps,
}

/// Where the time went between noticing a change and telling that it is sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Until the writer was done and the change old enough.
    pub wait: Duration,
    /// Copying.
    pub copy: Duration,
    /// The checker process, from its start to its report and end.
    pub check: Duration,
}

impl Builds {
    /// Looks up and checks everything there is once (in parallel, bounded), then watches. `notice` is called from the
    /// pipeline's thread, and holds it up while it runs.
    ///
    /// # Errors
    /// The runtime folder is missing or may not execute, or there is no thread to be had.
    pub fn start(options: Options, notice: impl Fn(Notice) + Send + Sync + Clone + 'static) -> anyhow::Result<Builds> {
        Builds::start_with(Path::new("/proc/self/exe"), options, notice)
    }

    /// As [`Builds::start`], with the executable that becomes the checker process.
    ///
    /// # Errors
    /// As [`Builds::start`].
    pub fn start_with(
        checker: &Path,
        options: Options,
        notice: impl Fn(Notice) + Send + Sync + Clone + 'static,
    ) -> anyhow::Result<Builds> {
        may_execute(&options.runtime)?;
        let options = Options { handlers: std::path::absolute(&options.handlers)?, ..options };
        let (messages, inbox) = channel();
        let pipeline = Pipeline::new(checker.to_owned(), options, messages.clone(), inbox, Box::new(notice));
        let thread = std::thread::Builder::new().name("builds".into()).spawn(move || pipeline.run());
        let thread = thread.context("cannot start the thread that watches builds")?;
        Ok(Builds { messages, thread: Some(thread) })
    }

    /// Looks again now; `force` takes and checks every build again, changed or not, but for those that are held.
    pub fn rescan(&self, force: bool) {
        let _ = self.messages.send(Message::Rescan { force });
    }

    /// Keeps from taking this module's file again until it changes, or lets that be: somebody has gone back from it.
    pub fn hold(&self, module: &str, held: bool) {
        let _ = self.messages.send(Message::Hold { module: module.to_owned(), held });
    }
}

impl Drop for Builds {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Removes a build's private folder. For its owner to call, when nothing maps the copy any longer or will look at it.
pub fn discard(build: &Build) {
    private::remove(&build.folder);
}

/// A build that was sound, as a copy under a path of its own: a process that has loaded the other one, and maybe called its
/// `stop`, begins anew with this one. The rest is as it was, but for the time.
///
/// # Errors
/// The copy cannot be made; the disk is full, most likely.
pub fn again(build: &Build) -> std::io::Result<Build> {
    let noticed = Instant::now();
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let name = job::folder_name(&build.module, build.generation);
    let folder = build.folder.parent().ok_or_else(missing)?.join(name);
    private::copy_again(&build.folder, &folder)?;
    let copy = folder.join(build.copy.strip_prefix(&build.folder).map_err(|_| missing())?);
    Ok(Build { copy, folder, noticed, steps: Steps::default(), ..build.clone() })
}

/// Refuses a folder from which no library can be mapped.
fn may_execute(runtime: &Path) -> anyhow::Result<()> {
    let system = rustix::fs::statvfs(runtime);
    let system = system.with_context(|| format!("cannot use {} for private copies", runtime.display()))?;
    if system.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        bail!(
            "cannot use {} for private copies: it is mounted noexec; name a folder that may execute with --runtime",
            runtime.display()
        );
    }
    Ok(())
}
