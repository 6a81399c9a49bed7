//! Every kind of problem: named by key, with what is wrong, what is allowed, and where it comes from.

use super::super::Need;
use super::{Dir, Input};

/// `--set` of the first, and the one line that comes of it.
fn assert_each(cases: &[(&str, &str)]) {
    for (set, expected) in cases {
        let input = set.split('|').fold(Input::default(), |input, set| input.set(set));
        assert_eq!(input.problems(), [*expected], "--set {set}");
    }
}

#[test]
fn values_out_of_their_key_s_range() {
    assert_each(&[
        ("retry.initial=0s", r#"retry.initial: "0s" is out of range; allowed: "1ms" to "1h" (--set)"#),
        ("retry.max=61m", r#"retry.max: "61m" is out of range; allowed: "1ms" to "1h" (--set)"#),
        ("retry.max=60", r#"retry.max: "60" has no unit; allowed: "1ms" to "1h" (--set)"#),
        ("retry.max=", r#"retry.max: "" is not a duration; allowed: "1ms" to "1h" (--set)"#),
        ("retry.max=-1s", r#"retry.max: "-1s" is not a duration; allowed: "1ms" to "1h" (--set)"#),
        (
            "batch.linger=1ns",
            r#"batch.linger: "1ns" is not a multiple of 1ms; allowed: "0s" to "1h" (--set)"#,
        ),
        (
            "amqp.heartbeat=1500ms",
            r#"amqp.heartbeat: "1500ms" is not a multiple of 1s; allowed: "1s" to "1h" (--set)"#,
        ),
        (
            "amqp.delivery_limit=-1",
            "amqp.delivery_limit: \"-1\" is out of range (with -1, RabbitMQ 3.x drops messages at their first \
             requeue; say 1000000 for \"practically never\"); allowed: 1 to 4294967295 (--set)",
        ),
        (
            "amqp.delivery_limit=4294967296",
            "amqp.delivery_limit: \"4294967296\" is out of range; allowed: 1 to 4294967295 (--set)",
        ),
        (
            "amqp.prefetch=0",
            "amqp.prefetch: \"0\" is out of range (to AMQP, 0 means no limit); allowed: \"auto\", or 1 to 65535 \
             (--set)",
        ),
        (
            "amqp.prefetch=65536",
            r#"amqp.prefetch: "65536" is out of range; allowed: "auto", or 1 to 65535 (--set)"#,
        ),
        (
            "amqp.prefetch=many",
            r#"amqp.prefetch: "many" is not a whole number; allowed: "auto", or 1 to 65535 (--set)"#,
        ),
        ("retry.max_strikes=0", r#"retry.max_strikes: "0" is out of range; allowed: 1 to 1000 (--set)"#),
        (
            "retry.max_strikes=1e3",
            r#"retry.max_strikes: "1e3" is not a whole number; allowed: 1 to 1000 (--set)"#,
        ),
        ("retry.multiplier=0.9", r#"retry.multiplier: "0.9" is out of range; allowed: 1 to 10 (--set)"#),
        ("retry.multiplier=NaN", r#"retry.multiplier: "NaN" is out of range; allowed: 1 to 10 (--set)"#),
        ("retry.multiplier=two", r#"retry.multiplier: "two" is not a number; allowed: 1 to 10 (--set)"#),
        (
            "endpoint.requests_per_second=inf",
            r#"endpoint.requests_per_second: "inf" is out of range; allowed: 0, or 0.001 to 100000 (--set)"#,
        ),
        (
            "endpoint.requests_per_second=-1",
            r#"endpoint.requests_per_second: "-1" is out of range; allowed: 0, or 0.001 to 100000 (--set)"#,
        ),
        (
            "health.failure_threshold=0",
            r#"health.failure_threshold: "0" is out of range; allowed: 1 to 1000000 (--set)"#,
        ),
        (
            "worker.dry_run=yes",
            r#"worker.dry_run: "yes" is neither true nor false; allowed: true, false (--set)"#,
        ),
        ("endpoint.api=v2", r#"endpoint.api: "v2" is unknown; allowed: "v1.0", "v1.2" (--set)"#),
        (
            "amqp.declare=Create",
            r#"amqp.declare: "Create" is unknown; allowed: "create", "verify", "skip" (--set)"#,
        ),
        ("amqp.queue=", r#"amqp.queue: "" is empty; allowed: 1 to 255 bytes (--set)"#),
        (
            "amqp.queue=a\nb",
            r#"amqp.queue: "a\u000Ab" has a control character; allowed: 1 to 255 bytes (--set)"#,
        ),
        (
            "admin.listen=localhost:9090",
            "admin.listen: \"localhost:9090\" is not an IP address and a port; allowed: like \"127.0.0.1:9090\" \
             or \"[::]:9090\" (--set)",
        ),
        (
            "endpoint.success_codes=",
            "endpoint.success_codes: \"\" is not a code; allowed: one or more of: 1 to 32 visible ASCII \
             characters, no code documented as a failure (--set)",
        ),
        (
            "endpoint.success_codes=0000,0429",
            "endpoint.success_codes: \"0000,0429\" (item 2) is not a success: 0429 is documented as a failure; \
             allowed: one or more of: 1 to 32 visible ASCII characters, no code documented as a failure (--set)",
        ),
        (
            "endpoint.namespace=a b|endpoint.api=v1.2",
            "endpoint.namespace: \"a b\" has white space at character 1; allowed: 1 to 128 characters, no white \
             space (--set)",
        ),
        ("amqp.tls.ca_file=", r#"amqp.tls.ca_file: "" is empty; allowed: a readable file (--set)"#),
    ]);
    let long = format!("amqp.queue={}", "ä".repeat(128));
    let problems = Input::default().set(&long).problems();
    let shown =
        format!("amqp.queue: \"{}...\" has 256 bytes; allowed: 1 to 255 bytes (--set)", "ä".repeat(100));
    assert_eq!(problems, [shown]);
}

#[test]
fn misspelt_log_levels_are_not_taken_for_targets() {
    for level in ["inof", "", "info,lapin", "info,", "lapin=loud", "5x"] {
        let problems = Input::default().env("DELETION_WORKER__LOG__LEVEL", level).problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&format!("log.level: \"{level}\" has a")), "{}", problems[0]);
        assert!(problems[0].ends_with("(DELETION_WORKER__LOG__LEVEL)"));
    }
}

#[test]
fn durations_that_overflow_are_out_of_range() {
    for text in ["18446744073709551615s1000ms", "99999999999999999999y", "9999999999s", "584542046090y"] {
        let problems = Input::default().set(&format!("retry.max={text}")).problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("is out of range"), "{}", problems[0]);
    }
}

#[test]
fn broker_urls() {
    let allowed =
        "allowed: one or more of: \"amqp[s]://user:password@host:port/vhost\", percent-encoded (--set)";
    let percent = "is the password percent-encoded?";
    let cases = [
        ("http://h/", "\"http://h/\" is neither amqp:// nor amqps://".to_owned()),
        ("", format!("\"***\" is not a URL ({percent})")),
        ("h:5672", "\"***\" is neither amqp:// nor amqps://".to_owned()),
        ("amqp://u:p@/v", format!("\"***\" is not a URL ({percent})")),
        ("amqp:///v", "\"***\" has no host".to_owned()),
        (
            "amqp://u:p@[::1]:5672/v",
            "\"amqp://u:***@[::1]:5672/v\" has an IPv6 address, which isn't supported here: use a host name"
                .to_owned(),
        ),
        ("amqp://%a0", "\"amqp://%a0\" has a % in its host".to_owned()),
        ("amqp://h:0", "\"amqp://h:0\" has port 0".to_owned()),
        ("amqp://h/%ff", "\"amqp://h/%ff\" has a vhost that isn't UTF-8".to_owned()),
        ("amqp://u:%ff@h", "\"amqp://u:***@h\" has a user or password that isn't UTF-8".to_owned()),
        ("amqp://u:1/2@h", format!("\"***\" has an @ after the host ({percent})")),
        (
            "amqp://h?heartbeat=3",
            format!(
                "\"amqp://h?***\" has a query or a fragment (use amqp.heartbeat and amqp.tls.*; {percent})"
            ),
        ),
        ("amqp://a,amqp://h:0", "\"amqp://a,amqp://h:0\" (item 2) has port 0".to_owned()),
    ];
    for (url, expected) in cases {
        let problems = Input::default().set(&format!("amqp.urls={url}")).problems();
        assert_eq!(problems, [format!("amqp.urls: {expected}; {allowed}")], "{url}");
    }
    assert_eq!(
        Input::default().set("amqp.urls=amqp://a,amqp://b/x").problems(),
        ["amqp.urls: the URLs differ in their vhost (amqp.urls is [\"amqp://a\", \"amqp://b/x\"], --set)"]
    );
    for same in ["amqp://a,amqp://b/%2f,amqp://c/%2F,amqp://d/", "amqp://a/x,amqps://b/%78"] {
        assert!(Input::default().set(&format!("amqp.urls={same}")).load_broker().is_ok(), "{same}");
    }
}

#[test]
fn endpoint_urls() {
    let allowed = "allowed: http:// or https://, host, port, path (--set)";
    let cases = [
        ("h/p", "\"***\" is not a URL"),
        ("ftp://h/", "\"ftp://h/\" is neither http:// nor https://"),
        ("https://u:p@h/", "\"https://u:***@h/\" has a user or password in it (the token is endpoint.token)"),
        ("https://u@h/", "\"https://u@h/\" has a user or password in it (the token is endpoint.token)"),
        ("https://h/?t=x", "\"https://h/?***\" has a query (the namespace is endpoint.namespace)"),
        ("https://h/?", "\"https://h/?***\" has a query (the namespace is endpoint.namespace)"),
        ("https://h/#x", "\"https://h/#***\" has a fragment"),
    ];
    for (url, expected) in cases {
        let problems = Input::default().set(&format!("endpoint.url={url}")).problems();
        assert_eq!(problems, [format!("endpoint.url: {expected}; {allowed}")], "{url}");
    }
}

#[test]
fn limits_that_contradict_each_other() {
    assert_each(&[
        (
            "retry.initial=2m",
            r#"retry.initial: longer than retry.max (retry.initial is "2m", --set; retry.max is "1m", default)"#,
        ),
        (
            "health.probe_max=1ms",
            "health.probe_initial: longer than health.probe_max (health.probe_initial is \"1s\", default; \
             health.probe_max is \"1ms\", --set)",
        ),
        (
            "endpoint.connect_timeout=31s",
            "endpoint.connect_timeout: longer than endpoint.timeout (endpoint.connect_timeout is \"31s\", --set; \
             endpoint.timeout is \"30s\", default)",
        ),
        (
            "batch.max_ids=101|endpoint.api=v1.2",
            "batch.max_ids: the API takes at most 100 IDs a call (batch.max_ids is 101, --set; endpoint.api is \
             \"v1.2\", --set)",
        ),
        ("batch.max_ids=501", r#"batch.max_ids: "501" is out of range; allowed: 1 to 500 (--set)"#),
        (
            "amqp.prefetch=499",
            "amqp.prefetch: too small for one full batch (amqp.prefetch is 499, --set; batch.max_ids is 500, \
             default)",
        ),
        (
            "dead_letter.queue=deletions",
            "dead_letter.queue: dead letters would be consumed again (dead_letter.queue is \"deletions\", --set; \
             amqp.queue is \"deletions\", default)",
        ),
        (
            "amqp.exchange=deletions.dlx",
            "dead_letter.exchange: dead letters need an exchange of their own (dead_letter.exchange is \
             \"deletions.dlx\", default; amqp.exchange is \"deletions.dlx\", --set)",
        ),
        (
            "endpoint.namespace=a",
            "endpoint.namespace: v1.0 has no namespaces: videos of any would be deleted (endpoint.namespace is \
             \"a\", --set; endpoint.api is \"v1.0\", default)",
        ),
        (
            "endpoint.token=t0p|endpoint.token_file=/x",
            "endpoint.token: both endpoint.token and endpoint.token_file are set (endpoint.token is \"***\", \
             --set; endpoint.token_file is \"/x\", --set)",
        ),
    ]);
    let twice = Input::default().set("amqp.urls=amqp://u:t0p@h").set("amqp.urls_file=/x").problems();
    let expected = "amqp.urls: both amqp.urls and amqp.urls_file are set (amqp.urls is [\"amqp://u:***@h\"], --set; \
                    amqp.urls_file is \"/x\", --set)";
    assert_eq!(twice[0], expected);
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let dir = Dir::new();
    let certified = rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a certificate");
    let cert = dir.put("cert", certified.cert.pem());
    let key = dir.put("key", certified.signing_key.serialize_pem());
    let empty = dir.put("empty", "");
    let binary = dir.put("binary", [0xff, 0xfe]);
    let big = dir.put("big", vec![b' '; (1 << 20) + 1]);
    let urls = dir.put("urls", "amqp://u:p@h/x\namqp://u:p@h:0");
    let vhosts = dir.put("vhosts", "amqp://u:p@h/x\namqp://u:p@h/y");
    let missing = "/nowhere/at/all".to_owned();
    let missing_fault = "can't be read: No such file or directory (os error 2)";
    let token_fault = "begins or ends with white space";
    let cases = [
        ("endpoint.token_file", &missing, missing_fault),
        ("endpoint.token_file", &empty, "is empty"),
        ("endpoint.token_file", &binary, "can't be read: is not UTF-8"),
        ("endpoint.token_file", &big, "can't be read: has more than 1048576 bytes"),
        ("endpoint.token_file", &cert, "has a character that is not visible ASCII"),
        ("amqp.urls_file", &missing, missing_fault),
        ("amqp.urls_file", &empty, "holds no URL"),
        ("amqp.urls_file", &urls, "(URL 2) has port 0"),
        ("amqp.tls.ca_file", &missing, missing_fault),
        ("amqp.tls.ca_file", &key, "holds no PEM certificate"),
        ("amqp.tls.cert_file", &key, "holds no PEM certificate"),
        ("amqp.tls.key_file", &cert, "holds no PKCS#8 private key (BEGIN PRIVATE KEY)"),
        ("amqp.tls.key_file", &missing, missing_fault),
    ];
    for (name, path, fault) in cases {
        let mut input = Input::default().set(&format!("{name}={path}"));
        if name != "endpoint.token_file" {
            input = input.set("worker.dry_run=true");
        }
        match name {
            "amqp.tls.cert_file" => input = input.set(&format!("amqp.tls.key_file={key}")),
            "amqp.tls.key_file" => input = input.set(&format!("amqp.tls.cert_file={cert}")),
            _ => {}
        }
        let problems = input.load(Need::Worker).map(|_| ()).expect_err("a problem").to_string();
        assert_eq!(problems, format!("{name}: {fault} ({name} is \"{path}\", --set)"));
    }
    let token = Input::default().set("endpoint.token=abc\n").problems();
    assert_eq!(token, [format!("endpoint.token: \"***\" {token_fault}; allowed: visible ASCII (--set)")]);
    let vhosts = Input::default().set(&format!("amqp.urls_file={vhosts}")).problems();
    assert!(vhosts[0].starts_with("amqp.urls_file: the URLs differ in their vhost"), "{vhosts:?}");
    for (one, other) in [("cert", &cert), ("key", &key)] {
        let problems = Input::default().set(&format!("amqp.tls.{one}_file={other}")).problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&format!("amqp.tls.{one}_file: a client")), "{problems:?}");
    }
}

#[test]
fn types_of_toml() {
    let cases = [
        ("amqp.queue = 5", r#"amqp.queue: 5 is an integer, not a string; allowed: 1 to 255 bytes (FILE:1)"#),
        ("amqp.queue = []", r#"amqp.queue: [] is an array, not a string; allowed: 1 to 255 bytes (FILE:1)"#),
        ("[amqp.queue]", "amqp.queue: the value is a table, not a string; allowed: 1 to 255 bytes (FILE:1)"),
        (
            "amqp.delivery_limit = \"5\"",
            "amqp.delivery_limit: \"5\" is a string, not an integer; allowed: 1 to 4294967295 (FILE:1)",
        ),
        (
            "retry.max_strikes = 2.0",
            "retry.max_strikes: 2.0 is a float, not an integer; allowed: 1 to 1000 (FILE:1)",
        ),
        (
            "worker.dry_run = \"true\"",
            "worker.dry_run: \"true\" is a string, not a boolean; allowed: true, false (FILE:1)",
        ),
        ("retry.max = 60", "retry.max: 60 is an integer, not a string; allowed: \"1ms\" to \"1h\" (FILE:1)"),
        (
            "amqp.prefetch = \"500\"",
            "amqp.prefetch: \"500\" is a string, not an integer; allowed: \"auto\", or 1 to 65535 (FILE:1)",
        ),
        (
            "endpoint.success_codes = [200]",
            "endpoint.success_codes: [\"200\"] is an integer, not a string; allowed: one or more of: 1 to 32 \
             visible ASCII characters, no code documented as a failure (FILE:1)",
        ),
        (
            "endpoint.success_codes = []",
            "endpoint.success_codes: [] is empty; allowed: one or more of: 1 to 32 visible ASCII characters, no \
             code documented as a failure (FILE:1)",
        ),
        (
            "endpoint.success_codes = \"0000\"",
            "endpoint.success_codes: \"0000\" is a string, not an array; allowed: one or more of: 1 to 32 visible \
             ASCII characters, no code documented as a failure (FILE:1)",
        ),
    ];
    for (toml, expected) in cases {
        assert_eq!(Input::toml(toml).problems(), [expected], "{toml}");
    }
}

#[test]
fn unknown_keys_name_their_nearest() {
    let toml = "[amqp]\nquue = 1\n\n[amqpp]\nqueue = 'x'\n\n[retry.deep]\nx = 1\n\"odd\\nkey\" = 1\n";
    let problems = Input::toml(toml)
        .env("DELETION_WORKER__AMQP__HEARTBEET", "1s")
        .env("DELETION_WORKER__AMQP_QUEUE", "1s")
        .env("DELETION_WORKER__amqp__queue", "1s")
        .set("batch.lingers=1s")
        .set("no equals sign t0p")
        .set("log=1")
        .problems();
    let expected = [
        "amqp.quue: unknown key; the nearest is amqp.queue (FILE:2)",
        "amqpp: unknown key; the nearest is amqp.urls (FILE:4)",
        "retry.deep: unknown key; the nearest is retry.max (FILE:7)",
        "amqp_queue: unknown key; the nearest is DELETION_WORKER__AMQP__QUEUE (DELETION_WORKER__AMQP_QUEUE)",
        "amqp.heartbeet: unknown key; the nearest is DELETION_WORKER__AMQP__HEARTBEAT (DELETION_WORKER__AMQP__HEARTBEET)",
        "amqp.queue: unknown key; the nearest is DELETION_WORKER__AMQP__QUEUE (DELETION_WORKER__amqp__queue)",
        "batch.lingers: unknown key; the nearest is batch.linger (--set)",
        "--set: number 2 is not KEY=VALUE",
        "log: unknown key; the nearest is log.level (--set)",
    ];
    assert_eq!(problems, expected);
    let odd = Input::toml("\"odd\\n\\u202ekey\" = 1").problems();
    assert_eq!(odd.len(), 1, "one line: {odd:?}");
    assert!(odd[0].starts_with("\"odd\\u000A\\u202Ekey\": unknown key;"), "{odd:?}");
    let section = Input::toml("\n[[amqp]]\nqueue = 'a'").problems();
    assert_eq!(section, ["amqp: is a section, not a key (FILE:2)"]);
}

#[test]
fn syntax_errors_name_their_line_and_cause_no_others() {
    let toml = "[retry]\ninitial = 2m\nmax = \"1s\"\nmax = \"2s\"\n";
    let problems =
        Input::toml(toml).set("log.format=xml").load(Need::Worker).map(|_| ()).expect_err("problems");
    let lines: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
    assert!(lines[0].starts_with("--config: FILE:2: not TOML: "), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("--config: FILE:4: not TOML: duplicate key")),
        "{lines:?}"
    );
    let last = r#"log.format: "xml" is unknown; allowed: "auto", "text", "json" (--set)"#;
    assert_eq!(lines.last().map(String::as_str), Some(last));
    assert!(lines.iter().all(|line| !line.contains("token")), "{lines:?}");
}

#[test]
fn files_that_cannot_be_read() {
    let dir = Dir::new();
    let cases = [
        ("/nowhere/x.toml".to_owned(), "No such file or directory (os error 2)"),
        (dir.0.to_str().expect("UTF-8").to_owned(), "Is a directory (os error 21)"),
        (dir.put("x", [0xff]), "is not UTF-8"),
    ];
    for (path, fault) in cases {
        let loaded = super::Config::load(Some(path.as_ref()), [], &[], Need::Worker);
        let problems = loaded.map(|_| ()).expect_err("a problem");
        assert_eq!(problems.to_string(), format!("--config: {path}: can't be read: {fault}"));
    }
}

#[test]
fn all_problems_come_at_once() {
    let problems = Input::toml("[retry]\ninitial = '5m'\nmax_strikes = 0\n[nonsense]\n")
        .env("DELETION_WORKER__AMQP__URLS", "amqp://u:p@h:0")
        .env("DELETION_WORKER__NONSENSE", "1")
        .set("endpoint.max_concurrency=0")
        .set("dead_letter.queue=deletions")
        .load(Need::Worker)
        .map(|_| ())
        .expect_err("problems");
    let keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "nonsense",
        "nonsense",
        "amqp.urls",
        "endpoint.max_concurrency",
        "retry.max_strikes",
        "dead_letter.queue",
        "retry.initial",
        "endpoint.token",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn what_is_refused_is_not_blamed_twice() {
    // With the default in its place, prefetch would be too small and the token missing.
    let problems = Input::default()
        .set("amqp.prefetch=10")
        .set("batch.max_ids=x")
        .set("endpoint.token=\n")
        .load(Need::Worker)
        .map(|_| ())
        .expect_err("problems");
    let keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["batch.max_ids", "endpoint.token"]);
}

#[test]
fn doubts_are_notes() {
    let loaded = Input::default()
        .set("endpoint.url=http://example.com/delete")
        .set("endpoint.token=Bearer abc")
        .set("health.release_after=21m")
        .set("shutdown.grace=29s")
        .load(Need::Worker)
        .expect("no problem");
    let notes: Vec<_> = loaded.notes.iter().map(ToString::to_string).collect();
    let expected = [
        "shutdown.grace: shorter than endpoint.timeout: a call may be cut off at shutdown, and made again \
         (shutdown.grace is \"29s\", --set; endpoint.timeout is \"30s\", default)",
        "health.release_after: RabbitMQ may take the messages back before that (its consumer_timeout, 30 min by \
         default) (health.release_after is \"21m\", --set)",
        "endpoint.url: the token travels unencrypted (endpoint.url is \"http://example.com/delete\", --set)",
        "endpoint.token: begins with \"Bearer\"; the documented API takes the bare token (endpoint.token is \
         \"***\", --set)",
    ];
    assert_eq!(notes, expected);
    let defaults = Input::default().set("shutdown.grace=25s").set("endpoint.timeout=0m 30s").load_broker();
    assert!(defaults.expect("no problem").notes.is_empty(), "the defaults, given");
    for private in ["http://localhost:1/", "http://127.8.8.8/", "http://[::1]/", "https://example.com/"] {
        let loaded =
            Input::default().set(&format!("endpoint.url={private}")).load_broker().expect("no problem");
        assert!(loaded.notes.is_empty(), "{private}");
    }
}
