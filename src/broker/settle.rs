//! Acknowledging and giving back, with as few frames as can be.

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::fault::Fault;
use crate::delivery::Tag;

/// A verdict that lapin can carry out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    GiveBack,
}

/// A delivery that is settled by itself.
pub(super) struct Single {
    pub(super) verdict: Verdict,
    pub(super) tag: Tag,
    pub(super) acker: Acker,
}

/// Parts `singles` in those that one frame covers and those beyond the `first` delivery that stays.
///
/// One frame covers all that are unsettled before its tag, so all of them have to have the same verdict.
pub(super) fn cover(singles: Vec<Single>, first: Option<Tag>) -> (Vec<Single>, Vec<Single>) {
    let before = |single: &Single| first.is_none_or(|first| single.tag < first);
    let mut verdicts = singles.iter().filter(|single| before(single)).map(|single| single.verdict);
    let verdict = verdicts.next();
    if verdicts.any(|other| Some(other) != verdict) {
        return (Vec::new(), singles);
    }
    singles.into_iter().partition(before)
}

/// `Ok(true)` alone means that the broker was told; with `Ok(false)` the channel was gone already.
pub(super) async fn settle(acker: &Acker, verdict: Verdict, multiple: bool) -> Result<(), Fault> {
    let told = match verdict {
        Verdict::Ack => acker.ack(BasicAckOptions { multiple }).await,
        Verdict::GiveBack => acker.nack(BasicNackOptions { multiple, requeue: true }).await,
    };
    match told {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::passing("the channel was gone before an acknowledgement")),
        Err(error) => Err(Fault::amqp("acknowledge", &error)),
    }
}

#[cfg(test)]
mod tests {
    use lapin::message::Delivery;

    use super::*;

    fn covered(singles: &[(u64, Verdict)], first: Option<u64>) -> (Vec<u64>, Vec<u64>) {
        let single = |(tag, verdict): &(u64, Verdict)| Single {
            verdict: *verdict,
            tag: Tag(*tag),
            acker: Delivery::mock(*tag, "".into(), "".into(), false, Vec::new()).acker,
        };
        let tags = |singles: Vec<Single>| singles.into_iter().map(|single| single.tag.0).collect();
        let (covered, beyond) = cover(singles.iter().map(single).collect(), first.map(Tag));
        (tags(covered), tags(beyond))
    }

    #[test]
    fn one_frame_covers_what_no_delivery_that_stays_comes_before() {
        use Verdict::{Ack, GiveBack};
        assert_eq!(covered(&[(3, Ack), (1, Ack), (2, Ack)], None), (vec![3, 1, 2], vec![]));
        assert_eq!(covered(&[(3, Ack), (1, Ack), (5, Ack)], Some(4)), (vec![3, 1], vec![5]));
        assert_eq!(covered(&[(3, Ack), (5, Ack)], Some(1)), (vec![], vec![3, 5]));
        assert_eq!(covered(&[(3, Ack), (1, GiveBack)], None), (vec![], vec![3, 1]), "verdicts differ");
        assert_eq!(covered(&[(1, Ack), (5, GiveBack)], Some(2)), (vec![1], vec![5]));
        assert_eq!(covered(&[], None), (vec![], vec![]));
    }
}
