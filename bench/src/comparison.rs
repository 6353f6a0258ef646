//! The comparison: each case, round by round, each server in turn, and what came of it.

use crate::accounting;
use crate::case::{Case, Column, FAST_AND_SLOW, Field, GENERATIONS, IDLE_CONNECTIONS, Kind, Load};
use crate::client::Group;
use crate::goals;
use crate::load::{self, Clients};
use crate::machine::Machine;
use crate::network::{Joined, Network};
use crate::options::Options;
use crate::process::go_on;
use crate::reading::{Metric, Reading};
use crate::sample::Sample;
use crate::server::{self, Floor, Ground, Hello, Host, Page, Recipe, SLOW, Server};
use crate::table::{Table, number};
use crate::{build, generations, start};
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What came of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its name.
    pub case: &'static str,
    /// What has to be known to read its figures.
    pub remarks: Vec<String>,
    /// A row for each server, host's first build first.
    pub rows: Vec<Row>,
}

/// What came of a case for one server.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub server: String,
    /// What each round gave; none where it failed, and nothing at all if it takes no part.
    pub rounds: Vec<Option<Reading>>,
    /// Why it takes no part, or how it failed last.
    pub trouble: Option<String>,
}

impl Outcome {
    /// Nothing yet.
    pub fn new(case: &'static str) -> Outcome {
        Outcome { case, remarks: Vec::new(), rows: Vec::new() }
    }
}

impl Row {
    /// Nothing yet.
    pub fn new(server: &str) -> Row {
        Row { server: server.to_owned(), rounds: Vec::new(), trouble: None }
    }
}

/// All that the measurements share.
pub struct Comparison<'a> {
    options: &'a Options,
    bench: PathBuf,
    machine: Machine,
    recipes: Vec<(Box<dyn Recipe>, Result<(), String>)>,
    rust_hello: PathBuf,
    // The namespaces, or why there are none; made when they are first needed.
    joined: Option<Result<Joined, String>>,
    folder: tempfile::TempDir,
}

/// Starts in each round of the case of that name.
const STARTS: usize = 4;

impl<'a> Comparison<'a> {
    /// Builds what is needed; `bench` is the program `peers`.
    ///
    /// # Errors
    /// Something does not build.
    pub fn new(options: &'a Options, bench: &Path) -> io::Result<Comparison<'a>> {
        let cores = accounting::cores()?;
        let [Some(client), Some(server)] = [cores.first(), cores.last()] else {
            return Err(io::Error::other("no cores"));
        };
        let rust_hello = build::rust_hello(bench)?;
        if options.cases().iter().any(|case| case.kind == Kind::Start) {
            build::example_handlers(bench)?;
        }
        let mut builds = options.host_binary.clone();
        if builds.is_empty() {
            builds.push(("host".to_owned(), tests::server::binary().to_owned()));
        }
        let mut recipes: Vec<Box<dyn Recipe>> = Vec::new();
        for (label, binary) in &builds {
            for hello in [Hello::Rust, Hello::C] {
                recipes.push(Box::new(Host::new(label, binary.clone(), hello, rust_hello.clone())));
            }
        }
        recipes.push(Box::new(Floor { bench: bench.to_owned() }));
        recipes.extend(server::peers());
        let known = |name: &str| recipes.iter().any(|recipe| recipe.name() == name || recipe.family() == name);
        if let Some(unknown) = options.servers.iter().find(|name| !known(name)) {
            let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name()).collect();
            return Err(io::Error::other(format!("no server {unknown}; there are {}", names.join(", "))));
        }
        let folder = tempfile::Builder::new().prefix("host-bench-").tempdir()?;
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        server::write_site(&folder.path().join("site"))?;
        let mut comparison = Comparison {
            options,
            bench: bench.to_owned(),
            machine: Machine::look([*server, *client]),
            recipes: Vec::new(),
            rust_hello,
            joined: None,
            folder,
        };
        for mut recipe in recipes {
            if !options.cases().iter().any(|case| comparison.takes_part(case, &*recipe)) {
                continue;
            }
            let folder = comparison.folder.path().join(recipe.name());
            std::fs::create_dir_all(&folder)?;
            let built = recipe.build(&folder);
            comparison.recipes.push((recipe, built));
        }
        Ok(comparison)
    }

