//! The modules that a worker knows, and the build of each that serves now. A look-up takes no lock; a new build is one
//! atomic switch, and requests in flight end on the build they began with.

use super::call::{NoTicket, Ticket};
use super::environ::Surroundings;
use super::generation::{Generation, Loadable, Retired};
use super::keeper::{Errand, NotTaken};
use super::state::Saved;
use crate::config::Config;
use arc_swap::ArcSwap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// All modules of a worker.
pub struct Registry {
    modules: ArcSwap<Modules>,
    config: Arc<Config>,
    retired: mpsc::Sender<Retired>,
    /// For the keeper.
    errands: mpsc::Sender<Errand>,
    /// A module here has its state kept.
    keeps: AtomicBool,
    /// The keeper knows that calls are made.
    stirred: AtomicBool,
    /// A module has crashed in this process: no thread is made any more.
    tainted: AtomicBool,
}

/// It is replaced as a whole.
#[derive(Clone, Default)]
struct Modules {
    /// Another one after each change.
    edition: u64,
    /// In the order of their names.
    list: Vec<Module>,
}

#[derive(Clone)]
struct Module {
    name: Box<str>,
    /// The build that serves now, if there is a sound one.
    generation: Option<Arc<Generation>>,
}

/// Where a ticket was found. Until the modules change, another one is there.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    edition: u64,
    module: usize,
    application: usize,
    script_name_bytes: usize,
}

impl Registry {
    /// An empty registry; generations that nobody uses any more go to `retired`, and `errands` to its keeper.
    pub fn new(config: Arc<Config>, retired: mpsc::Sender<Retired>, errands: mpsc::Sender<Errand>) -> Registry {
        let [keeps, stirred, tainted] = [(); 3].map(|()| AtomicBool::new(false));
        Registry { modules: ArcSwap::default(), config, retired, errands, keeps, stirred, tainted }
    }

    /// A ticket for an application of the module's build of this moment, and where it was found. `script_name_bytes` of
    /// the decoded path lead to it: they are its `SCRIPT_NAME`.
    ///
    /// # Errors
    /// Why it cannot answer.
    pub fn ticket(&self, name: &[u8], symbol: &str, script_name_bytes: usize) -> Result<(Ticket, Place), NoTicket> {
        let modules = self.modules.load();
        let module = modules.find(name).map_err(|_| NoTicket::NoModule)?;
        let generation = modules.list[module].generation.as_ref().ok_or(NoTicket::NoBuild)?;
        let application = generation.find(symbol).ok_or(NoTicket::NoApplication)?;
        let ticket = Ticket::new(Arc::clone(generation), application, script_name_bytes);
        Ok((ticket, Place { edition: modules.edition, module, application, script_name_bytes }))
    }

    /// Another ticket like the one that was found there, unless the modules have changed.
    pub fn ticket_at(&self, place: Place) -> Option<Ticket> {
        let Place { edition, module, application, script_name_bytes } = place;
        let modules = self.modules.load();
        if modules.edition != edition {
            return None;
        }
        let generation = modules.list.get(module)?.generation.as_ref()?;
        Some(Ticket::new(Arc::clone(generation), application, script_name_bytes))
    }

    /// Loads a sound build and lets it answer from now on. If its state is kept, requests wait until it has that of the
    /// build before it; where that one had none to give, until [`restore`](Self::restore) is called.
    ///
    /// # Errors
    /// Why it does not load; the module's previous build goes on.
    pub fn load(&self, build: &Loadable) -> Result<(), NotTaken> {
        let loaded = Generation::load(build, self.surroundings(&build.module), self.retired.clone());
        let loaded = Arc::new(loaded.map_err(|reason| NotTaken { reason, fault: None })?);
        self.keeps.fetch_or(loaded.keeping.is_some(), Ordering::Relaxed);
        if !self.keeps.load(Ordering::Relaxed) {
            self.install(&loaded);
            return Ok(());
        }
        let (reply, taken) = mpsc::channel();
        self.tell_keeper(Errand::Succeed(loaded, reply));
        let lost = |_| Err(NotTaken { reason: "nobody hands its state on any more".to_owned(), fault: None });
        taken.recv().unwrap_or_else(lost)
    }

