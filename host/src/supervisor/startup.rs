//! What people read when the server starts, and what they are told when it cannot.

use super::admission;
use super::rollout::Modules;
use crate::config::{ApplicationName, Bind, Config, values};
use crate::sys::deposit::Destination;
use crate::sys::socket::Address;
use std::fmt::Write;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// Where it listens, what serves what, and what is not built.
pub(super) fn table<'a>(config: &Config, addresses: impl Iterator<Item = &'a Address>, modules: &Modules) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    if let Some(html) = &config.html {
        rows.push(["site".to_owned(), relative(html), String::new()]);
    }
    let application = |application: &ApplicationName| {
        let file = match modules.get(&application.module) {
            None => "not found".to_owned(),
            Some(module) => match (&module.build, &module.refused, &module.hint) {
                (Some(build), ..) => format!("{}{}", relative(&build.source), note(&build.note)),
                (None, Some((file, reason)), _) => format!("{}: {reason}", relative(file)),
                (None, None, Some(hint)) => format!("not built: {hint}"),
                (None, None, None) => String::new(),
            },
        };
        (format!("{}:{}", application.module, application.symbol), file)
    };
    for prefix in &config.uploads {
        let who = if config.upload_token.is_some() { "for who has the token" } else { "for everybody" };
        let limit = values::size(config.limits.upload_bytes_max);
        rows.push([format!("upload {prefix}/"), who.to_owned(), format!("up to {limit}")]);
    }
    if let Some(root) = &config.root {
        let (name, file) = application(root);
        rows.push(["root".to_owned(), name, file]);
    }
    for mount in &config.mounts {
        let (name, file) = application(&mount.application);
        rows.push([format!("{}/", mount.prefix.trim_end_matches('/')), name, file]);
    }
    for (name, module) in modules.iter() {
        if let Some(build) = &module.build
            && build.report.symbols.iter().any(|symbol| symbol == "application")
        {
            let file = format!("{}{}", relative(&build.source), note(&build.note));
            rows.push([format!("/{name}.so"), format!("{name}:application"), file]);
        }
    }
    for (name, module) in modules.iter().filter(|(_, module)| module.build.is_none()) {
        match (&module.refused, &module.hint) {
            (Some((file, reason)), _) => {
                rows.push(["refused:".to_owned(), name.to_owned(), format!("{}: {reason}", relative(file))]);
            }
            (None, Some(hint)) => rows.push(["not built:".to_owned(), name.to_owned(), hint.clone()]),
            (None, None) => {}
        }
    }
    let mut text = String::new();
    for address in addresses {
        // Writing to a String cannot fail.
        _ = writeln!(text, "listening on {}", url(address));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    for [what, name, file] in &rows {
        text.push_str(format!("  {what:first$}  {name:second$}  {file}").trim_end());
        text.push('\n');
    }
    if let (Some(root), Some(index)) = (&config.root, config.html.as_deref().and_then(index_page)) {
        let ApplicationName { module, symbol } = root;
        _ = writeln!(
            text,
            "GET / is {index}; {module}:{symbol} answers what {} lacks (--html none gives it everything)",
            config.html.as_deref().and_then(Path::file_name).unwrap_or_default().display()
        );
    }
    text
}

/// An address as people give it to a client.
pub(super) fn url(address: &Address) -> String {
    match address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(_) => address.to_string(),
    }
}

/// The root application has to be there from the start.
///
/// # Errors
/// Why it is not, and what to do.
pub(super) fn require_root(config: &Config, modules: &Modules) -> anyhow::Result<()> {
    let Some(ApplicationName { module: name, symbol }) = &config.root else { return Ok(()) };
    let Some(module) = modules.get(name) else {
        anyhow::bail!("no module \"{name}\" in {}; {}", relative(&config.handlers), found(modules));
    };
    // A build from before the configuration was changed may not have what is asked for now.
    let build = module.build.as_ref().filter(|build| build.report.symbols.contains(symbol));
    match (build, &module.refused, &module.hint) {
        (Some(_), ..) => Ok(()),
        (None, Some((file, reason)), _) => {
            anyhow::bail!("{name}:{symbol} cannot be loaded: {}: {reason}", relative(file))
        }
        (None, None, hint) => {
            let hint = hint.as_deref().map(|hint| format!("; run: {hint}")).unwrap_or_default();
            anyhow::bail!("{name}:{symbol} cannot be loaded: {name} is not built{hint}")
        }
    }
}

/// A mount whose module is not there answers 404 until it is.
pub(super) fn warn_of_mounts(config: &Config, modules: &Modules) {
    for mount in &config.mounts {
        let name = &mount.application.module;
        if modules.get(name).is_none() {
            let (handlers, found) = (relative(&config.handlers), found(modules));
            tracing::warn!("--mount {}: no module \"{name}\" in {handlers} yet; {found}", mount.prefix);
        }
    }
}

/// Uploads are for everybody who reaches the server, unless there is a token; and the folders have to be writable.
pub(super) fn warn_of_uploads(config: &Config) {
    let is_local =
        |bind: &Bind| matches!(bind, Bind::Tcp(address) if address.ip().is_loopback()) || matches!(bind, Bind::Unix(_));
    if let (Some(bind), false, None) =
        (config.bind.iter().find(|bind| !is_local(bind)), config.uploads.is_empty(), &config.upload_token)
    {
        tracing::warn!("everybody who reaches {bind} may upload; --upload-token-file FILE asks for a token");
    }
    for prefix in &config.uploads {
        let folder = config.html.as_deref().and_then(|html| admission::upload_folder(html, prefix).ok());
        if folder.is_some_and(|folder| !Destination::new(folder).is_writable()) {
            tracing::warn!("--upload {prefix}/: the server may not write to that folder; uploads are answered 403");
        }
    }
}

fn found(modules: &Modules) -> String {
    let names: Vec<_> = modules.iter().map(|(name, _)| name).collect();
    if names.is_empty() { "it has no module".to_owned() } else { format!("found: {}", names.join(", ")) }
}

/// Whether somebody else ended the process: the system when memory ran out, or a person.
pub(super) fn was_killed(status: &io::Result<ExitStatus>) -> bool {
    status.as_ref().is_ok_and(|status| status.signal() == Some(signal_hook::consts::SIGKILL))
}

/// How a process ended, as the end of a sentence about it.
pub(super) fn describe_end(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                format!("died of {name} ({signal})")
            }
            (None, code) => format!("exited with code {}", code.unwrap_or_default()),
        },
        Err(error) => format!("ended in an unknown way ({error})"),
    }
}

fn note(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({note})") }
}

fn index_page(html: &Path) -> Option<String> {
    let name = ["index.html", "index.htm"].into_iter().find(|name| html.join(name).is_file())?;
    Some(Path::new(html.file_name()?).join(name).display().to_string())
}

/// A path as people in this folder would write it.
pub(super) fn relative(path: &Path) -> String {
    let below = std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    match below {
        Some(below) if path.is_dir() => Path::new(".").join(below).display().to_string(),
        Some(below) => below.display().to_string(),
        None => path.display().to_string(),
    }
}
