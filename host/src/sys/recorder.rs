//! The flight recorder: what each thread of a worker calls, in memory that outlives the worker.
//!
//! The supervisor makes the memory (memfd_create(2)) and gives it to the worker, who maps it. Before each call of a module
//! the thread writes there whose code it calls and for which request; should the process die of that, the supervisor
//! reads it. The monitor of the worker looks there, too, for calls that make no progress.
//!
//! A module that writes where it must not may write here. The supervisor therefore maps nothing, and believes no length.

use rustix::fs::MemfdFlags;
use std::cell::UnsafeCell;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A thread's entry. Only that thread writes to it, but for the mark of [`Slot::condemn`].
#[repr(C, align(64))]
pub struct Slot {
    /// `sequence << 2 | WAITS | CALLS`.
    word: AtomicU64,
    /// The word of a call that is to be ended.
    overdue: AtomicU64,
    /// The thread's number in the kernel (gettid(2)); 0 if the slot is nobody's.
    thread: AtomicI32,
    /// Why.
    reason: AtomicU32,
    /// The build whose code it calls, by its place in the list.
    build: AtomicU32,
    request_bytes: AtomicU32,
    /// `GET /path`.
    request: UnsafeCell<[u8; REQUEST_BYTES_MAX]>,
}

// SAFETY: all but the request is atomic, and that is written by the slot's thread alone. It is read by others when that
// thread has been parked for ever.
unsafe impl Sync for Slot {}

/// A build's entry.
#[repr(C, align(64))]
struct Build {
    generation: AtomicU64,
    calls: AtomicU64,
    module_bytes: AtomicU32,
    module: UnsafeCell<[u8; MODULE_BYTES_MAX]>,
}

// SAFETY: the name is written before anybody knows of the entry, and never again.
unsafe impl Sync for Build {}

/// The memory as a worker sees it. It stays mapped as long as the process lives.
struct Recorder {
    builds: &'static [Build],
    slots: &'static [Slot],
    builds_taken: AtomicU32,
    beside_taken: AtomicUsize,
}

/// What is known of a build in the recorder.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    index: u32,
    calls: &'static AtomicU64,
}

/// A slot that a thread has for its own. Dropping it gives it back.
pub struct Occupied(&'static Slot);

/// What a slot says of its thread at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight(u64);

/// What a worker was calling when it died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCall {
    /// The module's name.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// `GET /path`.
    pub request: String,
    /// How often the build has been called in that process, about.
    pub calls: u64,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Memory for a worker with up to so many threads that call modules.
///
/// # Errors
/// The system has no memory or no descriptor left.
pub fn create(threads_max: usize) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("host-recorder", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memory, (SLOTS_AT + (threads_max + BESIDE) * size_of::<Slot>()) as u64)?;
    Ok(memory)
}

/// Writes to this memory from now on, in this process. It has been made by [`create`].
///
/// # Errors
/// It cannot be mapped.
pub fn install(memory: OwnedFd) -> io::Result<()> {
    let recorder = Recorder::map(&memory)?;
    // A second one would be a bug without consequences: the first goes on.
    _ = RECORDER.set(recorder);
    Ok(())
}

/// The slots of those threads that have the first so many places.
pub fn slots(places: usize) -> &'static [Slot] {
    let slots = recorder().slots;
    &slots[..places.min(slots.len())]
}

/// An entry for a build that is about to serve. Those for whom there is none share one without a name.
pub fn enter_build(module: &str, generation: u64) -> Record {
    recorder().enter_build(module, generation)
}

/// The build whose code a slot's thread calls.
pub fn build_of(slot: &Slot) -> (String, u64) {
    let build = recorder().builds.get(slot.build.load(Ordering::Relaxed) as usize);
    build.map_or_else(Default::default, |build| {
        let length = (build.module_bytes.load(Ordering::Relaxed) as usize).min(MODULE_BYTES_MAX);
        // SAFETY: it is written no more once a slot names the build; the array is always initialised.
        let name = unsafe { &*build.module.get() };
        (String::from_utf8_lossy(&name[..length]).into_owned(), build.generation.load(Ordering::Relaxed))
    })
}

