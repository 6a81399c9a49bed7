//! TLS in front of a server that speaks none, with a certificate that may be replaced, or without any sense.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a client meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// One for `localhost` by the authority.
    Valid,
    /// The same, but it expired long ago.
    Expired,
    /// None: instead of a handshake there is an answer in plain HTTP.
    Nonsense,
    /// None: the connection is closed when the handshake begins.
    Closed,
}

/// A TLS listener; its connections are closed when the certificate is replaced, and when it is dropped.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    /// The authority's certificate (PEM).
    pub(crate) authority: String,
    certificate: watch::Sender<Certificate>,
    acceptor: JoinHandle<()>,
}

/// What connections are served with.
struct Service {
    target: String,
    valid: TlsAcceptor,
    expired: TlsAcceptor,
}

impl TlsFront {
    /// Passes everything to `target` (host and port).
    pub(crate) async fn start(target: &str) -> Self {
        let authority = authority();
        let service = Service {
            target: target.to_owned(),
            valid: acceptor(&authority, 4000),
            expired: acceptor(&authority, 2001),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (certificate, shown) = watch::channel(Certificate::Valid);
        let acceptor = tokio::spawn(accept(listener, Arc::new(service), shown));
        Self { address, authority: authority.pem(), certificate, acceptor }
    }

    /// Replaces the certificate, and closes what is open.
    pub(crate) fn show(&self, certificate: Certificate) {
        self.certificate.send_replace(certificate);
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>, shown: watch::Receiver<Certificate>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (service, mut shown) = (Arc::clone(&service), shown.clone());
        connections.spawn(async move {
            let certificate = *shown.borrow_and_update();
            tokio::select! {
                // What ends here has ended for the client too.
                _ = serve(client, &service, certificate) => {}
                _ = shown.changed() => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, service: &Service, certificate: Certificate) -> io::Result<()> {
    let acceptor = match certificate {
        Certificate::Valid => &service.valid,
        Certificate::Expired => &service.expired,
        Certificate::Nonsense => {
            client.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await?;
            client.shutdown().await?;
            return client.read_to_end(&mut Vec::new()).await.map(drop);
        }
        Certificate::Closed => return client.read_u8().await.map(drop),
    };
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(&service.target).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("the system has randomness");
    CertifiedIssuer::self_signed(params, key).expect("a key signs for itself")
}

/// Accepts with a certificate that is good until the year `until`.
fn acceptor(authority: &CertifiedIssuer<'_, KeyPair>, until: i32) -> TlsAcceptor {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().expect("the system has randomness");
    let certificate = params.signed_by(&key, authority).expect("the authority's key signs");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    TlsAcceptor::from(Arc::new(config))
}