    /// The machine, as it was before.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The versions of the peers that are installed.
    pub fn versions(&self) -> Vec<String> {
        let version = |(recipe, _): &(Box<dyn Recipe>, _)| Some(format!("{} {}", recipe.name(), recipe.version()?));
        self.recipes.iter().filter_map(version).collect()
    }

    /// The labels of the builds of host that were measured.
    pub fn labels(&self) -> Vec<&str> {
        let hosts = self.recipes.iter().filter(|(recipe, _)| recipe.host_binary().is_some());
        let mut labels: Vec<&str> = hosts.map(|(recipe, _)| recipe.family()).collect();
        labels.dedup();
        labels
    }

    /// Measures a case.
    ///
    /// # Errors
    /// `Interrupted`. What servers do wrong is in the outcome.
    pub fn measure(&mut self, case: &Case) -> io::Result<Outcome> {
        let mut outcome = Outcome::new(case.name);
        let networks = self.networks(case, &mut outcome.remarks);
        let mut takers = Vec::new();
        for (recipe, built) in self.recipes.iter().filter(|(recipe, _)| self.takes_part(case, &**recipe)) {
            let mut row = Row::new(recipe.name());
            let part = built.clone().and_then(|()| part(case, &**recipe));
            match part {
                Ok(remark) => {
                    outcome.remarks.extend(remark.map(|remark| format!("{} {remark}", recipe.name())));
                    takers.push((outcome.rows.len(), &**recipe));
                }
                Err(why) => row.trouble = Some(why),
            }
            outcome.rows.push(row);
        }
        let mut strayed = Vec::new();
        let rounds = self.options.rounds.min(case.rounds_max) as usize;
        for round in 0..rounds {
            for turn in 0..takers.len() {
                let (row, recipe) = takers[(turn + round) % takers.len()];
                eprintln!("{}: round {} of {rounds}, {}", case.name, round + 1, recipe.name());
                let reading = self.read(case, recipe, &networks, &mut strayed);
                go_on()?;
                let row = &mut outcome.rows[row];
                match reading {
                    Ok(reading) => row.rounds.push(Some(reading)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(error) => {
                        eprintln!("{error}");
                        row.rounds.push(None);
                        row.trouble = Some(error.to_string());
                    }
                }
            }
        }
        strayed.sort();
        strayed.dedup();
        outcome.remarks.extend(strayed);
        Ok(outcome)
    }

    /// Whether a server is asked for in a case.
    fn takes_part(&self, case: &Case, recipe: &dyn Recipe) -> bool {
        let (name, family) = (recipe.name(), recipe.family());
        // One of several rows of the same server, which differ in their hello alone.
        let variant = name != family;
        let named = |wanted: &str| self.options.servers.iter().any(|server| server == wanted);
        if !self.options.servers.is_empty() {
            return named(name) || (named(family) && (!variant || case.field == Field::Everybody));
        }
        match case.field {
            Field::Everybody => true,
            Field::Servers => !variant,
            Field::Leaders(others) => !variant && (recipe.host_binary().is_some() || others.contains(&name)),
        }
    }

    /// The network as server and client see it.
    fn networks(&mut self, case: &Case, remarks: &mut Vec<String>) -> [Network; 2] {
        if !matches!(case.kind, Kind::Load(Load { joined: true, .. })) {
            return [Network::loopback(), Network::loopback()];
        }
        match self.joined.get_or_insert_with(Joined::new) {
            Ok(joined) => {
                remarks.push("through a veth between two network namespaces, with reno".to_owned());
                joined.sides()
            }
            Err(why) => {
                let control = &self.machine.congestion_control;
                remarks.push(format!("OVER LOOPBACK with {control}, which may pace it: {why}"));
                [Network::loopback(), Network::loopback()]
            }
        }
    }

    /// One measurement.
    fn read(
        &self,
        case: &Case,
        recipe: &dyn Recipe,
        [server_side, client_side]: &[Network; 2],
        strayed: &mut Vec<String>,
    ) -> io::Result<Reading> {
        let [server_core, core] = self.machine.cores;
        let site = self.folder.path().join("site");
        let ground = Ground { bench: &self.bench, site: &site, core: server_core, network: server_side };
        let duration = Duration::from_secs_f64(self.options.seconds);
        let clients = Clients { bench: &self.bench, core, network: client_side, folder: self.folder.path(), duration };
        let mut serve = |page, close| {
            let server = Server::start(recipe, ground, page, close)?;
            if server.strayed > 0 {
                strayed.push(format!("{} had chosen cores for itself and was bound to ours", recipe.name()));
            }
            Ok::<_, io::Error>((server, path(recipe, page)?))
        };
        match case.kind {
            Kind::Load(load) => {
                let (server, path) = serve(load.page, load.close)?;
                if load.wrk {
                    return load::wrk(&server, clients, server_core, path, load.connections);
                }
                let group = Group::new(path, load.page.expected(), load.connections);
                load::light(&server, clients, server_core, Group { depth: load.depth, close: load.close, ..group })
            }
            Kind::Slow => {
                let close = recipe.holds_to_one();
                let (server, fast) = serve(Page::Hello, close)?;
                let group = |path, connections| Group { close, ..Group::new(path, Page::Slow.expected(), connections) };
                let fast = group(fast, FAST_AND_SLOW.0);
                let slow = group(path(recipe, Page::Slow)?, FAST_AND_SLOW.1);
                load::slow_beside_fast(&server, clients, fast, Group { stagger: SLOW, ..slow })
            }
            Kind::Idle => {
                let (server, path) = serve(Page::Hello, false)?;
                load::idle(&server, clients, Group::new(path, Page::Hello.expected(), IDLE_CONNECTIONS))
            }
            Kind::Generations => self.generations(recipe),
            Kind::Start => {
                let binary = recipe.host_binary().ok_or_else(|| io::Error::other("is about host"))?;
                let starts = || (0..STARTS).map(|_| start::to_first_answer(binary).as_secs_f64() * 1e3).collect();
                let sample: Sample = unpanicked(|| Ok(starts()))?;
                Ok(Reading::default().with(Metric::StartMs, sample.median()))
            }
        }
    }

    fn generations(&self, recipe: &dyn Recipe) -> io::Result<Reading> {
        let binary = recipe.host_binary().ok_or_else(|| io::Error::other("is about host"))?;
        let source = self.folder.path().join("generation.so");
        let in_c = |number: u32, module: &Path| {
            // Another constant makes another build.
            let text = format!("{}\nconst unsigned generation = {number};\n", server::HELLO_IN_C);
            server::compile(&text, &source, &[]).map_err(io::Error::other)?;
            std::fs::copy(&source, module).map(drop)
        };
        let rust = std::fs::read(&self.rust_hello)?;
        // What follows the last section is not loaded, but makes another file, which is all that a build is.
        let in_rust = |number: u32, module: &Path| std::fs::write(module, [&rust[..], &number.to_le_bytes()].concat());
        unpanicked(|| {
            Ok(Reading::default()
                .with(Metric::KibPerGeneration, generations::kib_each(binary, GENERATIONS, in_c)?)
                .with(Metric::KibPerRustGeneration, generations::kib_each(binary, GENERATIONS, in_rust)?))
        })
    }
}

/// Whether a server can take part, with a remark; or why not.
fn part(case: &Case, recipe: &dyn Recipe) -> Result<Option<&'static str>, String> {
    let offer = |page| recipe.offer(page).map_err(|why| format!("n/a: {why}"));
    match case.kind {
        Kind::Load(load) if load.depth > 1 && !recipe.parses() => {
            Err("n/a: takes what it reads for one request".into())
        }
        Kind::Load(load) => Ok(offer(load.page)?.remark),
        Kind::Slow => Ok(offer(Page::Hello).and(offer(Page::Slow))?.remark),
        Kind::Idle if recipe.holds_to_one() => Err("n/a: serves one connection until it ends".to_owned()),
        Kind::Idle => Ok(offer(Page::Hello)?.remark),
        Kind::Generations | Kind::Start if recipe.host_binary().is_some() => Ok(None),
        Kind::Generations | Kind::Start => Err("n/a: is about host".to_owned()),
    }
}

