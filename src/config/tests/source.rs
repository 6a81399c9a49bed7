//! Every key from every source, and which source wins.

use proptest::prelude::*;

use super::super::address::BrokerUrl;
use super::super::key::KEYS;
use super::super::source::variable;
use super::super::value::Shape as _;
use super::super::{Need, Origin, Secret, SecretSource, Urls};
use super::{Dir, Input};

/// Three values of a key, as text and as `check-config` prints them, and what it takes to be allowed at all.
struct Sample {
    values: [String; 3],
    printed: [String; 3],
    companions: Vec<String>,
}

/// Values that fit their key: as the environment takes them, and as TOML.
fn sample(name: &str, dir: &Dir) -> Sample {
    let texts = |values: [&str; 3]| (values.map(str::to_owned), values.map(|value| format!("\"{value}\"")));
    let bare = |values: [&str; 3]| (values.map(str::to_owned), values.map(str::to_owned));
    let files = |content: &str| {
        let values = ["a", "b", "c"].map(|file| dir.put(&format!("{name}.{file}"), content));
        (values.clone(), values.map(|value| format!("\"{value}\"")))
    };
    let certified = rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a certificate");
    let (cert, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut companions = Vec::new();
    let (values, printed) = match name {
        "amqp.urls" => (
            ["amqp://u:p@a", "amqps://u:p@b/v", "amqp://a,amqp://b"].map(str::to_owned),
            [r#"["amqp://u:***@a"]"#, r#"["amqps://u:***@b/v"]"#, r#"["amqp://a", "amqp://b"]"#]
                .map(str::to_owned),
        ),
        "amqp.urls_file" => files("amqp://u:p@a/v\n\namqp://b/v, amqp://c/v\n"),
        "amqp.declare" => texts(["verify", "skip", "create"]),
        "amqp.queue_type" => texts(["classic", "quorum", "classic"]),
        "amqp.delivery_limit" => bare(["1", "20", "4294967295"]),
        "amqp.single_active_consumer" | "worker.dry_run" => bare(["false", "true", "true"]),
        "amqp.prefetch" => bare(["500", "65535", "1000"]),
        "amqp.tls.ca_file" => files(&cert),
        "amqp.tls.cert_file" => {
            companions.push(format!("amqp.tls.key_file={}", dir.put("companion", &key)));
            files(&cert)
        }
        "amqp.tls.key_file" => {
            companions.push(format!("amqp.tls.cert_file={}", dir.put("companion", &cert)));
            files(&key)
        }
        "batch.max_ids" => bare(["1", "499", "500"]),
        "batch.max_ids_per_message" => bare(["1", "2", "1000000"]),
        "endpoint.api" => texts(["v1.2", "v1.0", "v1.2"]),
        "endpoint.url" => texts(["http://127.0.0.1:1/a", "https://b/", "https://c/d"]),
        "endpoint.token" => (["a", "b c", "d"].map(str::to_owned), ["\"***\""; 3].map(str::to_owned)),
        "endpoint.token_file" => files("token\n"),
        "endpoint.namespace" => {
            companions.push("endpoint.api=v1.2".to_owned());
            texts(["a", "b", "c"])
        }
        "endpoint.connect_timeout" => texts(["1ms", "1s", "30s"]),
        "endpoint.max_concurrency" => bare(["1", "2", "1024"]),
        "endpoint.requests_per_second" => bare(["0.5", "0", "100"]),
        "endpoint.success_codes" => (
            ["200", "0000", "200, 0000"].map(str::to_owned),
            [r#"["200"]"#, r#"["0000"]"#, r#"["200", "0000"]"#].map(str::to_owned),
        ),
        "retry.initial" | "health.probe_initial" => texts(["1ms", "1s", "1m"]),
        "retry.multiplier" => bare(["1", "1.5", "10"]),
        "retry.max_strikes" => bare(["1", "2", "1000"]),
        "health.failure_threshold" => bare(["1", "2", "1000000"]),
        "health.on_outage" => texts(["dead_letter", "hold", "dead_letter"]),
        "admin.listen" => texts(["0.0.0.0:1", "[::]:9090", "127.0.0.1:0"]),
        "log.level" => texts(["off", "debug", "warn,deletion_worker::engine=trace"]),
        "log.format" => texts(["json", "text", "auto"]),
        _ if name.contains("queue") || name.contains("exchange") || name.contains("routing") => {
            texts(["a", "b ä", "c"])
        }
        _ => texts(["6s", "1m 30s", "1h"]),
    };
    Sample { values, printed, companions }
}

fn toml(name: &str, printed: &str, value: &str) -> String {
    match name {
        "amqp.urls" | "endpoint.success_codes" => {
            let items: Vec<_> = value.split(',').map(|item| format!("\"{}\"", item.trim())).collect();
            format!("{name} = [{}]", items.join(","))
        }
        "endpoint.token" => format!("{name} = '{value}'"),
        _ => format!("{name} = {printed}"),
    }
}

#[test]
fn every_key_can_be_set_from_every_source_and_the_later_wins() {
    for key in KEYS {
        let (dir, name) = (Dir::new(), key.name());
        let Sample { values: [low, mid, high], printed, companions } = sample(name, &dir);
        let document = format!("\n{}", toml(name, &printed[0], &low));
        let input = |layers: usize| {
            let mut input = Input { sets: companions.clone(), ..Input::default() };
            if layers >= 1 {
                input.toml = &document;
            }
            if layers >= 2 {
                input = input.env(&variable(name), &mid);
            }
            if layers >= 3 {
                input = input.set(&format!("{name}=overridden below")).set(&format!("{name}={high}"));
            }
            input
        };
        for layers in 1..=3 {
            let loaded = input(layers).load_broker().unwrap_or_else(|problems| panic!("{problems}"));
            let line = loaded.effective.line(name).expect("every key has a line");
            assert_eq!(line.value.as_deref(), Some(printed[layers - 1].as_str()), "{name}, {layers} layers");
            match (&line.origin, layers) {
                (Origin::File(_, 2), 1) | (Origin::Flag, 3) => {}
                (Origin::Env(variable), 2) => assert!(variable.starts_with("DELETION_WORKER__")),
                (origin, _) => panic!("{name} comes from {origin}"),
            }
        }
        // Each source on its own.
        let mut alone = input(0).env(&variable(name), &mid);
        assert_eq!(printed_by(alone, name), printed[1]);
        alone = input(0).set(&format!("{name}={high}"));
        assert_eq!(printed_by(alone, name), printed[2]);
    }
}

fn printed_by(input: Input<'_>, name: &str) -> String {
    let loaded = input.load_broker().unwrap_or_else(|problems| panic!("{problems}"));
    loaded.effective.line(name).and_then(|line| line.value.clone()).expect("a value")
}

#[test]
fn what_is_printed_loads_as_the_same_configuration() {
    let toml = r#"
        endpoint = { api = "v1.2", namespace = "a\"b", token = "secret" }
        [amqp]
        queue = "tab\\ quote\" ä"
        delivery_limit = 0x10
        [retry]
        multiplier = 1.5
        max = "59m 1s 1ms"
    "#;
    let first = Input::toml(toml).load(Need::Worker).expect("sound");
    assert_eq!(first.config.amqp.delivery_limit, 16);
    let text = first.effective.to_string().replace("guest:***", "guest:guest").replace("***", "secret");
    let second =
        Input::toml(&text).load(Need::Worker).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let values = |loaded: &super::Loaded| -> Vec<_> {
        loaded.effective.0.iter().map(|line| (line.key, line.value.clone())).collect()
    };
    assert_eq!(values(&first), values(&second));
    assert_eq!(format!("{:?}", first.config), format!("{:?}", second.config));
}

proptest! {
    /// What passes here must not be read differently by the library that connects.
    #[test]
    fn broker_urls_mean_to_lapin_what_they_mean_to_us(
        user in "([a-z%]{0,3}(:[!-~]{0,3})?@)?",
        host in "[a-z0-9.%\\[\\]:-]{0,9}",
        path in "(/[ -~]{0,6}|%2[fF]){0,2}",
    ) {
        let text = format!("amqp://{user}{host}{path}");
        if let Ok(broker) = BrokerUrl.parse(&text) {
            let uri: lapin::uri::AMQPUri = broker.url.expose().parse().map_err(TestCaseError::fail)?;
            prop_assert_eq!(&uri.vhost, &broker.vhost);
            prop_assert!(!uri.vhost.is_empty());
            let url = url::Url::parse(&text).expect("it has passed");
            prop_assert_eq!(url.host_str(), Some(&*uri.authority.host));
        }
    }
}

#[test]
fn secrets_arrive_whole() {
    let dir = Dir::new();
    let token_file = dir.put("token", "\n t0ken \n");
    let urls_file = dir.put("urls", "amqp://u:p@a");
    let loaded = Input::default()
        .env("DELETION_WORKER__ENDPOINT__TOKEN", "t=0,ken")
        .set("amqp.urls=amqp://u:p%2C@a/x, amqps://u:p@b/%78")
        .load(Need::Worker)
        .expect("sound");
    let Some(SecretSource::Value(token)) = loaded.config.endpoint.token else { panic!("no token") };
    assert_eq!(token.expose(), "t=0,ken");
    let Urls::Values(urls) = loaded.config.amqp.urls else { panic!("no URLs") };
    let urls: Vec<_> = urls.iter().map(|url| url.expose()).collect();
    assert_eq!(urls, ["amqp://u:p%2C@a/x", "amqps://u:p@b/%78"]);

    let loaded = Input::default()
        .set(&format!("endpoint.token_file={token_file}"))
        .set(&format!("amqp.urls_file={urls_file}"))
        .load(Need::Worker)
        .expect("sound");
    let token = loaded.config.endpoint.token.expect("a token");
    assert_eq!(token, SecretSource::File(token_file.clone().into()));
    assert_eq!(token.read(), Ok(Secret::new("t0ken")));
    let urls = loaded.config.amqp.urls;
    assert_eq!(urls, Urls::File(urls_file.clone().into()));
    assert_eq!(urls.read(), Ok(vec![Secret::new("amqp://u:p@a")]));
    // Both are looked at again when they are used.
    dir.put("token", "other");
    dir.put("urls", "amqp://b\r\n\r\namqp://c,\r\n");
    assert_eq!(token.read(), Ok(Secret::new("other")));
    assert_eq!(urls.read(), Ok(vec![Secret::new("amqp://b"), Secret::new("amqp://c")]));
    dir.put("token", "");
    assert_eq!(token.read(), Err("is empty".to_owned()));
    assert_eq!(loaded.effective.line("amqp.urls").and_then(|line| line.value.as_deref()), None);
}

#[test]
fn a_token_is_needed_only_to_call() {
    let missing = "endpoint.token: required: set it, or endpoint.token_file (endpoint.token is not set, default; \
                   worker.dry_run is false, default)";
    let problems = Input::default().load(Need::Worker).map(|_| ()).expect_err("no token");
    assert_eq!(problems.to_string(), missing);
    assert!(Input::default().set("worker.dry_run=true").load(Need::Worker).is_ok());
    assert!(Input::default().set("endpoint.token_file=/nowhere").load_broker().is_ok());
    assert!(Input::default().set("endpoint.token_file=/nowhere").load(Need::Worker).is_err());
}

#[test]
fn variables_of_others_are_ignored_but_not_lookalikes() {
    let loaded = Input::default()
        .env("DELETION_WORKER_SERVICE_HOST", "10.0.0.1")
        .env("DELETION_WORKER_PORT_9090_TCP", "tcp://10.0.0.1:9090")
        .env("DELETION_WORKER_AMQP_QUEUE", "other")
        .load_broker()
        .expect("sound");
    assert_eq!(loaded.config.amqp.queue, "deletions");
    let notes: Vec<_> = loaded.notes.iter().map(ToString::to_string).collect();
    let expected =
        "amqp.queue: DELETION_WORKER_AMQP_QUEUE is not read: DELETION_WORKER__AMQP__QUEUE would be";
    assert_eq!(notes, [expected]);
}
