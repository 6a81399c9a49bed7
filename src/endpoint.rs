//! The shell round reqwest: one call of the delete endpoint, one [`Answer`].
//!
//! It neither repeats a call nor follows a redirect: calls are counted and paced elsewhere, and a redirect would
//! turn a DELETE into a GET and hand the token to another host.

mod failure;
mod retry_after;
mod token;
mod trust;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use reqwest::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response};
use url::Url;

use crate::answer::{Answer, Body, classify};
use crate::config::{Api, Endpoint};
use crate::id::{Id, Namespace};
use trust::Trust;

pub use token::Token;

/// How long an idle connection is kept; shorter than what load balancers in front of endpoints allow.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// The delete endpoint. Clones share connections and token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Arc<Endpoint>,
    token: Token,
    trust: Trust,
}

impl Client {
    /// Prepares calls; opens no connection. Honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// For an `https` URL on a system without root certificates.
    pub fn new(endpoint: &Endpoint, token: Token) -> anyhow::Result<Self> {
        // Fails only if there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("deletion-worker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Calls are few and large: nothing to gain from multiplexing, and a dead connection costs one call.
            .http1_only()
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(endpoint.max_concurrency)
            .timeout(endpoint.timeout)
            .connect_timeout(endpoint.connect_timeout);
        if endpoint.url.scheme() == "http" {
            // The system's root certificates take milliseconds to read, and an image may well have none.
            http = http.tls_certs_only([]);
        }
        let http = http.build().context("failed to set up TLS for endpoint.url")?;
        Ok(Self { http, endpoint: Arc::new(endpoint.clone()), token, trust: Trust::default() })
    }

    /// Asks to delete `ids`, at most as many as the API takes, all of one namespace.
    ///
    /// Never fails: what goes wrong is an answer too.
    pub async fn call(&self, namespace: Option<&Namespace>, ids: &[Id]) -> Answer {
        let body = match serde_json::to_vec(ids) {
            Ok(body) => body,
            Err(error) => return Answer::lost(&format!("was not called: {error}")),
        };
        let (method, url) = self.target(namespace);
        let mut request = self
            .http
            .request(method, url)
            .header(AUTHORIZATION, self.token.header())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if !self.trust.keeps(Instant::now()) {
            request = request.header(CONNECTION, "close");
        }
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => {
                if failure::is_ended(&error) {
                    self.trust.ended(Instant::now());
                }
                Answer::lost(&failure::before_answer(&error, &self.endpoint))
            }
        }
    }

    fn target(&self, namespace: Option<&Namespace>) -> (Method, Url) {
        let mut url = self.endpoint.url.clone();
        match self.endpoint.api {
            Api::V1_0 => (Method::DELETE, url),
            Api::V1_2 => {
                let namespace = namespace.or(self.endpoint.namespace.as_ref());
                let unique_id = namespace.map_or("default", Namespace::as_str);
                url.query_pairs_mut().append_pair("unique_id", unique_id);
                (Method::POST, url)
            }
        }
    }

    async fn read(&self, mut response: Response) -> Answer {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after::parse(value.as_bytes(), SystemTime::now()));
        let mut bytes = Vec::new();
        let broken;
        let body = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > Body::BYTES_MAX => break Body::TooLong,
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break Body::Whole(&bytes),
                Err(error) => {
                    broken = failure::within_answer(&error, &self.endpoint);
                    break Body::Broken(&broken);
                }
            }
        };
        let classify = |body| classify(status, body, retry_after, &self.endpoint.success_codes);
        let answer = classify(body);
        match masked(&bytes, self.token.header().as_bytes()) {
            // It is judged by what it said, and quoted without our secret.
            Some(masked) if matches!(body, Body::Whole(_)) => {
                let Answer { code, detail, .. } = classify(Body::Whole(&masked));
                Answer { code, detail, ..answer }
            }
            Some(_) | None => answer,
        }
    }
}

/// `bytes` with each `secret` in them replaced, if there is one: what an endpoint says goes into logs and dead
/// letters, and it may say back what it was sent.
fn masked(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let find = |bytes: &[u8]| bytes.windows(secret.len()).position(|window| window == secret);
    let mut masked = Vec::new();
    let mut rest = bytes;
    while let Some(place) = find(rest) {
        masked.extend_from_slice(&rest[..place]);
        masked.extend_from_slice(b"***");
        rest = &rest[place + secret.len()..];
    }
    if rest.len() == bytes.len() {
        return None;
    }
    masked.extend_from_slice(rest);
    Some(masked)
}

#[cfg(test)]
mod tests;
