//! Simulates a fleet of processes, and counts their token requests.
//!
//! The processes decide with the crate's own functions, which are compiled into this bench. `Held`
//! and `Fleet::step` are copies, because the crate mixes their originals with I/O.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::clock::{Moment, Span};
use crate::{jitter, policy};

const PROCESSES: usize = 10_000;
/// All processes start within this time.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// An hour, minus the second that the crate takes off.
const LIFETIME: Duration = Duration::from_secs(3599);
const RENEW_BEFORE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(10);
const TOKEN_REQUEST: Duration = Duration::from_millis(200);
const STORE_CALL: Duration = Duration::from_millis(1);
/// The first hour, in which all processes start, and the hours that are averaged.
const HOURS: usize = 1 + 24;

/// How processes of the fleet are killed.
#[derive(Clone, Copy, PartialEq)]
pub enum Deaths {
    None,
    /// Each process is killed at a random time within two hours of its start, and starts again.
    ByChance,
    /// As `ByChance`; in addition, half of the lease holders are killed while they fetch a token.
    OfHolders,
}

/// The counts of one simulation.
#[derive(Default)]
pub struct Cost {
    token_requests: [u32; HOURS],
    store_calls: Rate,
    /// How often the token of a process expired before the process had another.
    ran_out: u32,
}

/// Counts calls, and keeps the highest number in one second.
#[derive(Default)]
struct Rate {
    second: u64,
    in_second: u32,
    most: u32,
}

impl Rate {
    fn count(&mut self, now: Duration) {
        if self.second != now.as_secs() {
            (self.second, self.in_second) = (now.as_secs(), 0);
        }
        self.in_second += 1;
        self.most = self.most.max(self.in_second);
    }
}

impl Cost {
    pub fn print_head() {
        println!("{:<44}{:>31}{:>17}{:>10}", "", "token requests", "store calls", "tokens");
        let [first, mean, most] = ["first hour", "then per hour", "most"];
        println!("{:<44}{first:>10}{mean:>14}{most:>7}{:>17}{:>10}", "", "most in 1 s", "ran out");
    }

    pub fn print(&self, name: &str) {
        let (first, rest) = (self.token_requests[0], &self.token_requests[1..]);
        let hours = f64::from(u32::try_from(HOURS).unwrap());
        let mean = f64::from(rest.iter().sum::<u32>()) / (hours - 1.0);
        let most = rest.iter().max().unwrap();
        let (calls, ran_out) = (self.store_calls.most, self.ran_out);
        println!("{name:<44}{first:>10}{mean:>14.2}{most:>7}{calls:>17}{ran_out:>10}");
    }
}

/// Runs a fleet for a day and an hour.
pub fn run(has_store: bool, deaths: Deaths) -> Cost {
    let mut fleet = Fleet {
        epoch: Moment::now(),
        has_store,
        deaths,
        processes: (0..PROCESSES).map(|_| Process::default()).collect(),
        stored: None,
        lease: None,
        queue: BinaryHeap::new(),
        cost: Cost::default(),
    };
    for i in 0..PROCESSES {
        fleet.start(i, jitter::part_of(STARTED_WITHIN));
    }
    fleet.run();
    fleet.cost
}

struct Fleet {
    epoch: Moment,
    has_store: bool,
    deaths: Deaths,
    processes: Vec<Process>,
    /// The lifetime of the stored token.
    stored: Option<Span>,
    lease: Option<Lease>,
    /// The steps to come: the time since the start, the process, the life of that process, the
    /// step.
    queue: BinaryHeap<Reverse<(Duration, usize, u32, Step)>>,
    cost: Cost,
}

#[derive(Default)]
struct Process {
    held: Option<Held>,
    /// How often the process has been killed.
    life: u32,
    turn: Turn,
}

/// A lease that expires if its holder has died, as in Redis.
struct Lease {
    holder: usize,
    until: Duration,
}

/// A process's fetch or renewal that is running.
#[derive(Default)]
struct Turn {
    deadline: Duration,
    /// When the process began to wait for the lease.
    start: Duration,
    /// How long the process waits for the lease.
    patience: Duration,
    /// When the process last asked for the lease.
    asked: Duration,
    has_lease: bool,
}

/// An event in the life of a process. Most are the return of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    IsDue,
    Loaded,
    Asks,
    Leased,
    LoadedAgain,
    Fetched,
    Saved,
    Released,
    Killed,
}

/// A copy of the parts of `Cached` in `src/cache/entry.rs` that decide about renewals.
#[derive(Clone, Copy)]
struct Held {
    lifetime: Span,
    window: Duration,
    renew_at: Moment,
}

impl Held {
    fn new(lifetime: Span) -> Self {
        let window = jitter::shortened(lifetime.window(RENEW_BEFORE));
        Self { lifetime, window, renew_at: lifetime.before_end(window) }
    }

    fn postpone(&mut self, at_least: Duration, now: Moment) {
        self.renew_at = now.plus(at_least.max(self.window / 10)).or_earlier(self.lifetime.end());
    }
}

impl Fleet {
    fn run(&mut self) {
        let end = HOUR * u32::try_from(HOURS).unwrap();
        while let Some(Reverse((now, i, life, step))) = self.queue.pop() {
            if now >= end {
                break;
            }
            // Drops the steps of a process that was killed meanwhile.
            if self.processes[i].life == life {
                self.step(now, i, step);
            }
        }
    }

    fn start(&mut self, i: usize, now: Duration) {
        self.then(i, now, Step::IsDue);
        if self.deaths != Deaths::None {
            self.then(i, now + jitter::part_of(HOUR * 2), Step::Killed);
        }
    }

