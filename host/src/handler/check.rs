//! Whether a build is sound: the checker process loads it once, so that nobody else has to find out.
//!
//! Steps: read the ELF file, compare ABI versions and symbols without running anything, `dlopen` it (constructors run),
//! read `host_module`, run `init`, report. The process that started this one learns by a byte in front of each step
//! where it died.

use super::elf::{self, Elf};
use super::foreign::{self, Foreign};
use super::library::Library;
use super::needed;
use super::state::{Functions, Saved};
use crate::sys::channel::read_memory_file;
use crate::sys::crash;
use abi::ffi::{
    HOST_ABI, HOST_BLOCKING, HOST_INIT_CHECK, HOST_MODULE_MAGIC, HOST_NOT_THREAD_SAFE, HOST_STREAM_INPUT, host_init,
    host_module_info,
};
use rustix::fs::{FileType, fstat};
use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::io::Write;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// What a checker process is called: `argv[0]` of a process that is to run [`main`].
pub const PROCESS: &str = "host: checker";

/// What is known about a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `major << 16 | minor` of the ABI that it was compiled against; none is taken for 1.0.
    pub abi: Option<u32>,
    /// `HOST_NOT_THREAD_SAFE` and its neighbours.
    pub flags: u32,
    /// The module's name for people.
    pub name: Option<String>,
    /// The module's version for people.
    pub version: Option<String>,
    /// The functions that it exports, sorted, at most [`SYMBOLS_MAX`].
    pub symbols: Vec<String>,
    /// Whether it exports a `host_module`.
    pub described: bool,
    /// Whether its state is kept: it has `save` and `restore`.
    #[serde(default)]
    pub keeps_state: bool,
    /// How a running worker gets from an older build to this one.
    pub class: ReloadClass,
    /// Why it is of that class; empty for [`ReloadClass::Swap`].
    pub reasons: Vec<String>,
    /// Why it must not be loaded, in words that follow the file's name. None: it is sound.
    pub error: Option<String>,
}

/// How a build replaces the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReloadClass {
    /// It is loaded beside the old one, and new requests go to it.
    #[default]
    Swap,
    /// Two builds of it do not work in one process: a new worker takes over.
    Replace,
}

/// Names of functions that a report carries at most; the ones that were asked for are always among them.
pub const SYMBOLS_MAX: usize = 1024;

/// Longer names are left out of a report, unless they were asked for.
const SYMBOL_BYTES_MAX: usize = 256;

/// A step that may end the process, announced by its byte on the report's pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Inside `dlopen`: the module's constructors, and those of what it needs.
    Constructor = b'C',
    /// Reading what `host_module` points to.
    Description = b'D',
    /// Inside `host_module.init`.
    Init = b'I',
    /// Inside `host_module.restore`.
    Restore = b'T',
    /// Inside `host_module.save`.
    Save = b'S',
    /// Inside what the module has put in the place of the host's signal handler.
    Signals = b'F',
}

/// In front of the report on the pipe; its length as four bytes, lowest first, and its JSON follow.
pub const REPORT_FOLLOWS: u8 = b'R';

/// The checker process: `argv` is [`PROCESS`], the file, the symbols that must exist. Standard input is the state that a
/// build before it has saved, if it is a file. The report goes to standard output, which must be a pipe; whatever the module
/// prints goes to standard error.
pub fn main() -> ! {
    let mut arguments = std::env::args_os().skip(1);
    let copy = PathBuf::from(arguments.next().unwrap_or_default());
    let required: Vec<String> = arguments.map(|symbol| symbol.to_string_lossy().into_owned()).collect();
    // If the parent died before this line, the first write below fails, which ends this process as well.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let Ok(mut pipe) = keep_report_apart() else { leave(1) };
    let Ok(state) = take_state() else { leave(1) };
    let trial = Trial { required: &required, state };
    // As in a worker: what a module finds, and puts its own in the place of.
    if crash::contain().is_err() {
        leave(1);
    }
    let report = inspect(&copy, trial, &mut |phase| {
        if pipe.write_all(&[phase as u8]).is_err() {
            leave(1);
        }
    });
    let Ok(json) = serde_json::to_vec(&report) else { leave(1) };
    let mut message = vec![REPORT_FOLLOWS];
    message.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    message.extend_from_slice(&json);
    leave(i32::from(pipe.write_all(&message).is_err()))
}

/// What the build is tried with.
struct Trial<'a> {
    required: &'a [String],
    /// What a build before it has saved.
    state: Option<Saved>,
}

