//! Numbers, durations and flags.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Form, Shape, quote};

/// `true` or `false`.
#[derive(Debug)]
pub(in crate::config) struct Flag;

/// A whole number from `min` to `max`.
#[derive(Debug)]
pub(in crate::config) struct Whole<T> {
    pub(in crate::config) min: T,
    pub(in crate::config) max: T,
    /// Why not less, where people may well try.
    pub(in crate::config) why: &'static str,
}

/// `0`, where that is allowed, or a finite number from `min` to `max`.
#[derive(Debug)]
pub(in crate::config) struct Real {
    pub(in crate::config) zero: bool,
    pub(in crate::config) min: f64,
    pub(in crate::config) max: f64,
}

/// A multiple of `step` from `min` to `max`.
#[derive(Debug)]
pub(in crate::config) struct Span {
    pub(in crate::config) min: Duration,
    pub(in crate::config) max: Duration,
    pub(in crate::config) step: Duration,
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
