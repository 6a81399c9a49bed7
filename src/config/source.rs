//! The sources of values: a TOML file, the environment, flags; a later one wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file;
use super::key::{AnyKey, KEYS};
use super::problem::{Origin, Problem, harmless};
use super::value::{Form, Scalar, Written};

/// What every environment variable of ours begins with.
const PREFIX: &str = "DELETION_WORKER__";

/// What the sources give, key by key, before anything is judged.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) values: BTreeMap<&'static str, (Written, Origin)>,
    pub(super) problems: Vec<Problem>,
    /// Doubtful, but no reason to stop.
    pub(super) notes: Vec<Problem>,
    /// The file can't be read as TOML: what is missing may stand in it.
    pub(super) is_partial: bool,
}

impl Given {
    /// Reads every source.
    pub(super) fn gather(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        sets: &[String],
    ) -> Self {
        let mut given = Self::default();
        if let Some(path) = file {
            given.read_file(path);
        }
        let mut env: Vec<_> = env.into_iter().collect();
        env.sort();
        for (name, value) in env {
            given.read_variable(&name.to_string_lossy(), value);
        }
        for (index, set) in sets.iter().enumerate() {
            given.read_set(index + 1, set);
        }
        given
    }

    fn read_file(&mut self, path: &Path) {
        let text = match file::read(path) {
            Ok(text) => text,
            Err(fault) => {
                self.is_partial = true;
                return self.problems.push(Problem::in_file(path, None, &fault));
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        if errors.is_empty() {
            return Document { path, text: &text, given: self }.read_table("", table.get_ref());
        }
        self.is_partial = true;
        for error in errors {
            let line = error.span().map(|span| line_at(&text, span.start));
            let fault = harmless(&format!("not TOML: {}", error.message()));
            self.problems.push(Problem::in_file(path, line, &fault));
        }
    }

    fn read_variable(&mut self, name: &str, value: OsString) {
        let Some(path) = name.strip_prefix(PREFIX) else {
            // Most variables are somebody else's.
            if !name.starts_with(PREFIX.trim_end_matches('_')) {
                return;
            }
            // Names with one underscore may be Kubernetes' own, for a service called deletion-worker.
            let is_meant = |key: &&&dyn AnyKey| variable(key.name()).replace("__", "_") == name;
            if let Some(key) = KEYS.iter().find(is_meant) {
                let instead = variable(key.name());
                self.notes.push(Problem::new(key.name(), format!("{name} is not read: {instead} would be")));
            }
            return;
        };
        let Some(key) = KEYS.iter().find(|key| variable(key.name()) == name) else {
            let near = variable(nearest(&path.to_lowercase().replace("__", ".")).name());
            let text = format!("unknown key; the nearest is {near} ({})", harmless(name));
            return self.problems.push(Problem::new(path.to_lowercase().replace("__", "."), text));
        };
        match value.into_string() {
            Ok(text) => self.put(*key, Written::untyped(text), Origin::Env(name.to_owned())),
            Err(_) => self.problems.push(Problem::new(key.name(), format!("is not UTF-8 ({name})"))),
        }
    }

    fn read_set(&mut self, position: usize, set: &str) {
        let Some((name, text)) = set.split_once('=') else {
            // Not shown: it may be a secret.
            let text = format!("number {position} is not KEY=VALUE");
            return self.problems.push(Problem::new("--set", text));
        };
        match KEYS.iter().find(|key| key.name() == name) {
            Some(key) => self.put(*key, Written::untyped(text), Origin::Flag),
            None => {
                let text = format!("unknown key; the nearest is {} ({})", nearest(name).name(), Origin::Flag);
                self.problems.push(Problem::new(name, text));
            }
        }
    }

    fn put(&mut self, key: &'static dyn AnyKey, written: Written, origin: Origin) {
        self.values.insert(key.name(), (written, origin));
    }
}

/// A TOML file on its way into [`Given`].
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    given: &'a mut Given,
}

impl Document<'_> {
    fn read_table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = match section {
                "" => name.get_ref().to_string(),
                _ => format!("{section}.{}", name.get_ref()),
            };
            self.read_entry(&path, name.span().start, value);
        }
    }

    fn read_entry(&mut self, path: &str, start: usize, value: &Spanned<DeValue<'_>>) {
        let origin = Origin::file(self.path, line_at(self.text, start));
        if let Some(key) = KEYS.iter().find(|key| key.name() == path) {
            return self.given.put(*key, written(value.get_ref()), origin);
        }
        let inside = format!("{path}.");
        let text = match value.get_ref() {
            _ if !KEYS.iter().any(|key| key.name().starts_with(&inside)) => {
                format!("unknown key; the nearest is {} ({origin})", nearest(path).name())
            }
            DeValue::Table(table) => return self.read_table(path, table),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => format!("is a section, not a key ({origin})"),
        };
        self.given.problems.push(Problem::new(path, text));
    }
}

/// The environment variable of the key `name`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "__").to_uppercase())
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::Array(items) => Written::Many(items.iter().map(|item| scalar(item.get_ref())).collect()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => Written::One(scalar(value)),
    }
}

fn scalar(value: &DeValue<'_>) -> Scalar {
    let (text, form) = match value {
        DeValue::String(text) => (text.to_string(), Form::String),
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix());
            (decimal.map_or_else(|_| number.to_string(), |decimal| decimal.to_string()), Form::Integer)
        }
        DeValue::Float(number) => (number.to_string(), Form::Float),
        DeValue::Boolean(flag) => (flag.to_string(), Form::Boolean),
        DeValue::Datetime(time) => (time.to_string(), Form::Datetime),
        DeValue::Array(_) => (String::new(), Form::Array),
        DeValue::Table(_) => (String::new(), Form::Table),
    };
    Scalar { text, form }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The key that is spelled most like `name`.
fn nearest(name: &str) -> &'static dyn AnyKey {
    let distance = |key: &&&dyn AnyKey| strsim::damerau_levenshtein(key.name(), name);
    *KEYS.iter().min_by_key(distance).expect("there are keys")
}
