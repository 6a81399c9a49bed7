//! From sources to a checked [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use super::check::Checks;
use super::key::{self, AnyKey, KEYS, Key};
use super::problem::{Origin, Problem, Problems};
use super::report::Effective;
use super::source::Given;
use super::value::{Shape, Written};
use super::{Amqp, Api, Batch, Config, DeadLetter, Endpoint, Health, Log, Retry, SecretSource, Tls, Urls};

/// What the caller is going to do with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Call the endpoint: a token is required, unless `worker.dry_run` is set.
    Worker,
    /// Talk to the broker, or to the worker, only: no token is required, and `endpoint.token_file` isn't opened.
    Broker,
}

/// A configuration and the story behind it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Its keys and values as text, with secrets masked, and where each comes from. Displays as TOML.
    pub effective: Effective,
    /// What is allowed but doubtful; to be logged as warnings.
    pub notes: Vec<Problem>,
}

impl Config {
    /// Reads the defaults, `file`, the variables of `env` that begin with `DELETION_WORKER__`, and `sets`
    /// (`KEY=VALUE`), of which a later one wins; and opens the files that the result names.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
        need: Need,
    ) -> Result<Loaded, Problems> {
        let mut given = Given::gather(file, env, sets);
        let mut problems = std::mem::take(&mut given.problems);
        let mut notes = std::mem::take(&mut given.notes);
        let values = Values::settle(given, &mut problems);
        Checks { values: &values, problems: &mut problems, notes: &mut notes }.run(need);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let config = values.config();
        let effective = Effective::new(&values, &config);
        Ok(Loaded { config, effective, notes })
    }
}

/// What holds for each key: what was given, if it's sound, or else the default.
#[derive(Debug)]
pub(super) struct Values {
    given: BTreeMap<&'static str, (Written, Origin)>,
    /// Keys whose value was refused; they have their default, so that the others can still be checked.
    refused: BTreeSet<&'static str>,
    /// Every key may have a value that could not be read.
    is_partial: bool,
    api: Api,
}

impl Values {
    fn settle(given: Given, problems: &mut Vec<Problem>) -> Self {
        let Given { mut values, is_partial, .. } = given;
        let mut refused = BTreeSet::new();
        for key in KEYS {
            let Some((written, origin)) = values.get(key.name()) else { continue };
            if let Err(fault) = key.check(written) {
                let allowed = key.allowed().replace('`', "");
                let shown = key.shown(written);
                let text = format!("{shown} {fault}; allowed: {allowed} ({origin})");
                problems.push(Problem::new(key.name(), text));
                refused.insert(key.name());
                values.remove(key.name());
            }
        }
        let mut values = Self { given: values, refused, is_partial, api: Api::V1_0 };
        values.api = values.get(&key::ENDPOINT_API);
        values
    }

    /// The value of a key that has a default.
    pub(super) fn get<S: Shape>(&self, key: &Key<S>) -> S::Value {
        self.find(key).expect("a key without a default is looked up by find")
    }

    /// The value of a key, if it has one.
    pub(super) fn find<S: Shape>(&self, key: &Key<S>) -> Option<S::Value> {
        let written = self.written(key)?;
        Some(key.shape.read(&written).expect("defaults are sound, and what was given has been checked"))
    }

    /// The value as TOML, with secrets masked.
    pub(super) fn rendered(&self, key: &dyn AnyKey) -> Option<String> {
        let written = self.written(key)?;
        Some(key.check(&written).expect("defaults are sound, and what was given has been checked"))
    }

    /// Where the value comes from.
    pub(super) fn origin(&self, key: &dyn AnyKey) -> &Origin {
        self.given.get(key.name()).map_or(&Origin::Default, |(_, origin)| origin)
    }

    /// Whether a source gives the key a value, sound or not.
    pub(super) fn is_given(&self, key: &dyn AnyKey) -> bool {
        self.given.contains_key(key.name()) || self.refused.contains(key.name())
    }

    /// Whether the key has its default, given or not.
    pub(super) fn is_default(&self, key: &dyn AnyKey) -> bool {
        let default = key.default().text(self.api).map(Written::untyped);
        let rendered = default.map(|text| key.check(&text).expect("a default is sound"));
        self.rendered(key) == rendered
    }

    /// Whether the key's value is the one that was meant.
    pub(super) fn is_known(&self, key: &dyn AnyKey) -> bool {
        !self.is_partial && !self.refused.contains(key.name())
    }

