//! Why a call has no answer, or only the beginning of one.
//!
//! reqwest hides the cause at the end of a chain of sources; what decides is the type and kind found there, never
//! the text.

use std::error::Error;
use std::io;

use humantime::format_duration;

use crate::config::Endpoint;

/// A fragment that fits "the endpoint …", naming the host and never the token.
pub(super) fn before_answer(error: &reqwest::Error, endpoint: &Endpoint) -> String {
    let url = &endpoint.url;
    let host = url.host_str().unwrap_or_default();
    let authority = match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    if error.is_dns() {
        return format!("can't be reached: {host} could not be resolved: {}", root(error));
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return format!("can't be reached: TLS failure with {authority}: {tls}");
    }
    if error.is_connect() {
        return format!("can't be reached: {}", connect(error, endpoint, &authority));
    }
    if error.is_timeout() {
        return format!("gave no answer: {authority} timed out after {}", format_duration(endpoint.timeout));
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            format!("gave no answer: connection reset by {authority}")
        }
        Some(_) | None if is_closed(error) => {
            format!("gave no answer: connection closed by {authority}")
        }
        Some(_) | None => format!("gave no usable answer: {authority}: {}", root(error)),
    }
}

/// Whether the connection was there, and ended before the answer began.
pub(super) fn is_ended(error: &reqwest::Error) -> bool {
    let kind = find::<io::Error>(error).map(io::Error::kind);
    let is_reset = matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    !error.is_connect() && !error.is_timeout() && (is_reset || is_closed(error))
}

/// A fragment that fits "… its body broke off: …".
pub(super) fn within_answer(error: &reqwest::Error, endpoint: &Endpoint) -> String {
    if error.is_timeout() {
        return format!("timed out after {}", format_duration(endpoint.timeout));
    }
    format!("truncated: {}", root(error))
}

fn connect(error: &reqwest::Error, endpoint: &Endpoint, authority: &str) -> String {
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => format!("connection refused by {authority}"),
        Some(io::ErrorKind::ConnectionReset) => format!("connection reset by {authority}"),
        Some(_) | None if error.is_timeout() => {
            let limit = endpoint.connect_timeout.min(endpoint.timeout);
            format!("connecting to {authority} timed out after {}", format_duration(limit))
        }
        Some(_) | None => format!("no connection to {authority}: {}", root(error)),
    }
}

fn is_closed(error: &reqwest::Error) -> bool {
    find::<hyper::Error>(error).is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
}

/// The last `T` in the chain: nearest to the cause. An `io::Error`'s `source` skips the error it wraps.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let below = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => find(wrapped),
        None => error.source().and_then(find),
    };
    below.or_else(|| error.downcast_ref::<T>())
}

/// The last error of the chain: the cause, without the layers that passed it on.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}
