//! Secrets are planted wherever one may be, things are made to go wrong, and everything that is said is searched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use deletion_worker::mock::Reply;
use deletion_worker::status::EndpointState;

use crate::support::letter::{header, names};
use crate::support::process::Process;
use crate::support::world::{TOKEN, Worker, World};
use crate::support::{PATIENCE, http, wait_for};

/// Part of every secret that is planted here.
const SECRET: &str = "S3CRET";

/// Everything, from everybody.
const TALKATIVE: &str = "trace,lapin=trace,amq_protocol=trace,amq_protocol_tcp=trace,amq_protocol_uri=trace,\
    async_rs=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,tower=trace,h2=trace,mio=trace,tokio=trace";

/// As it is, and as `Debug` and dumps write bytes.
fn forms(secret: &str) -> [String; 4] {
    let bytes = secret.as_bytes();
    let hex = |separator: &str, prefix: &str| {
        bytes.iter().map(|byte| format!("{prefix}{byte:02x}")).collect::<Vec<_>>().join(separator)
    };
    let decimal = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    [secret.to_owned(), decimal, hex("", ""), hex(", ", "0x")]
}

#[track_caller]
fn assert_hidden<'a>(said: impl IntoIterator<Item = &'a String>) {
    let forms: Vec<_> = [SECRET, TOKEN].into_iter().flat_map(forms).collect();
    for line in said {
        let shown = forms.iter().find(|form| line.to_lowercase().contains(&form.to_lowercase()));
        assert_eq!(shown, None, "in {line}");
    }
}

/// A directory of files, removed with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory is writable");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the directory is ours");
        path.to_str().expect("the target directory's name is UTF-8").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Best effort: the next build may clean up.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers: BTreeMap<_, _> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reply { status, headers, body: body.to_owned(), calls: Some(1), applies: false }
}

