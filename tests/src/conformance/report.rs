//! How servers have done: a table for people, in Markdown, and what each has failed.

use super::corpus::Topic;
use super::run::Subject;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// What became of the cases, in the order of the topics.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The server.
    pub name: String,
    /// For each topic and case: what was wrong.
    pub failures: Vec<Vec<Option<String>>>,
}

/// Cases under way at once: most of their time goes into waiting.
const AT_ONCE: usize = 16;

/// Sends all cases to a server.
pub fn examine(name: &str, subject: &Subject, topics: &[Topic]) -> Outcome {
    subject.settle();
    let cases = topics.iter().enumerate();
    let cases: Vec<_> = cases
        .flat_map(|(at, topic)| topic.cases.iter().enumerate().map(move |(index, case)| (at, index, case)))
        .collect();
    let mut failures: Vec<Vec<_>> = topics.iter().map(|topic| vec![None; topic.cases.len()]).collect();
    let next = AtomicUsize::new(0);
    let (results, received) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (results, next, cases) = (results.clone(), &next, &cases);
            scope.spawn(move || {
                while let Some((topic, index, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    results.send((*topic, *index, subject.run(case).err())).expect("somebody counts");
                }
            });
        }
        drop(results);
        for (topic, index, failure) in received {
            failures[topic][index] = failure;
        }
    });
    Outcome { name: name.to_owned(), failures }
}

impl Outcome {
    /// How many cases passed, and how many there are.
    pub fn score(&self) -> (usize, usize) {
        self.failures.iter().map(|topic| score(topic)).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1))
    }

    /// What it failed, one line each.
    pub fn told(&self, topics: &[Topic]) -> String {
        let mut lines = String::new();
        for (topic, failures) in topics.iter().zip(&self.failures) {
            for (case, failure) in topic.cases.iter().zip(failures) {
                if let Some(failure) = failure {
                    let (name, section, rule) = (&case.name, &case.section, &case.rule);
                    _ = writeln!(lines, "- {}/{name} (RFC {section}: {rule}): {failure}", topic.name);
                }
            }
        }
        lines
    }
}

/// The table: a row for each topic, a column for each server.
pub fn table(topics: &[Topic], outcomes: &[Outcome]) -> String {
    let row = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut table =
        row(&mut ["topic", "cases"].map(str::to_owned).into_iter().chain(outcomes.iter().map(|o| o.name.clone())));
    table +=
        &row(&mut std::iter::once("---".to_owned()).chain(std::iter::repeat_n("---:".to_owned(), outcomes.len() + 1)));
    for (index, topic) in topics.iter().enumerate() {
        let scores = outcomes.iter().map(|outcome| score(&outcome.failures[index]).0.to_string());
        table += &row(&mut [topic.name.clone(), topic.cases.len().to_string()].into_iter().chain(scores));
    }
    let count: usize = topics.iter().map(|topic| topic.cases.len()).sum();
    let scores = outcomes.iter().map(|outcome| format!("**{}**", outcome.score().0));
    table + &row(&mut ["all".to_owned(), count.to_string()].into_iter().chain(scores))
}

fn score(failures: &[Option<String>]) -> (usize, usize) {
    (failures.iter().filter(|failure| failure.is_none()).count(), failures.len())
}