/// Inspects the file, and loads it into this process. A bad module may end the process on the way, after `enter` was told
/// of the step.
fn inspect(copy: &Path, trial: Trial<'_>, enter: &mut dyn FnMut(Phase)) -> Report {
    let mut report = Report::default();
    let elf = match elf::read(copy) {
        Ok(elf) => elf,
        Err(error) => return Report { error: Some(error), ..report },
    };
    report.abi = elf.abi;
    report.described = elf.module_info_bytes.is_some();
    report.symbols = reported_symbols(&elf, trial.required);
    report.reasons = reasons_to_replace(&elf, copy);
    report.class = if report.reasons.is_empty() { ReloadClass::Swap } else { ReloadClass::Replace };
    report.error = load(copy, &elf, trial, &mut report, enter).and_then(|()| leaves_faults(enter)).err();
    report
}

/// What the module has loaded may handle its own faults, as language runtimes do, if it passes the others on.
fn leaves_faults(enter: &mut dyn FnMut(Phase)) -> Result<(), String> {
    for signal in crash::taken_over() {
        enter(Phase::Signals);
        if !crash::is_contained(signal) {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            return Err(format!(
                "takes {name} over and does not pass on what is not its own: a crash could not be contained; call the \
                 handler that was there before (sigaction(2))"
            ));
        }
    }
    Ok(())
}

fn load(
    copy: &Path,
    elf: &Elf,
    trial: Trial<'_>,
    report: &mut Report,
    enter: &mut dyn FnMut(Phase),
) -> Result<(), String> {
    elf.abi.map_or(Ok(()), speaks)?;
    exports(elf, trial.required)?;
    enter(Phase::Constructor);
    let library = Library::open(copy).map_err(|error| remedy(&error))?;
    let Some(size) = elf.module_info_bytes else { return Ok(()) };
    let address = library.data("host_module").ok_or("exports a host_module that cannot be found: build it again")?;
    enter(Phase::Description);
    let info = describe(address, size, report)?;
    if let Some(init) = info.init {
        enter(Phase::Init);
        let argument = host_init {
            size: size_of::<host_init>() as u32,
            reason: HOST_INIT_CHECK,
            generation: 0,
            extension: no_extension,
        };
        // SAFETY: `init` is the module's own function of this type, called once, from one thread, with an argument that
        // outlives the call, as host.h promises. If it misbehaves, it ends this process alone.
        let refused = unsafe { init(&argument) };
        if refused != 0 {
            return Err(format!("refuses to start: its init returned {refused}"));
        }
    }
    let Some(functions) = Functions::of(&info) else { return Ok(()) };
    if let Some(state) = trial.state {
        enter(Phase::Restore);
        // SAFETY: as above, and after init.
        let restored = unsafe { functions.restore(state) };
        restored.map_err(|how| format!("does not take over the state of the build before it: its restore {how}"))?;
    }
    enter(Phase::Save);
    // What a build that does not serve has to save is nothing; that it survives the attempt is something.
    // SAFETY: as above, and nothing else is called.
    drop(unsafe { functions.save() });
    Ok(())
}

/// Compares a module's ABI version with ours.
///
/// What was compiled against 1.0 loads in every 1.x host. A module of a newer minor version does not load in an older
/// host: it may call through fields that this host's structs do not have, and nothing in it tells whether it would.
fn speaks(theirs: u32) -> Result<(), String> {
    let show = |version: u32| format!("{}.{}", version >> 16, version & 0xffff);
    let (their, our) = (show(theirs), show(HOST_ABI));
    if theirs >> 16 != HOST_ABI >> 16 {
        return Err(format!("is built for ABI {their}, this host speaks {our}: build it with this host's host.h"));
    }
    if theirs > HOST_ABI {
        return Err(format!("needs ABI {their}, this host has {our}: update the host, or build with its host.h"));
    }
    Ok(())
}

