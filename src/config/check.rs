//! Limits that only mean something together, and the files that a configuration names.

use std::time::Duration;

use super::address::{self, Broker};
use super::file;
use super::key::{self, AnyKey};
use super::load::{Need, Values};
use super::problem::Problem;

/// RabbitMQ closes a channel whose oldest unacknowledged delivery is 30 min old; it looks once a minute, and the
/// calls in flight at that moment have to end too.
const RELEASE_AFTER_SAFE: Duration = Duration::from_secs(20 * 60);

/// A look at values that have each passed on their own.
pub(super) struct Checks<'a> {
    pub(super) values: &'a Values,
    pub(super) problems: &'a mut Vec<Problem>,
    pub(super) notes: &'a mut Vec<Problem>,
}

impl Checks<'_> {
    pub(super) fn run(mut self, need: Need) {
        self.amqp();
        self.topology();
        self.tls();
        self.sizes();
        self.spans();
        self.endpoint();
        self.token(need);
    }

    /// The first of `keys` is at fault unless `holds`. Says nothing if one of them is not known: it has been
    /// complained of already.
    fn demand(&mut self, holds: bool, keys: &[&dyn AnyKey], fault: &str) {
        if !holds && keys.iter().all(|key| self.values.is_known(*key)) {
            let problem = self.problem(keys, fault);
            self.problems.push(problem);
        }
    }

    /// Like [`Self::demand`], for what is merely doubtful.
    fn advise(&mut self, holds: bool, keys: &[&dyn AnyKey], doubt: &str) {
        if !holds && keys.iter().all(|key| self.values.is_known(*key)) {
            let problem = self.problem(keys, doubt);
            self.notes.push(problem);
        }
    }

    /// Names every key's value and where it comes from, as either may be the wrong one.
    fn problem(&self, keys: &[&dyn AnyKey], fault: &str) -> Problem {
        let show = |key: &&dyn AnyKey| {
            let value = self.values.rendered(*key).unwrap_or_else(|| "not set".to_owned());
            format!("{} is {value}, {}", key.name(), self.values.origin(*key))
        };
        let shown: Vec<_> = keys.iter().map(show).collect();
        Problem::new(keys[0].name(), format!("{fault} ({})", shown.join("; ")))
    }

    fn amqp(&mut self) {
        let (urls, urls_file) = (&key::AMQP_URLS, &key::AMQP_URLS_FILE);
        let is_twice = self.values.is_given(urls) && self.values.is_given(urls_file);
        self.demand(!is_twice, &[urls, urls_file], "both amqp.urls and amqp.urls_file are set");
        let (source, brokers): (&dyn AnyKey, Vec<Broker>) = match self.values.find(urls_file) {
            None => (urls, self.values.get(urls)),
            Some(path) => match file::brokers(&path) {
                Ok(brokers) => (urls_file, brokers),
                Err(fault) => return self.demand(false, &[urls_file], &fault),
            },
        };
        self.demand(!address::vhosts_differ(&brokers), &[source], "the URLs differ in their vhost");
        let is_tls = brokers.iter().any(|broker| broker.tls);
        for file in [&key::AMQP_TLS_CA_FILE, &key::AMQP_TLS_CERT_FILE] {
            self.advise(is_tls || !self.values.is_given(file), &[file, source], "unused: no URL is amqps://");
        }
    }

    fn topology(&mut self) {
        let [queue, dead_queue] = [&key::AMQP_QUEUE, &key::DEAD_LETTER_QUEUE];
        let differ = self.values.get(queue) != self.values.get(dead_queue);
        self.demand(differ, &[dead_queue, queue], "dead letters would be consumed again");
        let [exchange, dead_exchange] = [&key::AMQP_EXCHANGE, &key::DEAD_LETTER_EXCHANGE];
        let differ = self.values.get(exchange) != self.values.get(dead_exchange);
        self.demand(differ, &[dead_exchange, exchange], "dead letters need an exchange of their own");
    }

    fn tls(&mut self) {
        let [cert, key] = [&key::AMQP_TLS_CERT_FILE, &key::AMQP_TLS_KEY_FILE];
        let (has_cert, has_key) = (self.values.is_given(cert), self.values.is_given(key));
        self.demand(has_key || !has_cert, &[cert, key], "a client certificate needs amqp.tls.key_file");
        self.demand(has_cert || !has_key, &[key, cert], "a client's key needs amqp.tls.cert_file");
        for file in [&key::AMQP_TLS_CA_FILE, cert] {
            if let Some(Err(fault)) = self.values.find(file).map(|path| file::certificates(&path)) {
                self.demand(false, &[file], &fault);
            }
        }
        if let Some(Err(fault)) = self.values.find(key).map(|path| file::private_key(&path)) {
            self.demand(false, &[key], &fault);
        }
    }

    fn sizes(&mut self) {
        let (max_ids, api) = (&key::BATCH_MAX_IDS, &key::ENDPOINT_API);
        let ids = self.values.get(max_ids);
        let ids_max = self.values.get(api).ids_max();
        self.demand(ids <= ids_max, &[max_ids, api], &format!("the API takes at most {ids_max} IDs a call"));
        let prefetch = &key::AMQP_PREFETCH;
        let is_enough = self.values.get(prefetch).is_none_or(|messages| usize::from(messages) >= ids);
        self.demand(is_enough, &[prefetch, max_ids], "too small for one full batch");
    }

    fn spans(&mut self) {
        let pairs = [
            (&key::RETRY_INITIAL, &key::RETRY_MAX),
            (&key::HEALTH_PROBE_INITIAL, &key::HEALTH_PROBE_MAX),
            (&key::ENDPOINT_CONNECT_TIMEOUT, &key::ENDPOINT_TIMEOUT),
        ];
        for (short, long) in pairs {
            let holds = self.values.get(short) <= self.values.get(long);
            self.demand(holds, &[short, long], &format!("longer than {}", long.name));
        }
        let (grace, timeout) = (&key::SHUTDOWN_GRACE, &key::ENDPOINT_TIMEOUT);
        // The defaults are such, for Kubernetes' sake; who changes them should know.
        let is_default = self.values.is_default(grace) && self.values.is_default(timeout);
        let holds = is_default || self.values.get(grace) >= self.values.get(timeout);
        let doubt = "shorter than endpoint.timeout: a call may be cut off at shutdown, and made again";
        self.advise(holds, &[grace, timeout], doubt);
        let release = &key::HEALTH_RELEASE_AFTER;
        let doubt =
            "RabbitMQ may take the messages back before that (its consumer_timeout, 30 min by default)";
        self.advise(self.values.get(release) <= RELEASE_AFTER_SAFE, &[release], doubt);
    }

    fn endpoint(&mut self) {
        let url = self.values.get(&key::ENDPOINT_URL);
        let is_private = url.scheme() == "https" || address::is_loopback(&url);
        self.advise(is_private, &[&key::ENDPOINT_URL], "the token travels unencrypted");
        let (namespace, api) = (&key::ENDPOINT_NAMESPACE, &key::ENDPOINT_API);
        let fits = match self.values.get(api) {
            super::Api::V1_0 => self.values.find(namespace).is_none(),
            super::Api::V1_2 => true,
        };
        self.demand(fits, &[namespace, api], "v1.0 has no namespaces: videos of any would be deleted");
    }

    fn token(&mut self, need: Need) {
        let (token, token_file) = (&key::ENDPOINT_TOKEN, &key::ENDPOINT_TOKEN_FILE);
        let (has_token, has_file) = (self.values.is_given(token), self.values.is_given(token_file));
        let fault = "both endpoint.token and endpoint.token_file are set";
        self.demand(!(has_token && has_file), &[token, token_file], fault);
        let is_needed = match need {
            Need::Worker => !self.values.get(&key::WORKER_DRY_RUN),
            Need::Broker => false,
        };
        if !is_needed {
            return;
        }
        let fault = "required: set it, or endpoint.token_file";
        self.demand(has_token || has_file, &[token, &key::WORKER_DRY_RUN], fault);
        let found = match (self.values.find(token), self.values.find(token_file)) {
            (Some(token), _) => Ok(token),
            (None, Some(path)) => file::token(&path),
            (None, None) => return,
        };
        let source: &dyn AnyKey = if has_token { token } else { token_file };
        match found {
            Ok(secret) => {
                let is_bare = !secret.expose().to_ascii_lowercase().starts_with("bearer ");
                self.advise(
                    is_bare,
                    &[source],
                    "begins with \"Bearer\"; the documented API takes the bare token",
                );
            }
            Err(fault) => self.demand(false, &[source], &fault),
        }
    }
}
