//! Crashes of foreign code, contained: the thread that crashes tells who waits for it, and is parked for ever.
//!
//! A thread says when it calls a module, and who is to be told ([`watched`]). A fault in there is the module's: nothing of
//! that thread may run on, because what it was in the middle of is unknown, and nothing may be undone. So the signal
//! handler marks the build, tells the watch, and never returns. A fault anywhere else (the host's own, or on a thread that
//! a module has made) ends the process as if there were no handler.
//!
//! A call that takes too long is ended likewise: who watches the time marks it in the [`Slot`] of its thread, and sends that
//! thread a signal ([`interrupt`]). The thread parks only where it is in the module's own code, and not in the host's.
//!
//! What runs in the handler takes no lock and allocates nothing (signal-safety(7)). The thread local is a constant without
//! a destructor, so that a look at it is a look at memory.

mod place;
mod proof;
mod stack;

pub use place::{Found, Place};
pub use proof::{is_contained, taken_over};
pub use stack::SignalStack;

use super::process::exit_now;
use super::recorder::{self, Record, Slot};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence};
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
    /// Where its code is mapped.
    code: Range<usize>,
    record: Record,
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
    /// It has exceeded a limit of time, and was interrupted.
    Overdue(Limit),
}

/// What a call may exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Time without progress.
    Handler = 1,
    /// Time on a processor without progress.
    Processor = 2,
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
    slot: &'static Slot,
    heir: *const (),
    belongings: *const (),
    subject: Cell<Option<Subject>>,
    /// Gives the belongings to the heir.
    leave: unsafe fn(*const (), *const (), Fault),
}

thread_local! {
    static WATCH: AtomicPtr<Watch> = const { AtomicPtr::new(ptr::null_mut()) };

    /// Whose code runs: the module's own, or the host's, before, after, and when it is called back.
    static RUNS: AtomicU32 = const { AtomicU32::new(HOST) };

    /// How often this call has been interrupted in code that is not the module's.
    static INTERRUPTS: AtomicU32 = const { AtomicU32::new(0) };
}

/// This is a child that a module's code has forked.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Crashes are contained in this process.
static CONTAINS: AtomicBool = AtomicBool::new(false);

/// Threads that crashed and are parked.
static PARKED: AtomicUsize = AtomicUsize::new(0);

/// With so many of them something is wrong that parking does not mend: the process ends, and another takes its place.
const PARKED_MAX: usize = 64;

/// Faults that the code of a thread brings about itself.
const SIGNALS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGSYS];

impl Suspect {
    /// For a build that is about to serve. It is leaked.
    pub fn new(module: &str, generation: u64, copy: PathBuf) -> &'static Suspect {
        let (code, record) = (place::code_of(&copy), recorder::enter_build(module, generation));
        let (module, since, crashed) = (module.to_owned(), Instant::now(), AtomicBool::new(false));
        Box::leak(Box::new(Suspect { module, generation, copy, since, code, record, crashed }))
    }

    /// Its entry in the flight recorder, which counts its calls.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Nothing of it is to be called any more in this process.
    pub fn condemn(&self) {
        self.crashed.store(true, Ordering::SeqCst);
    }

    /// Whether a thread has crashed or hangs in its code, so that nobody knows any more what state it is in.
    pub fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Relaxed)
    }
}

