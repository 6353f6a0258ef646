//! HUP: the configuration is read again, and every build taken again, beside what serves. If all of it is well, the
//! workers are replaced; else one line says why not, and nothing has changed.
//!
//! 1. What can be refused at once is: a wrong value, a folder, an address that cannot be bound.
//! 2. A second builds pipeline takes and checks every build, as the new configuration demands. What the first one notices
//!    meanwhile is held back.
//! 3. When the first look of the second is complete, the root application decides, as it does at a start.

use super::builds::{self, Builds, Notice};
use super::listeners::{self, Listener, When};
use super::{Supervisor, admission, descriptors_max, start_builds, startup};
use crate::config::Config;
use crate::sys::process;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::sync::Arc;

/// A reload that is under way.
pub(super) struct Reload {
    config: Config,
    /// Listeners that the configuration has and the server has not.
    opened: Vec<Listener>,
    builds: Builds,
    /// The number of the second pipeline.
    pipeline: u64,
    /// What it has told.
    notices: Vec<Notice>,
    /// What the first one has told meanwhile.
    held: Vec<Notice>,
}

impl Supervisor {
    /// HUP.
    pub(super) fn reload(&mut self) {
        if self.stopping {
            return;
        }
        if !self.announced || self.heir.is_some() || self.reload.is_some() {
            tracing::info!(
                "reloading later: the server is {}",
                match () {
                    () if !self.announced => "still starting",
                    () if self.heir.is_some() => "being upgraded",
                    () => "reloading already",
                }
            );
            self.reload_due = true;
            return;
        }
        match self.begin_reload() {
            Ok(reload) => self.reload = Some(reload),
            Err(error) => tracing::error!("not reloaded, going on as before: {error:#}"),
        }
    }

    fn begin_reload(&mut self) -> anyhow::Result<Reload> {
        let config = (self.reread)()?;
        let fixed = |config: &Config| (config.runtime.clone(), config.log_format, config.limits.memory_bytes_max);
        ensure!(
            fixed(&config) == fixed(&self.config),
            "--runtime, --log-format and --limit-memory are read at the start only; use USR2, or start it again"
        );
        admission::check(&config, self.runtime.path())?;
        let missing = listeners::missing(&config.bind, self.crew.listeners().map(|listener| &listener.bind));
        let opened = listeners::open(&missing, When::Later)?;
        self.pipelines += 1;
        let pipeline = self.pipelines;
        let mut known = self.modules.known();
        if config.handlers != self.config.handlers {
            known.values_mut().for_each(|known| known.is_present = false);
        }
        let builds = start_builds(&config, &self.runtime, known, self.states.last(), pipeline, self.sender.clone())
            .context("cannot look at the builds")?;
        Ok(Reload { config, opened, builds, pipeline, notices: Vec::new(), held: Vec::new() })
    }

    /// Keeps a notice back as long as a reload is under way. Gives those back that are to be acted on.
    pub(super) fn hold(&mut self, pipeline: u64, notice: Notice) -> Option<Notice> {
        match &mut self.reload {
            Some(reload) if reload.pipeline == pipeline => {
                let is_complete = matches!(notice, Notice::Scanned { .. });
                reload.notices.push(notice);
                if is_complete {
                    self.end_reload();
                }
                None
            }
            Some(reload) if self.pipeline == pipeline => {
                reload.held.push(notice);
                None
            }
            _ if self.pipeline == pipeline => Some(notice),
            // Of a pipeline that is not wanted any more.
            _ => {
                discard(notice);
                None
            }
        }
    }

