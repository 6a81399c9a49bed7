use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::time::timeout;

use super::*;
use crate::config::Secret;

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("deletion-worker-token-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join("token");
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: PathBuf) -> anyhow::Result<Token> {
    Token::open(&SecretSource::File(path))
}

fn shown(token: &Token) -> String {
    token.header().to_str().expect("a test's token").to_owned()
}

async fn changed(token: &mut Token) -> String {
    timeout(DEADLINE, token.changed()).await.expect("the token changes");
    shown(token)
}

#[tokio::test]
async fn white_space_round_the_token_is_not_part_of_it() {
    let dir = Dir::new("trim");
    let token = open(dir.file(" \tsecret 1\r\n")).expect("a token");
    assert_eq!(shown(&token), "secret 1");
    let token = Token::open(&SecretSource::Value(Secret::new("secret\n"))).expect("a token");
    assert_eq!(shown(&token), "secret");
    assert_eq!(format!("{:?}", token.header()), "Sensitive");
}

#[tokio::test]
async fn an_unusable_token_is_refused_without_being_shown() {
    let dir = Dir::new("unusable");
    let long = "x".repeat(BYTES_MAX + 1);
    for (content, reason) in [
        (&b""[..], "it is empty"),
        (b" \n", "it is empty"),
        (b"sec\nret", "it holds a character that can't stand in an HTTP header"),
        (b"sec\x7fret", "it holds a character that can't stand in an HTTP header"),
        (b"sec\xffret", "it is not text"),
        (long.as_bytes(), "it has more than 65536 bytes"),
    ] {
        let path = dir.file(content);
        let error = format!("{:#}", open(path.clone()).expect_err("unusable"));
        assert_eq!(error, format!("failed to use endpoint.token_file {}: {reason}", path.display()));
    }
    open(dir.file(&long.as_bytes()[1..])).expect("as long as allowed");
    let path = dir.0.join("nowhere");
    let error = format!("{:#}", open(path.clone()).expect_err("missing"));
    assert!(error.starts_with(&format!("failed to use endpoint.token_file {}: ", path.display())), "{error}");
    assert!(open(dir.0.clone()).is_err(), "a directory");

    let error = Token::open(&SecretSource::Value(Secret::new("sec\nret"))).expect_err("unusable");
    let error = format!("{error:#}");
    assert!(error.starts_with("failed to use endpoint.token: ") && !error.contains("sec\n"), "{error}");
}

#[tokio::test]
async fn a_replaced_file_is_seen_by_every_clone() {
    let dir = Dir::new("replaced");
    let path = dir.file("one");
    let mut token = open(path.clone()).expect("a token");
    let clone = token.clone();
    // The same length, in place, perhaps within the clock's tick.
    fs::write(&path, "two").expect("a file");
    assert_eq!(changed(&mut token).await, "two");
    assert_eq!(shown(&clone), "two");

    fs::write(dir.0.join("new"), "three\n").expect("a file");
    fs::rename(dir.0.join("new"), &path).expect("a rename");
    assert_eq!(changed(&mut token).await, "three");
}

/// Kubernetes mounts `token -> ..data/token` and `..data -> ..<timestamp>`, and swaps `..data`.
#[tokio::test]
async fn a_swapped_link_above_the_file_is_followed() {
    let dir = Dir::new("links");
    let link = |version: &str| {
        fs::create_dir(dir.0.join(version)).expect("a directory");
        fs::write(dir.0.join(version).join("token"), version).expect("a file");
        std::os::unix::fs::symlink(version, dir.0.join("..data_tmp")).expect("a link");
        fs::rename(dir.0.join("..data_tmp"), dir.0.join("..data")).expect("a rename");
    };
    link("..2026_01");
    std::os::unix::fs::symlink("..data/token", dir.0.join("token")).expect("a link");
    let mut token = open(dir.0.join("token")).expect("a token");
    assert_eq!(shown(&token), "..2026_01");
    link("..2026_02");
    assert_eq!(changed(&mut token).await, "..2026_02");
}

#[tokio::test]
async fn an_unusable_file_leaves_the_old_token() {
    let dir = Dir::new("kept");
    let path = dir.file("one");
    let mut token = open(path.clone()).expect("a token");
    fs::remove_file(&path).expect("a file");
    fs::write(&path, "").expect("a file");
    assert_eq!(shown(&token), "one");
    fs::write(&path, "two").expect("a file");
    assert_eq!(changed(&mut token).await, "two", "an empty token never shows");
}

#[test]
fn an_unusable_file_is_warned_of_once() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let logged =
        || String::from_utf8_lossy(&lines.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let (sender, value) = watch::channel(header("one").expect("a token"));
        let mut follower = Follower { path: Path::new("/f").into(), value: sender, is_usable: true };
        for _ in 0..3 {
            follower.take(Err(anyhow::anyhow!("gone")));
        }
        assert_eq!(logged().matches("keeping the endpoint's old token").count(), 1);
        follower.take(header("one"));
        assert!(!value.has_changed().expect("open"), "the same token is no change");
        follower.take(Err(anyhow::anyhow!("gone again")));
        assert_eq!(logged().matches("keeping the endpoint's old token").count(), 2);
        follower.take(header("other"));
        assert!(value.has_changed().expect("open"));
        assert!(!logged().contains("other"), "{}", logged());
    });
}

#[tokio::test]
async fn the_watch_ends_with_the_last_clone() {
    let dir = Dir::new("ends");
    let token = open(dir.file("one")).expect("a token");
    let mut value = token.value.clone();
    let clone = token.clone();
    drop(token);
    assert!(value.has_changed().is_ok());
    drop(clone);
    assert!(timeout(DEADLINE, value.changed()).await.expect("the task ends").is_err());
}
