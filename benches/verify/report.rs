//! Results in Markdown.

use std::process::Command;
use std::rc::Rc;

use crate::Backend;
use crate::load::Sample;

/// “÷” is the ratio to the reference.
const HEADER: &str = "\
| database | keys | case | requests/s | p50 ms | p99 ms | CPU µs | memory MiB | requests/s ÷ | p99 ÷ | CPU ÷ |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|";

/// Samples that were taken in turn: of what is measured, and of what it is compared with.
pub struct Pairs(pub Vec<(Sample, Sample)>);

impl Pairs {
    /// The median of the pairs' ratios.
    pub fn ratio(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.0.iter().map(|(a, b)| figure(a) / figure(b)))
    }

    /// The median of the first ones.
    pub fn first(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.0.iter().map(|(first, _)| figure(first)))
    }

    /// Of the CPU time per request.
    pub fn cpu_ratio(&self) -> f64 {
        cpu_per_request(&self.firsts()) / cpu_per_request(&self.seconds())
    }

    fn firsts(&self) -> Vec<&Sample> {
        self.0.iter().map(|(first, _)| first).collect()
    }

    fn seconds(&self) -> Vec<&Sample> {
        self.0.iter().map(|(_, second)| second).collect()
    }
}

/// In seconds; over all samples, since the kernel counts in steps of 10 ms.
fn cpu_per_request(samples: &[&Sample]) -> f64 {
    let cpu: f64 = samples.iter().map(|s| s.cpu).sum();
    let requests: usize = samples.iter().map(|s| s.requests).sum();
    cpu / requests as f64
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    (sorted[middle] + sorted[(sorted.len() - 1) / 2]) / 2.0
}

/// A case beside the reference.
pub struct Row {
    pub backend: Backend,
    pub keys: u64,
    pub case: String,
    pub pairs: Pairs,
    /// Resident memory of the server after it.
    pub memory_mib: f64,
}

#[derive(Clone, Copy)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Default)]
pub struct Report {
    pub rows: Vec<Rc<Row>>,
    /// A line of the table each.
    targets: Vec<String>,
}

impl Report {
    pub fn want(&mut self, backend: Backend, what: String, limit: Limit, measured: f64) {
        let (sign, limit, is_met) = match limit {
            Limit::AtLeast(limit) => ("≥", limit, measured >= limit),
            Limit::AtMost(limit) => ("≤", limit, measured <= limit),
        };
        let verdict = if is_met { "met" } else { "**missed**" };
        self.targets.push(format!(
            "| {backend} | {what} | {sign} {limit} | {measured:.2} | {verdict} |"
        ));
    }

    pub fn print(&self, pairs: u32, seconds: u64, connections: u32) {
        println!("{}", machine());
        println!("Medians of {pairs} pairs of {seconds} s with {connections} connections.\n");
        println!("{HEADER}");
        let reference: Vec<_> = self.rows.iter().flat_map(|r| r.pairs.seconds()).collect();
        println!("| | | reference | {} | | 1 | 1 | 1 |", figures(&reference));
        for row in &self.rows {
            println!("{}", row.line());
        }
        println!("\n| database | target | wanted | measured | |\n|---|---|--:|--:|---|");
        for target in &self.targets {
            println!("{target}");
        }
    }
}

impl Row {
    fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.2} |",
            self.backend,
            grouped(self.keys),
            self.case,
            figures(&self.pairs.firsts()),
            self.memory_mib,
            self.pairs.ratio(Sample::rate),
            self.pairs.ratio(|s| s.p99),
            self.pairs.cpu_ratio(),
        )
    }
}

/// Four cells, from requests/s to CPU.
fn figures(samples: &[&Sample]) -> String {
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(|s| figure(s)));
    format!(
        "{} | {:.2} | {:.2} | {:.1}",
        grouped(of(Sample::rate) as u64),
        of(|s| s.p50) * 1e3,
        of(|s| s.p99) * 1e3,
        cpu_per_request(samples) * 1e6,
    )
}

/// What it was measured on, and at which commit.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let commit = git.map_or_else(|_| Vec::new(), |output| output.stdout);
    format!(
        "{cores} cores of {}, commit {}.",
        model.unwrap_or("unknown make"),
        String::from_utf8_lossy(&commit).trim()
    )
}

/// As in 1,000,000.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
