//! Dead letters with the same cause, in memory that doesn't grow with their number.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{letter, table};
use crate::broker::corpse::Corpse;
use crate::text::cut;

/// Causes told apart; what comes after shares one group for each reason.
const GROUPS_MAX: usize = 1_000;
/// Publishers named in a group.
const PUBLISHERS_MAX: usize = 3;
/// What is kept of any text.
const TEXT_BYTES_MAX: usize = 256;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<Cause, Group>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    reason: String,
    code: Option<String>,
    kind: Option<String>,
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    oldest: Option<u64>,
    newest: Option<u64>,
    publishers: Vec<String>,
    has_more_publishers: bool,
    example: String,
    detail: Option<String>,
}

impl Groups {
    /// Counts `corpse`.
    pub(super) fn add(&mut self, corpse: &Corpse) {
        let short = |text: String| cut(&text, TEXT_BYTES_MAX).to_owned();
        let mut cause = Cause {
            reason: short(letter::reason(corpse)),
            code: corpse.word("code").map(short),
            kind: letter::kind(corpse).map(short),
        };
        if self.0.len() >= GROUPS_MAX && !self.0.contains_key(&cause) {
            cause = Cause { reason: "others".to_owned(), code: None, kind: None };
        }
        let group = self.0.entry(cause).or_insert_with(|| Group {
            example: short(letter::example(corpse)),
            detail: corpse.word("detail").map(short),
            ..Group::default()
        });
        group.count += 1;
        if let Some(died) = letter::died(corpse) {
            group.oldest = Some(group.oldest.map_or(died, |oldest| oldest.min(died)));
            group.newest = Some(group.newest.map_or(died, |newest| newest.max(died)));
        }
        if let Some(publisher) = letter::publisher(corpse).map(short)
            && !group.publishers.contains(&publisher)
        {
            if group.publishers.len() < PUBLISHERS_MAX {
                group.publishers.push(publisher);
            } else {
                group.has_more_publishers = true;
            }
        }
    }

    /// For scripts, the largest first.
    pub(super) fn json(&self) -> Value {
        let groups = self.sorted().into_iter().map(|(cause, group)| {
            json!({
                "reason": cause.reason,
                "code": cause.code,
                "kind": cause.kind,
                "count": group.count,
                "oldest": group.oldest.map(letter::moment),
                "newest": group.newest.map(letter::moment),
                "publishers": group.publishers,
                "more_publishers": group.has_more_publishers,
                "example": group.example,
                "detail": group.detail,
            })
        });
        groups.collect()
    }

    /// For people, the largest first; nothing in it speaks to a terminal.
    pub(super) fn table(&self) -> String {
        const HEAD: [&str; 7] = ["COUNT", "REASON", "CODE", "OLDEST", "NEWEST", "PUBLISHER", "EXAMPLE"];
        let moment =
            |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), |at| letter::moment(at).into());
        let mut rows = vec![HEAD.map(str::to_owned)];
        for (cause, group) in self.sorted() {
            let kind = cause.kind.as_ref().map(|kind| format!(": {kind}"));
            let mut publishers = group.publishers.join(", ");
            if group.has_more_publishers {
                publishers.push_str(", …");
            }
            rows.push([
                group.count.to_string(),
                format!("{}{}", cause.reason, kind.unwrap_or_default()),
                cause.code.clone().unwrap_or_else(|| "-".to_owned()),
                moment(group.oldest),
                moment(group.newest),
                if publishers.is_empty() { "-".to_owned() } else { publishers },
                group.example.clone(),
            ]);
        }
        table::aligned(&rows)
    }

    fn sorted(&self) -> Vec<(&Cause, &Group)> {
        let mut groups: Vec<_> = self.0.iter().collect();
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        groups
    }
}