/// Runs `work`, which calls a module's code and reads what that gives, with the slot of this thread, in which the call has
/// begun. Should it crash, this never returns, and the heir gets the belongings as they are then.
pub fn watched<T, H: Heir<T>, R>(
    suspect: &'static Suspect,
    slot: &'static Slot,
    heir: &H,
    mut belongings: T,
    work: impl FnOnce(&mut T) -> R,
) -> (T, R) {
    // All that follows reaches them through this pointer, which the heir is given.
    let own = &raw mut belongings;
    let (to, what) = (ptr::from_ref(heir).cast(), own.cast_const().cast());
    let subject = Cell::new(None);
    let watch = Watch { suspect, slot, heir: to, belongings: what, subject, leave: leave::<T, H> };
    let set = |watch: *const Watch| WATCH.with(|cell| cell.store(watch.cast_mut(), Ordering::Relaxed));
    INTERRUPTS.with(|interrupts| interrupts.store(0, Ordering::Relaxed));
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

/// Runs a function of a module.
pub fn foreign<R>(code: impl FnOnce() -> R) -> R {
    runs(FOREIGN);
    let result = code();
    runs(HOST);
    result
}

/// A module has called the host back: until this is dropped, the host's code runs.
pub struct CalledBack(());

impl CalledBack {
    /// It begins.
    #[inline]
    pub fn begin() -> CalledBack {
        runs(HOST);
        CalledBack(())
    }
}

impl Drop for CalledBack {
    #[inline]
    fn drop(&mut self) {
        let interrupted = RUNS.with(|runs| runs.load(Ordering::Relaxed)) == HOST_INTERRUPTED;
        runs(FOREIGN);
        if interrupted {
            // It would not be seen between two callbacks that follow each other closely.
            interrupt(rustix::thread::gettid().as_raw_nonzero().get());
        }
    }
}

/// The handlers run on this thread: it is enough that the compiler keeps the order.
#[inline]
fn runs(whose: u32) {
    compiler_fence(Ordering::SeqCst);
    RUNS.with(|runs| runs.store(whose, Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
}

const HOST: u32 = 0;
const FOREIGN: u32 = 1;
/// The host's, and an interruption waits for its end.
const HOST_INTERRUPTED: u32 = 2;

/// Runs what may wait for the client of the call that this thread is in: the time of that is not the module's. It makes
/// progress if `is_progress` says so of its result.
pub fn waiting_for_client<R>(work: impl FnOnce() -> R, is_progress: impl FnOnce(&R) -> bool) -> R {
    let Some(Watch { slot, .. }) = watch() else { return work() };
    slot.wait_for_client();
    let result = work();
    if is_progress(&result) {
        slot.progress()
    } else {
        slot.resume()
    }
    result
}

/// Interrupts a thread of this process (gettid(2)), whose call has been marked as one to be ended. It is so at once, unless
/// that thread is in the host's code, or, the first times, in another's that might hold a lock: then it has to be
/// interrupted again. It may also have blocked the signal.
pub fn interrupt(thread: i32) {
    // ESRCH: it has ended.
    // SAFETY: tgkill(2) takes numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, interrupt_signal()) };
}

/// A real-time signal that nobody else is likely to use: libraries take the first ones.
fn interrupt_signal() -> c_int {
    libc::SIGRTMAX() - 3
}

/// Contains crashes from now on, in this process.
///
/// # Errors
/// The system refuses, which it has no reason to.
pub fn contain() -> io::Result<()> {
    CONTAINS.store(true, Ordering::Relaxed);
    // SAFETY: the child handler stores to an atomic, which is all that a child of a threaded process may do.
    if unsafe { libc::pthread_atfork(None, None, Some(note_fork)) } != 0 {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let signals = SIGNALS.map(|signal| (signal, on_signal as Handler));
    for (signal, handler) in signals.into_iter().chain([(interrupt_signal(), on_interrupt as Handler)]) {
        // SAFETY: sigaction is a C struct for which zeroes are a value: no flags, no handler, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: the mask is a valid place.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
        // SAFETY: the handler has the type that the flags say, and does only what a signal handler may.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

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

/// Changes the signal mask of the calling thread as sigprocmask(2) does, except that the signals of faults and of
/// interruption are never blocked where crashes are contained; nor are those that the C library needs itself.
///
/// # Errors
/// Those of sigprocmask(2); errno has them, too.
///
/// # Safety
/// `set` and `old` are null or point to a set that may be read and written, respectively.
pub unsafe fn set_mask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> Result<(), Errno> {
    // SAFETY: the caller's promise; the kernel's set is the first eight bytes of the C library's.
    let wanted = unsafe { set.cast::<u64>().as_ref() };
    let kept = match CONTAINS.load(Ordering::Relaxed) {
        true => SIGNALS.map(bit).iter().sum::<u64>() | bit(interrupt_signal()),
        false => 0,
    };
    let allowed = wanted.map(|wanted| wanted & !(kept | LIBRARY_SIGNALS));
    let to_set = match &allowed {
        Some(allowed) if how != libc::SIG_UNBLOCK => ptr::from_ref(allowed),
        _ => set.cast(),
    };
    // SAFETY: both are null or sets of the kernel's size.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, to_set, old, size_of::<u64>()) };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}

/// A signal's bit in the kernel's sets.
const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// Those that glibc keeps for itself (nptl(7)).
const LIBRARY_SIGNALS: u64 = bit(32) | bit(33);

/// Blocks all signals of the calling thread.
fn block_all() {
    let all = u64::MAX;
    let none: *mut u64 = ptr::null_mut();
    // SAFETY: the set is of the kernel's size; the old mask is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, none, size_of::<u64>()) };
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
    block_all();
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

extern "C" fn on_interrupt(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives it (SA_SIGINFO).
    if !unsafe { is_own(&*info) } {
        return;
    }
    // The mark is of this very call: one that was over when the signal came, or that has made progress, goes on.
    let Some((watch, reason)) = watch().and_then(|watch| Some((watch, watch.slot.condemned()?))) else { return };
    let limit = if reason == Limit::Processor as u32 { Limit::Processor } else { Limit::Handler };
    if RUNS.with(|runs| runs.load(Ordering::Relaxed)) != FOREIGN {
        return RUNS.with(|runs| runs.store(HOST_INTERRUPTED, Ordering::Relaxed));
    }
    // SAFETY: as above.
    let (instruction, stack) = registers(unsafe { &*context.cast::<libc::ucontext_t>() });
    // In a library it may hold a lock, such as that of malloc(3), for a moment, or wait for one, for ever.
    let before = INTERRUPTS.with(|interrupts| interrupts.fetch_add(1, Ordering::Relaxed));
    if watch.suspect.code.contains(&instruction) || before >= INTERRUPTS_ELSEWHERE {
        let (suspect, kind, subject) = (watch.suspect, Kind::Overdue(limit), watch.subject.get());
        end_thread(watch, Fault { suspect, kind, instruction, stack, subject });
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
    // Those that hang may be many, when something hangs that all of them need.
    if !matches!(fault.kind, Kind::Overdue(_)) && PARKED.fetch_add(1, Ordering::Relaxed) >= PARKED_MAX {
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

/// How often a call that is to be ended may be found outside of its module's own code.
const INTERRUPTS_ELSEWHERE: u32 = 20;
