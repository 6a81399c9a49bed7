//! What a value may look like, and how its text becomes typed.

use std::fmt;

mod number;
mod text;

pub(super) use number::{Flag, Real, Span, Whole};
pub(super) use text::{Address, Choice, Code, File, Filter, Name, NamespaceName, Token};

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
            Written::Many(_) => Err(misfit(Form::Array, Self::FORMS)),
        }
    }
}

/// Stands for a secret.
pub(super) const MASK: &str = "***";

/// The word `auto`, which becomes `None`, or a value.
#[derive(Debug)]
pub(super) struct Auto<S>(pub(super) S);

/// At least one value.
#[derive(Debug)]
pub(super) struct List<S>(pub(super) S);

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

/// `text` as a TOML basic string on one line, without any character a terminal may act upon.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            _ if crate::text::is_harmful(char) => quoted.push_str(&format!("\\u{:04X}", u32::from(char))),
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
    if form == Form::Untyped || forms.contains(&form) { Ok(()) } else { Err(misfit(form, forms)) }
}

fn misfit(form: Form, forms: &'static [Form]) -> String {
    let expected: Vec<_> = forms.iter().map(|form| form.as_str()).collect();
    format!("is {}, not {}", form.as_str(), expected.join(" or "))
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
