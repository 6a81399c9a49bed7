//! TLS against real certificates. The system's roots come from the environment, so some tests are their own
//! child process.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// Serves one success over TLS, and says where and with which certificate (PEM).
fn serve() -> (SocketAddr, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        let mut stream = StreamOwned::new(connection, stream);
        // Fails when the client refuses the certificate.
        if stream.read(&mut [0; 4096]).is_ok() {
            let reply = json("200", "", r#"{"code":"0000"}"#);
            stream.write_all(reply.as_bytes()).expect("a client");
        }
    });
    (addr, cert.pem())
}

/// Runs an ignored test of this module in a process of its own.
fn run_child(test: &str, roots: &std::path::Path) {
    let child = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", "--ignored", "--nocapture", &format!("endpoint::tests::tls::{test}")])
        .env("SSL_CERT_FILE", roots)
        .env("SSL_CERT_DIR", roots.with_extension("nowhere"))
        .output()
        .expect("a child");
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn a_trusted_certificate_is_accepted_and_any_other_refused() {
    let roots = std::env::temp_dir().join(format!("deletion-worker-roots-{}.pem", std::process::id()));
    run_child("child_with_a_root", &roots);
    std::fs::remove_file(roots).expect("the child wrote it");
}

#[tokio::test]
#[ignore = "run by a_trusted_certificate_is_accepted_and_any_other_refused"]
async fn child_with_a_root() {
    let (trusted, pem) = serve();
    std::fs::write(std::env::var_os("SSL_CERT_FILE").expect("a path"), pem).expect("a file");
    let endpoint = |port, host| settings(Api::V1_0, &format!("https://{host}:{port}/"));

    let answer = call(&endpoint(trusted.port(), "localhost")).await;
    assert_eq!(answer.outcome, Outcome::Deleted, "{}", answer.detail);

    let (stranger, _) = serve();
    let answer = call(&endpoint(stranger.port(), "localhost")).await;
    let reason = format!("TLS failure with localhost:{}: invalid peer certificate: ", stranger.port());
    assert_eq!(answer.outcome, Outcome::Transient);
    assert!(answer.detail.contains(&reason), "{}", answer.detail);

    // A port that speaks plain HTTP, and says so at once.
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = plain.local_addr().expect("an address").port();
    let talk = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("a client");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let answer = call(&endpoint(port, "localhost")).await;
    talk.join().expect("no panic");
    assert_eq!(answer.outcome, Outcome::Transient, "{}", answer.detail);
    assert!(answer.detail.contains(&format!("TLS failure with localhost:{port}: ")), "{}", answer.detail);

    // One that hangs up on the handshake.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = deaf.local_addr().expect("an address").port();
    let hang_up = std::thread::spawn(move || {
        let (mut stream, _) = deaf.accept().expect("a client");
        // All of it, or the end of the connection is a reset.
        let _ = stream.read(&mut [0; 4096]).expect("a handshake");
    });
    let answer = call(&endpoint(port, "localhost")).await;
    hang_up.join().expect("no panic");
    assert_eq!(answer.outcome, Outcome::Transient, "{}", answer.detail);
    let reason = format!("can't be reached: no connection to localhost:{port}: ");
    assert!(answer.detail.contains(&reason), "{}", answer.detail);
}

#[test]
fn without_roots_http_works_and_https_is_an_error_at_start() {
    run_child("child_without_roots", &std::env::temp_dir().join("deletion-worker-no-roots.pem"));
}

#[tokio::test]
#[ignore = "run by without_roots_http_works_and_https_is_an_error_at_start"]
async fn child_without_roots() {
    let server = Server::start([ok()]).await;
    assert_eq!(call(&at(server.addr)).await.outcome, Outcome::Deleted);

    let endpoint = settings(Api::V1_0, "https://localhost/");
    let error =
        Client::new(&endpoint, Token::open(endpoint.token.as_ref().expect("one is set")).expect("a token"))
            .expect_err("no roots");
    let error = format!("{error:#}");
    assert!(error.contains("endpoint.url") && error.contains("No CA certificates"), "{error}");
}
