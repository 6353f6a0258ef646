//! Crashes of foreign code, contained: the thread that crashes tells who waits for it, and is parked for ever.
//!
//! A thread says when it calls a module, and who is to be told ([`watched`]). A fault in there is the module's: nothing of
//! that thread may run on, because what it was in the middle of is unknown, and nothing may be undone. So the signal
//! handler marks the build, tells the watch, and never returns. A fault anywhere else (the host's own, or on a thread that
//! a module has made) ends the process as if there were no handler.
//!
//! What runs in the handler takes no lock and allocates nothing (signal-safety(7)). The thread local is a constant without
//! a destructor, so that a look at it is a look at memory.

use super::process::exit_now;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::time::Instant;

/// Whose code runs. It is never freed, because a thread may be parked in that code.
#[derive(Debug)]
pub struct Suspect {
    /// The module's name.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// The file that the code was loaded from.
    pub copy: PathBuf,
    /// Since when.
    pub since: Instant,
    calls: AtomicU64,
    crashed: AtomicBool,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// In whose code.
    pub suspect: &'static Suspect,
    /// What.
    pub kind: Kind,
    /// The address of the instruction; 0 if there is none to blame.
    pub instruction: usize,
    /// The stack pointer at that time; 0 if unknown.
    pub stack: usize,
    /// What the call was about, if it has said so.
    pub subject: Option<Subject>,
}

/// What a call is about: an address, for who knows what is there. After a crash it stays there for ever, since the thread
/// whose it is never runs again.
#[derive(Clone, Copy, Debug)]
pub struct Subject(pub NonNull<()>);

// SAFETY: it is an address; whoever looks there says why it may.
unsafe impl Send for Subject {}

/// How code can end a thread that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signal.
    Signal(c_int),
    /// A call of exit(3), with this status.
    Exit(c_int),
    /// A call of pthread_exit(3).
    ThreadExit,
}

/// Who gets what a call had, if it crashes.
pub trait Heir<T> {
    /// Is called on the thread that crashed, maybe in a signal handler: it must take no lock, and neither allocate nor
    /// free (signal-safety(7)). Afterwards that thread never runs again.
    fn inherit(&self, belongings: T, fault: Fault);
}

/// A call that is under way on this thread.
struct Watch {
    suspect: &'static Suspect,
    heir: *const (),
    belongings: *const (),
    subject: Cell<Option<Subject>>,
    /// Gives the belongings to the heir.
    leave: unsafe fn(*const (), *const (), Fault),
}

thread_local! {
    static WATCH: AtomicPtr<Watch> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// This is a child that a module's code has forked.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Threads that are parked.
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// With so many parked threads something is wrong that parking does not mend: the process ends, and another takes its place.
const PARKED_MAX: usize = 64;

/// Faults that the code of a thread brings about itself.
const SIGNALS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGSYS];

impl Suspect {
    /// For a build that is about to serve. It is leaked.
    pub fn new(module: &str, generation: u64, copy: PathBuf) -> &'static Suspect {
        let (module, since, calls) = (module.to_owned(), Instant::now(), AtomicU64::new(0));
        Box::leak(Box::new(Suspect { module, generation, copy, since, calls, crashed: AtomicBool::new(false) }))
    }

    /// Counts a call. Of several at the same moment some may be missed, which costs less than an exact count.
    pub fn count_call(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How many calls were counted.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether a thread has crashed in its code, so that nobody knows any more what state it is in.
    pub fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Relaxed)
    }
}

/// Runs `work`, which calls a module's code and reads what that gives. Should it crash, this never returns, and the heir
/// gets the belongings as they are then.
pub fn watched<T, H: Heir<T>, R>(
    suspect: &'static Suspect,
    heir: &H,
    mut belongings: T,
    work: impl FnOnce(&mut T) -> R,
) -> (T, R) {
    // All that follows reaches them through this pointer, which the heir is given.
    let own = &raw mut belongings;
    let watch = Watch {
        suspect,
        heir: ptr::from_ref(heir).cast(),
        belongings: own.cast_const().cast(),
        subject: Cell::new(None),
        leave: leave::<T, H>,
    };
    let set = |watch: *const Watch| WATCH.with(|cell| cell.store(watch.cast_mut(), Ordering::Relaxed));
    set(&raw const watch);
    // The handler runs on this thread: it is enough that the compiler keeps the order.
    compiler_fence(Ordering::SeqCst);
    // SAFETY: it points to the value above, which nobody else uses as long as `work` runs; who reads it after a crash does
    // so in the stead of `work`, which then never runs on.
    let result = work(unsafe { &mut *own });
    compiler_fence(Ordering::SeqCst);
    set(ptr::null());
    if FORKED.load(Ordering::Relaxed) {
        // A child that comes back from the code that forked it would go on as a second server.
        exit_now(0);
    }
    (belongings, result)
}