    /// What was kept of a module's state elsewhere is for the build that waits for it, if one does; `None`: there is
    /// nothing, and it begins anew.
    pub fn restore(&self, module: String, saved: Option<Saved>) {
        self.tell_keeper(Errand::Restore(module, saved));
    }

    /// Makes a module known that has no sound build yet.
    pub fn announce(&self, name: &str) {
        self.change(|modules| _ = modules.entry(name));
    }

    /// Forgets a module whose files are gone.
    pub fn remove(&self, name: &str) {
        let mut removed = None;
        self.change(|modules| removed = modules.find(name.as_bytes()).ok().map(|at| modules.list.remove(at)));
        let last = removed.and_then(|module| module.generation).filter(|last| last.keeping.is_some());
        if let Some(last) = last {
            self.tell_keeper(Errand::Settle(vec![last]));
        }
    }

    /// Takes all modules out of service that have their state kept, so that it can be handed on: no request begins here any
    /// more.
    pub fn settle(&self) {
        let mut last = Vec::new();
        self.change(|modules| {
            let stateful = |generation: &mut Arc<Generation>| generation.keeping.is_some();
            let all = modules.list.iter_mut();
            last = all.filter_map(|module| module.generation.take_if(stateful)).collect();
        });
        if !last.is_empty() {
            self.tell_keeper(Errand::Settle(last));
        }
    }

    /// Does this when what [`settle`](Self::settle) has begun is over.
    pub fn when_settled(&self, work: impl FnOnce() + Send + 'static) {
        self.tell_keeper(Errand::Then(Box::new(work)));
    }

    /// Forgets all modules.
    pub fn clear(&self) {
        self.change(|modules| modules.list.clear());
    }

    /// Calls are made, after a while without any: their traces shall be kept.
    pub fn stir(&self) {
        if self.keeps.load(Ordering::Relaxed) && self.note_stir() {
            self.tell_keeper(Errand::Stir);
        }
    }

    /// A module has crashed in this process.
    pub fn taint(&self) {
        self.tainted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::Relaxed)
    }

    /// Notes that the keeper knows of calls; false if that had been noted.
    pub(super) fn note_stir(&self) -> bool {
        !self.stirred.swap(true, Ordering::SeqCst)
    }

    pub(super) fn forget_stir(&self) {
        self.stirred.store(false, Ordering::SeqCst);
    }

    /// Lets a build answer from now on, in the place of the one that it gives.
    pub(super) fn install(&self, build: &Arc<Generation>) -> Option<Arc<Generation>> {
        let mut before = None;
        self.change(|modules| before = modules.entry(&build.module).generation.replace(Arc::clone(build)));
        before
    }

    /// Lets a build answer in the place of this one, if that does it still.
    pub(super) fn reinstall(&self, build: &Arc<Generation>, instead: &Arc<Generation>) {
        self.change(|modules| {
            let current = &mut modules.entry(&build.module).generation;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, instead)) {
                *current = Some(Arc::clone(build));
            }
        });
    }

    /// The build of a module that answers now.
    pub(super) fn current(&self, name: &str) -> Option<Arc<Generation>> {
        let modules = self.modules.load();
        let module = modules.find(name.as_bytes()).ok()?;
        modules.list[module].generation.clone()
    }

    /// All builds of this moment that have their state kept.
    pub(super) fn stateful(&self) -> Vec<Arc<Generation>> {
        let modules = self.modules.load();
        let all = modules.list.iter().filter_map(|module| module.generation.as_ref());
        all.filter(|generation| generation.keeping.is_some()).cloned().collect()
    }

    fn tell_keeper(&self, errand: Errand) {
        // It ends only with the process.
        _ = self.errands.send(errand);
    }

    /// Replaces all by a copy with this change. It may be made several times, while others change the original.
    fn change(&self, mut change: impl FnMut(&mut Modules)) {
        self.modules.rcu(|modules| {
            let mut modules = Modules::clone(modules);
            change(&mut modules);
            modules.edition += 1;
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

impl Modules {
    /// Where the module of this name is, or would be.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.list.binary_search_by(|module| module.name.as_bytes().cmp(name))
    }

    /// The module of this name, which has no build if it is new.
    fn entry(&mut self, name: &str) -> &mut Module {
        let at = self.find(name.as_bytes()).unwrap_or_else(|at| {
            self.list.insert(at, Module { name: name.into(), generation: None });
            at
        });
        &mut self.list[at]
    }
}
