//! The cases of the corpus, read from TOML. Whatever a file has that means nothing is an error.

use super::expectation::Expectation;
use crate::repository;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The cases about one thing.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The file's name, without `.toml`.
    pub name: String,
    /// In the file's order.
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One case: what is sent over a connection of its own, and what may come.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is called, once in its topic.
    pub name: String,
    /// The sections that decide: `9112 §3.2`, `9110 §4.2.1`, several with commas.
    pub section: String,
    /// The rule in a few words.
    pub rule: String,
    /// The bytes, in the notation of `text`; several are written one after another, with a pause between.
    pub send: Pieces,
    /// Sent after a `100 Continue`, if one comes.
    pub on_continue: Option<String>,
    /// Whether the client says that it sends no more, and goes on reading.
    #[serde(default)]
    pub finish: bool,
    /// Whether nothing follows the bytes before they are answered. Else another request is right behind them, unless the
    /// connection must live on.
    #[serde(default)]
    pub alone: bool,
    /// Whether no interim response may come.
    #[serde(default)]
    pub no_interim: bool,
    /// What may be answered, if there is one request.
    pub answer: Option<Expectation>,
    /// What may be answered to each of several requests.
    #[serde(default)]
    pub answers: Vec<Expectation>,
    /// The methods of several requests, if HEAD is one of them.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether the connection lives on.
    #[serde(default)]
    pub connection: Fate,
}

/// What is written at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Pieces {
    /// Everything.
    One(String),
    /// One after another.
    Many(Vec<String>),
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Another request is answered.
    Open,
    /// It ends, and nothing that follows is answered.
    Closed,
    /// It ends, or the next request is answered and nothing else.
    #[default]
    Either,
}

impl Case {
    /// What is written, in order.
    pub fn pieces(&self) -> &[String] {
        match &self.send {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// What may be answered, in order.
    pub fn expectations(&self) -> &[Expectation] {
        match &self.answer {
            Some(answer) => std::slice::from_ref(answer),
            None => &self.answers,
        }
    }

    /// Whether it needs something that answers with the content of the request.
    pub fn echoes(&self) -> bool {
        self.pieces().iter().any(|piece| piece.contains(r"\(echo)"))
    }

    /// What is wrong with it, although it could be read.
    fn fault(&self) -> Option<&'static str> {
        let sections = self.section.split(", ").all(|section| {
            section.split_once(" §").is_some_and(|(rfc, place)| {
                rfc.bytes().all(|byte| byte.is_ascii_digit()) && place.starts_with(|c: char| c.is_ascii_alphanumeric())
            })
        });
        match () {
            () if !sections => Some("its section must have the form: 9112 §3.2, 9110 §4.2.1"),
            () if self.rule.len() < 10 => Some("its rule must be told"),
            () if self.pieces().is_empty() => Some("it sends nothing"),
            () if self.answer.is_some() != self.answers.is_empty() => Some("it must have either answer or answers"),
            () if !self.methods.is_empty() && self.methods.len() != self.expectations().len() => {
                Some("it must have as many methods as answers")
            }
            () => self.expectations().iter().find_map(Expectation::fault),
        }
    }
}

/// Where the corpus is.
pub fn folder() -> PathBuf {
    repository().join("tests/conformance/data")
}

/// All topics, by name.
///
/// # Panics
/// A file cannot be read, or a case is not one.
pub fn topics() -> Vec<Topic> {
    let entries = fs::read_dir(folder()).expect("the folder of the corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry of the corpus").path()).collect();
    files.sort();
    files.iter().map(topic).collect()
}

fn topic(file: &PathBuf) -> Topic {
    let shown = file.display();
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let File { case: cases } = toml::from_str(&text).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "{shown}: {} is there twice", case.name);
        if let Some(fault) = case.fault() {
            panic!("{shown}: {}: {fault}", case.name);
        }
    }
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Topic { name, cases }
}
