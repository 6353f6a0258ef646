//! From starting `host` with the example handlers to its first answer.
//!
//! `cargo build --release && cargo run --release -p bench --bin start [ROUNDS]` starts it in the repository's root ROUNDS
//! times, waits until it says where it listens, and asks `/ctime.so`.

use bench::Sample;
use std::process::Command;
use std::time::Instant;
use tests::repository;
use tests::server::{Server, binary};

fn main() {
    let rounds = std::env::args().nth(1).map_or(20, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let mut sample = Sample::default();
    for _ in 0..rounds {
        let mut command = Command::new(binary());
        command.current_dir(repository()).args(["--bind", "127.0.0.1:0", "framework:app"]);
        let started = Instant::now();
        let server = Server::start(command);
        assert_eq!(server.get("/ctime.so").status, 200, "the example handlers are built");
        sample.push(started.elapsed().as_secs_f64() * 1e3);
        server.stop();
    }
    println!("from the start to the first answer, in ms, {rounds} starts");
    println!("  median   least    90 %    most");
    println!("  {}", sample.summary());
}
