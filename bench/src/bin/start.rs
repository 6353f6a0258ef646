//! From starting `host` with the example handlers to its first answer.
//!
//! `cargo build --release && cargo run --release -p bench --bin start [ROUNDS]` starts it in the repository's root ROUNDS
//! times, waits until it says where it listens, and asks `/ctime.so`.

use bench::{Sample, start};
use tests::server::binary;

fn main() {
    let rounds = std::env::args().nth(1).map_or(20, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let sample: Sample = (0..rounds).map(|_| start::to_first_answer(binary()).as_secs_f64() * 1e3).collect();
    println!("from the start to the first answer, in ms, {rounds} starts");
    println!("  median   least    90 %    most");
    println!("  {}", sample.summary());
}
