//! One loaded build of a module: its functions, and its life from `init` to `stop`.

use super::environ::Surroundings;
use super::foreign::Foreign;
use super::library::Library;
use crate::serial::Serial;
use abi::ffi::{self, host_application, host_init, host_module_info};
use std::ffi::{c_char, c_void};
use std::mem::{offset_of, transmute};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, mpsc};

/// A build that serves. When the last request that uses it ends, its `stop` is called, and it stays mapped for ever:
/// destructors of thread locals, unique symbols and language runtimes make unloading unsound.
pub struct Generation {
    /// The module's name.
    pub module: String,
    /// Its number, from 1.
    pub number: u64,
    pub(super) surroundings: Surroundings,
    /// For a module that is called one at a time.
    pub(super) serial: Option<Arc<Serial>>,
    streams_input: bool,
    applications: Vec<(String, host_application)>,
    stop: Option<Stop>,
    retired: mpsc::Sender<Retired>,
    _library: Library,
}

/// A generation whose last request has ended, with its `stop` that is to be called: see [`retire`].
pub struct Retired(Retirement);

enum Retirement {
    Generation {
        module: String,
        number: u64,
        stop: Option<Stop>,
    },
    /// All that were retired before have been stopped.
    Barrier(mpsc::Sender<()>),
}

impl Retired {
    /// Tells `done` when everything that was retired before has been stopped.
    pub fn barrier(done: mpsc::Sender<()>) -> Retired {
        Retired(Retirement::Barrier(done))
    }
}

type Init = unsafe extern "C" fn(*const host_init) -> i32;
type Stop = unsafe extern "C" fn();

impl Generation {
    /// Loads a private copy that a checker has found sound, and runs its `init`.
    ///
    /// # Errors
    /// Why it does not load after all, for the log.
    pub(super) fn load(
        (module, number): (&str, u64),
        copy: &Path,
        symbols: &[String],
        mut surroundings: Surroundings,
        retired: mpsc::Sender<Retired>,
    ) -> Result<Generation, String> {
        let library = Library::open(copy)?;
        let applications: Vec<_> = symbols
            .iter()
            .filter_map(|symbol| {
                let address = library.function(symbol)?;
                // SAFETY: the ABI gives every application symbol this type, and the checker has found that the module
                // was compiled against it.
                let function = unsafe { transmute::<NonNull<c_void>, host_application>(address) };
                Some((symbol.clone(), function))
            })
            .collect();
        if applications.is_empty() {
            return Err(format!("exports none of: {}", symbols.join(", ")));
        }
        let info = library.data("host_module").map(ModuleInfo::read).transpose()?.unwrap_or_default();
        if let Some(init) = info.init {
            let arguments = host_init {
                size: size_of::<host_init>() as u32,
                reason: ffi::HOST_INIT_SERVE,
                generation: number,
                extension: no_extension,
            };
            // SAFETY: `init` is the module's function of that type; the arguments live until it returns.
            let refused = unsafe { init(&arguments) };
            if refused != 0 {
                return Err(format!("init answered {refused} when it was about to serve"));
            }
        }
        let one_at_a_time = info.flags & ffi::HOST_NOT_THREAD_SAFE != 0;
        surroundings.multithread &= !one_at_a_time;
        Ok(Generation {
            module: module.to_owned(),
            number,
            surroundings,
            serial: one_at_a_time.then(Arc::default),
            streams_input: info.flags & ffi::HOST_STREAM_INPUT != 0,
            applications,
            stop: info.stop,
            retired,
            _library: library,
        })
    }

    /// Whether it is called before the request's content has arrived.
    pub fn streams_input(&self) -> bool {
        self.streams_input
    }

    /// Whether it has this application.
    pub fn has(&self, symbol: &str) -> bool {
        self.application(symbol).is_some()
    }

    pub(super) fn application(&self, symbol: &str) -> Option<host_application> {
        self.applications.iter().find(|(name, _)| name == symbol).map(|(_, function)| *function)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let module = std::mem::take(&mut self.module);
        // Only a worker that is ending has no receiver any more, and it calls what it must before that.
        _ = self.retired.send(Retired(Retirement::Generation { module, number: self.number, stop: self.stop }));
    }
}

/// Calls `stop` of generations whose last request has ended, on a thread of its own: a `stop` may block.
pub fn retire(retired: &mpsc::Receiver<Retired>) {
    for Retired(retirement) in retired {
        match retirement {
            Retirement::Generation { module, number, stop } => {
                if let Some(stop) = stop {
                    // SAFETY: the library stays mapped for ever, and the generation's last reference is gone, so that
                    // no call into it is under way and none will come.
                    unsafe { stop() };
                }
                tracing::debug!("retired {module} generation {number}");
            }
            // Whoever asked may have lost patience.
            Retirement::Barrier(done) => drop(done.send(())),
        }
    }
}

/// What `host_module` says, with fields past its `size` taken for zero.
#[derive(Default)]
struct ModuleInfo {
    flags: u32,
    init: Option<Init>,
    stop: Option<Stop>,
}

impl ModuleInfo {
    fn read(object: NonNull<c_void>) -> Result<ModuleInfo, String> {
        let at = object.as_ptr().cast::<host_module_info>().cast_const();
        // SAFETY: the checker has found that the exported object is as large as its size field says.
        let fields = unsafe { Foreign::new(at, offset_of!(host_module_info, size)) };
        // SAFETY: the type is that of the field, and the library stays mapped.
        let magic: Option<u32> = unsafe { fields.field(offset_of!(host_module_info, magic)) };
        if magic != Some(ffi::HOST_MODULE_MAGIC) {
            return Err("host_module does not begin with HOST_MODULE_MAGIC".to_owned());
        }
        // SAFETY: as above.
        let flags = unsafe { fields.field(offset_of!(host_module_info, flags)) }.unwrap_or(0);
        // SAFETY: as above; a null pointer is `None`.
        let init: Option<Option<Init>> = unsafe { fields.field(offset_of!(host_module_info, init)) };
        // SAFETY: as above.
        let stop: Option<Option<Stop>> = unsafe { fields.field(offset_of!(host_module_info, stop)) };
        Ok(ModuleInfo { flags, init: init.flatten(), stop: stop.flatten() })
    }
}

/// ABI 1.0 has no extension yet.
pub(super) unsafe extern "C" fn no_extension(_id: *const c_char) -> *const c_void {
    ptr::null()
}