/// Whether the library itself exports what is configured; `dlsym` alone would also find it in libc.
fn exports(elf: &Elf, required: &[String]) -> Result<(), String> {
    let default = ["application".to_owned()];
    let required = if required.is_empty() { &default } else { required };
    let Some(missing) = required.iter().find(|symbol| elf.functions.binary_search(symbol).is_err()) else {
        return Ok(());
    };
    let candidates: Vec<&String> = elf.functions.iter().filter(|name| is_candidate(name)).collect();
    let close = candidates.iter().map(|name| (distance(missing, name), name)).min();
    Err(match close {
        Some((distance, name)) if distance <= 1 + missing.len() / 4 => {
            format!("exports no {missing:?}; did you mean {name:?}?")
        }
        Some(_) => {
            let listed: Vec<&str> = candidates.iter().take(8).map(|name| name.as_str()).collect();
            let more = if candidates.len() > listed.len() { ", …" } else { "" };
            format!("exports no {missing:?}; it exports {}{more}", listed.join(", "))
        }
        None => format!("exports no {missing:?}, nor any other function: declare it HOST_EXPORT"),
    })
}

/// Compilers and languages export names of their own that nobody would mount.
fn is_candidate(name: &str) -> bool {
    !name.starts_with('_') && !name.starts_with("rust_") && !name.starts_with("host_")
}

fn reported_symbols(elf: &Elf, required: &[String]) -> Vec<String> {
    let asked = |name: &&String| required.contains(name) || *name == "application";
    let first = elf.functions.iter().filter(asked);
    // Mangled names can be very long, and nobody mounts those.
    let rest = elf.functions.iter().filter(|name| !asked(name) && name.len() <= SYMBOL_BYTES_MAX);
    let mut symbols: Vec<String> = first.chain(rest).take(SYMBOLS_MAX).cloned().collect();
    symbols.sort_unstable();
    symbols
}

fn reasons_to_replace(elf: &Elf, copy: &Path) -> Vec<String> {
    let mut reasons = Vec::new();
    if elf.go {
        reasons.push("it brings a Go runtime, of which a process can hold one".to_owned());
    }
    if let Some(name) = elf.unique.first() {
        reasons.push(format!("its unique symbols ({name}) would be shared with the build before it"));
    }
    if elf.static_tls {
        reasons.push("it uses static TLS, of which a process has a fixed amount".to_owned());
    }
    let needed = needed::find(elf, copy.parent().unwrap_or(copy), &[]);
    for library in &needed.beside {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        reasons.push(format!("it needs {name}, which would stay as it was when it was first loaded"));
    }
    for library in &needed.fixed {
        let path = library.display();
        reasons.push(format!(
            "it needs {path} at that very place, so do not overwrite it while it is in use; with -Wl,-rpath,'$ORIGIN' it \
             could be copied"
        ));
    }
    reasons
}

/// Reads `host_module`, whose symbol covers `bytes` bytes in the file.
fn describe(address: NonNull<c_void>, bytes: u64, report: &mut Report) -> Result<host_module_info, String> {
    if bytes < INFO_BYTES_MIN as u64 {
        return Err(format!("has a host_module of {bytes} bytes, {INFO_BYTES_MIN} are expected: build it with host.h"));
    }
    const { assert!(offset_of!(host_module_info, magic) == 0) };
    let address = address.cast::<host_module_info>();
    if !address.is_aligned() {
        return Err("has a host_module that is not aligned: declare it as a host_module_info".into());
    }
    // SAFETY: the symbol covers this field, the first, of a mapped library, and is aligned.
    let magic = unsafe { address.cast::<u32>().read() };
    if magic != HOST_MODULE_MAGIC {
        return Err(format!("has a host_module whose magic is {magic:#x}: set .magic = HOST_MODULE_MAGIC"));
    }
    // SAFETY: the symbol covers this field of a mapped library; what is past it is not read before its size is known.
    let size = unsafe { Foreign::new(address.as_ptr(), offset_of!(host_module_info, size)) }.size();
    if size < INFO_BYTES_MIN || size as u64 > bytes {
        return Err(format!("has a host_module whose size is {size}: set .size = sizeof(host_module_info)"));
    }
    // SAFETY: the symbol covers as many bytes as the struct says it has, of a mapped library, and is aligned.
    let info = unsafe { foreign::module_info(address.as_ptr()) };
    speaks(info.abi)?;
    report.abi = report.abi.or(Some(info.abi));
    let unknown = info.flags & !(HOST_NOT_THREAD_SAFE | HOST_BLOCKING | HOST_STREAM_INPUT);
    if unknown != 0 {
        return Err(format!(
            "has unknown flags {unknown:#x} in its host_module: this host has no such promise to keep"
        ));
    }
    if info.save.is_some() != info.restore.is_some() {
        return Err("has a save or a restore in its host_module, but not both: give it both, or neither".into());
    }
    report.flags = info.flags;
    report.keeps_state = info.save.is_some();
    report.name = text(info.name);
    report.version = text(info.version);
    Ok(info)
}

