//! Incidents: in words, with where in the module's source it happened; and in a file each, with the request.
//!
//! This is done in the supervisor, because a worker in which a module has crashed begins nothing; and on a thread of its own,
//! because it reads whole files while a replacement is to be led to its service.

mod record;
mod redact;

pub use record::{Kept, Record, folder, numbers, read};

use super::Event;
use super::crew::WorkerId;
use crate::log;
use crate::request::Excerpt;
use crate::server::Incident;
use crate::sys::recorder::LastCall;
use addr2line::gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// Logs crashes, one after the other, and keeps their requests. Dropping it waits for the last line.
pub(super) struct Reporter {
    incidents: Option<mpsc::Sender<Told>>,
    thread: Option<JoinHandle<()>>,
    /// Requests of crashes that have not been told yet, by worker and its number.
    excerpts: HashMap<(WorkerId, u64), Excerpt>,
    /// Crashes that wait for the thread.
    waiting: Arc<AtomicUsize>,
}

/// What is told in its turn, of a worker with a process id.
struct Told {
    what: What,
    pid: u32,
    at: SystemTime,
}

enum What {
    Crash(Incident, Option<Excerpt>),
    /// Of the whole process: how it ended, and what it was calling.
    Death(String, Vec<LastCall>),
}

impl Reporter {
    /// Starts its thread. The files are made below `runtime`; `events` is told of each incident.
    ///
    /// # Errors
    /// There is no room for a folder or a thread.
    pub(super) fn start(runtime: &Path, events: mpsc::Sender<Event>) -> std::io::Result<Reporter> {
        let folder = folder(runtime);
        record::create_folder(&folder)?;
        let (incidents, to_report) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let still_waiting = Arc::clone(&waiting);
        let report = move || {
            for (number, told) in (1..).zip(to_report) {
                let record = report(&folder, number, told);
                still_waiting.fetch_sub(1, Ordering::Relaxed);
                // Nobody receives any more when the supervisor ends.
                _ = events.send(Event::Told(record));
            }
        };
        let thread = std::thread::Builder::new().name("incidents".to_owned()).spawn(report)?;
        Ok(Reporter { incidents: Some(incidents), thread: Some(thread), excerpts: HashMap::new(), waiting })
    }

    /// The request of a crash of which that worker will tell.
    pub(super) fn expect(&mut self, worker: WorkerId, crash: u64, excerpt: Option<Excerpt>) {
        let excerpt = excerpt.filter(|_| self.excerpts.len() < WAITING_MAX);
        self.excerpts.extend(excerpt.map(|excerpt| ((worker, crash), excerpt)));
    }

    /// Has a crash in that worker, with this process id, logged.
    pub(super) fn report(&mut self, worker: WorkerId, crash: u64, incident: Incident, pid: u32) {
        let excerpt = self.excerpts.remove(&(worker, crash));
        // Each is some 100 KiB of memory.
        let excerpt = excerpt.filter(|_| self.waiting.load(Ordering::Relaxed) < WAITING_MAX);
        self.tell(What::Crash(incident, excerpt), pid);
    }

    /// Has the death of the worker with this process id logged.
    pub(super) fn died(&self, pid: u32, how: &str, calls: Vec<LastCall>) {
        self.tell(What::Death(how.to_owned(), calls), pid);
    }

    fn tell(&self, what: What, pid: u32) {
        let Some(incidents) = &self.incidents else { return };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread ends only with this value.
        _ = incidents.send(Told { what, pid, at: SystemTime::now() });
    }