/// Says what the call of this thread is about from now on; without a call, nobody listens. `None`: what it was about is
/// about to be gone.
pub fn call_is_about(subject: Option<Subject>) {
    let watch = WATCH.with(|cell| cell.load(Ordering::Relaxed));
    // SAFETY: it is set while the watch is on this thread's stack.
    if let Some(watch) = unsafe { watch.as_ref() } {
        watch.subject.set(subject);
        // As in `watched`.
        compiler_fence(Ordering::SeqCst);
    }
}

/// # Safety
/// Both pointers are those of a watch that is under way, of these types, on a thread that never runs on after this.
unsafe fn leave<T, H: Heir<T>>(heir: *const (), belongings: *const (), fault: Fault) {
    // SAFETY: the watch borrows the heir.
    let heir = unsafe { &*heir.cast::<H>() };
    // SAFETY: who else could use or drop them is the crashed thread.
    let belongings = unsafe { belongings.cast::<T>().read() };
    heir.inherit(belongings, fault);
}

/// Contains crashes from now on, in this process.
///
/// # Errors
/// The system refuses, which it has no reason to.
pub fn contain() -> io::Result<()> {
    // SAFETY: the child handler stores to an atomic, which is all that a child of a threaded process may do.
    if unsafe { libc::pthread_atfork(None, None, Some(note_fork)) } != 0 {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    for signal in SIGNALS {
        // SAFETY: sigaction is a C struct for which zeroes are a value: no flags, no handler, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_signal as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the mask is a valid place.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
        // SAFETY: the handler has the type that the flags say, and does only what a signal handler may.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What exit(3) does in this process: in a handler's call it is a crash, else what it always is.
pub fn exit(status: c_int) -> ! {
    end_call(Kind::Exit(status));
    type Exit = unsafe extern "C" fn(c_int) -> !;
    // SAFETY: the C library's function has this type.
    match unsafe { next_symbol::<Exit>(c"exit") } {
        // SAFETY: the caller wanted this.
        Some(exit) => unsafe { exit(status) },
        None => exit_now(status),
    }
}

/// What pthread_exit(3) does, likewise.
///
/// # Safety
/// That of pthread_exit(3): `value` is for whoever joins this thread.
pub unsafe fn exit_thread(value: *mut c_void) -> ! {
    end_call(Kind::ThreadExit);
    type Exit = unsafe extern "C" fn(*mut c_void) -> !;
    // SAFETY: the C library's function has this type.
    match unsafe { next_symbol::<Exit>(c"pthread_exit") } {
        // SAFETY: the caller wanted this.
        Some(exit) => unsafe { exit(value) },
        None => exit_now(1),
    }
}

/// The function that this executable's own one hides.
///
/// # Safety
/// A symbol of that name is a function of type `F`.
unsafe fn next_symbol<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // SAFETY: the caller's promise; a function pointer is as large as a pointer.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Ends the call that this thread is in, if it is in one; then it does not return.
fn end_call(kind: Kind) {
    let Some(watch) = watch() else { return };
    // SAFETY: sigset_t is a C struct for which zeroes are a value.
    let mut all: libc::sigset_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the set is a valid place.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: as above; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut()) };
    let subject = watch.subject.get();
    end_thread(watch, Fault { suspect: watch.suspect, kind, instruction: 0, stack: 0, subject })
}

/// Who waits for this thread, if it is in a module's code and not a forked copy.
fn watch() -> Option<&'static Watch> {
    let watch = WATCH.with(|cell| cell.load(Ordering::Relaxed));
    if FORKED.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: it is set while the watch is on this thread's stack, and a thread that crashes never leaves that.
    unsafe { watch.as_ref() }
}

