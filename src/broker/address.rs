//! Where the brokers are and what is needed to speak to them; read anew for each connect, as files change.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::fault::Fault;
use crate::config::{Amqp, Secret, Tls};

/// The longest vhost, host and user name; AMQP's short strings end there.
const NAME_BYTES_MAX: usize = 255;

/// One broker to connect to.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
    pub(super) tls: OwnedTLSConfig,
}

impl Address {
    /// `host:port`, for logs.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// The client certificate says who we are, and the URL's user counts for nothing.
    pub(super) fn is_external(&self) -> bool {
        self.uri.query.auth_mechanism == Some(SASLMechanism::External)
    }

    /// Who we are, as a fragment for people.
    pub(super) fn who(&self) -> String {
        if self.is_external() {
            "the client certificate's user".to_owned()
        } else {
            format!("user `{}`", self.uri.authority.userinfo.username)
        }
    }
}

/// The largest frame we agree to, in bytes, which is RabbitMQ's default: lapin's buffers hold 32 of them.
pub(super) const FRAME_BYTES_MAX: u32 = 131_072;

/// Reads URLs and certificates, and shuffles: at least one address.
pub(super) async fn read(amqp: &Amqp) -> Result<Vec<Address>, Fault> {
    let mut uris = uris(amqp)?;
    fastrand::shuffle(&mut uris);
    let secure = uris.iter().any(|uri| uri.scheme == AMQPScheme::AMQPS);
    let tls = if secure { certificates(&amqp.tls).await? } else { OwnedTLSConfig::default() };
    Ok(uris.into_iter().map(|uri| Address { uri, tls: tls.clone() }).collect())
}

fn uris(amqp: &Amqp) -> Result<Vec<AMQPUri>, Fault> {
    let urls = amqp.urls.read().map_err(|problem| Fault::lasting(format!("amqp.urls_file {problem}")))?;
    let parse = |(position, url): (usize, &Secret)| {
        self::uri(url.expose(), amqp)
            .map_err(|problem| Fault::lasting(format!("broker URL {} {problem}", position + 1)))
    };
    urls.iter().enumerate().map(parse).collect()
}

/// Parses `url`; a problem never shows the URL, which holds a password.
fn uri(url: &str, amqp: &Amqp) -> Result<AMQPUri, &'static str> {
    let mut uri: AMQPUri = url.parse().map_err(|_| "is not an AMQP URL")?;
    let user = &uri.authority.userinfo;
    // Each of these becomes a short string, which panics when it is too long.
    if [&uri.vhost, &uri.authority.host, &user.username].iter().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err("has a name of more than 255 bytes");
    }
    uri.query.frame_max = Some(FRAME_BYTES_MAX);
    uri.query.heartbeat = Some(u16::try_from(amqp.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1));
    let external = uri.scheme == AMQPScheme::AMQPS && amqp.tls.identity.is_some();
    if external && uri.query.auth_mechanism.is_none() {
        uri.query.auth_mechanism = Some(SASLMechanism::External);
    }
    Ok(uri)
}

