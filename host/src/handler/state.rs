//! A module's state as bytes: what its `save` writes, and what its `restore` is given.

use abi::ffi::{HOST_IO, HOST_STATE, HOST_STATE_MAX, HOST_TOO_LARGE, host_module_info, host_state, host_str};

/// The two functions of a module that has its state kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Functions {
    save: Save,
    restore: Restore,
}

type Save = unsafe extern "C" fn(*mut host_state) -> i32;
type Restore = unsafe extern "C" fn(host_str) -> i32;

/// What a module wrote, at most [`HOST_STATE_MAX`] bytes.
#[derive(Debug)]
pub struct Saved(Vec<u8>);

/// The object that `save` is given, with what was written to it.
#[repr(C)]
struct Sink {
    object: host_state,
    bytes: Vec<u8>,
    failure: Option<i32>,
}

impl Functions {
    /// Those of a module that has both.
    pub(super) fn of(info: &host_module_info) -> Option<Functions> {
        Some(Functions { save: info.save?, restore: info.restore? })
    }

    /// Has the state written down.
    ///
    /// # Errors
    /// Why not, in words that follow "its save".
    ///
    /// # Safety
    /// The module is loaded and initialised, no other save of it is under way, nor any other call if it is not thread-safe.
    pub(super) unsafe fn save(self) -> Result<Saved, String> {
        let object = host_state { size: size_of::<host_state>() as u32, flags: 0, write };
        let mut sink = Sink { object, bytes: Vec::new(), failure: None };
        let sink_pointer = &raw mut sink;
        // SAFETY: the caller's promise; the object lives until the function returns, and leads to the whole sink.
        let returned = unsafe { (self.save)(sink_pointer.cast()) };
        match (returned, sink.failure) {
            (_, Some(HOST_TOO_LARGE)) => Err(format!("wrote more than {HOST_STATE_MAX} bytes")),
            (_, Some(failure)) => Err(format!("wrote what could not be kept ({failure})")),
            (0, None) => Ok(Saved(sink.bytes)),
            (refused, None) => Err(format!("returned {refused}")),
        }
    }

    /// Gives the module what a build of it wrote.
    ///
    /// # Errors
    /// Why it does not take it, in words that follow "its restore".
    ///
    /// # Safety
    /// The module is loaded and initialised, and no other call of it is under way.
    pub(super) unsafe fn restore(self, saved: Saved) -> Result<(), String> {
        let mut bytes = saved.0;
        let len = bytes.len();
        // As all strings that the host gives.
        bytes.push(0);
        let state = host_str { ptr: bytes.as_ptr().cast(), len };
        // SAFETY: the caller's promise; the bytes live until the function returns.
        match unsafe { (self.restore)(state) } {
            0 => Ok(()),
            refused => Err(format!("returned {refused}")),
        }
    }
}

impl Saved {
    /// From what was kept elsewhere meanwhile.
    pub fn new(bytes: Vec<u8>) -> Saved {
        Saved(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `host_state.write`. What the module points to is read before anything is changed.
unsafe extern "C" fn write(state: *mut host_state, data: host_str) -> i32 {
    // SAFETY: it is the pointer that `save` was given, which leads to the sink, and this is the thread of that call.
    let sink = unsafe { &mut *state.cast::<Sink>() };
    if sink.failure.is_some() {
        return HOST_STATE;
    }
    // SAFETY: the module's promise; one that breaks it crashes here, in its own call.
    let Some(data) = (unsafe { data.bytes() }) else { return 0 };
    let room = HOST_STATE_MAX as usize - sink.bytes.len();
    let failure = match () {
        () if data.len() > room => HOST_TOO_LARGE,
        () if sink.bytes.try_reserve(data.len() + 1).is_err() => HOST_IO,
        () => {
            sink.bytes.extend_from_slice(data);
            return 0;
        }
    };
    sink.failure = Some(failure);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static GIVEN: Cell<usize> = const { Cell::new(0) };
    }

    unsafe extern "C" fn save(state: *mut host_state) -> i32 {
        let chunk = vec![7u8; 1 << 20];
        let times = GIVEN.get();
        // SAFETY: the host's object.
        let write = unsafe { &*state }.write;
        for _ in 0..times {
            // SAFETY: called as host.h wants it.
            let written = unsafe { write(state, host_str::new(&chunk)) };
            if written != 0 {
                // SAFETY: as above.
                assert_eq!(unsafe { write(state, host_str::new(b"more")) }, HOST_STATE);
                return 0;
            }
        }
        i32::from(times == 3)
    }

    unsafe extern "C" fn restore(state: host_str) -> i32 {
        GIVEN.set(state.len);
        // SAFETY: strings of the host end in a NUL that is not counted.
        i32::from(unsafe { state.ptr.wrapping_add(state.len).read() })
    }

    #[test]
    fn a_state_is_kept_up_to_its_limit_and_not_beyond() {
        let functions = Functions { save, restore };
        let save_so_many_mebibytes = |count| {
            GIVEN.set(count);
            // SAFETY: the functions are those above.
            unsafe { functions.save() }.map(|saved| saved.bytes().len())
        };
        assert_eq!(save_so_many_mebibytes(0), Ok(0));
        assert_eq!(save_so_many_mebibytes(16), Ok(16 << 20));
        assert_eq!(save_so_many_mebibytes(17).unwrap_err(), "wrote more than 16777216 bytes");
        assert_eq!(save_so_many_mebibytes(3).unwrap_err(), "returned 1");
        // SAFETY: as above.
        assert_eq!(unsafe { functions.restore(Saved::new(vec![1, 2])) }, Ok(()));
        assert_eq!(GIVEN.get(), 2);
    }
}