/// As long as it was when the ABI was frozen; what came later may be missing.
const INFO_BYTES_MIN: usize = offset_of!(host_module_info, save);

/// A module's own string, cut to what fits on a line.
fn text(pointer: *const c_char) -> Option<String> {
    let pointer = NonNull::new(pointer.cast_mut())?;
    // SAFETY: host.h wants a NUL-terminated string that lives as long as the module. A module that breaks this ends the
    // checker in a phase of its own.
    let string = unsafe { CStr::from_ptr(pointer.as_ptr()) };
    Some(string.to_string_lossy().chars().filter(|character| !character.is_control()).take(80).collect())
}

unsafe extern "C" fn no_extension(_id: *const c_char) -> *const c_void {
    std::ptr::null()
}

/// Puts into words what the loader's complaint means for the author.
fn remedy(error: &str) -> String {
    if let Some(symbol) = error.strip_prefix("undefined symbol: ") {
        let symbol = symbol.split([',', ' ']).next().unwrap_or(symbol);
        return format!("needs the symbol {symbol:?}, which nothing defines: link the library that has it");
    }
    if let Some(library) = error.strip_suffix(": cannot open shared object file: No such file or directory") {
        return format!(
            "needs {library}, which is not found: install it, or put it beside and link with -Wl,-rpath,'$ORIGIN'"
        );
    }
    if error.contains("failed to map segment from shared object") {
        return format!(
            "cannot be mapped ({error}): its folder is probably mounted noexec; name another with --runtime, or TMPDIR for `host check`"
        );
    }
    if error.contains("static TLS block") {
        return format!("cannot be loaded ({error}): build it without -ftls-model=initial-exec");
    }
    format!("cannot be loaded: {error}")
}

/// Optimal string alignment distance: the edits, neighbour swaps among them, that make one name of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().take(64).collect(), other.chars().take(64).collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let differs = usize::from(one[i - 1] != other[j - 1]);
            let mut best = (row[j - 1] + 1).min(rows[i - 1][j] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Keeps the report's pipe for us alone, and lets standard output go where standard error goes: a module that prints
/// must not write into the report.
fn keep_report_apart() -> std::io::Result<File> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
    // SAFETY: dup2 touches no memory. Descriptor 1 belongs to this process, which has no use for it but this.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(File::from(pipe))
}

/// Takes the state off standard input, and leaves nothing there.
fn take_state() -> std::io::Result<Option<Saved>> {
    let input = crate::sys::process::take_stdin()?;
    let is_file = FileType::from_raw_mode(fstat(&input)?.st_mode) == FileType::RegularFile;
    is_file.then(|| read_memory_file(input).map(Saved::new)).transpose()
}

/// Ends the process without running what the module has registered to run at its end.
fn leave(status: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(functions: &[&str]) -> Elf {
        let mut functions: Vec<String> = functions.iter().map(|name| (*name).to_owned()).collect();
        functions.sort_unstable();
        Elf { functions, ..Elf::default() }
    }

    #[test]
    fn a_missing_symbol_is_answered_with_the_closest_one() {
        let elf = library(&["app", "rust_eh_personality", "stop"]);
        let error = exports(&elf, &["ap".into()]).unwrap_err();
        assert_eq!(error, r#"exports no "ap"; did you mean "app"?"#);
        let error = exports(&elf, &[]).unwrap_err();
        assert_eq!(error, r#"exports no "application"; it exports app, stop"#);
        let error = exports(&library(&[]), &[]).unwrap_err();
        assert_eq!(error, r#"exports no "application", nor any other function: declare it HOST_EXPORT"#);
        exports(&elf, &["app".into(), "stop".into()]).unwrap();
    }

    #[test]
    fn distances_count_swaps_once() {
        assert_eq!(distance("application", "application"), 0);
        assert_eq!(distance("application", "applicaiton"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("hello", "help"), 2);
    }

    #[test]
    fn the_same_major_and_no_newer_minor_is_spoken() {
        speaks(0x0001_0000).unwrap();
        assert!(speaks(0x0002_0000).unwrap_err().starts_with("is built for ABI 2.0, this host speaks 1.0"));
        assert!(speaks(0).unwrap_err().starts_with("is built for ABI 0.0"));
        assert!(speaks(0x0001_0003).unwrap_err().starts_with("needs ABI 1.3, this host has 1.0"));
    }
}