    /// A worker has ended: it tells of nothing any more.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.excerpts.retain(|(of, _), _| *of != worker);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.incidents = None;
        // It panics nowhere, and if it did, the panic has been logged.
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Keeps what is known, the request of a crash above all, and logs what has happened.
fn report(folder: &Path, number: u64, Told { what, pid, at }: Told) -> Record {
    let (text, consequence, request, bytes, build) = match what {
        What::Crash(incident, excerpt) => {
            let (request, bytes) = excerpt.map(record::keep).unzip();
            let text = describe(&incident, request.as_ref());
            let consequence = format!("the worker is being replaced (worker {pid}, incident {number})");
            (text, consequence, request, bytes.unwrap_or_default(), Some((incident.module, incident.generation)))
        }
        What::Death(how, calls) => {
            let text = format!("worker {pid} {how}{}", describe_calls(&calls));
            let consequence = format!("what it had in flight is lost (incident {number})");
            let build = calls.into_iter().next().map(|call| (call.module, call.generation));
            (text, consequence, None, Vec::new(), build)
        }
    };
    let (module, generation) = build.unwrap_or_default();
    let mut record = Record { number, at: log::time(at), module, generation, worker: pid, text, request };
    // First: who reads the line may look for the file.
    if let Err(error) = record::write(folder, &record, &bytes) {
        tracing::warn!("cannot keep incident {number} in {}: {error}", folder.display());
        record.request = None;
    }
    tracing::error!("{}; {consequence}", record.text);
    record
}

/// What is logged of a crash: whose it is, what it was, where in the code, and at which request.
fn describe(incident: &Incident, kept: Option<&Kept>) -> String {
    let Incident { module, generation, what, place, is_exact, request, limit, .. } = incident;
    let relation = if *is_exact { " in" } else { ", called by" };
    let place = match place {
        Some((file, offset)) => format!("{relation}{}", named(file, *offset)),
        None if what.starts_with("SIG") => " at a pointer that it gave to the server".to_owned(),
        None => String::new(),
    };
    let line = match (request.as_str(), kept) {
        ("", None) => String::new(),
        ("", Some(kept)) => kept.line.rsplit_once(' ').map_or(kept.line.as_str(), |(line, _version)| line).to_owned(),
        (request, _) => record::redact_request_line(request, &mut redact::Names::new()),
    };
    let during = if line.is_empty() { line } else { format!(" ({line})") };
    let verb = if limit.is_some() { "hung" } else { "crashed" };
    format!("{module} generation {generation} {verb}: {what}{place}{during}")
}

/// The calls that a worker died in, as a part of a sentence about that.
fn describe_calls(calls: &[LastCall]) -> String {
    let describe = |LastCall { module, generation, request, .. }: &LastCall| {
        let line = record::redact_request_line(request, &mut redact::Names::new());
        format!("{module} generation {generation} ({line})")
    };
    let told: Vec<_> = calls.iter().take(CALLS_TOLD_MAX).map(describe).collect();
    let others = match calls.len().saturating_sub(CALLS_TOLD_MAX) {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    if told.is_empty() { " in no call".to_owned() } else { format!(" in a call of {}{others}", told.join(", ")) }
}

/// As many as a person may read.
const CALLS_TOLD_MAX: usize = 8;

/// ` function at source:line, file+0xoffset`, as far as the file tells.
fn named(file: &Path, offset: u64) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let (function, line) = look_up(file, offset).unwrap_or_default();
    let function = function.map(|function| format!(" {function}")).unwrap_or_default();
    let line = line.map(|line| format!(" at {line},")).unwrap_or_default();
    format!("{function}{line} {name}+{offset:#x}")
}

/// The function and the line of source of the code at this offset in the file.
fn look_up(file: &Path, offset: u64) -> Option<(Option<String>, Option<String>)> {
    let bytes = std::fs::read(file).ok()?;
    let object = object::File::parse(&*bytes).ok()?;
    // Symbols and lines are told by addresses, a mapping by offsets.
    let address = object.segments().find_map(|segment| {
        let (start, length) = segment.file_range();
        (start..start + length).contains(&offset).then(|| segment.address() + offset - start)
    })?;
    let symbols = object.symbol_map();
    let symbol = symbols.before(address).map(|symbol| symbol.name().to_owned());
    // A library that was stripped still tells what it exports.
    let exported = || {
        let functions = object.dynamic_symbols().filter(|symbol| symbol.is_definition() && symbol.address() <= address);
        functions.max_by_key(ObjectSymbol::address)?.name().ok().map(str::to_owned)
    };
    let readable = |name: String| addr2line::demangle_auto(name.into(), None).into_owned();
    Some((symbol.or_else(exported).map(readable), source_line(&object, address)))
}

fn source_line(object: &object::File<'_>, address: u64) -> Option<String> {
    let endian = if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let section = |id: SectionId| {
        let data = object.section_by_name(id.name()).and_then(|section| section.uncompressed_data().ok());
        Ok::<_, addr2line::gimli::Error>(data.unwrap_or_default())
    };
    let sections = DwarfSections::load(section).ok()?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, endian));
    let context = addr2line::Context::from_dwarf(dwarf).ok()?;
    let location = context.find_location(address).ok()??;
    let told = (location.file?, location.line?);
    Some(format!("{}:{}", told.0, told.1))
}

/// Requests that wait to be written at a time.
const WAITING_MAX: usize = 64;
