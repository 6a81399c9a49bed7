//! Memory and file descriptors of the workers, over time. Linux only.

use std::fs;
use std::time::Duration;

use super::{Soak, WORKERS, say};

const EVERY: Duration = Duration::from_secs(2);
/// What may come on top from the second quarter of a run to its last, as medians: what an allocator and reused
/// connections make of it. Growth that never ends shows however slow it is, if the run is long enough.
const RESIDENT_GROWTH_MAX: u64 = 8 * 1024;
const DESCRIPTOR_GROWTH_MAX: u64 = 8;
/// In a shorter run everything still grows into its place.
const GROWTH_SHOWS_AFTER: Duration = Duration::from_secs(600);
/// At any time, of anybody.
const RESIDENT_MAX: u64 = 96 * 1024;
const DESCRIPTORS_MAX: u64 = 100;

/// What was seen.
#[derive(Default)]
pub(super) struct Gauge {
    /// The process IDs to look at.
    pub(super) elder: Option<u32>,
    pub(super) others: [Option<u32>; WORKERS],
    pub(super) samples: Vec<Sample>,
    /// The most of each that one of the others had.
    pub(super) others_peak: Sample,
}

/// A look at a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// KiB.
    pub(super) resident: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

/// Looks until the end, and says once a minute what is so.
pub(super) async fn watch(soak: &Soak) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut minute = 1;
    while !soak.is_over() {
        ticks.tick().await;
        soak.gauge.borrow_mut().look();
        if soak.began.elapsed().as_secs() / 60 >= minute {
            say(&line(soak, minute));
            minute += 1;
        }
    }
}

/// Looks once more, after everything is settled.
pub(super) fn last_look(soak: &Soak) {
    soak.gauge.borrow_mut().look();
}

fn line(soak: &Soak, minute: u64) -> String {
    let (load, gauge, stats) = (soak.load.borrow(), soak.gauge.borrow(), soak.world.mock.stats());
    let last = gauge.samples.last().copied().unwrap_or_default();
    format!(
        "minute {minute:3}: {} messages, {} of {} IDs deleted, {} faults, {} workers; the elder: {}",
        load.messages,
        stats.ids_deleted,
        load.ids.len(),
        soak.faults.borrow().values().sum::<u64>(),
        1 + gauge.others.iter().flatten().count(),
        last,
    )
}

impl Gauge {
    fn look(&mut self) {
        if let Some(sample) = self.elder.and_then(Sample::of) {
            self.samples.push(sample);
        }
        for pid in self.others.into_iter().flatten() {
            // It may be gone by now.
            let Some(Sample { resident, descriptors, threads }) = Sample::of(pid) else { continue };
            let peak = &mut self.others_peak;
            peak.resident = peak.resident.max(resident);
            peak.descriptors = peak.descriptors.max(descriptors);
            peak.threads = peak.threads.max(threads);
        }
    }

    /// Whether growth would show.
    pub(super) fn is_long_enough(&self) -> bool {
        EVERY * self.samples.len() as u32 >= GROWTH_SHOWS_AFTER
    }

    /// Of the elder, the quarters numbered from 0.
    pub(super) fn median_of_quarter(&self, quarter: usize, of: fn(&Sample) -> u64) -> u64 {
        let length = self.samples.len() / 4;
        let mut numbers: Vec<_> = self.samples.iter().skip(quarter * length).take(length).map(of).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or_default()
    }

    /// What speaks against the workers.
    pub(super) fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        for (what, growth_max, max, of) in [
            (
                "KiB of memory",
                RESIDENT_GROWTH_MAX,
                RESIDENT_MAX,
                (|sample| sample.resident) as fn(&Sample) -> u64,
            ),
            ("file descriptors", DESCRIPTOR_GROWTH_MAX, DESCRIPTORS_MAX, |sample| sample.descriptors),
        ] {
            let (early, late) = (self.median_of_quarter(1, of), self.median_of_quarter(3, of));
            if self.is_long_enough() && late > early + growth_max {
                objections.push(format!("the elder's {what} went from {early} to {late}"));
            }
            let peak = self.samples.iter().chain([&self.others_peak]).map(of).max().unwrap_or_default();
            if peak > max {
                objections.push(format!("a worker had {peak} {what}, more than {max}"));
            }
        }
        if self.samples.len() < 8 {
            objections.push("the elder was hardly looked at".to_owned());
        }
        objections
    }
}

impl Sample {
    /// None if there is no such process.
    fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            resident: number("VmRSS:")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            threads: number("Threads:")?,
        })
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resident = self.resident as f64 / 1024.0;
        write!(f, "{resident:.1} MiB, {} descriptors, {} threads", self.descriptors, self.threads)
    }
}
