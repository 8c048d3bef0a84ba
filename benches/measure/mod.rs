//! How all benches measure, and what they print.
//!
//! Figures are medians of rounds, and a ratio is the median of the rounds' ratios. On a noisy
//! machine, compare the ratios.

use std::time::Instant;

/// The size of a measurement.
pub struct Bench {
    pub rounds: usize,
    pub calls: u32,
}

impl Bench {
    pub fn from_args() -> Self {
        if is_quick() {
            Self { rounds: 15, calls: 2_000 }
        } else {
            Self { rounds: 101, calls: 20_000 }
        }
    }

    /// Runs both once in each round, so that other load disturbs both alike.
    pub fn by_turns(
        &self,
        ours: impl Fn() -> f64,
        floor: impl Fn() -> f64,
    ) -> (Vec<f64>, Vec<f64>) {
        (0..self.rounds).map(|_| (ours(), floor())).unzip()
    }
}

/// Whether the program was started with `--quick`.
pub fn is_quick() -> bool {
    std::env::args().any(|arg| arg == "--quick")
}

/// Returns the nanoseconds that each of `calls` calls takes.
pub fn time(calls: u32, call: impl Fn()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

pub fn section(title: &str) {
    println!("\n{title}");
    println!("{:<44}{:>11}{:>12}{:>8}", "", "ns", "floor ns", "ratio");
}

pub fn print(name: &str, ours: &[f64], floor: &[f64]) {
    let ratios: Vec<_> = ours.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
    println!("{name:<44}{:>11.1}{:>12.1}{:>8.2}", median(ours), median(floor), median(&ratios));
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
