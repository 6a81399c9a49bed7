//! What a value may look like, and how its text becomes typed.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::address;
use super::{Namespace, Secret};

/// A value as its source wrote it.
#[derive(Clone, Debug)]
pub(super) enum Written {
    /// Anything but a list.
    One(Scalar),
    /// A TOML array.
    Many(Vec<Scalar>),
}

/// A text, and the type that TOML gave it.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// Empty where it can't be a value of any key: tables, arrays in arrays.
    pub(super) text: String,
    pub(super) form: Form,
}

/// The type a source gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The environment, a flag and the table of defaults know nothing but text.
    Untyped,
    String,
    Integer,
    Float,
    Boolean,
    Datetime,
    Array,
    Table,
}

/// How the values of a key are read and printed.
pub(super) trait Shape: fmt::Debug + Sync + 'static {
    /// What a text becomes.
    type Value;
    /// The TOML types it may be written as.
    const FORMS: &'static [Form] = &[Form::String];
    /// Whether a value, or a part of it, must not be shown.
    const SECRET: bool = false;

    /// Reads `text`; the error is a fragment that follows the value: "is out of range".
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// The value as TOML, with what is secret masked.
    fn render(&self, value: &Self::Value) -> String;

    /// What may be written, for people.
    fn allowed(&self) -> String;

    /// `text` without what is secret in it; [`MASK`] if it can't be told which part that is.
    fn masked(&self, text: &str) -> String {
        text.to_owned()
    }

    /// Reads what a source wrote: the type must fit too, where the source has types.
    fn read(&self, written: &Written) -> Result<Self::Value, String> {
        match written {
            Written::One(scalar) => {
                fits(scalar.form, Self::FORMS)?;
                self.parse(&scalar.text)
            }
            Written::Many(_) => fits(Form::Array, Self::FORMS).and_then(|()| self.parse("")),
        }
    }
}

/// Stands for a secret.
pub(super) const MASK: &str = "***";

/// `true` or `false`.
#[derive(Debug)]
pub(super) struct Flag;

/// A whole number from `min` to `max`.
#[derive(Debug)]
pub(super) struct Whole<T> {
    pub(super) min: T,
    pub(super) max: T,
    /// Why not less, where people may well try.
    pub(super) why: &'static str,
}

/// `0`, where that is allowed, or a finite number from `min` to `max`.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) zero: bool,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// A multiple of `step` from `min` to `max`.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) min: Duration,
    pub(super) max: Duration,
    pub(super) step: Duration,
}

/// One of a few words.
#[derive(Debug)]
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

/// The word `auto`, which becomes `None`, or a value.
#[derive(Debug)]
pub(super) struct Auto<S>(pub(super) S);

/// A name as AMQP knows it (a "short string"): `min` to 255 bytes, no control characters.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) min: usize,
}

/// The path of a file.
#[derive(Debug)]
pub(super) struct File;

/// At least one value.
#[derive(Debug)]
pub(super) struct List<S>(pub(super) S);

/// A `code` of an answer that means deleted.
#[derive(Debug)]
pub(super) struct Code;

/// What is sent as `Authorization`.
#[derive(Debug)]
pub(super) struct Token;

/// A v1.2 `unique_id`.
#[derive(Debug)]
pub(super) struct NamespaceName;

/// Where to listen.
#[derive(Debug)]
pub(super) struct Address;

/// A level, or directives of the `tracing` kind.
#[derive(Debug)]
pub(super) struct Filter;

impl Written {
    /// A text from a source without types.
    pub(super) fn untyped(text: impl Into<String>) -> Self {
        Self::One(Scalar { text: text.into(), form: Form::Untyped })
    }

    /// For a message: masked, escaped, cut short.
    pub(super) fn shown(&self, shape: &impl Shape) -> String {
        match self {
            Self::One(Scalar { text, form: Form::String | Form::Untyped }) => {
                quote(&cut_short(&shape.masked(text)))
            }
            Self::One(Scalar { form: Form::Array | Form::Table, .. }) => "the value".to_owned(),
            Self::One(Scalar { text, .. }) => cut_short(&shape.masked(text)),
            Self::Many(items) => {
                let masked: Vec<_> = items.iter().map(|item| shape.masked(&item.text)).collect();
                if masked.iter().any(|item| item == MASK) {
                    return quote(MASK);
                }
                let quoted: Vec<_> = masked.iter().map(|item| quote(item)).collect();
                cut_short(&format!("[{}]", quoted.join(", ")))
            }
        }
    }
}

impl Shape for Flag {
    type Value = bool;
    const FORMS: &'static [Form] = &[Form::Boolean];

    fn parse(&self, text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| "is neither true nor false".to_owned())
    }

    fn render(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "`true`, `false`".to_owned()
    }
}

impl<T> Shape for Whole<T>
where
    T: FromStr + fmt::Display + fmt::Debug + PartialOrd + Sync + 'static,
{
    type Value = T;
    const FORMS: &'static [Form] = &[Form::Integer];

    fn parse(&self, text: &str) -> Result<T, String> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is not a whole number".to_owned());
        }
        match text.parse::<T>() {
            Ok(number) if self.min <= number && number <= self.max => Ok(number),
            Ok(number) if self.min <= number => Err("is out of range".to_owned()),
            Err(_) if !text.starts_with('-') => Err("is out of range".to_owned()),
            _ if self.why.is_empty() => Err("is out of range".to_owned()),
            _ => Err(format!("is out of range ({})", self.why)),
        }
    }

    fn render(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("{} to {}", self.min, self.max)
    }
}

