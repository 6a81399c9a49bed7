//! Brokers behind TLS: a private authority, and client certificates in place of passwords.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use deletion_worker::rabbitmq::Extras;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::PATIENCE;
use crate::support::broker::Vhost;
use crate::support::world::{World, ids};

/// The user whom the broker knows by its certificate.
const USER: &str = "worker";

#[tokio::test]
async fn a_private_authority_and_a_client_certificate_are_enough() {
    let files = Files::new();
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let node = crate::support::broker::node_with(&secure(&files, address)).await;
    let mut world = World::on(Vhost::on(&node).await).await;
    let api = &world.vhost.management;
    api.set_user(USER, "never used", "").await.expect("the node serves");
    api.set_permissions(&world.vhost.name, USER, [".*"; 3]).await.expect("the user exists");
    let url = world.vhost.url_through(address).replace("amqp://", "amqps://");

    // User and password inside TLS.
    world.set("amqp.urls", &url).set("amqp.tls.ca_file", &files.path("ca.pem"));
    let mut worker = world.start().await;
    world.publish_ids(ids(3)).await;
    world.deleted(3).await;
    worker.stop().await;

    // The certificate says who we are; the URL's user is nobody.
    let nobody = url.replace("guest:guest@", "nobody:hunter2@");
    world.set("amqp.urls", &nobody);
    world.set("amqp.tls.cert_file", &files.path("worker.pem"));
    world.set("amqp.tls.key_file", &files.path("worker.key"));
    let mut worker = world.start().await;
    world.publish_ids(ids(6)).await;
    world.deleted(6).await;
    worker.stop().await;

    // A certificate of somebody whom the broker doesn't know.
    world.set("amqp.tls.cert_file", &files.path("stranger.pem"));
    world.set("amqp.tls.key_file", &files.path("stranger.key"));
    let mut process = world.process(&["run"]);
    assert_eq!(process.exit(PATIENCE).await.code(), Some(1));
    let lines = process.stderr.all();
    let last = lines.last().expect("it says why");
    assert!(
        last.contains("refuses the client certificate's user") && last.contains("amqp.tls.cert_file"),
        "{last}"
    );
    assert!(!lines.concat().contains("hunter2"), "{lines:#?}");

    // Not the broker's authority: the broker's certificate may be replaced by the right one, so this is awaited.
    world.unset("amqp.tls.cert_file").unset("amqp.tls.key_file");
    world.set("amqp.urls", &url).set("amqp.tls.ca_file", &files.path("other-ca.pem"));
    let mut worker = world.launch().await;
    let line = worker.process.stderr.wait_for("waiting for the broker", PATIENCE).await;
    assert!(line.contains("certificate") && line.contains("UnknownIssuer"), "{line}");
    assert_eq!(worker.readyz().await, 503);
    worker.stop().await;
}

/// A TLS listener at `address` that takes client certificates, and their common names for users.
fn secure(files: &Files, address: SocketAddr) -> Extras {
    let mut configuration: Vec<_> = ["PLAIN", "AMQPLAIN", "EXTERNAL"]
        .iter()
        .zip(1..)
        .map(|(mechanism, place)| format!("auth_mechanisms.{place} = {mechanism}"))
        .collect();
    configuration.extend([
        format!("listeners.ssl.1 = {address}"),
        format!("ssl_options.cacertfile = {}", files.path("ca.pem")),
        format!("ssl_options.certfile = {}", files.path("broker.pem")),
        format!("ssl_options.keyfile = {}", files.path("broker.key")),
        "ssl_options.verify = verify_peer".into(),
        "ssl_options.fail_if_no_peer_cert = false".into(),
        "ssl_cert_login_from = common_name".into(),
    ]);
    Extras { configuration, plugins: vec!["rabbitmq_auth_mechanism_ssl".into()], ..Extras::default() }
}

/// Below the range from which systems take the local ports of connections, and apart from those that nodes and
/// proxies look into.
fn free_port() -> u16 {
    let listener = (10_000..12_000).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    listener.expect("one is free").local_addr().expect("bound").port()
}

/// Certificates and keys as PEM, in a directory that is removed with this.
struct Files(PathBuf);

impl Files {
    /// An authority `ca` that has vouched for `broker` (127.0.0.1), [`USER`] and `stranger`; an authority
    /// `other-ca` that has vouched for nobody.
    fn new() -> Self {
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the target directory is writable");
        let files = Self(directory);
        let authority = authority("the authority");
        files.write("ca.pem", &authority.pem());
        files.write("other-ca.pem", &self::authority("another authority").pem());
        for (name, address) in [("broker", Some("127.0.0.1")), (USER, None), ("stranger", None)] {
            let names: Vec<String> = address.into_iter().map(Into::into).collect();
            let mut params = CertificateParams::new(names).expect("an address");
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().expect("the system has randomness");
            let certificate = params.signed_by(&key, &authority).expect("the authority's key signs");
            files.write(&format!("{name}.pem"), &certificate.pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the target directory's name is UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("the directory is ours");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Best effort: the next build may clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("the system has randomness");
    CertifiedIssuer::self_signed(params, key).expect("a key signs for itself")
}
