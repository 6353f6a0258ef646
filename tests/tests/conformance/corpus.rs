//! Every case of the corpus, at `host`.

use crate::pages_and_mirror;
use std::fmt::Write;
use tests::PATIENCE;
use tests::conformance::{Subject, corpus, site};

/// The corpus promises at least this many.
const CASES_MIN: usize = 300;

#[test]
fn every_case_of_the_corpus_is_answered_as_the_rfcs_allow() {
    let folder = pages_and_mirror();
    site::write(&folder.path("html")).unwrap();
    let server = folder.start(&[]);
    let echo = Some("/mirror.so".to_owned());
    let subject = Subject { address: server.address(), echo, patience: PATIENCE, audited: true };
    subject.settle();
    let (mut cases, mut failures) = (0, String::new());
    for topic in corpus::topics() {
        for case in &topic.cases {
            cases += 1;
            if let Err(reason) = subject.run(case) {
                let (name, section, rule) = (&case.name, &case.section, &case.rule);
                _ = writeln!(failures, "{}/{name} (RFC {section}: {rule}): {reason}", topic.name);
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(cases >= CASES_MIN, "only {cases} cases are left");
}
