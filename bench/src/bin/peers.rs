//! host beside other servers: what a request costs each of them, and whether host keeps its goals.
//!
//! `cargo run --release -p bench --bin peers -- [OPTIONS]`. Without options it measures everything, which takes about a
//! quarter of an hour. The same program is the client, the floor, and what puts each process on its core.

use bench::client::{self, Plan};
use bench::comparison::{self, Comparison, Outcome};
use bench::goals::{self, Goal};
use bench::launch::{self, Place};
use bench::machine::Machine;
use bench::options::Options;
use bench::{floor, process};
use clap::{Parser, Subcommand};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

/// host beside other servers: what a request costs each of them
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the comparison starts this program as.
#[derive(Subcommand)]
enum Part {
    /// Ask a server: a plan in JSON on a line of standard input, a report on standard output
    Client {
        /// Keep the connections until the end of standard input; `ready` is written when all are answered
        #[arg(long)]
        hold: bool,
    },
    /// Serve a constant
    Floor {
        /// Where
        #[arg(long)]
        address: SocketAddr,
        /// Close each connection after one answer
        #[arg(long)]
        close: bool,
    },
    /// Execute a program in its place
    Launch(Place),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.part {
        None => compare(&cli.options),
        Some(Part::Client { hold }) => ask(hold),
        Some(Part::Floor { address, close }) => floor::serve(address, close),
        Some(Part::Launch(place)) => Err(launch::execute(place)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// All that was measured, for programs to read.
#[derive(Serialize)]
struct Record<'a> {
    machine: &'a Machine,
    versions: Vec<String>,
    rounds: u32,
    seconds: f64,
    cases: &'a [Outcome],
    goals: &'a [Goal],
}

fn compare(options: &Options) -> io::Result<()> {
    process::watch_for_interruption()?;
    let mut comparison = Comparison::new(options, &std::env::current_exe()?)?;
    let mut out = io::stdout();
    for line in comparison.machine().lines() {
        writeln!(out, "{line}")?;
    }
    let versions = comparison.versions();
    if !versions.is_empty() {
        writeln!(out, "{}", versions.join(", "))?;
    }
    writeln!(out, "medians of {} rounds of {} s", options.rounds, options.seconds)?;
    let mut outcomes = Vec::new();
    for case in options.cases() {
        let outcome = comparison.measure(case)?;
        writeln!(out, "\n{}", comparison::lines(case, &outcome).join("\n"))?;
        outcomes.push(outcome);
    }
    let goals: Vec<Goal> = comparison.labels().iter().flat_map(|label| goals::goals(&outcomes, label)).collect();
    if !goals.is_empty() {
        writeln!(out, "\ngoals\n{}", goals::table(&goals).lines().join("\n"))?;
    }
    if let Some(file) = &options.json {
        let (machine, cases) = (comparison.machine(), &outcomes[..]);
        let record =
            Record { machine, versions, rounds: options.rounds, seconds: options.seconds, cases, goals: &goals };
        std::fs::write(file, serde_json::to_string_pretty(&record)? + "\n")?;
    }
    Ok(())
}

fn ask(hold: bool) -> io::Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line)?;
    let report = match hold {
        false => client::run(&plan)?,
        true => client::hold(&plan, || {
            println!("ready");
            // An end by an error is an end too.
            _ = io::stdin().read_to_end(&mut Vec::new());
        })?,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
