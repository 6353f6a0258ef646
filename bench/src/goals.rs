//! What host is to reach, and whether it does.

use crate::case::FAST_AND_SLOW;
use crate::comparison::Outcome;
use crate::reading::{Metric, Reading};
use crate::sample::Sample;
use crate::server::SLOW;
use crate::table::{Table, number};
use serde::Serialize;

/// A goal, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// The row it is about.
    pub server: String,
    /// What it is about.
    pub what: &'static str,
    /// What was measured; none if it was not.
    pub measured: Option<f64>,
    /// What is wanted.
    pub wanted: Bound,
}

/// What a number is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
}

impl Goal {
    /// Whether it is reached; none if nothing was measured.
    pub fn reached(&self) -> Option<bool> {
        self.measured.map(|measured| match self.wanted {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        })
    }
}

/// The goals of the build of host that has this label.
pub fn goals(outcomes: &[Outcome], label: &str) -> Vec<Goal> {
    let figures = Figures(outcomes);
    let hello_in_c = format!("{label}-c");
    let mut goals = Vec::new();
    let mut goal = |server: &str, what, measured, wanted| {
        goals.push(Goal { server: server.to_owned(), what, measured, wanted });
    };
    for row in [label, &hello_in_c] {
        goal(row, "hello: CPU ÷ floor", figures.cpu_ratio("hello", row, &["floor"]), Bound::AtMost(1.08));
        goal(row, "hello: CPU ÷ nginx", figures.cpu_ratio("hello", row, &["nginx"]), Bound::AtMost(0.80));
    }
    let files = ["nginx", "lighttpd"];
    let ratio = |case, others| figures.cpu_ratio(case, label, others);
    goal(label, "static 1 KiB: CPU ÷ nginx", ratio("static-1k", &files[..1]), Bound::AtMost(0.65));
    goal(label, "static 100 KiB: CPU ÷ best of nginx, lighttpd", ratio("static-100k", &files), Bound::AtMost(1.0));
    goal(label, "static 10 MiB: CPU ÷ best of nginx, lighttpd", ratio("static-10m", &files), Bound::AtMost(1.0));
    let slow = |value: &dyn Fn(&Reading) -> Option<f64>| figures.median("slow", label, value);
    let slow_possible = FAST_AND_SLOW.1 as f64 / SLOW.as_secs_f64();
    let slow_part = slow(&|reading| Some(reading.value(Metric::SlowRate)? / slow_possible * 100.0));
    let fast_part = slow(&|reading| Some(reading.value(Metric::FastRate)? / reading.value(Metric::AloneRate)? * 100.0));
    goal(label, "slow: % of the possible 640/s", slow_part, Bound::AtLeast(97.0));
    goal(label, "slow: fast requests beside it, % of alone", fast_part, Bound::AtLeast(92.0));
    let p99_ms = slow(&|reading| Some(reading.value(Metric::P99Us)? / 1e3));
    goal(label, "slow: p99 of the fast ones, ms", p99_ms, Bound::AtMost(1.0));
    // Once is too often, so not the median.
    let frozen = figures.greatest("slow", label, Metric::Frozen);
    goal(label, "slow: frozen connections, in the worst round", frozen, Bound::AtMost(0.0));
    let idle = figures.median("idle", label, |reading| reading.value(Metric::KibPerConnection));
    goal(label, "idle: KiB for a connection", idle, Bound::AtMost(0.5));
    let kept = figures.kept(label).zip(figures.kept("nginx")).map(|(host, nginx)| host / nginx);
    goal(label, "requests/s kept at 1024 connections ÷ nginx's", kept, Bound::AtLeast(1.0));
    let start = figures.median("start", label, |reading| reading.value(Metric::StartMs));
    goal(label, "start: ms to the first answer", start, Bound::AtMost(20.0));
    goals
}

/// The goals as a table.
pub fn table(goals: &[Goal]) -> Table {
    let mut table = Table::new(["goal", "of", "measured", "wanted", "reached"]);
    for goal in goals {
        let wanted = match goal.wanted {
            Bound::AtMost(most) => format!("≤ {}", number(most, 2)),
            Bound::AtLeast(least) => format!("≥ {}", number(least, 2)),
        };
        let measured = goal.measured.map_or("–".to_owned(), |measured| number(measured, 3));
        let reached = match goal.reached() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        };
        table.row([goal.what, &goal.server, &measured, &wanted, reached]);
    }
    table
}

/// The numbers of all cases.
struct Figures<'a>(&'a [Outcome]);

