//! What `host status` tells: as values for programs, and as a table for people.

use crate::log;
use crate::supervisor::incident::Record;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Which server it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The supervisor's process id.
    pub pid: u32,
    /// The version of `host`.
    pub version: String,
    /// The folder in which it was started.
    pub folder: PathBuf,
    /// The folder of handlers.
    pub handlers: PathBuf,
    /// Where it listens, as `--bind` would say it; nowhere any more when it stops.
    pub listeners: Vec<String>,
}

/// How a server is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Which one.
    #[serde(flatten)]
    pub server: Identity,
    /// When it started.
    pub since: String,
    /// How long ago that is.
    pub age_s: u64,
    /// By name.
    pub modules: Vec<ModuleStatus>,
    /// Oldest first.
    pub workers: Vec<WorkerStatus>,
    /// The last ones, oldest first.
    pub incidents: Vec<Record>,
}

/// How a module is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Its name.
    pub name: String,
    /// Whether it answers, and why not.
    pub state: State,
    /// The build that answers.
    pub generation: Option<u64>,
    /// The newest build, if somebody has gone back from it.
    pub rolled_back_from: Option<u64>,
    /// The user's file of the build that answers.
    pub file: Option<PathBuf>,
    /// Why that file and not another.
    pub note: String,
    /// Other builds that `host rollback` can return to, newest first.
    pub others: Vec<u64>,
    /// The file of the newest build, if that is not used.
    pub refused_file: Option<PathBuf>,
    /// Why not.
    pub reason: Option<String>,
    /// How to build it.
    pub build_command: Option<String>,
}

/// Whether a module answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does.
    Serving,
    /// It has no sound build.
    Refused,
    /// Its build was taken out of service, because it crashed too often.
    Suspended,
    /// It has no build.
    NotBuilt,
}

/// How a worker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process id.
    pub pid: u32,
    /// What it is doing.
    pub phase: String,
    /// When it was started.
    pub since: String,
    /// How long ago that is.
    pub age_s: u64,
}

impl Status {
    /// The table for people.
    pub fn table(&self) -> String {
        let Identity { pid, version, folder, listeners, .. } = &self.server;
        let mut text = format!("host {version}, process {pid}, in {}, for {}\n", folder.display(), age(self.age_s));
        for listener in listeners {
            // Writing to a String cannot fail.
            _ = match listener.starts_with("unix:") {
                true => writeln!(text, "listening on {listener}"),
                false => writeln!(text, "listening on http://{listener}"),
            };
        }
        let modules = self.modules.iter().flat_map(|module| module.rows(folder));
        let workers = self.workers.iter();
        let workers =
            workers.map(|worker| [worker.pid.to_string(), worker.phase.clone(), format!("for {}", age(worker.age_s))]);
        let shown = self.incidents.len().saturating_sub(INCIDENTS_SHOWN_MAX);
        let incidents = self.incidents[shown..].iter();
        let incidents = incidents.map(|record| [record.number.to_string(), record.at.clone(), record.text.clone()]);
        let sections =
            [("modules", modules.collect()), ("workers", workers.collect()), ("incidents", incidents.collect())];
        let rows = || sections.iter().flat_map(|(_, rows): &(_, Vec<[String; 3]>)| rows);
        let width = |column: usize| rows().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let (first, second) = (width(0), width(1));
        for (title, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
            _ = writeln!(text, "{title}");
            for [name, state, more] in rows {
                let row = format!("  {name:first$}  {state:second$}  {}", log::visible(more));
                text.push_str(row.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

impl ModuleStatus {
    fn rows(&self, folder: &Path) -> Vec<[String; 3]> {
        let below = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
        let refused = || {
            let file = self.refused_file.as_deref().map(below).unwrap_or_default();
            format!("{file}: {}", self.reason.as_deref().unwrap_or_default())
        };
        let (state, mut more) = match (self.state, self.generation) {
            (State::Serving, generation) => {
                let note = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
                let file = format!("{}{note}", self.file.as_deref().map(below).unwrap_or_default());
                let from = self.rolled_back_from.map(|from| format!(", rolled back from {from}")).unwrap_or_default();
                (format!("generation {}{from}", generation.unwrap_or_default()), file)
            }
            (State::Refused, _) => ("refused".to_owned(), refused()),
            (State::Suspended, _) => ("out of service".to_owned(), refused()),
            (State::NotBuilt, _) => ("not built".to_owned(), self.build_command.clone().unwrap_or_default()),
        };
        if !self.others.is_empty() {
            let others: Vec<_> = self.others.iter().map(u64::to_string).collect();
            _ = write!(more, "; kept: {}", others.join(", "));
        }
        let mut rows = vec![[self.name.clone(), state, more]];
        if self.state == State::Serving && self.reason.is_some() {
            rows.push([String::new(), "newest refused".to_owned(), refused()]);
        }
        rows
    }
}

/// In the largest unit of which it has one.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How many incidents people are shown; programs get all that are known.
const INCIDENTS_SHOWN_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_cannot_steer_a_terminal() {
        let module = |name: &str, state| ModuleStatus {
            name: name.to_owned(),
            state,
            generation: None,
            rolled_back_from: None,
            file: None,
            note: String::new(),
            others: Vec::new(),
            refused_file: Some("/srv/handlers/x.so".into()),
            reason: Some("is\u{1b}[31m empty".to_owned()),
            build_command: None,
        };
        let serving = ModuleStatus {
            generation: Some(2),
            rolled_back_from: Some(3),
            file: Some("/srv/handlers/ctime.so".into()),
            others: vec![3, 1],
            reason: None,
            ..module("ctime", State::Serving)
        };
        let identity = Identity {
            pid: 7,
            version: "0.1.0".to_owned(),
            folder: "/srv".into(),
            handlers: "/srv/handlers".into(),
            listeners: vec!["127.0.0.1:7788".to_owned(), "unix:/run/a".to_owned()],
        };
        let worker = WorkerStatus { pid: 8, phase: "serving".to_owned(), since: String::new(), age_s: 200 };
        let modules = vec![serving, module("x", State::Suspended)];
        let (server, since, age_s) = (identity, String::new(), 7200);
        let status = Status { server, since, age_s, modules, workers: vec![worker], incidents: Vec::new() };
        assert_eq!(
            status.table(),
            "host 0.1.0, process 7, in /srv, for 2 h\n\
             listening on http://127.0.0.1:7788\n\
             listening on unix:/run/a\n\
             modules\n\
             \x20 ctime  generation 2, rolled back from 3  handlers/ctime.so; kept: 3, 1\n\
             \x20 x      out of service                    handlers/x.so: is\\u{1b}[31m empty\n\
             workers\n\
             \x20 8      serving                           for 3 min\n"
        );
    }
}
