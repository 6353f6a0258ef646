//! What the comparison can be told.

use crate::case::{self, CASES, Case};
use std::path::PathBuf;

/// The comparison's options.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often each measurement is made; the servers take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Cases, or families of cases (static); all unless given
    #[arg(long, value_delimiter = ',', value_name = "CASE,…", value_parser = known_case)]
    pub only: Vec<String>,
    /// Rows of the tables, or labels of builds; each case has its own choice unless given
    #[arg(long, value_delimiter = ',', value_name = "SERVER,…")]
    pub servers: Vec<String>,
    /// A build of host, with a label for its rows (new=PATH) or without (host); may be repeated, the first is what others
    /// are compared with [default: this repository's]
    #[arg(long, value_name = "[LABEL=]PATH", value_parser = build)]
    pub host_binary: Vec<(String, PathBuf)>,
    /// Write every number to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    /// The chosen cases, in the order of measuring.
    pub fn cases(&self) -> Vec<&'static Case> {
        let chosen: Vec<&str> = self.only.iter().flat_map(|name| case::named(name)).map(|case| case.name).collect();
        CASES.iter().filter(|case| self.only.is_empty() || chosen.contains(&case.name)).collect()
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.1 to 3600".to_owned()),
    }
}

fn known_case(name: &str) -> Result<String, String> {
    if !case::named(name).is_empty() {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    Err(format!("there are {}", names.join(", ")))
}

fn build(text: &str) -> Result<(String, PathBuf), String> {
    let (label, path) = text.split_once('=').unwrap_or(("host", text));
    match std::path::absolute(path) {
        Ok(path) if !label.is_empty() => Ok((label.to_owned(), path)),
        _ => Err("LABEL=PATH, or PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Ok(Program::try_parse_from([&["peers"], arguments].concat())?.options)
    }

    #[test]
    fn cases_are_measured_in_their_own_order() {
        let names = |options: &Options| options.cases().iter().map(|case| case.name).collect::<Vec<_>>();
        let options = parse(&["--only", "slow,hello", "--rounds", "1"]).unwrap();
        assert_eq!(names(&options), ["hello", "slow"]);
        assert_eq!(parse(&[]).unwrap().cases().len(), CASES.len());
    }

    #[test]
    fn builds_have_labels() {
        let options = parse(&["--host-binary", "/a/host", "--host-binary", "new=/b/host"]).unwrap();
        let label = |label: &str, path: &str| (label.to_owned(), PathBuf::from(path));
        assert_eq!(options.host_binary, [label("host", "/a/host"), label("new", "/b/host")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for arguments in [["--only", "none"], ["--rounds", "0"], ["--seconds", "0"], ["--host-binary", "=x"]] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
