//! Where in a module's code a fault happened, by the memory map of the process and the stack of the parked thread.

use super::Fault;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;

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
        let file = File::open(&self.suspect.copy).ok();
        // A return address is behind the call. What looks like one may have been left there by something else.
        let place_of_call = |word: usize| {
            let place = place_in(&own, word.wrapping_sub(1))?;
            file.as_ref().is_none_or(|file| is_behind_a_call(file, place.offset + 1)).then_some(place)
        };
        let called = stack_words(self.stack).into_iter().find_map(place_of_call);
        if let Some(place) = called {
            return Some((place, Found::Probably));
        }
        let at = place_in(&code, self.instruction)?;
        std::env::current_exe().is_ok_and(|host| at.file != host).then_some((at, Found::Exactly))
    }
}

/// Whether the instruction before this offset of the file may be a call, as far as that can be told.
fn is_behind_a_call(file: &File, offset: u64) -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        return true;
    }
    let mut bytes = [0; CALL_BYTES_MAX];
    let Some(start) = offset.checked_sub(CALL_BYTES_MAX as u64) else { return false };
    if file.read_exact_at(&mut bytes, start).is_err() {
        return true;
    }
    // CALL rel32 is E8 with four bytes; CALL r/m64 is FF /2 with a ModRM byte, and with none, one, four or five bytes after it.
    let is_indirect = |length: usize| {
        let at = CALL_BYTES_MAX - length;
        bytes[at] == 0xff && bytes[at + 1] & 0x38 == 0x10
    };
    bytes[CALL_BYTES_MAX - 5] == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(is_indirect)
}

/// The longest call of x86-64, without prefixes that change nothing.
const CALL_BYTES_MAX: usize = 7;

/// Where code of this file is mapped, from the first instruction to the last; empty if it is not.
pub(super) fn code_of(file: &Path) -> Range<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = maps.lines().filter_map(Mapping::of_code).filter(|mapping| Path::new(mapping.file) == file);
    let whole = own.map(|mapping| mapping.start..mapping.end).reduce(|all, next| all.start..next.end);
    whole.map_or(0..0, |whole| whole.start as usize..whole.end as usize)
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
    use crate::sys::crash::{Kind, Suspect};

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

    /// An address in the module's first function was once named, which something had left on the stack.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn return_addresses_are_told_from_other_words() {
        let file = tempfile::tempfile().unwrap();
        let is_call = |code: &[u8]| {
            file.set_len(0).unwrap();
            file.write_all_at(&[0x90; 8], 0).unwrap();
            file.write_all_at(code, 8).unwrap();
            is_behind_a_call(&file, 8 + code.len() as u64)
        };
        // call f; call *%rax; call *%r12; call *8(%rax); call *8(%rsp); call *f@GOT(%rip); call *0x100(%rsp)
        for call in [
            &[0xe8, 1, 2, 3, 4][..],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x50, 8],
            &[0xff, 0x54, 0x24, 8],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x94, 0x24, 0, 1, 0, 0],
        ] {
            assert!(is_call(call), "{call:x?}");
        }
        // jmp *%rax; push; nop; jmp f
        for other in [&[0xff, 0xe0][..], &[0xff, 0x35, 1, 2, 3, 4], &[0x90; 8], &[0xe9, 1, 2, 3, 4]] {
            assert!(!is_call(other), "{other:x?}");
        }
        assert!(!is_behind_a_call(&file, 3), "there is no room for one");
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