/// Answers that say the token back.
fn echoes() -> Vec<Reply> {
    let elsewhere = format!("http://127.0.0.1:1/?token={TOKEN}");
    let bearer = format!("Bearer {TOKEN}");
    vec![
        reply(200, &[("x-echo", TOKEN)], &format!(r#"{{"code":"0401","msg":"bad token {TOKEN}"}}"#)),
        reply(302, &[("location", &elsewhere)], &format!("moved to {elsewhere}")),
        reply(401, &[("www-authenticate", &bearer), ("set-cookie", TOKEN)], &format!("<p>{TOKEN}</p>")),
        reply(202, &[], &format!(r#"{{"code":"{TOKEN}"}}"#)),
        reply(500, &[("retry-after", TOKEN)], &format!(r#"{{"error":{{"authorization":"{TOKEN}"}}}}"#)),
    ]
}

async fn pages(worker: &Worker) -> Vec<String> {
    let mut pages = Vec::new();
    for path in ["/metrics", "/status", "/healthz", "/readyz", "/nothing"] {
        pages.push(http::get(&format!("{}{path}", worker.admin)).await.expect("the worker runs").1);
    }
    pages
}

#[tokio::test]
async fn a_worker_at_its_most_talkative_tells_no_secret() {
    let mut world = World::new().await;
    let (files, user) = (Files::new("secrets"), format!("user-{}", world.vhost.name));
    let management = world.vhost.management.clone();
    management.set_user(&user, &format!("{SECRET}-1"), "").await.expect("the broker serves");
    management.set_permissions(&world.vhost.name, &user, [".*"; 3]).await.expect("the broker serves");
    let url = world.vhost.url_as(&user, &format!("{SECRET}-1"));
    world.unset("amqp.urls").unset("endpoint.token").set("log.level", TALKATIVE);
    world.set("amqp.urls_file", &files.put("urls", &url));
    world.set("endpoint.token_file", &files.put("token", TOKEN)).set("health.probe_max", "50ms");
    let mut worker = world.start().await;
    let mut said = Vec::new();

    for (n, echo) in echoes().into_iter().enumerate() {
        let status = echo.status;
        world.faults(|faults| faults.reply = Some(echo));
        world.publish_ids([format!("VI{n}")]).await;
        worker
            .wait_until(&format!("HTTP {status} is told of"), async |worker| {
                let failure = worker.status().await.and_then(|status| status.endpoint.last_failure);
                failure.is_some_and(|failure| {
                    failure.http_status == Some(status) && format!("{failure:?}").contains("***")
                })
            })
            .await;
        said.extend(pages(&worker).await);
        world.deleted(n as u64 + 1).await;
        worker.settled(&world).await;
    }
    let echo = reply(400, &[], &format!(r#"{{"code":"{TOKEN}","msg":"no {TOKEN}"}}"#));
    world.faults(|faults| faults.reply = Some(echo));
    world.publish_ids(["bad"]).await;
    world.publish(["garbage"]).await;
    let letters = world.dead_letters(2).await;
    said.extend(letters.iter().map(|letter| format!("{letter:?}")));
    for letter in &letters {
        said.extend(names(letter).iter().map(|name| format!("{name}: {}", header(letter, name))));
    }
    assert!(said.iter().any(|text| text.contains("with code ***")), "the dead letter says what was answered");

    // The token is replaced by one that is refused, and the password by another.
    files.put("token", &format!("{SECRET}-2"));
    worker.process.stderr.wait_for("token was replaced", PATIENCE).await;
    world.publish_ids(["VI9"]).await;
    worker.endpoint_is(EndpointState::Blocked).await;
    management.set_user(&user, "changed", "").await.expect("the broker serves");
    wait_for("the broker lets it in no more", PATIENCE, async || {
        for connection in management.connections(&world.vhost.name).await.unwrap_or_default() {
            // It may be gone by now.
            let _ = management.close_connection(&connection.name).await;
        }
        worker.process.stderr.all().iter().any(|line| line.contains("refuses user"))
    })
    .await;
    said.extend(pages(&worker).await);
    worker.process.signal("TERM").await;
    worker.process.exit(PATIENCE).await;
    management.delete_user(&user).await.expect("the broker serves");
    let log = worker.process.stderr.all();
    for library in ["lapin", "hyper_util"] {
        assert!(
            log.iter().any(|line| line.contains(&format!("\"target\":\"{library}"))),
            "{library} is heard"
        );
    }
    assert_hidden(said.iter().chain(&log).chain(&worker.process.stdout.all()));
}

#[tokio::test]
async fn bad_credentials_and_bad_configuration_are_told_of_without_them() {
    let world = World::new().await;
    let files = Files::new("bad-secrets");
    let refused = world.vhost.url_as("guest", SECRET);
    let toml = |text: &str, name: &str| files.put(name, text);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n");
    let environments: [&[(&str, &str)]; 18] = [
        &[("DELETION_WORKER__AMQP__URLS", &refused)],
        &[("DELETION_WORKER__AMQP__URLS_FILE", &files.put("refused", &refused))],
        &[("DELETION_WORKER__AMQP__URLS", "amqp://guest:S3CRET@/")],
        &[("DELETION_WORKER__AMQP__URLS", "amqp://guest:a/S3CRET@127.0.0.1/")],
        &[("DELETION_WORKER__AMQP__URLS", "guest:S3CRET@127.0.0.1")],
        &[("DELETION_WORKER__AMQP__URLS", "amqp://guest:S3CRET@127.0.0.1:99999/?key=S3CRET")],
        &[("DELETION_WORKER__AMQP__URLS_FILE", "amqp://guest:S3CRET@127.0.0.1/")],
        &[("DELETION_WORKER__AMQP__URLS_FILE", &files.put("urls", "S3CRET\namqp://guest:S3CRET@127.0.0.1/"))],
        &[("DELETION_WORKER__ENDPOINT__TOKEN", "S3CRET\nS3CRET")],
        &[("DELETION_WORKER__ENDPOINT__TOKEN", "S3CRET"), ("DELETION_WORKER__ENDPOINT__TOKN", "S3CRET")],
        &[("DELETION_WORKER__ENDPOINT__TOKEN_FILE", &files.put("token", "S3CRET\nS3CRET\u{1}"))],
        &[("DELETION_WORKER__ENDPOINT__URL", "https://user:S3CRET@127.0.0.1/")],
        &[("DELETION_WORKER__ENDPOINT__URL", "https://127.0.0.1/?token=S3CRET")],
        &[("DELETION_WORKER__AMQP__TLS__KEY_FILE", &files.put("key", &pem))],
        &[(
            "DELETION_WORKER__AMQP__TLS__CA_FILE",
            &files.put("ca", &pem.replace("PRIVATE KEY", "CERTIFICATE")),
        )],
        &[("DELETION_WORKER_CONFIG", &toml("endpoint.token = S3CRET", "unquoted"))],
        &[(
            "DELETION_WORKER_CONFIG",
            &toml("[endpoint]\ntokn = 'S3CRET'\nurl = 'x://u:S3CRET@x'", "unknown"),
        )],
        &[(
            "DELETION_WORKER_CONFIG",
            &toml("[amqp]\nurls = 'amqp://u:S3CRET@h'\n[log]\nlevel = 'x y'", "list"),
        )],
    ];
    let commands: [&[&str]; 4] =
        [&["run"], &["check-config"], &["publish", "VI1"], &["healthcheck", "--ready"]];
    let mut failures = 0;
    for environment in environments {
        for command in commands {
            // Whoever gets as far as connecting is refused; nobody waits.
            let mut all = vec![
                ("DELETION_WORKER__LOG__LEVEL", TALKATIVE),
                (
                    "DELETION_WORKER__ADMIN__LISTEN",
                    if command[0] == "run" { "127.0.0.1:0" } else { "127.0.0.1:1" },
                ),
                ("DELETION_WORKER__AMQP__URLS", refused.as_str()),
                ("DELETION_WORKER__ENDPOINT__TOKEN", TOKEN),
            ];
            all.retain(|(name, _)| environment.iter().all(|(other, _)| !other.starts_with(name)));
            all.extend(environment);
            let mut process = Process::start(command, &all);
            let status = process.exit(PATIENCE).await;
            let said = [process.stderr.all(), process.stdout.all()].concat();
            assert!(!said.is_empty(), "{command:?} {environment:?}");
            failures += usize::from(!status.success());
            assert_hidden(&said);
        }
    }
    assert!(failures > 50, "{failures} of them fail");
}

#[tokio::test]
async fn arguments_in_the_wrong_place_are_not_repeated() {
    let rows: [&[&str]; 9] = [
        &["run", "endpoint.token=S3CRET"],
        &["run", "--set", "endpoint.token", "S3CRET"],
        &["run", "--set", "endpoint.token S3CRET"],
        &["run", "--endpoint.token=S3CRET"],
        &["run", "--token", "S3CRET"],
        &["run", "--sett=endpoint.token=S3CRET"],
        &["check-config", "S3CRET"],
        &["healthcheck", "--url", "http://user:S3CRET@127.0.0.1:1"],
        &["healthcheck", "--url", "https://user:S3CRET@127.0.0.1:1"],
    ];
    for arguments in rows {
        let mut process = Process::start(arguments, &[]);
        assert!(!process.exit(PATIENCE).await.success(), "{arguments:?}");
        let said = [process.stderr.all(), process.stdout.all()].concat();
        assert!(!said.is_empty());
        assert_hidden(&said);
    }
}

#[tokio::test]
async fn a_proxy_s_password_is_as_secret() {
    let world = World::new().await;
    world.prepare().await;
    world.publish_ids(["VI1"]).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let proxy = format!("http://user:{SECRET}@{address}");
    let environment = [
        ("HTTP_PROXY", proxy.as_str()),
        ("http_proxy", &proxy),
        ("NO_PROXY", ""),
        ("no_proxy", ""),
        ("DELETION_WORKER__LOG__LEVEL", TALKATIVE),
        ("DELETION_WORKER__ADMIN__LISTEN", "127.0.0.1:0"),
        ("DELETION_WORKER__AMQP__URLS", &world.vhost.url),
        ("DELETION_WORKER__ENDPOINT__TOKEN", TOKEN),
        ("DELETION_WORKER__ENDPOINT__URL", "http://127.0.0.1:1/"),
    ];
    let mut process = Process::start(&["run"], &environment);
    let failure = process.stderr.wait_for("a call did not delete", PATIENCE).await;
    process.signal("TERM").await;
    assert!(process.exit(PATIENCE).await.success());
    // base64 of `user:S3CRET`
    let log = process.stderr.all();
    assert!(!log.iter().any(|line| line.contains("dXNlcjpTM0NSRVQ")), "{failure}");
    assert_hidden(&log);
}

#[tokio::test]
async fn the_mock_keeps_the_token_it_wants_to_itself() {
    let mut mock =
        Process::start(&["mock-endpoint", "--listen", "127.0.0.1:0"], &[("MOCK_ENDPOINT_TOKEN", SECRET)]);
    wait_for("its address", PATIENCE, async || !mock.stdout.all().is_empty()).await;
    let line = mock.stdout.all().concat();
    let start = line.find("http://").expect("a URL");
    let url: String = line[start..].chars().take_while(|char| !char.is_whitespace()).collect();
    let url = url::Url::parse(&url).expect("a URL");
    let mut said = Vec::new();
    for path in ["/api/serve/video/delete", "/_mock/faults", "/_mock/stats", "/_mock/calls", "/nothing"] {
        said.push(http::get(url.join(path).expect("a path").as_str()).await.expect("it runs").1);
    }
    mock.signal("TERM").await;
    mock.exit(PATIENCE).await;
    assert_hidden(said.iter().chain(&mock.stdout.all()).chain(&mock.stderr.all()));
}
