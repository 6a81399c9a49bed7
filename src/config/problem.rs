//! What is wrong with a configuration, and where it says so.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::value::quote;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No source gives the key.
    Default,
    /// This line of the TOML file, counted from 1.
    File(Arc<Path>, usize),
    /// This environment variable.
    Env(String),
    /// `--set` on the command line.
    Flag,
}

/// One thing that is wrong, or merely doubtful; on one line, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or `--config` or `--set` if it's about no key.
    pub key: String,
    /// What is wrong with it, as a fragment that follows the key; says where the value comes from.
    pub text: String,
}

/// Everything that is wrong with a configuration, at least one thing; one per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Origin {
    pub(super) fn file(path: &Path, line: usize) -> Self {
        Self::File(Arc::from(path), line)
    }
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }

    /// About a file that holds configuration.
    pub(super) fn in_file(path: &Path, line: Option<usize>, text: &str) -> Self {
        let place = match line {
            Some(line) => Origin::file(path, line).to_string(),
            None => harmless(&path.to_string_lossy()),
        };
        Self::new("--config", format!("{place}: {text}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => {
                write!(f, "{}:{line}", harmless(&PathBuf::from(&**path).to_string_lossy()))
            }
            Self::Env(name) => f.write_str(&harmless(name)),
            Self::Flag => f.write_str("--set"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", harmless(&self.key), self.text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// `text` as it is, or escaped if it could break the line or the terminal.
pub(super) fn harmless(text: &str) -> String {
    if text.chars().any(crate::text::is_harmful) { quote(text) } else { text.to_owned() }
}
