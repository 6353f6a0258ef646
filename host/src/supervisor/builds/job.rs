//! One job: copy a build and check the copy, on a thread of its own.

use super::checker::{self, Trial, Verdict};
use super::pipeline::Message;
use super::private::{self, Inputs, Taken};
use super::take::NotTaken;
use super::{Options, Steps};
use crate::handler::check::Report;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What a job needs.
pub struct Job {
    /// The module's name.
    pub module: String,
    /// The user's file.
    pub source: PathBuf,
    /// What is known to go into the build.
    pub inputs: Inputs,
    /// The generation that it will be if it is sound.
    pub number: u64,
    /// The executable that becomes the checker process.
    pub checker: Arc<Path>,
    /// The pipeline's.
    pub options: Arc<Options>,
    /// Set when nobody wants the result any longer.
    pub cancel: Arc<AtomicBool>,
}

/// How it ended.
#[expect(clippy::large_enum_variant, reason = "one or two exist at a time, and each is moved a few times")]
pub enum Outcome {
    /// The build may serve.
    Sound { taken: Taken, folder: PathBuf, report: Report, steps: Steps },
    /// It must not. `inputs`: what was looked at; `plain`: it has no application and nobody asked for one.
    Refused { reason: String, inputs: Inputs, plain: bool },
    /// Somebody is at it still; see [`NotTaken::Later`].
    NotReady(Duration),
    /// The file is gone.
    Missing,
    /// It was cancelled.
    Cancelled,
}

/// Starts the job; its outcome comes as a message.
///
/// # Errors
/// There is no thread to be had; no message comes.
pub fn start(job: Job, messages: Sender<Message>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("check {}", job.module));
    thread.spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&job))).unwrap_or_else(|_| Outcome::Refused {
            reason: "cannot be checked: the check itself failed, see above".into(),
            inputs: Inputs::new(),
            plain: false,
        });
        let _ = messages.send(Message::Done { module: job.module, outcome });
    })?;
    Ok(())
}

fn run(job: &Job) -> Outcome {
    let folder = job.options.runtime.join(folder_name(&job.module, job.number));
    let mut inputs = job.inputs.clone();
    let started = Instant::now();
    let taken = match private::take(&job.source, &folder, &mut inputs) {
        Ok(taken) => taken,
        Err(NotTaken::Later(rest)) => return Outcome::NotReady(rest),
        Err(NotTaken::Missing) => return Outcome::Missing,
        Err(NotTaken::Failed(reason)) => return Outcome::Refused { reason, inputs, plain: false },
    };
    let copied = Instant::now();
    let none = Vec::new();
    let required = job.options.symbols.get(&job.module).unwrap_or(&none);
    let trial = Trial { required, state: job.options.states.of(&job.module) };
    let verdict = checker::run(&job.checker, &taken.copy, trial, job.options.check_timeout, &job.cancel);
    let steps = Steps { copy: copied - started, check: copied.elapsed(), ..Steps::default() };
    let outcome = match verdict {
        Verdict::Reported(mut report) => match report.error.take() {
            None => return Outcome::Sound { taken, folder, report, steps },
            Some(reason) => {
                let has_application = report.abi.is_some() || report.symbols.iter().any(|name| name == "application");
                Outcome::Refused { reason, inputs: taken.inputs, plain: required.is_empty() && !has_application }
            }
        },
        Verdict::Failed(reason) => Outcome::Refused { reason, inputs: taken.inputs, plain: false },
        Verdict::Cancelled => Outcome::Cancelled,
    };
    private::remove(&folder);
    outcome
}

/// `admin.ctime@7.3f2a`: the generation for people, a serial number because a refused build's generation comes again.
/// Names of modules hold no dot, so two modules never share one.
pub fn folder_name(module: &str, number: u64) -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{}@{number}.{:x}-{serial:x}", module.replace('/', "."), std::process::id())
}