async fn certificates(tls: &Tls) -> Result<OwnedTLSConfig, Fault> {
    let read = async |path: &std::path::Path| {
        tokio::fs::read(path)
            .await
            .map_err(|error| Fault::lasting(format!("failed to read {}: {error}", path.display())))
    };
    let mut config = OwnedTLSConfig::default();
    if let Some(path) = &tls.ca_file {
        let pem = read(path).await?;
        // The TLS stack takes a file without any certificate in silence, and then trusts nobody.
        if !CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok()) {
            return Err(Fault::lasting(format!("{} holds no PEM certificate", path.display())));
        }
        let pem = String::from_utf8(pem)
            .map_err(|_| Fault::lasting(format!("{} is not a text file", path.display())))?;
        config.cert_chain = Some(pem);
    }
    if let Some((certificate, key)) = &tls.identity {
        let (pem, key) = (read(certificate).await?, read(key).await?);
        config.identity = Some(OwnedIdentity::PKCS8 { pem, key });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::{Declare, QueueType, Urls};

    fn amqp(url: &str) -> Amqp {
        Amqp {
            urls: Urls::Values(vec![Secret::new(url)]),
            queue: "deletions".to_owned(),
            exchange: "deletions".to_owned(),
            routing_key: "delete".to_owned(),
            declare: Declare::Create,
            queue_type: QueueType::Quorum,
            delivery_limit: 1_000_000,
            single_active_consumer: true,
            prefetch: 4_500,
            heartbeat: Duration::from_secs(15),
            tls: Tls::default(),
        }
    }

    fn parse(url: &str) -> AMQPUri {
        uri(url, &amqp(url)).expect("a broker URL")
    }

    #[test]
    fn the_vhost_is_what_the_path_says() {
        assert_eq!(parse("amqp://host").vhost, "/");
        assert_eq!(parse("amqp://host/%2f").vhost, "/");
        assert_eq!(parse("amqp://host/video").vhost, "video");
    }

    #[test]
    fn the_heartbeat_is_the_configured_one() {
        assert_eq!(parse("amqp://host?heartbeat=600").query.heartbeat, Some(15));
    }

    #[test]
    fn a_client_certificate_means_external() {
        let mut amqp = amqp("amqps://host/%2f");
        amqp.tls.identity = Some((PathBuf::from("cert.pem"), PathBuf::from("key.pem")));
        let mechanism = |url| uri(url, &amqp).expect("a broker URL").query.auth_mechanism;
        assert_eq!(mechanism("amqps://host/%2f"), Some(SASLMechanism::External));
        assert_eq!(mechanism("amqps://host/%2f?auth_mechanism=plain"), Some(SASLMechanism::Plain));
        assert_eq!(mechanism("amqp://host/%2f"), None, "there is no certificate without TLS");
    }

    #[tokio::test]
    async fn a_bad_url_is_named_by_position_and_never_shown() {
        let urls = ["amqp://user:hunter2@host:port/", "http://user:hunter2@host/", "hunter2"];
        let long = format!("amqp://user:hunter2@host/{}", "v".repeat(256));
        for url in urls.into_iter().chain([long.as_str()]) {
            let Err(fault) = read(&amqp(url)).await else { panic!("accepted {url}") };
            assert!(fault.is_lasting(), "{fault}");
            assert!(fault.sentence.starts_with("broker URL 1 "), "{fault}");
            assert!(!fault.sentence.contains("hunter2"), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_url_file_is_split_at_commas_and_line_ends() {
        let directory = std::env::temp_dir().join(format!("deletion-worker-address-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("temporary directory");
        let path = directory.join("urls");
        std::fs::write(&path, "amqp://one, amqp://two\namqp://three\n\n").expect("written");
        let mut amqp = amqp("amqp://unused");
        amqp.urls = Urls::File(path.clone());
        let mut hosts: Vec<_> = match read(&amqp).await {
            Ok(addresses) => addresses.into_iter().map(|address| address.uri.authority.host).collect(),
            Err(fault) => panic!("{fault}"),
        };
        hosts.sort();
        assert_eq!(hosts, ["one", "three", "two"]);
        std::fs::write(&path, " \n").expect("written");
        assert!(read(&amqp).await.is_err_and(|fault| fault.sentence.ends_with("holds no URL")));
        std::fs::remove_dir_all(&directory).expect("removed");
        assert!(read(&amqp).await.is_err_and(|fault| fault.is_lasting()));
    }

    #[tokio::test]
    async fn a_ca_file_without_a_certificate_is_refused() {
        let path = std::env::temp_dir().join(format!("deletion-worker-ca-{}", std::process::id()));
        std::fs::write(&path, "not a certificate").expect("written");
        let mut amqp = amqp("amqps://host");
        amqp.tls.ca_file = Some(path.clone());
        let refused = read(&amqp).await;
        std::fs::remove_file(&path).expect("removed");
        assert!(refused.is_err_and(|fault| fault.sentence.ends_with("holds no PEM certificate")));
    }
}
