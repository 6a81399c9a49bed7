//! Ways to a broker.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use deletion_worker::rabbitmq::{Rabbitmq, Sources};

use crate::support::{PATIENCE, amqp, broker, wait_for, wait_for_some};

/// No broker named, and a Docker client that doesn't exist.
fn nothing() -> Sources {
    Sources { amqp_url: None, management_url: None, docker: "/nonexistent/docker".into() }
}

/// What was said.
#[derive(Default)]
struct Sentences(Mutex<Vec<String>>);

impl Sentences {
    fn say(&self, sentence: &str) {
        self.0.lock().expect("nobody panics holding it").push(sentence.to_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics holding it").clone()
    }
}

#[tokio::test]
async fn a_given_broker_is_used_and_its_password_stays_secret() {
    let vhost = broker::vhost().await;
    let api = vhost.management.base().to_string();
    let sources = Sources { amqp_url: Some(vhost.url.clone()), management_url: Some(api), ..nothing() };
    let said = Sentences::default();
    let given = Rabbitmq::provide_from(&sources, |sentence| said.say(sentence)).await.expect("a broker");
    assert!(matches!(given, Rabbitmq::Given { .. }));
    assert_eq!(given.amqp_url(&vhost.name), vhost.url);
    given.management().expect("given").queue(&vhost.name, "none").await.expect_err("no such queue");
    let said = said.all();
    assert_eq!(said, [format!("Using the broker at {} as AMQP_URL says.", amqp::address(&given))]);
}

#[tokio::test]
async fn a_given_broker_may_have_no_management_api() {
    let sources = Sources {
        amqp_url: Some("amqp://user:hidden@127.0.0.1:5/%2f".into()),
        management_url: Some("http://127.0.0.1:9".into()),
        ..nothing()
    };
    let said = Sentences::default();
    let given =
        Rabbitmq::provide_from(&sources, |sentence| said.say(sentence)).await.expect("taken as it is");
    assert!(given.management().is_none());
    let said = said.all().join("\n");
    assert!(said.contains("doing without"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
}

#[tokio::test]
async fn a_bad_url_is_named() {
    let sources = Sources { amqp_url: Some("no url".into()), ..nothing() };
    let error = Rabbitmq::provide_from(&sources, |_| {}).await.expect_err("not a URL");
    assert!(format!("{error:#}").contains("AMQP_URL"), "{error:#}");
}

#[tokio::test]
async fn without_docker_a_private_node_is_started() {
    let said = Sentences::default();
    let broker = Rabbitmq::provide_from(&nothing(), |sentence| said.say(sentence)).await.expect("installed");
    assert!(matches!(broker, Rabbitmq::Node(_)));
    let said = said.all();
    assert!(said[0].starts_with("Not using Docker: "), "{said:?}");
    assert!(said[1].contains("private RabbitMQ node"), "{said:?}");
}

/// The Docker client is a script here, and the container the shared broker: what is tested is what we ask of
/// Docker, and when.
#[tokio::test]
async fn a_container_is_started_used_and_removed() {
    let shared = broker::shared().await;
    let api = shared.management().expect("the tests need the management plugin");
    let directory = std::env::temp_dir().join(format!("deletion-worker-docker-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a writable temporary directory");
    let docker = fake_docker(&directory, &amqp::address(shared), api.base().authority());
    let sources = Sources { docker: docker.into(), ..nothing() };
    let calls = || fs::read_to_string(directory.join("calls")).unwrap_or_default();

    let said = Sentences::default();
    let (broker, user) =
        tokio::join!(Rabbitmq::provide_from(&sources, |sentence| said.say(sentence)), async {
            let credentials = wait_for_some("the container is run", PATIENCE, async || {
                fs::read_to_string(directory.join("credentials")).ok().filter(|text| text.ends_with('\n'))
            })
            .await;
            let (user, password) = credentials.trim().split_once(' ').expect("as the script writes them");
            api.set_user(user, password, "administrator").await.expect("the shared broker serves");
            user.to_owned()
        });
    let broker = broker.expect("the fake works");
    let said = said.all();
    assert!(said[0].contains("Pulling rabbitmq:"), "{said:?}");
    assert!(said[1].contains("Starting rabbitmq:"), "{said:?}");
    broker.management().expect("a container has it").ready().await.expect("we are its administrator");
    assert_eq!(amqp::address(&broker), amqp::address(shared));
    let run = calls().lines().find(|line| line.starts_with("run ")).map(str::to_owned).expect("it was run");
    assert!(!calls().contains("\nrm "), "{}", calls());

    drop(broker);
    wait_for("the container is removed", PATIENCE, async || calls().contains("\nrm ")).await;
    let name = run.split(' ').skip_while(|word| *word != "--name").nth(1).expect("it has a name");
    assert!(calls().contains(&format!("rm --force --volumes {name}\n")), "{}", calls());
    assert!(!calls().contains("RABBITMQ_DEFAULT_PASS="), "a password on the command line: {}", calls());
    api.delete_user(&user).await.expect("we created it");
    fs::remove_dir_all(directory).expect("our own directory");
}

fn fake_docker(directory: &std::path::Path, amqp: &str, api: &str) -> PathBuf {
    let script = format!(
        r#"#!/bin/sh
cd '{}' || exit 1
echo "$@" >>calls
case $1 in
    image) exit 1 ;;
    run) echo "$RABBITMQ_DEFAULT_USER $RABBITMQ_DEFAULT_PASS" >credentials ;;
    port) if [ "$3" = 5672/tcp ]; then echo {amqp}; else echo {}; fi ;;
esac
"#,
        directory.display(),
        api.rsplit('@').next().unwrap_or(api),
    );
    let file = directory.join("docker");
    fs::write(&file, script).expect("writable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our own file");
    file
}
