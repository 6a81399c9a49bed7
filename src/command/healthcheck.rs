//! `healthcheck`: asks a running worker's admin server, as a container's health check does.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Position, Url};

use super::{Failure, Sources};
use crate::config::Need;
use crate::text::Shown;

/// For connecting, asking and being answered; above the second that `/healthz` gives the loop.
const TIMEOUT: Duration = Duration::from_secs(3);

/// More than any answer has.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// What to ask, and whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The admin server, if it isn't the one at admin.listen; no configuration is read then
    #[arg(long, value_parser = admin_url)]
    pub url: Option<Url>,
    /// Ask for readiness (/readyz) instead of health (/healthz)
    #[arg(long)]
    pub ready: bool,
}

/// Writes one line to `out` if the worker is healthy, or ready.
///
/// # Errors
/// It isn't, or doesn't answer; or there is no configuration to tell where to ask.
pub async fn run(args: &Args, sources: &Sources, out: &mut dyn Write) -> Result<(), Failure> {
    let mut url = match &args.url {
        Some(url) => url.clone(),
        None => local(sources.load(Need::Broker)?.config.admin_listen),
    };
    url.set_path(if args.ready { "/readyz" } else { "/healthz" });
    let line = timeout(TIMEOUT, ask(&url)).await.unwrap_or_else(|_| bail!("no answer within {TIMEOUT:?}"));
    let line = line.with_context(|| url.to_string())?;
    writeln!(out, "{url}: {line}").context("failed to print the answer")?;
    Ok(())
}

/// Where a server that listens on `listen` is reached from this machine.
fn local(listen: SocketAddr) -> Url {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    let address = SocketAddr::new(ip, listen.port());
    Url::parse(&format!("http://{address}")).expect("an address is a URL's authority")
}

/// The first line of a good answer; a bad one is an error.
async fn ask(url: &Url) -> anyhow::Result<String> {
    fetch(url).await.map(|body| first_line(&body))
}

/// The body of a good answer; a bad one is an error.
pub(super) async fn fetch(url: &Url) -> anyhow::Result<String> {
    let port = url.port_or_known_default().expect("http has a port");
    let stream = match url.host().expect("http has a host") {
        Host::Domain(name) => TcpStream::connect((name, port)).await,
        Host::Ipv4(ip) => TcpStream::connect((ip, port)).await,
        Host::Ipv6(ip) => TcpStream::connect((ip, port)).await,
    };
    let mut stream = stream.context("failed to connect")?;
    let (path, authority) = (url.path(), &url[Position::BeforeHost..Position::AfterPort]);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("failed to ask")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.context("failed to read the answer")?;
    judge(&String::from_utf8_lossy(&answer))
}

fn judge(answer: &str) -> anyhow::Result<String> {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let (Some(status), Some((_, body))) = (status, answer.split_once("\r\n\r\n")) else {
        bail!("no answer in HTTP, but {}", Shown(answer));
    };
    ensure!(status == 200, "{} (HTTP {status})", first_line(body));
    Ok(body.to_owned())
}

fn first_line(body: &str) -> String {
    body.lines().next().unwrap_or_default().replace(crate::text::is_harmful, "?")
}

fn admin_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "http" {
        return Err("the admin server speaks http only".into());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("only scheme, host and port are needed, as in http://127.0.0.1:9090".into());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_over_loopback() {
        let asked = |listen: &str| local(listen.parse().expect("an address")).to_string();
        assert_eq!(asked("0.0.0.0:9090"), "http://127.0.0.1:9090/");
        assert_eq!(asked("[::]:9090"), "http://[::1]:9090/");
        assert_eq!(asked("10.0.0.7:80"), "http://10.0.0.7/");
        assert_eq!(asked("[2001:db8::7]:9090"), "http://[2001:db8::7]:9090/");
    }

    #[test]
    fn only_a_200_is_good() {
        let judged = |answer: &str| match judge(answer) {
            Ok(body) => Ok(first_line(&body)),
            Err(error) => Err(error.to_string()),
        };
        let answer =
            |status: &str, body: &str| judged(&format!("HTTP/1.1 {status}\r\ndate: now\r\n\r\n{body}"));
        assert_eq!(answer("200 OK", "ok\n"), Ok("ok".into()));
        assert_eq!(answer("200 OK", "one\u{1b}[31m\ntwo\n"), Ok("one?[31m".into()));
        assert_eq!(answer("503 Down", "not ready: x\n"), Err("not ready: x (HTTP 503)".into()));
        assert_eq!(answer("302 Found", ""), Err(" (HTTP 302)".into()));
        assert_eq!(judged(""), Err("no answer in HTTP, but ``".into()));
        assert_eq!(
            judged("HTTP/1.1 200 OK\r\n"),
            Err("no answer in HTTP, but `HTTP/1.1 200 OK\\r\\n`".into())
        );
        assert_eq!(judged("HTTP/1.1 2\u{e4}"), Err("no answer in HTTP, but `HTTP/1.1 2\u{e4}`".into()));
    }

    #[test]
    fn a_url_is_of_an_admin_server() {
        assert!(admin_url("http://worker:9090").is_ok());
        assert!(admin_url("http://[::1]:9090/").is_ok());
        for url in [
            "https://worker:9090",
            "worker:9090",
            "http://worker:9090/healthz",
            "http://me@worker",
            "http://",
        ] {
            assert!(admin_url(url).is_err(), "{url}");
        }
    }
}