/// What was under way when the process died that had this memory.
///
/// # Errors
/// The memory cannot be read.
pub fn last_calls(memory: BorrowedFd<'_>) -> io::Result<Vec<LastCall>> {
    let length = usize::try_from(rustix::fs::fstat(memory)?.st_size).unwrap_or(0).min(MEMORY_BYTES_MAX);
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        match rustix::io::pread(memory, &mut bytes[read..], read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let slots = bytes.get(SLOTS_AT..).unwrap_or_default().as_chunks::<{ size_of::<Slot>() }>().0;
    let under_way = slots.iter().filter(|slot| number::<8>(*slot, offset_of!(Slot, word)) & CALLS != 0);
    Ok(under_way.filter_map(|slot| last_call(&bytes, slot)).collect())
}

fn last_call(memory: &[u8], slot: &[u8]) -> Option<LastCall> {
    let index = number::<4>(slot, offset_of!(Slot, build)) as usize;
    let build = memory[..SLOTS_AT].as_chunks::<{ size_of::<Build>() }>().0.get(index)?;
    let text = |of: &[u8], at: usize, length: u64, most: usize| {
        let length = usize::try_from(length).unwrap_or(most).min(most);
        String::from_utf8_lossy(&of[at..at + length]).into_owned()
    };
    let module_bytes = number::<4>(build, offset_of!(Build, module_bytes));
    let request_bytes = number::<4>(slot, offset_of!(Slot, request_bytes));
    Some(LastCall {
        module: text(build, offset_of!(Build, module), module_bytes, MODULE_BYTES_MAX),
        generation: number::<8>(build, offset_of!(Build, generation)),
        request: text(slot, offset_of!(Slot, request), request_bytes, REQUEST_BYTES_MAX),
        calls: number::<8>(build, offset_of!(Build, calls)),
    })
}

/// The number of `N` bytes that stands there.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn recorder() -> &'static Recorder {
    RECORDER.get_or_init(|| {
        // A process that nobody watches, such as a test.
        let memory = create(THREADS_UNWATCHED).expect("there is memory for a recorder");
        Recorder::map(&memory).expect("it can be mapped")
    })
}

impl Recorder {
    fn map(memory: &OwnedFd) -> io::Result<Recorder> {
        let length = usize::try_from(rustix::fs::fstat(memory)?.st_size).unwrap_or(0);
        let slots = length.saturating_sub(SLOTS_AT) / size_of::<Slot>();
        if slots == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping touches no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, memory.as_raw_fd(), 0) };
        let base = NonNull::new(base).filter(|base| base.as_ptr() != libc::MAP_FAILED);
        let base = base.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: that many entries fit in front of the slots; they are zeroes, which is a value of theirs; the mapping is
        // page-aligned and never undone.
        let builds = unsafe { NonNull::slice_from_raw_parts(base.cast(), BUILDS_MAX).as_ref() };
        // SAFETY: it is within the mapping, as the length was computed.
        let first = unsafe { base.byte_add(SLOTS_AT) };
        // SAFETY: as for the builds.
        let slots = unsafe { NonNull::slice_from_raw_parts(first.cast(), slots).as_ref() };
        // The first entry is for those that find no other.
        let (builds_taken, beside_taken) = (AtomicU32::new(1), AtomicUsize::new(0));
        Ok(Recorder { builds, slots, builds_taken, beside_taken })
    }

    fn enter_build(&self, module: &str, generation: u64) -> Record {
        let index = self.builds_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < BUILDS_MAX as u32).then_some(taken + 1)
        });
        let index = index.unwrap_or(0);
        let build = &self.builds[index as usize];
        if index > 0 {
            build.generation.store(generation, Ordering::Relaxed);
            let length = module.len().min(MODULE_BYTES_MAX);
            // SAFETY: the entry is new and this thread's alone; source and destination have that many bytes.
            unsafe { ptr::copy_nonoverlapping(module.as_ptr(), build.module.get().cast(), length) };
            build.module_bytes.store(length as u32, Ordering::Relaxed);
        }
        Record { index, calls: &build.calls }
    }
}

