//! One loaded build of a module: its functions, and its life from `init` to `stop`.

use super::environ::Surroundings;
use super::foreign;
use super::keeping::Keeping;
use super::library::Library;
use super::state::Functions;
use crate::pace::Paces;
use crate::serial::Serial;
use crate::sys::crash::Suspect;
use abi::ffi::{self, host_application, host_init};
use serde::{Deserialize, Serialize};
use std::ffi::{c_char, c_void};
use std::mem::transmute;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::{Arc, mpsc};

/// A build that serves. When the last request that uses it ends, its `stop` is called, and it stays mapped for ever:
/// destructors of thread locals, unique symbols and language runtimes make unloading unsound.
// Every request of every loop counts itself in and out: aligned, what all of them read is not in the cache line that all
// of them write to.
#[repr(align(64))]
pub struct Generation {
    /// The module's name.
    pub module: String,
    /// Its number, from 1.
    pub number: u64,
    pub(super) surroundings: Surroundings,
    /// Who is to blame for a crash in its code.
    pub(super) suspect: &'static Suspect,
    /// For a module that is called one at a time.
    pub(super) serial: Option<Arc<Serial>>,
    streams_input: bool,
    applications: Vec<Entry>,
    /// For a module that has its state kept.
    pub(super) keeping: Option<Keeping>,
    pub(super) life: Arc<Life>,
}

/// What lasts until a build's `stop`.
pub(super) struct Life {
    module: String,
    number: u64,
    stop: Option<Stop>,
    retired: mpsc::Sender<Retired>,
    _library: Library,
}

/// One application.
#[derive(Clone)]
pub(super) struct Entry {
    /// The name that it is exported by; as the rest, never freed.
    pub(super) symbol: &'static str,
    pub(super) function: host_application,
    pub(super) paces: &'static Paces,
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

type Stop = unsafe extern "C" fn();

/// What a checker has found sound, and how to load it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loadable {
    /// The module's name.
    pub module: String,
    /// The build's number.
    pub generation: u64,
    /// The private copy, which nobody changes.
    pub copy: PathBuf,
    /// The applications that the library itself exports, of those that somebody may ask for. dlsym(3) would find those
    /// of libraries that it needs, too.
    pub applications: Vec<String>,
    /// Whether the library itself exports `host_module`.
    pub described: bool,
}

impl Generation {
    /// Loads a private copy that a checker has found sound, and runs its `init`.
    ///
    /// # Errors
    /// Why it does not load after all, for the log.
    pub(super) fn load(
        build: &Loadable,
        mut surroundings: Surroundings,
        retired: mpsc::Sender<Retired>,
    ) -> Result<Generation, String> {
        let library = Library::open(&build.copy)?;
        let mut functions = Vec::new();
        for symbol in &build.applications {
            let address = library.function(symbol).ok_or_else(|| format!("exports no \"{symbol}\" any more"))?;
            // SAFETY: the ABI gives every application symbol this type, and the checker has found that the module was
            // compiled against it.
            let function = unsafe { transmute::<NonNull<c_void>, host_application>(address) };
            functions.push((symbol.as_str(), function));
        }
        let info = if build.described { library.data("host_module") } else { None };
        let info = info.map(|address| {
            // SAFETY: the checker has found that this object of this very file is a `host_module_info` of the size that it
            // says, aligned, of a version that this host knows.
            unsafe { foreign::module_info(address.cast().as_ptr()) }
        });
        if let Some(init) = info.as_ref().and_then(|info| info.init) {
            let arguments = host_init {
                size: size_of::<host_init>() as u32,
                reason: ffi::HOST_INIT_SERVE,
                generation: build.generation,
                extension: no_extension,
            };
            // SAFETY: `init` is the module's function of that type; the arguments live until it returns.
            let refused = unsafe { init(&arguments) };
            if refused != 0 {
                return Err(format!("its init answered {refused} when it was about to serve"));
            }
        }
        let flags = info.as_ref().map_or(0, |info| info.flags);
        let one_at_a_time = flags & ffi::HOST_NOT_THREAD_SAFE != 0;
        surroundings.multithread &= !one_at_a_time;
        let blocks = flags & ffi::HOST_BLOCKING != 0;
        // The library is never unloaded, so that these are not freed either.
        let entry = |(symbol, function): (&str, _)| {
            let paces = if blocks { Paces::that_block() } else { Paces::default() };
            Entry { symbol: symbol.to_owned().leak(), function, paces: Box::leak(Box::new(paces)) }
        };
        Ok(Generation {
            module: build.module.clone(),
            number: build.generation,
            surroundings,
            suspect: Suspect::new(&build.module, build.generation, build.copy.clone()),
            serial: one_at_a_time.then(Arc::default),
            streams_input: flags & ffi::HOST_STREAM_INPUT != 0,
            applications: functions.into_iter().map(entry).collect(),
            keeping: info.as_ref().and_then(Functions::of).map(Keeping::new),
            life: Arc::new(Life {
                module: build.module.clone(),
                number: build.generation,
                stop: info.and_then(|info| info.stop),
                retired,
                _library: library,
            }),
        })
    }

    /// The same build once more, for the case that it has to go on: requests of its own keep this one apart from the
    /// other. `stop` is called when both are gone.
    pub(super) fn again(&self) -> Generation {
        Generation {
            module: self.module.clone(),
            number: self.number,
            surroundings: self.surroundings.clone(),
            suspect: self.suspect,
            serial: self.serial.clone(),
            streams_input: self.streams_input,
            applications: self.applications.clone(),
            keeping: self.keeping.as_ref().map(Keeping::again),
            life: Arc::clone(&self.life),
        }
    }

    /// Whether it is called before the request's content has arrived.
    pub fn streams_input(&self) -> bool {
        self.streams_input
    }

    /// Which application has this name.
    pub(super) fn find(&self, symbol: &str) -> Option<usize> {
        self.applications.iter().position(|entry| entry.symbol == symbol)
    }

    /// The application that [`find`](Self::find) has found.
    pub(super) fn application(&self, index: usize) -> &Entry {
        &self.applications[index]
    }
}

impl Drop for Life {
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

/// ABI 1.0 has no extension yet.
pub(super) unsafe extern "C" fn no_extension(_id: *const c_char) -> *const c_void {
    ptr::null()
}
