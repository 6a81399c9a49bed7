//! Words, names, paths and other text.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{MASK, Shape, quote};
use crate::config::{Namespace, Secret, address};

/// One of a few words.
#[derive(Debug)]
pub(in crate::config) struct Choice<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

/// A name as AMQP knows it (a "short string"): `min` to 255 bytes, no control characters.
#[derive(Debug)]
pub(in crate::config) struct Name {
    pub(in crate::config) min: usize,
}

/// The path of a file.
#[derive(Debug)]
pub(in crate::config) struct File;

/// A `code` of an answer that means deleted.
#[derive(Debug)]
pub(in crate::config) struct Code;

/// What is sent as `Authorization`.
#[derive(Debug)]
pub(in crate::config) struct Token;

/// A v1.2 `unique_id`.
#[derive(Debug)]
pub(in crate::config) struct NamespaceName;

/// Where to listen.
#[derive(Debug)]
pub(in crate::config) struct Address;

/// A level, or directives of the `tracing` kind.
#[derive(Debug)]
pub(in crate::config) struct Filter;

impl<T: Copy + PartialEq + fmt::Debug + Sync> Shape for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let found = self.0.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| "is unknown".to_owned())
    }

    fn render(&self, value: &T) -> String {
        let found = self.0.iter().find(|(_, each)| each == value);
        quote(found.expect("a choice lists every value of its type").0)
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`\"{word}\"`")).collect();
        words.join(", ")
    }
}

impl Shape for Name {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        if text.len() < self.min {
            return Err("is empty".to_owned());
        }
        if text.len() > 255 {
            return Err(format!("has {} bytes", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("has a control character".to_owned());
        }
        Ok(text.to_owned())
    }

    fn render(&self, value: &String) -> String {
        quote(value)
    }

    fn allowed(&self) -> String {
        format!("{} to 255 bytes", self.min)
    }
}

impl Shape for File {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.contains('\0') {
            return Err("has a NUL character".to_owned());
        }
        Ok(PathBuf::from(text))
    }

    fn render(&self, value: &PathBuf) -> String {
        quote(&self.masked(&value.to_string_lossy()))
    }

    fn allowed(&self) -> String {
        "a readable file".to_owned()
    }

    /// A URL lands here when `amqp.urls` was meant.
    fn masked(&self, text: &str) -> String {
        if text.contains("://") { address::masked(text) } else { text.to_owned() }
    }
}

/// The codes that `endpoint.md` documents as failures, of both families.
const FAILURES: [&str; 18] = [
    "0001", "0003", "0401", "0402", "0403", "0409", "0429", "9009", "400", "401", "402", "403", "405", "409",
    "413", "415", "429", "500",
];

impl Shape for Code {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        if text.is_empty() || text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("is not a code".to_owned());
        }
        if FAILURES.contains(&text) {
            return Err(format!("is not a success: {text} is documented as a failure"));
        }
        Ok(text.to_owned())
    }

    fn render(&self, value: &String) -> String {
        quote(value)
    }

    fn allowed(&self) -> String {
        "1 to 32 visible ASCII characters, no code documented as a failure".to_owned()
    }
}

impl Shape for Token {
    type Value = Secret;
    const SECRET: bool = true;

    fn parse(&self, text: &str) -> Result<Secret, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.trim() != text {
            return Err("begins or ends with white space".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err("has a character that is not visible ASCII".to_owned());
        }
        Ok(Secret::new(text))
    }

    fn render(&self, _: &Secret) -> String {
        quote(MASK)
    }

    fn allowed(&self) -> String {
        "visible ASCII".to_owned()
    }

    fn masked(&self, _: &str) -> String {
        MASK.to_owned()
    }
}

impl Shape for NamespaceName {
    type Value = Namespace;

    fn parse(&self, text: &str) -> Result<Namespace, String> {
        Namespace::new(text).map_err(|unfit| unfit.to_string())
    }

    fn render(&self, value: &Namespace) -> String {
        quote(value.as_str())
    }

    fn allowed(&self) -> String {
        "1 to 128 characters, no white space".to_owned()
    }
}

impl Shape for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| "is not an IP address and a port".to_owned())
    }

    fn render(&self, value: &SocketAddr) -> String {
        quote(&value.to_string())
    }

    fn allowed(&self) -> String {
        "like `\"127.0.0.1:9090\"` or `\"[::]:9090\"`".to_owned()
    }
}

impl Shape for Filter {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        crate::log::filter(text).map(|_| text.to_owned())
    }

    fn render(&self, value: &String) -> String {
        quote(value)
    }

    fn allowed(&self) -> String {
        "`\"off\"`, `\"error\"`, `\"warn\"`, `\"info\"`, `\"debug\"`, `\"trace\"`, or with `target=level` after commas"
            .to_owned()
    }
}
