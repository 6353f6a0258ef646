//! Settings from elsewhere than the command line: the TOML file and the `HOST_…` variables.
//!
//! Both become default values of clap's options, so there is one list of options, one syntax of values, and one
//! place that decides what wins. Each value is first checked alone, as though it had been typed, so that a refusal
//! can name the file and the line, or the variable, that it came from.

use super::Cli;
use anyhow::{Context, Result, anyhow, bail};
use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory};
use std::ffi::OsString;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One option's values, and where they were found.
#[derive(Debug)]
pub struct Setting {
    /// As people say it: `host.toml:3`, `HOST_BIND`.
    origin: String,
    /// The key in a file: the long option without its dashes, or the positional argument's name.
    key: String,
    values: Vec<String>,
}

/// The settings of the file at `path`, in its order.
///
/// # Errors
/// Names the file, and the line where there is one.
pub fn file(path: &Path) -> Result<Vec<Setting>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {name}"))?;
    let line = |offset: usize| 1 + text[..offset].bytes().filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(&text).map_err(|error| {
        let line = line(error.span().map_or(0, |span| span.start));
        anyhow!("{name}:{line}: not TOML: {}", error.message())
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut settings = Vec::new();
    for (key, value) in entries {
        let origin = format!("{name}:{}", line(key.span().start));
        let argument = by_key(key.get_ref()).with_context(|| origin.clone())?;
        let values = file_values(&argument, value).with_context(|| format!("{origin}: {}", key.get_ref()))?;
        settings.push(Setting { origin, key: key.get_ref().to_string(), values });
    }
    Ok(settings)
}

/// The settings of the variables; `lookup` finds one by its name.
///
/// # Errors
/// Names the variable whose text is not UTF-8, or is no switch's.
pub fn environment(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for argument in options() {
        let variable = variable(&argument);
        let Some(text) = lookup(&variable) else { continue };
        let text = text.into_string().ok().with_context(|| format!("{variable} is not UTF-8"))?;
        let values = match argument.get_action() {
            ArgAction::Append => {
                let split = text.split(|c: char| c == ',' || c.is_whitespace());
                split.filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
            ArgAction::SetTrue => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => vec!["true".to_owned()],
                "0" | "false" | "no" | "off" | "" => vec!["false".to_owned()],
                _ => bail!("{variable}: {text:?} is no switch's value; say 1 or 0"),
            },
            _ => vec![text],
        };
        settings.push(Setting { origin: variable, key: key(&argument), values });
    }
    Ok(settings)
}

/// Makes `settings` the default values of `command`'s options; later ones win.
///
/// # Errors
/// A value that the option would refuse on the command line.
pub fn install(mut command: Command, settings: Vec<Setting>) -> Result<Command> {
    for Setting { origin, key, values } in settings {
        let argument = by_key(&key).with_context(|| origin.clone())?;
        check_alone(&argument, &values).with_context(|| format!("{origin}: {key}"))?;
        command =
            command.mut_arg(argument.get_id(), |argument| argument.default_values(values.into_iter().map(OsStr::from)));
    }
    Ok(command)
}

/// The options that a file or a variable may set. `--config` itself is found before any of this.
fn options() -> impl Iterator<Item = Arg> {
    // Clap adds help and version only when it builds the command, so they are not among these.
    let command = Cli::command();
    let arguments: Vec<Arg> =
        command.get_arguments().filter(|argument| argument.get_id() != "config").cloned().collect();
    arguments.into_iter()
}

fn key(argument: &Arg) -> String {
    argument.get_long().unwrap_or(argument.get_id().as_str()).to_owned()
}

fn variable(argument: &Arg) -> String {
    format!("HOST_{}", key(argument).to_ascii_uppercase().replace('-', "_"))
}

fn by_key(name: &str) -> Result<Arg> {
    if let Some(argument) = options().find(|argument| key(argument) == name) {
        return Ok(argument);
    }
    if name == "config" {
        bail!("{name:?} cannot be set here");
    }
    let kebab = name.replace('_', "-");
    if kebab != name && options().any(|argument| key(&argument) == kebab) {
        bail!("unknown key {name:?}; did you mean {kebab:?}?");
    }
    // Clap knows which option was probably meant.
    let error = Cli::command().try_get_matches_from(["host".to_owned(), format!("--{name}")]);
    let suggestion = match error.err().and_then(|error| error.get(ContextKind::SuggestedArg).cloned()) {
        Some(ContextValue::String(option)) => format!("did you mean {:?}?", option.trim_start_matches('-')),
        _ => "keys are the long options of host --help without the dashes".to_owned(),
    };
    bail!("unknown key {name:?}; {suggestion}")
}

/// The text of a value in the file.
fn file_values(argument: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        other => bail!("{} stands where a string or a number is due", kind(other)),
    };
    match (argument.get_action(), value.get_ref()) {
        (ArgAction::SetTrue, DeValue::Boolean(on)) => Ok(vec![on.to_string()]),
        (ArgAction::SetTrue, other) => bail!("{} stands where true or false is due", kind(other)),
        (ArgAction::Append, DeValue::Array(items)) => items.iter().map(|item| one(item.get_ref())).collect(),
        (ArgAction::Append, DeValue::Table(_)) => bail!("a table stands where an array of strings is due"),
        (_, value) => Ok(vec![one(value)?]),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if number.radix() != 10 => "a number that is not decimal",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Parses `values` as though they, and nothing else, had been typed.
fn check_alone(argument: &Arg, values: &[String]) -> Result<()> {
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return Ok(());
    }
    let typed = values.iter().map(|value| match argument.get_long() {
        Some(long) => vec![format!("--{long}={value}")],
        None => vec!["--".to_owned(), value.clone()],
    });
    let typed = std::iter::once("host".to_owned()).chain(typed.flatten());
    let Err(error) = Cli::command().try_get_matches_from(typed) else { return Ok(()) };
    if let (ErrorKind::ValueValidation, Some(reason)) = (error.kind(), std::error::Error::source(&error)) {
        let value = error.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
        bail!("{value:?}: {reason}");
    }
    // Clap's own words, without its heading and its hints about the command line.
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or(&text);
    bail!("{}", text.trim_start_matches("error: "))
}