    fn written(&self, key: &dyn AnyKey) -> Option<Written> {
        match self.given.get(key.name()) {
            Some((written, _)) => Some(written.clone()),
            None => key.default().text(self.api).map(Written::untyped),
        }
    }

    fn config(&self) -> Config {
        Config {
            amqp: self.amqp(),
            dead_letter: DeadLetter {
                exchange: self.get(&key::DEAD_LETTER_EXCHANGE),
                queue: self.get(&key::DEAD_LETTER_QUEUE),
            },
            batch: Batch {
                max_ids: self.get(&key::BATCH_MAX_IDS),
                linger: self.get(&key::BATCH_LINGER),
                max_ids_per_message: self.get(&key::BATCH_MAX_IDS_PER_MESSAGE),
            },
            endpoint: self.endpoint(),
            retry: Retry {
                initial: self.get(&key::RETRY_INITIAL),
                max: self.get(&key::RETRY_MAX),
                multiplier: self.get(&key::RETRY_MULTIPLIER),
                max_strikes: self.get(&key::RETRY_MAX_STRIKES),
                max_retry_after: self.get(&key::RETRY_MAX_RETRY_AFTER),
            },
            health: Health {
                failure_threshold: self.get(&key::HEALTH_FAILURE_THRESHOLD),
                probe_initial: self.get(&key::HEALTH_PROBE_INITIAL),
                probe_max: self.get(&key::HEALTH_PROBE_MAX),
                release_after: self.get(&key::HEALTH_RELEASE_AFTER),
                on_outage: self.get(&key::HEALTH_ON_OUTAGE),
            },
            shutdown_grace: self.get(&key::SHUTDOWN_GRACE),
            admin_listen: self.get(&key::ADMIN_LISTEN),
            log: Log { level: self.get(&key::LOG_LEVEL), format: self.get(&key::LOG_FORMAT) },
            dry_run: self.get(&key::WORKER_DRY_RUN),
        }
    }

    fn amqp(&self) -> Amqp {
        let urls = || self.get(&key::AMQP_URLS).into_iter().map(|broker| broker.url).collect();
        let identity = (self.find(&key::AMQP_TLS_CERT_FILE), self.find(&key::AMQP_TLS_KEY_FILE));
        Amqp {
            urls: self.find(&key::AMQP_URLS_FILE).map_or_else(|| Urls::Values(urls()), Urls::File),
            queue: self.get(&key::AMQP_QUEUE),
            exchange: self.get(&key::AMQP_EXCHANGE),
            routing_key: self.get(&key::AMQP_ROUTING_KEY),
            declare: self.get(&key::AMQP_DECLARE),
            queue_type: self.get(&key::AMQP_QUEUE_TYPE),
            delivery_limit: self.get(&key::AMQP_DELIVERY_LIMIT),
            single_active_consumer: self.get(&key::AMQP_SINGLE_ACTIVE_CONSUMER),
            prefetch: self.get(&key::AMQP_PREFETCH).unwrap_or_else(|| self.prefetch()),
            heartbeat: self.get(&key::AMQP_HEARTBEAT),
            tls: Tls { ca_file: self.find(&key::AMQP_TLS_CA_FILE), identity: identity.0.zip(identity.1) },
        }
    }

    /// Every call in flight, the next one for each, and one to spare: with a single spare batch, calls that end
    /// together leave the next one half empty.
    fn prefetch(&self) -> u16 {
        let batches = 2 * self.get(&key::ENDPOINT_MAX_CONCURRENCY) + 1;
        u16::try_from(batches * self.get(&key::BATCH_MAX_IDS)).unwrap_or(u16::MAX)
    }

    fn endpoint(&self) -> Endpoint {
        let token = self.find(&key::ENDPOINT_TOKEN).map(SecretSource::Value);
        let rate = self.get(&key::ENDPOINT_REQUESTS_PER_SECOND);
        Endpoint {
            api: self.api,
            url: self.get(&key::ENDPOINT_URL),
            token: token.or_else(|| self.find(&key::ENDPOINT_TOKEN_FILE).map(SecretSource::File)),
            namespace: self.find(&key::ENDPOINT_NAMESPACE),
            timeout: self.get(&key::ENDPOINT_TIMEOUT),
            connect_timeout: self.get(&key::ENDPOINT_CONNECT_TIMEOUT),
            max_concurrency: self.get(&key::ENDPOINT_MAX_CONCURRENCY),
            requests_per_second: (rate > 0.0).then_some(rate),
            success_codes: self.get(&key::ENDPOINT_SUCCESS_CODES),
        }
    }
}