fn path(recipe: &dyn Recipe, page: Page) -> io::Result<&'static str> {
    recipe.offer(page).map(|offer| offer.path).map_err(io::Error::other)
}

/// The tests' harness panics when something does not come about; here that is one failed measurement.
fn unpanicked<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(io::Error::other(words.unwrap_or("a panic").to_owned()))
    })
}

/// The table of an outcome, and what has to be said about it.
pub fn lines(case: &Case, outcome: &Outcome) -> Vec<String> {
    // Host's first build, if it takes part.
    let base = outcome.rows.iter().find(|row| row.rounds.iter().any(Option::is_some));
    let has_ratio = matches!(case.kind, Kind::Load(_));
    let mut headings = vec![String::new()];
    for column in case.columns {
        headings.push(column.heading.to_owned());
        if column.spread {
            headings.push("(range)".to_owned());
        }
    }
    if has_ratio {
        headings.push(format!("CPU ÷ {}", base.map_or("", |row| &row.server)));
    }
    let mut table = Table::new(headings);
    let mut remarks = outcome.remarks.clone();
    for row in &outcome.rows {
        let readings: Vec<&Reading> = row.rounds.iter().flatten().collect();
        if readings.is_empty() {
            let trouble = row.trouble.clone().unwrap_or_default();
            table.row([&row.server, trouble.lines().next().unwrap_or_default()]);
            continue;
        }
        if let Some(trouble) = &row.trouble {
            let failed = row.rounds.len() - readings.len();
            remarks.push(format!("{}: {failed} of {} rounds failed: {trouble}", row.server, row.rounds.len()));
        }
        let mut cells = vec![row.server.clone()];
        case.columns.iter().for_each(|column| cells.extend(self::cells(column, &readings)));
        if has_ratio {
            let pairs = base.into_iter().flat_map(|base| row.rounds.iter().zip(&base.rounds));
            let pairs = pairs.filter_map(|(row, base)| row.as_ref().zip(base.as_ref()));
            cells.push(goals::ratio(pairs, Metric::CpuUs).map_or("–".to_owned(), |ratio| number(ratio, 2)));
        }
        table.row(cells);
    }
    let mut lines = vec![format!("{}: {}", case.name, case.title)];
    lines.extend(table.lines());
    lines.extend(remarks.iter().map(|remark| format!("  {remark}")));
    lines
}

/// A median, and the least and the greatest if they are shown.
fn cells(column: &Column, readings: &[&Reading]) -> Vec<String> {
    let sample: Sample = readings.iter().filter_map(|reading| reading.value(column.metric)).collect();
    if sample.is_empty() {
        return vec!["–".to_owned(); 1 + usize::from(column.spread)];
    }
    let text = |value| number(value, column.decimals);
    let mut cells = vec![text(sample.median())];
    if column.spread {
        cells.push(format!("({}–{})", text(sample.quantile(0.0)), text(sample.quantile(1.0))));
    }
    cells
}
