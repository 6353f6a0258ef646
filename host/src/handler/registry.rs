//! The modules that a worker knows, and the build of each that serves now. A look-up takes no lock; a new build is one
//! atomic switch, and requests in flight end on the build they began with.

use super::call::{NoTicket, Ticket};
use super::environ::Surroundings;
use super::generation::{Generation, Loadable, Retired};
use crate::config::Config;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::ffi::CString;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, mpsc};

/// All modules of a worker.
pub struct Registry {
    modules: ArcSwap<Modules>,
    config: Arc<Config>,
    retired: mpsc::Sender<Retired>,
}

/// By name, the build of each module that serves now, if it has a sound one. It is replaced as a whole.
type Modules = HashMap<Box<[u8]>, Option<Arc<Generation>>, BuildHasherDefault<NameHasher>>;

impl Registry {
    /// An empty registry; generations that nobody uses any more go to `retired`.
    pub fn new(config: Arc<Config>, retired: mpsc::Sender<Retired>) -> Registry {
        Registry { modules: ArcSwap::default(), config, retired }
    }

    /// A ticket for an application of the module's build of this moment. `script_name_bytes` of the decoded path lead to
    /// it: they are its `SCRIPT_NAME`.
    ///
    /// # Errors
    /// Why it cannot answer.
    pub fn ticket(&self, module: &[u8], symbol: &str, script_name_bytes: usize) -> Result<Ticket, NoTicket> {
        let modules = self.modules.load();
        let generation = modules.get(module).ok_or(NoTicket::NoModule)?;
        Ticket::new(generation.as_ref().ok_or(NoTicket::NoBuild)?, symbol, script_name_bytes)
    }

    /// Loads a sound build and lets it answer from now on.
    ///
    /// # Errors
    /// Why it does not load; the module's previous build goes on.
    pub fn load(&self, build: &Loadable) -> Result<(), String> {
        let loaded = Generation::load(build, self.surroundings(&build.module), self.retired.clone())?;
        let loaded = Arc::new(loaded);
        self.change(|modules| _ = modules.insert(build.module.as_bytes().into(), Some(Arc::clone(&loaded))));
        Ok(())
    }

    /// Makes a module known that has no sound build yet.
    pub fn announce(&self, name: &str) {
        self.change(|modules| _ = modules.entry(name.as_bytes().into()).or_default());
    }

    /// Forgets a module whose files are gone.
    pub fn remove(&self, name: &str) {
        self.change(|modules| _ = modules.remove(name.as_bytes()));
    }

    /// Forgets all modules.
    pub fn clear(&self) {
        self.modules.store(Arc::default());
    }

    /// Replaces all by a copy with this change. It may be made several times, while others change the original.
    fn change(&self, change: impl Fn(&mut Modules)) {
        self.modules.rcu(|modules| {
            let mut modules = Modules::clone(modules);
            change(&mut modules);
            modules
        });
    }

    fn surroundings(&self, name: &str) -> Surroundings {
        let of_module = self.config.env.iter().filter(|pair| pair.module.as_deref() == Some(name));
        let of_all = self.config.env.iter().filter(|pair| pair.module.is_none());
        let c_string = |text: &str| CString::new(text).ok();
        Surroundings {
            document_root: self.config.html.as_ref().and_then(|html| CString::new(html.as_os_str().as_bytes()).ok()),
            multithread: self.config.threads > 1,
            multiprocess: self.config.workers > 1,
            pairs: of_module
                .chain(of_all)
                .filter_map(|pair| Some((c_string(&pair.key)?, c_string(&pair.value)?)))
                .collect(),
        }
    }
}

/// FNV-1a: a few instructions for a name of a few letters, where the default hasher takes a hundred. That one is made for
/// tables whose keys a stranger chooses; here clients only look names up.
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> NameHasher {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
