//! Incidents in words: where in the module's source it happened.
//!
//! This is done in the supervisor, because a worker in which a module has crashed begins nothing; and on a thread of its own,
//! because it reads whole files while a replacement is to be led to its service.

use crate::server::Incident;
use crate::sys::recorder::LastCall;
use addr2line::gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Logs crashes, one after the other. Dropping it waits for the last line.
pub(super) struct Reporter {
    incidents: Option<mpsc::Sender<(Incident, u32)>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts its thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start() -> std::io::Result<Reporter> {
        let (incidents, to_report) = mpsc::channel();
        let report = move || {
            for (incident, pid) in to_report {
                tracing::error!("{} (worker {pid})", describe(&incident));
            }
        };
        let thread = std::thread::Builder::new().name("incidents".to_owned()).spawn(report)?;
        Ok(Reporter { incidents: Some(incidents), thread: Some(thread) })
    }

    /// Has a crash in the worker with this process id logged.
    pub(super) fn report(&self, incident: Incident, pid: u32) {
        if let Some(incidents) = &self.incidents {
            // The thread ends only with this value.
            _ = incidents.send((incident, pid));
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.incidents = None;
        // It panics nowhere, and if it did, the panic has been logged.
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What is logged of a crash: whose it is, what it was, where in the code, and at which request.
fn describe(incident: &Incident) -> String {
    let Incident { module, generation, what, place, is_exact, request, limit, .. } = incident;
    let relation = if *is_exact { " in" } else { ", called by" };
    let place = match place {
        Some((file, offset)) => format!("{relation}{}", named(file, *offset)),
        None if what.starts_with("SIG") => " at a pointer that it gave to the server".to_owned(),
        None => String::new(),
    };
    let during = if request.is_empty() { String::new() } else { format!(" ({request})") };
    let verb = if limit.is_some() { "hung" } else { "crashed" };
    format!("{module} generation {generation} {verb}: {what}{place}{during}; the worker is being replaced")
}

/// The calls that a worker died in, as a part of a sentence about that.
pub(super) fn describe_calls(calls: &[LastCall]) -> String {
    let describe = |call: &LastCall| format!("{} generation {} ({})", call.module, call.generation, call.request);
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
