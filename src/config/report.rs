//! Configuration for people: the effective values as TOML, the keys as a table.

use std::fmt::{self, Write as _};

use super::key::{self, AnyKey, Fallback, KEYS};
use super::load::Values;
use super::problem::Origin;
use super::source::variable;
use super::value::Written;
use super::{Api, Config, Urls};

/// Every key with its value, secrets masked, and where that comes from. Displays as TOML, which loads as the same
/// configuration but for the secrets.
#[derive(Clone, Debug)]
pub struct Effective(pub Vec<Line>);

/// One key of [`Effective`].
#[derive(Clone, Debug)]
pub struct Line {
    /// Dotted.
    pub key: &'static str,
    /// As TOML; `None`: not set.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: Origin,
    /// What it amounts to, where that isn't plain to see.
    pub remark: Option<String>,
}

/// What documentation and other checks may want to know of a key.
#[derive(Clone, Debug)]
pub struct Documented {
    /// Dotted, as in TOML.
    pub name: &'static str,
    /// The environment variable.
    pub variable: String,
    /// The default as Markdown.
    pub default: String,
    /// What may be written, as Markdown.
    pub allowed: String,
    /// One line of Markdown.
    pub doc: &'static str,
    /// Whether a value, or a part of it, is masked wherever it is shown.
    pub is_secret: bool,
}

/// Every key, section by section.
pub fn keys() -> impl Iterator<Item = Documented> {
    KEYS.iter().map(|key| Documented {
        name: key.name(),
        variable: variable(key.name()),
        default: default(*key),
        allowed: key.allowed(),
        doc: key.doc(),
        is_secret: key.is_secret(),
    })
}

/// The README's table of keys, one per section.
#[must_use]
pub fn markdown_table() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in keys() {
        let (head, _) = key.name.split_once('.').expect("every key is in a section");
        if head != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = head;
            text.push_str(&format!(
                "{gap}### `[{section}]`\n\n| key | default | allowed | |\n| --- | --- | --- | --- |\n"
            ));
        }
        let cells = [key.default, key.allowed, key.doc.to_owned()].map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| `{}` | {} |\n", key.name, cells.join(" | ")));
    }
    text
}

impl Effective {
    pub(super) fn new(values: &Values, config: &Config) -> Self {
        let line = |key: &&'static dyn AnyKey| Line {
            key: key.name(),
            value: values.rendered(*key),
            origin: values.origin(*key).clone(),
            remark: None,
        };
        let mut effective = Self(KEYS.iter().map(line).collect());
        for line in &mut effective.0 {
            if line.key == key::AMQP_PREFETCH.name && values.get(&key::AMQP_PREFETCH).is_none() {
                line.remark = Some(config.amqp.prefetch.to_string());
            }
            if line.key == key::AMQP_URLS.name && matches!(config.amqp.urls, Urls::File(_)) {
                line.value = None;
            }
        }
        effective
    }

    /// What holds for the key `name`.
    #[must_use]
    pub fn line(&self, name: &str) -> Option<&Line> {
        self.0.iter().find(|line| line.key == name)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for line in &self.0 {
            let (head, name) = line.key.rsplit_once('.').expect("every key is in a section");
            if head != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = head;
                writeln!(f, "{gap}[{section}]")?;
            }
            match &line.value {
                None => write!(f, "# {name} is not set")?,
                Some(value) => write!(f, "{name} = {value} # {}", line.origin)?,
            }
            if let Some(remark) = &line.remark {
                write!(f, ": {remark}")?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

fn default(key: &dyn AnyKey) -> String {
    let toml = |text| key.check(&Written::untyped(text)).expect("a default is sound");
    match key.default() {
        Fallback::Unset => "none".to_owned(),
        // No secret either: it's in the documentation.
        Fallback::Text(text) if key.is_secret() => format!("`[\"{text}\"]`"),
        Fallback::Text(text) => format!("`{}`", toml(text)),
        Fallback::PerApi { .. } => {
            let per_api = [(Api::V1_0, "v1.0"), (Api::V1_2, "v1.2")].map(|(api, name)| {
                let text = key.default().text(api).expect("it has one for each");
                format!("{name}: `{}`", toml(text))
            });
            per_api.join(", ")
        }
    }
}
