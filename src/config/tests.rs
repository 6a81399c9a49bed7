//! Loading is tested from the outside: what goes in by each source, and what comes out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::key::KEYS;
use super::{Config, Loaded, Need, Origin, Problems, keys};

mod mask;
mod problem;
mod source;

/// A directory that goes away with its owner.
struct Dir(PathBuf);

/// One load in the making.
#[derive(Default)]
struct Input<'a> {
    toml: &'a str,
    env: Vec<(String, String)>,
    sets: Vec<String>,
}

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("config-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// The path of a new file.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the directory is still there");
    }
}

impl<'a> Input<'a> {
    fn toml(toml: &'a str) -> Self {
        Self { toml, ..Self::default() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, set: &str) -> Self {
        self.sets.push(set.to_owned());
        self
    }

    /// Messages say `FILE` for the file's path.
    fn load(self, need: Need) -> Result<Loaded, Problems> {
        let dir = Dir::new();
        let path = (!self.toml.is_empty()).then(|| dir.put("x.toml", self.toml));
        let env = self.env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut loaded = Config::load(path.as_deref().map(Path::new), env, &self.sets, need);
        if let (Err(problems), Some(path)) = (&mut loaded, &path) {
            for problem in &mut problems.0 {
                problem.text = problem.text.replace(path, "FILE");
            }
        }
        loaded
    }

    fn load_broker(self) -> Result<Loaded, Problems> {
        self.load(Need::Broker)
    }

    /// The lines of the problems, which there must be.
    fn problems(self) -> Vec<String> {
        let problems = self.load_broker().map(|_| ()).expect_err("a problem");
        problems.to_string().lines().map(str::to_owned).collect()
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let design = [
        ("amqp.urls", r#"["amqp://guest:***@127.0.0.1:5672/%2f"]"#),
        ("amqp.urls_file", ""),
        ("amqp.queue", r#""deletions""#),
        ("amqp.exchange", r#""deletions""#),
        ("amqp.routing_key", r#""delete""#),
        ("amqp.declare", r#""create""#),
        ("amqp.queue_type", r#""quorum""#),
        ("amqp.delivery_limit", "1000000"),
        ("amqp.single_active_consumer", "true"),
        ("amqp.prefetch", r#""auto""#),
        ("amqp.heartbeat", r#""15s""#),
        ("amqp.tls.ca_file", ""),
        ("amqp.tls.cert_file", ""),
        ("amqp.tls.key_file", ""),
        ("dead_letter.exchange", r#""deletions.dlx""#),
        ("dead_letter.queue", r#""deletions.dead""#),
        ("batch.max_ids", "500"),
        ("batch.linger", r#""1s""#),
        ("batch.max_ids_per_message", "10000"),
        ("endpoint.api", r#""v1.0""#),
        ("endpoint.url", r#""https://mavi-backend.memories.ai/api/serve/video/delete""#),
        ("endpoint.token", ""),
        ("endpoint.token_file", ""),
        ("endpoint.namespace", ""),
        ("endpoint.timeout", r#""30s""#),
        ("endpoint.connect_timeout", r#""5s""#),
        ("endpoint.max_concurrency", "4"),
        ("endpoint.requests_per_second", "5"),
        ("endpoint.success_codes", r#"["0000"]"#),
        ("retry.initial", r#""500ms""#),
        ("retry.max", r#""1m""#),
        ("retry.multiplier", "2"),
        ("retry.max_strikes", "8"),
        ("retry.max_retry_after", r#""5m""#),
        ("health.failure_threshold", "5"),
        ("health.probe_initial", r#""1s""#),
        ("health.probe_max", r#""1m""#),
        ("health.release_after", r#""5m""#),
        ("health.on_outage", r#""hold""#),
        ("shutdown.grace", r#""25s""#),
        ("admin.listen", r#""127.0.0.1:9090""#),
        ("log.level", r#""info""#),
        ("log.format", r#""auto""#),
        ("worker.dry_run", "false"),
    ];
    let loaded = Input::default().load_broker().expect("the defaults are sound");
    let found: Vec<_> = loaded
        .effective
        .0
        .iter()
        .map(|line| (line.key, line.value.as_deref().unwrap_or_default(), &line.origin))
        .collect();
    let design: Vec<_> = design.into_iter().map(|(key, value)| (key, value, &Origin::Default)).collect();
    assert_eq!(found, design);
    assert_eq!(loaded.config.amqp.prefetch, 9 * 500);
    assert_eq!(loaded.notes, []);
}

#[test]
fn defaults_follow_the_api() {
    let loaded = Input::toml("endpoint.api = \"v1.2\"").load_broker().expect("sound");
    assert_eq!(loaded.config.batch.max_ids, 100);
    assert_eq!(loaded.config.amqp.prefetch, 900);
    assert_eq!(loaded.config.endpoint.url.as_str(), "https://api.memories.ai/serve/api/v1/delete_videos");
    for api in [super::Api::V1_0, super::Api::V1_2] {
        let default = super::key::BATCH_MAX_IDS.default.text(api).expect("a default");
        assert_eq!(default, api.ids_max().to_string());
    }
}

#[test]
fn automatic_prefetch_stays_within_the_protocol() {
    let loaded = Input::default().set("endpoint.max_concurrency=1000").load_broker().expect("sound");
    assert_eq!(loaded.config.amqp.prefetch, u16::MAX);
    let line = loaded.effective.line("amqp.prefetch").expect("the key");
    assert_eq!(line.remark.as_deref(), Some("65535"));
}

#[test]
fn zero_requests_per_second_mean_no_limit() {
    let loaded = Input::default().set("endpoint.requests_per_second=0").load_broker().expect("sound");
    assert_eq!(loaded.config.endpoint.requests_per_second, None);
}

#[test]
fn documentation_has_every_key_once() {
    let table = super::markdown_table();
    let names: BTreeSet<_> = keys().map(|key| key.name).collect();
    assert_eq!(names.len(), KEYS.len());
    for key in keys() {
        assert_eq!(table.matches(&format!("| `{}` |", key.name)).count(), 1, "{}", key.name);
        assert!(!key.doc.contains('\n') && key.doc.ends_with('.'), "{}", key.doc);
    }
    assert_eq!(table.matches("\n### `[amqp]`").count() + table.matches("\n### `[log]`").count(), 1);
    assert!(table.starts_with("### `[amqp]`\n\n| key | default | allowed | |\n| --- | --- | --- | --- |\n"));
    let row = "| `retry.initial` | `\"500ms\"` | `\"1ms\"` to `\"1h\"` | The first interval of the exponential \
               backoff, which has full jitter. |\n";
    assert!(table.contains(row));
    let row = "| `batch.max_ids` | v1.0: `500`, v1.2: `100` | 1 to 500 |";
    assert!(table.contains(row));
    let secrets: Vec<_> = keys().filter(|key| key.is_secret).map(|key| key.name).collect();
    assert_eq!(secrets, ["amqp.urls", "endpoint.token"]);
}
