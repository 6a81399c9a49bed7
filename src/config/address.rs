//! The URLs of brokers and of the endpoint.

use url::{Host, Url};

use super::Secret;
use super::value::{MASK, Shape, quote};

/// The URL of a broker: `amqp://` or `amqps://`, as lapin reads it.
#[derive(Debug)]
pub(super) struct BrokerUrl;

/// Where the endpoint is: `http://` or `https://`, nothing in it but host, port and path.
#[derive(Debug)]
pub(super) struct EndpointUrl;

/// What a broker's URL says.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) url: Secret,
    pub(super) vhost: String,
    pub(super) tls: bool,
}

impl Shape for BrokerUrl {
    type Value = Broker;
    const SECRET: bool = true;

    fn parse(&self, text: &str) -> Result<Broker, String> {
        broker(text)
    }

    fn render(&self, value: &Broker) -> String {
        quote(&masked(value.url.expose()))
    }

    fn allowed(&self) -> String {
        "`\"amqp[s]://user:password@host:port/vhost\"`, percent-encoded".to_owned()
    }

    fn masked(&self, text: &str) -> String {
        masked(text)
    }
}

impl Shape for EndpointUrl {
    type Value = Url;

    fn parse(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http:// nor https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user or password in it (the token is endpoint.token)".to_owned());
        }
        if url.query().is_some() {
            return Err("has a query (the namespace is endpoint.namespace)".to_owned());
        }
        if url.fragment().is_some() {
            return Err("has a fragment".to_owned());
        }
        Ok(url)
    }

    fn render(&self, value: &Url) -> String {
        quote(value.as_str())
    }

    fn allowed(&self) -> String {
        "`http://` or `https://`, host, port, path".to_owned()
    }

    fn masked(&self, text: &str) -> String {
        masked(text)
    }
}

/// The URLs in the content of `amqp.urls_file`: separated by commas or line ends, empty lines skipped.
///
/// # Errors
/// Says which one is wrong and why, without showing it.
pub(super) fn brokers(content: &str) -> Result<Vec<Broker>, String> {
    let texts = content.split([',', '\n']).map(str::trim).filter(|text| !text.is_empty());
    let read = |(index, text)| broker(text).map_err(|fault| format!("(URL {}) {fault}", index + 1));
    let brokers: Vec<_> = texts.enumerate().map(read).collect::<Result<_, _>>()?;
    if brokers.is_empty() { Err("holds no URL".to_owned()) } else { Ok(brokers) }
}

/// The vhosts differ, or there is nothing to compare.
pub(super) fn vhosts_differ(brokers: &[Broker]) -> bool {
    brokers.windows(2).any(|pair| pair[0].vhost != pair[1].vhost)
}

/// Whether what is sent there stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// `text` with `***` for the password and the query; [`MASK`] alone where a part can't be told from another, as
/// in a URL whose password isn't percent-encoded.
pub(super) fn masked(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    let rest = [url.path(), url.query().unwrap_or_default(), url.fragment().unwrap_or_default()];
    if !url.has_host() || rest.iter().any(|part| part.contains('@')) {
        return MASK.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some(MASK));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some(MASK));
    }
    url.into()
}

fn broker(text: &str) -> Result<Broker, String> {
    let url = Url::parse(text).map_err(|_| "is not a URL (is the password percent-encoded?)".to_owned())?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err("is neither amqp:// nor amqps://".to_owned());
    }
    match url.host() {
        Some(Host::Domain("")) | None => return Err("has no host".to_owned()),
        // lapin would connect to localhost instead.
        Some(Host::Ipv6(_)) => {
            return Err("has an IPv6 address, which isn't supported here: use a host name".to_owned());
        }
        Some(Host::Domain(name)) if name.contains('%') => return Err("has a % in its host".to_owned()),
        Some(Host::Domain(_) | Host::Ipv4(_)) => {}
    }
    if url.port() == Some(0) {
        return Err("has port 0".to_owned());
    }
    if url.path().contains('@') {
        return Err("has an @ after the host (is the password percent-encoded?)".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        let instead = "use amqp.heartbeat and amqp.tls.*; is the password percent-encoded?";
        return Err(format!("has a query or a fragment ({instead})"));
    }
    for part in [url.username(), url.password().unwrap_or_default()] {
        decoded(part).ok_or("has a user or password that isn't UTF-8")?;
    }
    let vhost = match url.path().strip_prefix('/') {
        None | Some("") => "/".to_owned(),
        Some(path) => decoded(path).ok_or("has a vhost that isn't UTF-8")?,
    };
    if vhost.len() > 255 {
        return Err("has a vhost of more than 255 bytes".to_owned());
    }
    // Strictly, a trailing slash names the vhost "". Nobody has one, and the cluster operator writes such URLs.
    let mut plain = url.clone();
    if url.path() == "/" {
        plain.set_path("");
    }
    let tls = url.scheme() == "amqps";
    let url = if url == plain { text.to_owned() } else { plain.into() };
    Ok(Broker { url: Secret::new(url), vhost, tls })
}

fn decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}