impl Record {
    /// Counts a call. Of several at the same moment some may be missed, which costs less than an exact count.
    pub fn count_call(&self) {
        self.calls.store(self.calls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many calls were counted.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Slot {
    /// Notes what the next calls are for; of a long target only the beginning.
    pub fn note(&self, method: &str, target: &str) {
        let method = &method.as_bytes()[..method.len().min(METHOD_BYTES_MAX)];
        let target = &target.as_bytes()[..target.len().min(REQUEST_BYTES_MAX - METHOD_BYTES_MAX - 1)];
        let to = self.request.get().cast::<u8>();
        // SAFETY: there is room for both and a space; this thread alone writes here, and nobody reads meanwhile.
        unsafe { ptr::copy_nonoverlapping(method.as_ptr(), to, method.len()) };
        // SAFETY: as above.
        unsafe { to.wrapping_add(method.len()).write(b' ') };
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(target.as_ptr(), to.wrapping_add(method.len() + 1), target.len()) };
        self.request_bytes.store((method.len() + 1 + target.len()) as u32, Ordering::Relaxed);
    }

    /// A call of this build begins.
    pub fn begin(&self, build: &Record) {
        self.build.store(build.index, Ordering::Relaxed);
        self.word.store(self.next_word() | CALLS, Ordering::Relaxed);
    }

    /// The call has given something, or taken: it makes progress.
    pub fn progress(&self) {
        self.word.store(self.next_word() | CALLS, Ordering::Relaxed);
    }

    /// It waits for its client, for whom there are other limits, until it makes progress or [`resume`](Self::resume)s.
    pub fn wait_for_client(&self) {
        self.word.store(self.word.load(Ordering::Relaxed) | WAITS, Ordering::Relaxed);
    }

    /// It does not wait any more, and has made no progress.
    pub fn resume(&self) {
        self.word.store(self.word.load(Ordering::Relaxed) & !WAITS, Ordering::Relaxed);
    }

    /// The call is over.
    pub fn end(&self) {
        self.word.store(self.next_word(), Ordering::Relaxed);
    }

    fn next_word(&self) -> u64 {
        (self.word.load(Ordering::Relaxed) & !(CALLS | WAITS)).wrapping_add(STEP)
    }

    /// What it says now.
    pub fn look(&self) -> Flight {
        Flight(self.word.load(Ordering::Relaxed))
    }

    /// The thread that has it (gettid(2)), if any has.
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread > 0)
    }

    /// Marks the call that was seen as one to be ended, for a reason that the caller knows.
    pub fn condemn(&self, seen: Flight, reason: u32) {
        self.reason.store(reason, Ordering::SeqCst);
        self.overdue.store(seen.0, Ordering::SeqCst);
    }

    /// The reason for which the call that is under way is to be ended, if it is.
    pub fn condemned(&self) -> Option<u32> {
        let word = self.word.load(Ordering::SeqCst);
        let condemned = Flight(word).is_call() && self.overdue.load(Ordering::SeqCst) == word;
        condemned.then(|| self.reason.load(Ordering::SeqCst))
    }

    /// What the call is for, such as `GET /path`, of a thread that is parked for ever.
    pub fn request(&self) -> String {
        let length = (self.request_bytes.load(Ordering::Relaxed) as usize).min(REQUEST_BYTES_MAX);
        // SAFETY: the thread that writes here is parked; the array is always initialised.
        let bytes = unsafe { &*self.request.get() };
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

impl Flight {
    /// Whether a call is under way that does not wait for its client.
    pub fn is_call(self) -> bool {
        self.0 & (CALLS | WAITS) == CALLS
    }
}

impl Occupied {
    /// That of the calling thread, which has this place among those that call modules.
    pub fn new(place: usize) -> Occupied {
        let slots = recorder().slots;
        let slot = &slots[place.min(slots.len() - 1)];
        slot.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        Occupied(slot)
    }

    /// That of the calling thread, which calls modules besides, and for nobody's request.
    pub fn beside() -> Occupied {
        let Recorder { slots, beside_taken, .. } = recorder();
        let index = slots.len() - 1 - beside_taken.fetch_add(1, Ordering::Relaxed).min(BESIDE - 1);
        Occupied(&slots[index])
    }

    /// The slot.
    pub fn get(&self) -> &'static Slot {
        self.0
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::Relaxed);
    }
}

