//! Secrets that are planted everywhere must come out nowhere.

use proptest::prelude::*;

use super::super::Need;
use super::{Dir, Input};
use crate::command::check_config;

const SECRET: &str = "S3CRET";

/// Everything a load says to anybody, and how `check-config` ends.
fn said(input: Input<'_>, need: Need) -> (String, u8) {
    let loaded = input.load(need);
    let debug = format!("{loaded:?}");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check_config::run(loaded, &mut out, &mut err).expect("memory can be written to");
    let text = [out, err].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    (text + &debug, code)
}

#[test]
fn good_secrets_are_printed_masked() {
    let toml =
        "[amqp]\nurls = ['amqp://user:S3CRET@h/v', 'amqps://:S3CRET@h/v']\n[endpoint]\ntoken = 'S3CRET'\n";
    let (text, code) = said(Input::toml(toml), Need::Worker);
    assert_eq!(code, 0);
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains(r#"urls = ["amqp://user:***@h/v", "amqps://:***@h/v"] # "#), "{text}");
    assert!(text.contains("token = \"***\" # "), "{text}");
}

#[test]
fn bad_secrets_are_not_shown_either() {
    let dir = Dir::new();
    let token = format!("endpoint.token_file={}", dir.put("token", "S3CRET\nS3CRET"));
    let urls = format!("amqp.urls_file={}", dir.put("urls", "amqp://u:S3CRET@h/\nS3CRET"));
    let inputs = [
        Input::default().set("endpoint.token=S3CRET\n"),
        Input::default().set("endpoint.token=S3CRETä"),
        Input::default().set("endpoint.tokens=S3CRET"),
        Input::default().set("endpoint.token S3CRET"),
        Input::default().set("endpoint.token:S3CRET"),
        Input::default().set(&token),
        Input::default().set(&urls),
        Input::default().set("endpoint.token=S3CRET").set("endpoint.token_file=/nowhere"),
        Input::default().env("DELETION_WORKER__ENDPOINT__TOKN", "S3CRET"),
        Input::default().env("DELETION_WORKER__ENDPOINT__TOKEN", " S3CRET"),
        Input::default().env("DELETION_WORKER__AMQP__URLS", "amqp://u:1,S3CRET@h"),
        Input::default().env("DELETION_WORKER__AMQP__URLS", "amqp://u:1?S3CRET@h"),
        Input::default().env("DELETION_WORKER__AMQP__URLS", "amqp://u:1#S3CRET@h"),
        Input::default().env("DELETION_WORKER__AMQP__URLS", "amqp://u:1/S3CRET@h"),
        Input::default().env("DELETION_WORKER__AMQP__URLS", "u:S3CRET@h"),
        Input::default().env("DELETION_WORKER__AMQP__URLS_FILE", "amqp://u:S3CRET@h"),
        Input::default().env("DELETION_WORKER__ENDPOINT__URL", "https://u:S3CRET@h/"),
        Input::default().env("DELETION_WORKER__ENDPOINT__URL", "https://h/?token=S3CRET"),
        Input::default().env("DELETION_WORKER__ENDPOINT__URL", "https://u:p\\S3CRET@h/"),
        Input::toml("endpoint.token = S3CRET"),
        Input::toml("endpoint.token = 'S3CRET"),
        Input::toml("endpoint.token = ['S3CRET']"),
        Input::toml("endpoint.token = { value = 'S3CRET' }"),
        Input::toml("endpoint.tokens = 'S3CRET'"),
        Input::toml("endpoint = 'S3CRET'"),
        Input::toml("amqp.urls = 'amqp://u:S3CRET@h'"),
        Input::toml("amqp.urls = ['amqp://u:S3CRET@h', 5]"),
        Input::toml("amqp.urls = [['amqp://u:S3CRET@h']]"),
        Input::toml("amqp.urls = ['amqp://u:S3CRET@h/a', 'amqp://u:S3CRET@h/b']"),
        Input::toml("[endpoint]\ntoken = 'S3CRET'\ntoken = 'S3CRET'"),
    ];
    for (index, input) in inputs.into_iter().enumerate() {
        let (text, code) = said(input, Need::Worker);
        assert_eq!(code, 2, "input {index}");
        assert!(!text.contains(SECRET), "input {index}: {text}");
    }
}

proptest! {
    /// Whatever a password is made of, and wherever its URL is broken.
    #[test]
    fn passwords_are_masked_in_any_url(
        scheme in "amqps?|https?|x|",
        before in "[ -~]{0,4}",
        after in "[ -~ä\n]{0,4}",
        rest in "[ -~]{0,6}",
    ) {
        let url = format!("{scheme}://u:{before}{SECRET}{after}@h{rest}");
        // TOML knows where an item ends; the environment doesn't.
        let quoted = serde_json::Value::from(url.as_str()).to_string();
        let toml = format!("amqp.urls = [{quoted}]\nendpoint.url = {quoted}\namqp.urls_file = {quoted}");
        let (text, _) = said(Input::toml(&toml), Need::Broker);
        prop_assert!(!text.contains(SECRET), "{}", text);
        let input = Input::default()
            .env("DELETION_WORKER__AMQP__URLS", &url)
            .env("DELETION_WORKER__ENDPOINT__URL", &url);
        let (text, _) = said(input, Need::Broker);
        prop_assert!(!text.contains(SECRET), "{}", text);
    }
}

#[test]
fn problems_are_one_per_line_and_begin_with_their_key() {
    let input = Input::default().set("amqp.queue=\n\n").set("retry.max=\x1b[31m").set("log.format=a\u{9b}b");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let loaded = input.load(Need::Broker);
    assert_eq!(check_config::run(loaded, &mut out, &mut err).expect("memory"), 2);
    assert!(out.is_empty());
    let text = String::from_utf8(err).expect("UTF-8");
    let keys: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(keys, ["amqp.queue", "retry.max", "log.format"]);
    assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
}

#[test]
fn warnings_keep_out_of_the_printed_configuration() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let loaded = Input::default().set("worker.dry_run=true").set("shutdown.grace=1s").load(Need::Worker);
    assert_eq!(check_config::run(loaded, &mut out, &mut err).expect("memory"), 0);
    let (out, err) = (String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"));
    assert!(err.starts_with("warning: shutdown.grace: shorter than endpoint.timeout"), "{err}");
    assert!(toml::from_str::<toml::Table>(&out).is_ok(), "{out}");
    assert!(out.starts_with(
        "[amqp]\nurls = [\"amqp://guest:***@127.0.0.1:5672/%2f\"] # default\n# urls_file is not set\n"
    ));
    assert!(out.contains("\nprefetch = \"auto\" # default: 4500\n"), "{out}");
    assert!(out.ends_with("\n[worker]\ndry_run = true # --set\n"), "{out}");
}