impl Shape for Real {
    type Value = f64;
    const FORMS: &'static [Form] = &[Form::Integer, Form::Float];

    fn parse(&self, text: &str) -> Result<f64, String> {
        let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
        if self.zero && number == 0.0 {
            return Ok(0.0);
        }
        if !(self.min..=self.max).contains(&number) {
            return Err("is out of range".to_owned());
        }
        Ok(number)
    }

    fn render(&self, value: &f64) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        let zero = if self.zero { "0, or " } else { "" };
        format!("{zero}{} to {}", self.min, self.max)
    }
}

impl Shape for Span {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        // humantime adds up unchecked what comes near 2^64 s. The bounds keep every sum below a tenth of it.
        let digits_max = text.split(|char: char| !char.is_ascii_digit()).map(str::len).max();
        if text.len() > 40 || digits_max > Some(9) {
            return Err("is out of range".to_owned());
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("has no unit".to_owned());
        }
        let duration = humantime::parse_duration(text).map_err(|_| "is not a duration".to_owned())?;
        if duration < self.min || duration > self.max {
            return Err("is out of range".to_owned());
        }
        if !duration.as_nanos().is_multiple_of(self.step.as_nanos()) {
            return Err(format!("is not a multiple of {}", humantime::format_duration(self.step)));
        }
        Ok(duration)
    }

    fn render(&self, value: &Duration) -> String {
        quote(&humantime::format_duration(*value).to_string())
    }

    fn allowed(&self) -> String {
        let [min, max] = [self.min, self.max].map(humantime::format_duration);
        format!("`\"{min}\"` to `\"{max}\"`")
    }
}

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

impl<S: Shape> Shape for Auto<S> {
    type Value = Option<S::Value>;
    const FORMS: &'static [Form] = &[Form::Integer, Form::String];

    fn parse(&self, text: &str) -> Result<Option<S::Value>, String> {
        if text == "auto" { Ok(None) } else { self.0.parse(text).map(Some) }
    }

    fn read(&self, written: &Written) -> Result<Self::Value, String> {
        match written {
            Written::One(scalar) if scalar.text == "auto" => Ok(None),
            Written::One(_) | Written::Many(_) => self.0.read(written).map(Some),
        }
    }

    fn render(&self, value: &Option<S::Value>) -> String {
        value.as_ref().map_or_else(|| quote("auto"), |value| self.0.render(value))
    }

    fn allowed(&self) -> String {
        format!("`\"auto\"`, or {}", self.0.allowed())
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

impl<S: Shape> Shape for List<S> {
    type Value = Vec<S::Value>;
    const FORMS: &'static [Form] = &[Form::Array];
    const SECRET: bool = S::SECRET;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        let items = text.split(',').map(|item| self.0.parse(item.trim()));
        numbered(items)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, String> {
        match written {
            Written::One(scalar) => {
                fits(scalar.form, Self::FORMS)?;
                self.parse(&scalar.text)
            }
            Written::Many(items) if items.is_empty() => Err("is empty".to_owned()),
            Written::Many(items) => numbered(items.iter().map(|item| {
                fits(item.form, S::FORMS)?;
                self.0.parse(&item.text)
            })),
        }
    }

    fn render(&self, value: &Self::Value) -> String {
        let items: Vec<_> = value.iter().map(|item| self.0.render(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn allowed(&self) -> String {
        format!("one or more of: {}", self.0.allowed())
    }

    /// A comma in a password cuts it in two; then neither half may be seen.
    fn masked(&self, text: &str) -> String {
        let items: Vec<_> = text.split(',').map(|item| self.0.masked(item.trim())).collect();
        if items.iter().any(|item| item == MASK) { MASK.to_owned() } else { items.join(",") }
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

/// `text` as a TOML basic string on one line, without any character a terminal may act upon.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            _ if crate::log::is_harmful(char) => quoted.push_str(&format!("\\u{:04X}", u32::from(char))),
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// At most 100 characters of `text`.
fn cut_short(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn fits(form: Form, forms: &'static [Form]) -> Result<(), String> {
    if form == Form::Untyped || forms.contains(&form) {
        return Ok(());
    }
    let expected: Vec<_> = forms.iter().map(|form| form.as_str()).collect();
    Err(format!("is {}, not {}", form.as_str(), expected.join(" or ")))
}

/// Says which item is at fault, unless there is only one.
fn numbered<T>(items: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let items: Vec<_> = items.collect();
    let count = items.len();
    let name = |(index, item): (usize, Result<T, String>)| {
        item.map_err(|fault| if count == 1 { fault } else { format!("(item {}) {fault}", index + 1) })
    };
    items.into_iter().enumerate().map(name).collect()
}

impl Form {
    fn as_str(self) -> &'static str {
        match self {
            Self::Untyped => "text",
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Float => "a float",
            Self::Boolean => "a boolean",
            Self::Datetime => "a date or time",
            Self::Array => "an array",
            Self::Table => "a table",
        }
    }
}