/// The lowest bits of a slot's word: a call is under way;
const CALLS: u64 = 1;
/// it waits for its client;
const WAITS: u64 = 2;
/// and a step of the sequence above them.
const STEP: u64 = 4;

/// Builds that are known by name: those of a hundred modules, each with as many retired ones as a worker keeps by default.
const BUILDS_MAX: usize = 4096;

/// The longest name of a module that is told whole.
const MODULE_BYTES_MAX: usize = 128 - 20;

/// What is told of a request at most.
const REQUEST_BYTES_MAX: usize = 1024 - 32;

/// The longest method that the parser takes.
const METHOD_BYTES_MAX: usize = 32;

/// Where the slots begin.
const SLOTS_AT: usize = BUILDS_MAX * size_of::<Build>();

/// Slots for threads that call modules besides; later ones share the last.
const BESIDE: usize = 8;

/// Threads of a process without a supervisor.
const THREADS_UNWATCHED: usize = 1024;

/// More than any worker has.
const MEMORY_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// A recorder of its own, with one build and one slot.
    fn recorder() -> (OwnedFd, Recorder) {
        let memory = create(2).unwrap();
        let recorder = Recorder::map(&memory).unwrap();
        (memory, recorder)
    }

    #[test]
    fn what_is_under_way_can_be_read_and_what_is_over_not() {
        let (memory, recorder) = recorder();
        let record = recorder.enter_build("a/module", 7);
        record.count_call();
        let slot = &recorder.slots[1];
        assert_eq!(last_calls(memory.as_fd()).unwrap(), []);
        slot.begin(&record);
        slot.note("GET", "/x?y");
        let call = LastCall { module: "a/module".into(), generation: 7, request: "GET /x?y".into(), calls: 1 };
        assert_eq!(last_calls(memory.as_fd()).unwrap(), [call]);
        slot.end();
        assert_eq!(last_calls(memory.as_fd()).unwrap(), []);
    }

    #[test]
    fn long_names_and_requests_are_cut_and_builds_without_room_have_no_name() {
        let (memory, recorder) = recorder();
        let long = "x".repeat(5_000);
        let record = recorder.enter_build(&long, 1);
        recorder.slots[0].begin(&record);
        recorder.slots[0].note(&long, &long);
        let calls = last_calls(memory.as_fd()).unwrap();
        assert_eq!(calls[0].module, long[..MODULE_BYTES_MAX]);
        let request = &calls[0].request;
        assert!(request.len() == REQUEST_BYTES_MAX && request[METHOD_BYTES_MAX..].starts_with(" x"), "{request}");
        let others = (2..=BUILDS_MAX).map(|number| recorder.enter_build("m", number as u64));
        assert_eq!(others.last().unwrap().index, 0);
    }

    #[test]
    fn garbage_in_the_memory_is_no_harm() {
        let (memory, _) = recorder();
        let length = rustix::fs::fstat(&memory).unwrap().st_size as usize;
        rustix::io::pwrite(&memory, &vec![0xff; length], 0).unwrap();
        let calls = last_calls(memory.as_fd()).unwrap();
        assert!(calls.is_empty(), "such builds there are not");
        // The number of a build that there is.
        for slot in 0..2 + BESIDE {
            let at = SLOTS_AT + slot * size_of::<Slot>() + offset_of!(Slot, build);
            rustix::io::pwrite(&memory, &3u32.to_ne_bytes(), at as u64).unwrap();
        }
        let calls = last_calls(memory.as_fd()).unwrap();
        assert_eq!(calls.len(), 2 + BESIDE);
        assert!(calls[0].request.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
    }

    #[test]
    fn only_the_call_that_was_seen_is_condemned() {
        let (_, recorder) = recorder();
        let (record, slot) = (recorder.enter_build("m", 1), &recorder.slots[0]);
        slot.begin(&record);
        let seen = slot.look();
        slot.condemn(seen, 1);
        assert_eq!(slot.condemned(), Some(1));
        slot.wait_for_client();
        assert_eq!(slot.condemned(), None, "its client is slow");
        slot.resume();
        assert_eq!(slot.condemned(), Some(1));
        slot.progress();
        assert_eq!(slot.condemned(), None, "it has made progress");
        slot.end();
        slot.begin(&record);
        assert_eq!(slot.condemned(), None, "this is another call");
    }
}