impl Figures<'_> {
    fn rounds(&self, case: &str, server: &str) -> &[Option<Reading>] {
        let outcome = self.0.iter().find(|outcome| outcome.case == case);
        let row = outcome.and_then(|outcome| outcome.rows.iter().find(|row| row.server == server));
        row.map_or(&[], |row| &row.rounds)
    }

    /// The median of a value of each round; none if no round has one.
    fn median(&self, case: &str, server: &str, value: impl Fn(&Reading) -> Option<f64>) -> Option<f64> {
        let sample: Sample = self.rounds(case, server).iter().flatten().filter_map(value).collect();
        (!sample.is_empty()).then(|| sample.median())
    }

    fn greatest(&self, case: &str, server: &str, metric: Metric) -> Option<f64> {
        let sample: Sample = self.rounds(case, server).iter().flatten().filter_map(|r| r.value(metric)).collect();
        (!sample.is_empty()).then(|| sample.quantile(1.0))
    }

    /// What a request costs, divided by what it costs the cheapest of the others; none unless all were measured.
    fn cpu_ratio(&self, case: &str, server: &str, others: &[&str]) -> Option<f64> {
        let ratio = |other: &&str| {
            let pairs = self.rounds(case, server).iter().zip(self.rounds(case, other));
            ratio(pairs.filter_map(|(ours, theirs)| ours.as_ref().zip(theirs.as_ref())), Metric::CpuUs)
        };
        others.iter().map(ratio).collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
    }

    /// How much of its best rate, with 64 connections or fewer, a server keeps with 1024.
    fn kept(&self, server: &str) -> Option<f64> {
        let rate = |case| self.median(case, server, |reading| reading.value(Metric::Rate));
        let best = ["connections-1", "connections-16", "connections-64"].into_iter().map(rate);
        let best = best.collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)?;
        Some(rate("connections-1024")? / best)
    }
}

/// The median of the rounds' ratios: what disturbs a round disturbs both of its numbers.
pub fn ratio<'a>(pairs: impl Iterator<Item = (&'a Reading, &'a Reading)>, metric: Metric) -> Option<f64> {
    let ratios = pairs.filter_map(|(a, b)| Some(a.value(metric)? / b.value(metric)?));
    let sample: Sample = ratios.filter(|ratio| ratio.is_finite()).collect();
    (!sample.is_empty()).then(|| sample.median())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Row;

    fn outcome(case: &'static str, metric: Metric, rows: &[(&str, &[f64])]) -> Outcome {
        let row = |(server, values): &(&str, &[f64])| Row {
            rounds: values.iter().map(|value| Some(Reading::default().with(metric, *value))).collect(),
            ..Row::new(server)
        };
        Outcome { rows: rows.iter().map(row).collect(), ..Outcome::new(case) }
    }

    fn measured(outcomes: &[Outcome], what: &str) -> (Option<f64>, Option<bool>) {
        let goals = goals(outcomes, "host");
        let goal = goals.iter().find(|goal| goal.what.starts_with(what)).unwrap();
        (goal.measured, goal.reached())
    }

    #[test]
    fn rounds_are_compared_in_pairs() {
        // The second round was disturbed, for both.
        let rows: &[(&str, &[f64])] = &[("host", &[5.0, 9.0, 5.0]), ("floor", &[4.0, 9.0, 4.0])];
        let outcomes = [outcome("hello", Metric::CpuUs, rows)];
        assert_eq!(measured(&outcomes, "hello: CPU ÷ floor"), (Some(1.25), Some(false)));
        assert_eq!(measured(&outcomes, "hello: CPU ÷ nginx"), (None, None));
    }

    #[test]
    fn the_best_of_others_counts() {
        let rows: &[(&str, &[f64])] = &[("host", &[8.0]), ("nginx", &[16.0]), ("lighttpd", &[10.0])];
        let outcomes = [outcome("static-100k", Metric::CpuUs, rows)];
        assert_eq!(measured(&outcomes, "static 100 KiB"), (Some(0.8), Some(true)));
    }

    #[test]
    fn what_is_kept_is_of_the_best_rate() {
        let at = |case, host, nginx| outcome(case, Metric::Rate, &[("host", &[host]), ("nginx", &[nginx])]);
        let mut outcomes = vec![at("connections-1", 10.0, 10.0), at("connections-16", 100.0, 90.0)];
        outcomes.extend([at("connections-64", 90.0, 100.0), at("connections-1024", 80.0, 50.0)]);
        let (kept, reached) = measured(&outcomes, "requests/s kept");
        assert!((kept.unwrap() - 1.6).abs() < 1e-9 && reached == Some(true));
    }

    #[test]
    fn one_frozen_connection_in_one_round_is_too_much() {
        let outcomes = [outcome("slow", Metric::Frozen, &[("host", &[0.0, 0.0, 1.0])])];
        assert_eq!(measured(&outcomes, "slow: frozen"), (Some(1.0), Some(false)));
    }
}