    /// Every build has been looked at.
    fn end_reload(&mut self) {
        let Some(Reload { config, mut opened, builds, pipeline, notices, held }) = self.reload.take() else { return };
        let stays = config.handlers == self.config.handlers;
        let mut modules = if stays { self.modules.trial() } else { self.modules.trial_elsewhere() };
        for notice in notices {
            match notice {
                // Somebody has gone back from it: it stays away until its file changes.
                Notice::Sound(build) if modules.has_turned_away(&build) => {
                    builds.hold(&build.module, true);
                    builds::discard(&build);
                }
                // The workers that there will be are told of all builds when they are hired.
                notice => drop(modules.note(notice)),
            }
        }
        // A listener that was about to be closed when the reload began may be closed by now.
        let listeners = self.crew.listeners().chain(&opened).map(|listener| &listener.bind);
        let missing = listeners::missing(&config.bind, listeners);
        let verdict = startup::require_root(&config, &modules).and_then(|()| {
            opened.extend(listeners::open(&missing, When::Later)?);
            Ok(())
        });
        if let Err(error) = verdict {
            tracing::error!("not reloaded, going on as before: {error:#}");
            drop_aside(builds);
            held.into_iter().for_each(|notice| self.act_on_build(notice));
            return self.catch_up();
        }
        held.into_iter().for_each(discard);
        modules.accept();
        let changed = changes(&self.config, &config);
        let changed = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
        tracing::info!("reloading everything: every build and worker is replaced; changed options: {changed}");
        startup::warn_of_mounts(&config, &modules);
        startup::warn_of_uploads(&config);
        for listener in &opened {
            tracing::info!("listening on {}", startup::url(&listener.address));
        }
        process::raise_descriptor_limit(descriptors_max(&config));
        (self.modules, self.pipeline, self.config) = (modules, pipeline, Arc::new(config));
        drop_aside(std::mem::replace(&mut self.builds, builds));
        self.crew.reconfigure(Arc::clone(&self.config), opened, &self.modules);
        self.catch_up();
    }

    /// Gives up a reload that is under way, if one is.
    pub(super) fn abandon_reload(&mut self) -> bool {
        let Some(Reload { builds, notices, held, .. }) = self.reload.take() else { return false };
        drop_aside(builds);
        notices.into_iter().for_each(discard);
        held.into_iter().for_each(|notice| self.act_on_build(notice));
        true
    }

    /// Begins a reload that had to wait.
    pub(super) fn catch_up(&mut self) {
        if std::mem::take(&mut self.reload_due) {
            self.reload();
        }
    }
}

/// Dropping a pipeline waits for what it is at, which the supervisor has no time for.
fn drop_aside(builds: Builds) {
    // Without a thread to be had, the closure, and with it the pipeline, is dropped here.
    _ = std::thread::Builder::new().name("old builds".to_owned()).spawn(move || drop(builds));
}

fn discard(notice: Notice) {
    if let Notice::Sound(build) = notice {
        builds::discard(&build);
    }
}

/// The options whose values differ, by their names.
fn changes(before: &Config, after: &Config) -> Vec<String> {
    let values = |config| serde_json::to_value(config).unwrap_or_default();
    let (Value::Object(before), Value::Object(after)) = (values(before), values(after)) else { return Vec::new() };
    let mut changed = Vec::new();
    for (name, after) in &after {
        let before = before.get(name).unwrap_or(&Value::Null);
        match (before, after) {
            _ if before == after => {}
            (Value::Object(before), Value::Object(after)) if matches!(name.as_str(), "limits" | "timeouts") => {
                let differs = |key: &&String| before.get(*key) != after.get(*key);
                changed.extend(
                    after.keys().filter(differs).map(|key| option(&format!("{}_{key}", &name[..name.len() - 1]))),
                );
            }
            _ => changed.push(option(name)),
        }
    }
    // A token may be another one in another file.
    changed.dedup();
    changed
}

/// The option that a field of the configuration comes from.
fn option(field: &str) -> String {
    match field {
        "root" => "application".to_owned(),
        "mounts" => "mount".to_owned(),
        "reload" => "no-reload".to_owned(),
        "uploads" => "upload".to_owned(),
        "upload_token" => "upload-token-file".to_owned(),
        _ => field.trim_end_matches("_max").trim_end_matches("_bytes").replace('_', "-"),
    }
}

#[cfg(test)]
mod tests;
