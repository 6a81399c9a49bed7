//! Plans as text, to be read, kept and run again.
//!
//! ```text
//! seed 7
//! workers 2
//! queue single_active returns_to_tail
//! batch_max 3
//! ...
//! at 120 publish 4 v1,v2 ns1
//! at 500 crash 1
//! from 600 to 9000 outage
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::plan::{Letter, Occurrence, Plan, Queue, Spell, SpellKind, Temper, at, settings};
use crate::config::OnOutage;
use crate::engine::Time;
use crate::id::{Id, Namespace};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, temper, queue, .. } = self;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "workers {}", self.workers)?;
        let flag = |on: bool, name: &'static str| if on { name } else { "" };
        let single_active = flag(queue.single_active, " single_active");
        writeln!(f, "queue{single_active}{}", flag(queue.returns_to_tail, " returns_to_tail"))?;
        writeln!(f, "batch_max {}", settings.batch_max)?;
        writeln!(f, "linger {}", settings.linger.as_millis())?;
        writeln!(f, "concurrency_max {}", settings.concurrency_max)?;
        writeln!(f, "rate_max {}", Maybe(settings.rate_max))?;
        writeln!(f, "failure_threshold {}", settings.failure_threshold)?;
        writeln!(f, "release_after {}", settings.release_after.as_millis())?;
        writeln!(f, "on_outage {}", flag(settings.on_outage == OnOutage::DeadLetter, "dead_letter"))?;
        writeln!(f, "prefetch {}", settings.prefetch)?;
        writeln!(f, "namespace {}", Maybe(settings.namespace.as_ref().map(Namespace::as_str)))?;
        writeln!(f, "grace {}", settings.grace.as_millis())?;
        writeln!(f, "transient {}", temper.transient)?;
        writeln!(f, "unheard {}", temper.unheard)?;
        writeln!(f, "throttled {}", temper.throttled)?;
        writeln!(f, "latency_max {}", temper.latency_max.as_millis())?;
        writeln!(f, "quota {}", Maybe(temper.quota))?;
        writeln!(f, "refuses_duplicates {}", flag(temper.refuses_duplicates, "yes"))?;
        writeln!(f, "ids_max {}", Maybe(temper.ids_max))?;
        writeln!(f, "company {}", flag(self.company, "yes"))?;
        writeln!(f, "faults_end {}", millis(self.faults_end))?;
        for Spell { from, to, kind } in &self.spells {
            writeln!(f, "from {} to {} {}", millis(*from), millis(*to), name(*kind))?;
        }
        for (time, occurrence) in &self.schedule {
            writeln!(f, "at {} {occurrence}", millis(*time))?;
        }
        Ok(())
    }
}

impl fmt::Display for Occurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(Letter { number, ids, namespace, malformed }) => {
                let ids: Vec<_> = ids.iter().map(Id::as_str).collect();
                let malformed = if *malformed { " malformed" } else { "" };
                write!(
                    f,
                    "publish {number} {} {}{malformed}",
                    ids.join(","),
                    Maybe(namespace.as_ref().map(Namespace::as_str))
                )
            }
            Self::Cut(worker) => write!(f, "cut {worker}"),
            Self::Drain(worker) => write!(f, "drain {worker}"),
            Self::Crash(worker) => write!(f, "crash {worker}"),
            Self::Freeze(worker, time) => write!(f, "freeze {worker} {}", time.as_millis()),
            Self::Credentials(worker) => write!(f, "credentials {worker}"),
            Self::Restart => write!(f, "restart"),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(String);

impl FromStr for Plan {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut plan = Self {
            seed: 0,
            workers: 1,
            queue: Queue { single_active: false, returns_to_tail: false },
            settings: settings(),
            schedule: Vec::new(),
            spells: Vec::new(),
            temper: Temper::default(),
            faults_end: Time::default(),
            company: false,
        };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            read(&mut plan, &words).ok_or_else(|| Unreadable(line.to_owned()))?;
        }
        Ok(plan)
    }
}

