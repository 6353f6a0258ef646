//! Sends the conformance corpus to servers, and prints how many of its cases each passes, and which not.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tests::conformance::corpus::{self, Topic};
use tests::conformance::peers::{self, Peer};
use tests::conformance::report::{self, Outcome};
use tests::conformance::{Subject, site};
use tests::{Site, cc, repository};

const USAGE: &str = "\
usage: conformance [--topic NAME] [--brief] [SERVER...]
       conformance --site FOLDER

  SERVER         host, nginx, apache2, lighttpd, h2o, caddy, or an address such as 127.0.0.1:8080; host alone if none is given
  --peers        host and all of the others, which Debian has as nginx-light, apache2-bin, lighttpd, h2o and caddy
  --topic NAME   only the cases of tests/conformance/data/NAME.toml
  --brief        the table alone
  --site FOLDER  writes the files that a server at an address must serve";

/// How long a server may take to answer or close: nginx lingers for 5 s before it does.
const PATIENCE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let mut servers = Vec::new();
    let (mut topic, mut brief) = (None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--peers" => servers.extend(["host"].into_iter().chain(peers::NAMES).map(str::to_owned)),
            "--brief" => brief = true,
            "--topic" => topic = arguments.next(),
            "--site" => {
                let written = arguments.next().ok_or(std::io::Error::other("which folder?"));
                return match written.and_then(|folder| site::write(Path::new(&folder))) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => fail(&error.to_string()),
                };
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            option if option.starts_with('-') => return fail(&format!("what is {option}?\n{USAGE}")),
            _ => servers.push(argument),
        }
    }
    if servers.is_empty() {
        servers.push("host".to_owned());
    }
    let mut topics = corpus::topics();
    topics.retain(|its| topic.as_ref().is_none_or(|name| *name == its.name));
    if topics.is_empty() {
        return fail("there is no such topic in tests/conformance/data");
    }
    let outcomes: Vec<Outcome> = servers.iter().filter_map(|name| examine(name, &topics)).collect();
    if !brief {
        for outcome in &outcomes {
            let (passed, all) = outcome.score();
            println!("## {}: {passed} of {all}\n\n{}", outcome.name, outcome.told(&topics));
        }
    }
    print!("{}", report::table(&topics, &outcomes));
    match outcomes.len() == servers.len() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What became of the cases at one server; none if it cannot be started, which is told.
fn examine(server: &str, topics: &[Topic]) -> Option<Outcome> {
    let subject = |address, echo| Subject { address, echo, patience: PATIENCE, audited: false };
    if server == "host" {
        let site = Site::new();
        site::write(&site.path("html")).expect("the site");
        let source = repository().join("tests/tests/conformance/mirror.c");
        cc(&source, &site.path("handlers/mirror.so"), &[]);
        let host = site.start(&[]);
        return Some(report::examine(server, &subject(host.address(), Some("/mirror.so".to_owned())), topics));
    }
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Some(report::examine(server, &subject(address, None), topics));
    }
    match Peer::start(server) {
        Ok(peer) => {
            let name = format!("{server} {}", peers::version(server).unwrap_or_default());
            Some(report::examine(name.trim_end(), &subject(peer.address, None), topics))
        }
        Err(error) => {
            eprintln!("conformance: {server}: {error}");
            None
        }
    }
}

fn fail(words: &str) -> ExitCode {
    eprintln!("conformance: {words}");
    ExitCode::FAILURE
}