extern "C" fn note_fork() {
    FORKED.store(true, Ordering::Relaxed);
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both (SA_SIGINFO).
    let own = unsafe { is_own(&*info) };
    match watch().filter(|_| own) {
        Some(watch) => {
            // SAFETY: as above.
            let (instruction, stack) = registers(unsafe { &*context.cast::<libc::ucontext_t>() });
            let (suspect, kind, subject) = (watch.suspect, Kind::Signal(signal), watch.subject.get());
            end_thread(watch, Fault { suspect, kind, instruction, stack, subject })
        }
        None => {
            // The instruction is executed again, or abort(3) goes on, and the process ends as it would have.
            // SAFETY: the default action is always allowed.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            if !own {
                // SAFETY: raise(3) is async-signal-safe; the signal comes when this handler returns.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

/// Whether the signal comes from what this thread does, and not from another process.
fn is_own(info: &libc::siginfo_t) -> bool {
    // SAFETY: a signal that somebody sent has the sender's process id.
    let sender = || unsafe { info.si_pid() };
    info.si_code > 0 || info.si_code == libc::SI_TKILL && u32::try_from(sender()) == Ok(std::process::id())
}

fn end_thread(watch: &Watch, fault: Fault) -> ! {
    fault.suspect.crashed.store(true, Ordering::SeqCst);
    if PARKED.fetch_add(1, Ordering::Relaxed) >= PARKED_MAX {
        exit_now(1);
    }
    // SAFETY: the types are those that the function was made for, and the thread is parked below.
    unsafe { (watch.leave)(watch.heir, watch.belongings, fault) };
    loop {
        // SAFETY: pause(2) has no preconditions. All signals are blocked.
        unsafe { libc::pause() };
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize) {
    let register = |index: c_int| context.uc_mcontext.gregs[index as usize] as usize;
    (register(libc::REG_RIP), register(libc::REG_RSP))
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> (usize, usize) {
    (context.uc_mcontext.pc as usize, context.uc_mcontext.sp as usize)
}

/// A stack for the signal handlers of one thread: without one, a thread that has used up its own could not be told of
/// it. That of the standard library has just room for the registers of a large processor. Dropping it, on the same
/// thread, puts the former one back.
pub struct SignalStack {
    base: *mut c_void,
    bytes: usize,
    former: Cell<libc::stack_t>,
}

impl SignalStack {
    /// Gives the calling thread its own.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> io::Result<SignalStack> {
        // SAFETY: getauxval(3) has no preconditions; what the kernel does not tell is 0.
        let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
        let page = rustix::param::page_size();
        let bytes = (SIGNAL_STACK_BYTES + least as usize).next_multiple_of(page) + page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping touches no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the first page of the new mapping, which nothing uses: a guard.
        unsafe { libc::mprotect(base, page, libc::PROT_NONE) };
        let ours = libc::stack_t { ss_sp: base.wrapping_byte_add(page), ss_flags: 0, ss_size: bytes - page };
        // SAFETY: stack_t is a C struct for which zeroes are a value.
        let mut former: libc::stack_t = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the new stack is mapped until it is replaced again; the thread is on its ordinary one.
        let set = unsafe { libc::sigaltstack(&raw const ours, &raw mut former) };
        let stack = SignalStack { base, bytes, former: Cell::new(former) };
        if set == 0 { Ok(stack) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let former = self.former.get();
        // SAFETY: it was this thread's before, or says that there was none.
        unsafe { libc::sigaltstack(&raw const former, ptr::null_mut()) };
        // SAFETY: the mapping is this value's own, and not in use any more.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

/// What a handler of ours and the functions that it calls may use, generously.
const SIGNAL_STACK_BYTES: usize = 64 << 10;

/// Where code or data was mapped from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The offset in it, in bytes.
    pub offset: u64,
}

/// How the place of a fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is the instruction's.
    Exactly,
    /// It has called what the instruction is in, most probably: an address of it is the last of the module on the stack.
    Probably,
}

impl Fault {
    /// The place to name: the instruction's, if it is the module's own; else the last return address on the stack that
    /// is, if there is one; else the instruction's all the same, unless it is the host's, which reads what modules give.
    pub fn place(&self) -> Option<(Place, Found)> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let code: Vec<Mapping<'_>> = maps.lines().filter_map(Mapping::of_code).collect();
        let place_in = |code: &[Mapping<'_>], address| code.iter().find_map(|mapping| mapping.place(address));
        let own: Vec<_> = code.iter().filter(|mapping| Path::new(mapping.file) == self.suspect.copy).copied().collect();
        if let Some(place) = place_in(&own, self.instruction) {
            return Some((place, Found::Exactly));
        }
        // A return address is behind the call.
        let called = stack_words(self.stack).into_iter().find_map(|word| place_in(&own, word.wrapping_sub(1)));
        if let Some(place) = called {
            return Some((place, Found::Probably));
        }
        let at = place_in(&code, self.instruction)?;
        std::env::current_exe().is_ok_and(|host| at.file != host).then_some((at, Found::Exactly))
    }
}

/// Code that is mapped from a file.
#[derive(Clone, Copy)]
struct Mapping<'a> {
    start: u64,
    end: u64,
    /// Of its start, in the file.
    offset: u64,
    file: &'a str,
}

impl<'a> Mapping<'a> {
    /// By a line of proc_pid_maps(5); `None` if it is something else.
    fn of_code(line: &'a str) -> Option<Mapping<'a>> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        // address perms offset dev inode pathname, of which the last alone may have spaces.
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        if !words.next()?.contains('x') {
            return None;
        }
        let offset = number(words.next()?)?;
        let file = words.last()?.trim_start();
        file.starts_with('/').then_some(Mapping { start: number(start)?, end: number(end)?, offset, file })
    }

    fn place(&self, address: usize) -> Option<Place> {
        let address = address as u64;
        let offset = address.checked_sub(self.start)? + self.offset;
        (address < self.end).then(|| Place { file: self.file.into(), offset })
    }
}

/// What lies at the top of the stack of a parked thread, as far as there is memory.
fn stack_words(stack: usize) -> Vec<usize> {
    let mut words = vec![0usize; STACK_WORDS];
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(&*words) };
    let remote = libc::iovec { iov_base: ptr::with_exposed_provenance_mut(stack), iov_len: local.iov_len };
    let this = i32::try_from(std::process::id()).unwrap_or_default();
    // SAFETY: the kernel copies, and stops at memory that is not there; the local vector is writable and as long as said.
    let got = unsafe { libc::process_vm_readv(this, &raw const local, 1, &raw const remote, 1, 0) };
    words.truncate(usize::try_from(got).unwrap_or(0) / size_of::<usize>());
    words
}

/// How far up the stack a return address into the module is looked for: past the frames of a C library.
const STACK_WORDS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_code_are_read_and_others_are_not() {
        let line = "7f00-8f00 r-xp 00001000 08:01 1234                       /a folder/of x.so";
        let mapping = Mapping::of_code(line).expect("it is code");
        let at = |address| mapping.place(address).map(|place| (place.file.display().to_string(), place.offset));
        assert_eq!(at(0x7f10), Some(("/a folder/of x.so".to_owned(), 0x1010)));
        assert_eq!((at(0x7eff), at(0x8f00)), (None, None));
        for other in ["7f00-8f00 rw-p 00001000 08:01 1234 /x.so", "7f00-8f00 r-xp 00000000 00:00 0 [vdso]", ""] {
            assert!(Mapping::of_code(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_place_of_this_process_is_found_and_a_bad_stack_is_no_harm() {
        let copy = std::env::current_exe().unwrap();
        let suspect = Suspect::new("m", 1, copy.clone());
        let instruction = stack_words as fn(usize) -> Vec<usize> as usize;
        let fault = Fault { suspect, kind: Kind::Signal(libc::SIGSEGV), instruction, stack: 16, subject: None };
        let (place, found) = fault.place().expect("the test is code of its own file");
        assert_eq!((place.file, found), (copy, Found::Exactly));
        let nowhere = Fault { suspect: Suspect::new("m", 1, "/nowhere".into()), instruction: 16, ..fault };
        assert_eq!(nowhere.place(), None);
    }
}