    /// A copy of `SharedTokens::fetch` and `Turn::look` in `src/store/shared.rs`, split where they
    /// wait.
    fn step(&mut self, now: Duration, i: usize, step: Step) {
        let moment = self.at(now);
        match step {
            Step::IsDue => {
                let process = &mut self.processes[i];
                process.turn = Turn { deadline: now + TIMEOUT, ..Turn::default() };
                if process.held.is_some_and(|held| held.lifetime.has_ended(moment)) {
                    process.held = None;
                    self.cost.ran_out += 1;
                } else if let Some(held) = &mut process.held {
                    held.postpone(Duration::ZERO, moment);
                }
                if self.has_store {
                    self.call_store(i, now, Step::Loaded);
                } else {
                    self.request(i, now);
                }
            }
            Step::Loaded => {
                if let Some(lifetime) = self.load(i, moment) {
                    return self.hold(i, now, lifetime);
                }
                let turn = &mut self.processes[i].turn;
                turn.patience = policy::patience(turn.deadline.saturating_sub(now));
                turn.start = now;
                self.step(now, i, Step::Asks);
            }
            Step::Asks => {
                self.processes[i].turn.asked = now;
                self.call_store(i, now, Step::Leased);
            }
            Step::Leased => {
                if self.lease.as_ref().is_none_or(|lease| lease.until <= now) {
                    let remaining = self.remaining_when_asked(i);
                    let turn = &mut self.processes[i].turn;
                    let time = turn.deadline.saturating_sub(turn.asked);
                    let at_most = policy::lease(time, remaining);
                    turn.has_lease = true;
                    self.lease = Some(Lease { holder: i, until: now + at_most });
                }
                self.call_store(i, now, Step::LoadedAgain);
            }
            Step::LoadedAgain => {
                if let Some(lifetime) = self.load(i, moment) {
                    self.release(i, now);
                    return self.hold(i, now, lifetime);
                }
                let remaining = self.remaining_when_asked(i);
                let Process { held, turn, .. } = &self.processes[i];
                if turn.has_lease {
                    return self.request(i, now);
                }
                if let (Some(held), Some(remaining)) = (held, remaining) {
                    let window = held.lifetime.window(RENEW_BEFORE);
                    return if policy::is_left_to_holder(remaining, window) {
                        self.wait_for_renewal(i, now);
                    } else {
                        self.request(i, now);
                    };
                }
                let time = turn.patience.saturating_sub(now.saturating_sub(turn.start));
                if time <= now.saturating_sub(turn.asked) {
                    self.request(i, now);
                } else {
                    self.then(i, now + policy::pause().min(time), Step::Asks);
                }
            }
            Step::Fetched => {
                self.hold(i, now, Span::new(self.at(now.saturating_sub(TOKEN_REQUEST)), LIFETIME));
                if self.has_store {
                    self.call_store(i, now, Step::Saved);
                }
            }
            Step::Saved => {
                self.stored = self.processes[i].held.map(|held| held.lifetime);
                self.release(i, now);
            }
            Step::Released => {
                if self.lease.as_ref().is_some_and(|lease| lease.holder == i) {
                    self.lease = None;
                }
            }
            Step::Killed => {
                let process = &mut self.processes[i];
                *process = Process { life: process.life + 1, ..Process::default() };
                self.start(i, now);
            }
        }
    }

    /// A copy of `Turn::load`.
    fn load(&self, i: usize, now: Moment) -> Option<Span> {
        let stored = self.stored?;
        let remaining = policy::remaining(stored.start.wall, stored.length, None, now.wall);
        let lifetime = Span::with_remaining(now, remaining, stored.length);
        let current = self.processes[i].held.map(|held| held.lifetime.remaining(now));
        policy::is_used(remaining, lifetime.window(RENEW_BEFORE), current).then_some(lifetime)
    }

    fn remaining_when_asked(&self, i: usize) -> Option<Duration> {
        let Process { held, turn, .. } = &self.processes[i];
        held.map(|held| held.lifetime.remaining(self.at(turn.asked)))
    }

    fn request(&mut self, i: usize, now: Duration) {
        let hour = usize::try_from(now.as_secs() / HOUR.as_secs()).unwrap();
        self.cost.token_requests[hour] += 1;
        self.then(i, now + TOKEN_REQUEST, Step::Fetched);
        let is_holder = self.processes[i].turn.has_lease;
        let is_heads = || jitter::part_of(HOUR) < HOUR / 2;
        if is_holder && self.deaths == Deaths::OfHolders && is_heads() {
            self.then(i, now + jitter::part_of(TOKEN_REQUEST), Step::Killed);
        }
    }

    fn hold(&mut self, i: usize, now: Duration, lifetime: Span) {
        self.processes[i].held = Some(Held::new(lifetime));
        self.wait_for_renewal(i, now);
    }

    /// Each process calls so often that a renewal starts as soon as it is due.
    fn wait_for_renewal(&mut self, i: usize, now: Duration) {
        if let Some(held) = self.processes[i].held {
            self.then(i, held.renew_at.since(self.epoch).max(now), Step::IsDue);
        }
    }

    fn release(&mut self, i: usize, now: Duration) {
        if self.processes[i].turn.has_lease {
            self.call_store(i, now, Step::Released);
        }
    }

    fn call_store(&mut self, i: usize, now: Duration, step: Step) {
        self.cost.store_calls.count(now);
        self.then(i, now + STORE_CALL, step);
    }

    fn then(&mut self, i: usize, at: Duration, step: Step) {
        self.queue.push(Reverse((at, i, self.processes[i].life, step)));
    }

    fn at(&self, now: Duration) -> Moment {
        self.epoch.plus(now)
    }
}
