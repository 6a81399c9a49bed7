//! Plans that have failed once, as they were printed.

use super::plan::Plan;
use super::shrink::attempt;

/// What each of them found, and what it is.
const PLANS: [(&str, &str); 1] = [(
    "with nothing deleted before and few IDs to probe with, deliveries were taken and given back at a constant interval",
    "
    seed 684
    workers 4
    queue
    batch_max 2
    linger 1000
    concurrency_max 4
    rate_max 50
    failure_threshold 4
    release_after 60000
    prefetch 18
    transient 78
    unheard 29
    latency_max 1
    faults_end 1501000
    from 269472 to 748064 throttles
    at 236127 publish 34 v4 ns3
    at 333357 publish 23 v3 -
    at 366600 publish 1 v7 -
    ",
)];

#[test]
fn what_failed_once_does_not_fail_again() {
    for (story, text) in PLANS {
        let plan: Plan = text.parse().expect("what was printed is readable");
        if let Err(violation) = attempt(&plan, None) {
            panic!("once, {story}; now it breaks {violation}\n{plan}");
        }
    }
}