fn read(plan: &mut Plan, words: &[&str]) -> Option<()> {
    let Plan { settings, temper, .. } = plan;
    let first = words.get(1).copied();
    match words[0] {
        "seed" => plan.seed = number(first)?,
        "workers" => plan.workers = number(first)?,
        "queue" => {
            plan.queue.single_active = words.contains(&"single_active");
            plan.queue.returns_to_tail = words.contains(&"returns_to_tail");
        }
        "batch_max" => settings.batch_max = number(first)?,
        "linger" => settings.linger = duration(first)?,
        "concurrency_max" => settings.concurrency_max = number(first)?,
        "rate_max" => settings.rate_max = maybe(first)?,
        "failure_threshold" => settings.failure_threshold = number(first)?,
        "release_after" => settings.release_after = duration(first)?,
        "on_outage" if first == Some("dead_letter") => settings.on_outage = OnOutage::DeadLetter,
        "on_outage" => settings.on_outage = OnOutage::Hold,
        "prefetch" => settings.prefetch = number(first)?,
        "namespace" => settings.namespace = namespace(first)?,
        "grace" => settings.grace = duration(first)?,
        "transient" => temper.transient = number(first)?,
        "unheard" => temper.unheard = number(first)?,
        "throttled" => temper.throttled = number(first)?,
        "latency_max" => temper.latency_max = duration(first)?,
        "quota" => temper.quota = maybe(first)?,
        "refuses_duplicates" => temper.refuses_duplicates = first.is_some(),
        "ids_max" => temper.ids_max = maybe(first)?,
        "company" => plan.company = first.is_some(),
        "faults_end" => plan.faults_end = at(number(first)?),
        "from" => {
            let kind =
                KINDS.into_iter().find(|kind| words.get(4).is_some_and(|word| name(*kind) == *word))?;
            let (from, to) = (at(number(first)?), at(number(words.get(3).copied())?));
            plan.spells.push(Spell { from, to, kind });
        }
        "at" => plan.schedule.push((at(number(first)?), occurrence(words.get(2..)?)?)),
        _ => return None,
    }
    Some(())
}

fn occurrence(words: &[&str]) -> Option<Occurrence> {
    let first = words.get(1).copied();
    Some(match *words.first()? {
        "publish" => Occurrence::Publish(Letter {
            number: number(first)?,
            ids: words.get(2)?.split(',').map(|id| Id::new(id).ok()).collect::<Option<_>>()?,
            namespace: namespace(words.get(3).copied())?,
            malformed: words.get(4).is_some(),
        }),
        "cut" => Occurrence::Cut(number(first)?),
        "drain" => Occurrence::Drain(number(first)?),
        "crash" => Occurrence::Crash(number(first)?),
        "freeze" => Occurrence::Freeze(number(first)?, duration(words.get(2).copied())?),
        "credentials" => Occurrence::Credentials(number(first)?),
        "restart" => Occurrence::Restart,
        _ => return None,
    })
}

/// Something that there may be; `-` if there isn't.
struct Maybe<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(thing) => thing.fmt(f),
            None => write!(f, "-"),
        }
    }
}

fn number<T: FromStr>(word: Option<&str>) -> Option<T> {
    word?.parse().ok()
}

fn maybe<T: FromStr>(word: Option<&str>) -> Option<Option<T>> {
    match word? {
        "-" => Some(None),
        word => word.parse().ok().map(Some),
    }
}

fn namespace(word: Option<&str>) -> Option<Option<Namespace>> {
    match word? {
        "-" => Some(None),
        word => Namespace::new(word).ok().map(Some),
    }
}

fn duration(word: Option<&str>) -> Option<Duration> {
    number(word).map(Duration::from_millis)
}

fn millis(time: Time) -> u128 {
    time.elapsed().as_millis()
}

const KINDS: [SpellKind; 7] = [
    SpellKind::Outage,
    SpellKind::Blocked,
    SpellKind::RejectsAll,
    SpellKind::Throttles,
    SpellKind::Flaps,
    SpellKind::BrokerStalls,
    SpellKind::LettersRefused,
];

fn name(kind: SpellKind) -> &'static str {
    match kind {
        SpellKind::Outage => "outage",
        SpellKind::Blocked => "blocked",
        SpellKind::RejectsAll => "rejects_all",
        SpellKind::Throttles => "throttles",
        SpellKind::Flaps => "flaps",
        SpellKind::BrokerStalls => "broker_stalls",
        SpellKind::LettersRefused => "letters_refused",
    }
}

#[test]
fn a_plan_survives_being_written_down() {
    for seed in 0..300 {
        let text = super::draw::plan(seed).to_string();
        let read: Plan = text.parse().expect("what was written is readable");
        assert_eq!(read.to_string(), text);
    }
    assert_eq!("at 5 publish".parse::<Plan>().err(), Some(Unreadable("at 5 publish".to_owned())));
}
