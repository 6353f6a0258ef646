//! A loaded module: `dlopen` once, look up symbols, never unload.

use libloading::os::unix;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::NonNull;

/// A shared library that stays mapped until the process ends.
///
/// It is never `dlclose`d: thread-local destructors of Rust, STB_GNU_UNIQUE symbols, the Go runtime and DF_1_NODELETE
/// keep it mapped anyway, and where nothing does, a thread of the module or a pointer that it gave away would be left
/// without code.
#[derive(Debug)]
pub struct Library(ManuallyDrop<unix::Library>);

impl Library {
    /// Maps the library, binds all its symbols now and runs its constructors. A path that was opened before gives the
    /// old code, whatever the file has become, so each build needs a path of its own.
    ///
    /// RTLD_NOW: with lazy binding, the first call of a missing symbol would end the process by `_exit(127)`.
    /// RTLD_LOCAL: what one module exports must not answer the lookups of another.
    ///
    /// # Errors
    /// What `dlerror` says, without the path.
    pub fn open(path: &Path) -> Result<Library, String> {
        // SAFETY: constructors are foreign code with the rights of this process; whoever may write to the folder of
        // handlers may run code, which SECURITY.md states. Termination routines do not run: it is never unloaded.
        let opened = unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL) };
        match opened {
            Ok(library) => Ok(Library(ManuallyDrop::new(library))),
            Err(error) => {
                let source = std::error::Error::source(&error);
                let text = source.map_or_else(|| error.to_string(), ToString::to_string);
                let prefix = format!("{}: ", path.display());
                Err(text.strip_prefix(&prefix).unwrap_or(&text).to_owned())
            }
        }
    }

    /// The address of an exported function. dlsym(3) also searches the libraries that this one needs, so ask only for
    /// what [`super::elf::Elf::functions`] lists.
    pub fn function(&self, name: &str) -> Option<NonNull<c_void>> {
        self.address(name)
    }

    /// The address of an exported object. The caller knows its type and checks its size before it reads.
    pub fn data(&self, name: &str) -> Option<NonNull<c_void>> {
        self.address(name)
    }

    fn address(&self, name: &str) -> Option<NonNull<c_void>> {
        // SAFETY: a raw pointer is a valid type for any symbol; it is not dereferenced here.
        let symbol = unsafe { self.0.get::<*mut c_void>(name.as_bytes()) };
        NonNull::new(symbol.ok()?.as_raw_ptr())
    }
}
