//! Which letters are meant: the same flags for every task.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::letter;
use crate::broker::corpse::Corpse;
use crate::config::Config;

/// Letters that pass all of what is given; of a flag that is repeated, any.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Why it died: malformed, rejected, retries_exhausted, or the broker's delivery_limit, expired, maxlen
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// The endpoint's code
    #[arg(long, value_name = "CODE")]
    code: Vec<String>,
    /// An ID that it asks for, or that failed
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// The namespace that it names, or endpoint.namespace if it names none
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// Who published it: the property app_id or user_id, or the member requestedBy
    #[arg(long, value_name = "WHO")]
    publisher: Vec<String>,
    /// Died before this: a time like 2026-01-31T12:00:00Z or 2026-01-31 (UTC), or how long ago, like 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    before: Option<u64>,
    /// Died at this time or after it
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<u64>,
    /// What letters without a namespace have.
    #[arg(skip)]
    namespace_default: Option<String>,
}

impl Filter {
    /// Takes from the configuration what letters leave open.
    pub(super) fn under(mut self, config: &Config) -> Self {
        self.namespace_default = config.endpoint.namespace.as_ref().map(|name| name.as_str().to_owned());
        self
    }

    /// Whether `corpse` passes. What costs least is looked at first.
    pub(super) fn admits(&self, corpse: &Corpse) -> bool {
        any(&self.reason, || Some(letter::reason(corpse)))
            && any(&self.code, || corpse.word("code"))
            && self.admits_time(corpse)
            && any(&self.publisher, || letter::publisher(corpse))
            && self.admits_request(corpse)
    }

    fn admits_time(&self, corpse: &Corpse) -> bool {
        if self.before.is_none() && self.after.is_none() {
            return true;
        }
        // Of a letter that doesn't say when it died nothing can be claimed.
        letter::died(corpse).is_some_and(|died| {
            self.before.is_none_or(|before| died < before) && self.after.is_none_or(|after| died >= after)
        })
    }

    fn admits_request(&self, corpse: &Corpse) -> bool {
        if self.id.is_empty() && self.namespace.is_empty() {
            return true;
        }
        let request = letter::request(corpse);
        let has = |id: &String| {
            let asks =
                request.as_ref().is_some_and(|request| request.ids.iter().any(|other| other.as_str() == id));
            asks || corpse.failed_ids().contains(id)
        };
        let namespace = || {
            let own = request.as_ref().and_then(|request| request.namespace.as_ref());
            own.map(|name| name.as_str().to_owned()).or_else(|| self.namespace_default.clone())
        };
        (self.id.is_empty() || self.id.iter().any(has)) && any(&self.namespace, namespace)
    }
}

fn any(wanted: &[String], found: impl FnOnce() -> Option<String>) -> bool {
    wanted.is_empty() || found().is_some_and(|found| wanted.contains(&found))
}

/// Seconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(since(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)));
    }
    let whole = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    humantime::parse_rfc3339_weak(&whole)
        .map(since)
        .map_err(|_| "neither a time like 2026-01-31T12:00:00Z nor how long ago, like 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_or_ages() {
        assert_eq!(time("1970-01-02"), Ok(86_400));
        assert_eq!(time("1970-01-02T00:00:01Z"), Ok(86_401));
        assert_eq!(time("1970-01-02 00:00:01"), Ok(86_401));
        let day = time("1d").expect("an age");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!((86_400..86_500).contains(&(now - day)));
        assert!(time("yesterday").is_err());
        assert_eq!(time("9999y"), Ok(0), "before everything");
    }
}
