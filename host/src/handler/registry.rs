//! The modules that a worker knows, and the build of each that serves now. A look-up takes no lock; a new build is one
//! atomic switch, and requests in flight end on the build they began with.

use super::environ::Surroundings;
use super::generation::{Generation, Loadable, Retired};
use crate::config::Config;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, mpsc};

/// All modules of a worker.
pub struct Registry {
    modules: ArcSwap<HashMap<String, Arc<Module>>>,
    config: Arc<Config>,
    retired: mpsc::Sender<Retired>,
}

/// A module: a name that outlives its builds.
pub struct Module {
    name: String,
    generation: ArcSwapOption<Generation>,
}

impl Registry {
    /// An empty registry; generations that nobody uses any more go to `retired`.
    pub fn new(config: Arc<Config>, retired: mpsc::Sender<Retired>) -> Registry {
        Registry { modules: ArcSwap::default(), config, retired }
    }

    /// The module of that name, if there ever was one.
    pub fn find(&self, name: &str) -> Option<Arc<Module>> {
        self.modules.load().get(name).cloned()
    }

    /// Loads a sound build and lets it answer from now on.
    ///
    /// # Errors
    /// Why it does not load; the module's previous build goes on.
    pub fn load(&self, build: &Loadable) -> Result<(), String> {
        let loaded = Generation::load(build, self.surroundings(&build.module), self.retired.clone())?;
        self.module(&build.module).generation.store(Some(Arc::new(loaded)));
        Ok(())
    }

    /// Makes a module known that has no sound build yet.
    pub fn announce(&self, name: &str) {
        self.module(name);
    }

    /// Forgets a module whose files are gone.
    pub fn remove(&self, name: &str) {
        let mut modules = HashMap::clone(&self.modules.load());
        if let Some(module) = modules.remove(name) {
            module.generation.store(None);
        }
        self.modules.store(Arc::new(modules));
    }

    /// Forgets all modules.
    pub fn clear(&self) {
        for module in self.modules.swap(Arc::default()).values() {
            module.generation.store(None);
        }
    }

    fn module(&self, name: &str) -> Arc<Module> {
        if let Some(module) = self.find(name) {
            return module;
        }
        let module = Arc::new(Module { name: name.to_owned(), generation: ArcSwapOption::empty() });
        // One thread changes the registry, so that nothing comes between this copy and the store.
        let mut modules = HashMap::clone(&self.modules.load());
        modules.insert(name.to_owned(), Arc::clone(&module));
        self.modules.store(Arc::new(modules));
        module
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

impl Module {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The build that serves now, if any.
    pub fn current(&self) -> Option<Arc<Generation>> {
        self.generation.load_full()
    }
}
