//! How text from outside is shown in sentences: escaped, and cut to a bound.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Untrusted text, fit for a log line or a header: control characters escaped, cut after [`Self::CHARS_MAX`].
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl Shown<'_> {
    const CHARS_MAX: usize = 80;
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('`')?;
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(Self::CHARS_MAX) {
            match char {
                '"' | '\'' => f.write_char(char)?,
                _ => write!(f, "{}", char.escape_debug())?,
            }
        }
        f.write_str(if chars.next().is_some() { "…`" } else { "`" })
    }
}

/// Whether `char` could end a line, speak to a terminal, or change the order in which others are read.
pub(crate) fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` with its harmful characters as in Rust's string literals.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_harmful(char) { escaped.extend(char.escape_default()) } else { escaped.push(char) }
    }
    Cow::Owned(escaped)
}

/// A JSON `text` with the harmful characters in its strings in their `\u` form; line ends between values stay.
pub(crate) fn harmless_json(text: &str) -> Cow<'_, str> {
    // Outside ASCII a JSON text has nothing but strings, and inside strings no control character of ASCII but DEL.
    let is_escaped = |char| is_harmful(char) && char != '\n';
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_escaped(char) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

/// `text` with `***` for each `secret` in it, be it as it is or as JSON writes it in a string.
pub(crate) fn hushed<'a>(text: &'a str, secret: &str) -> Cow<'a, str> {
    let written = serde_json::Value::from(secret).to_string();
    let mut hushed = Cow::Borrowed(text);
    for form in [secret, written.trim_matches('"')] {
        if !form.is_empty() && hushed.contains(form) {
            hushed = Cow::Owned(hushed.replace(form, "***"));
        }
    }
    hushed
}

/// The longest beginning of `text` that has at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Standard base64, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_log_line_is_escaped() {
        assert_eq!(Shown("a\nb\u{1b}[31m\u{202e}\"").to_string(), "`a\\nb\\u{1b}[31m\\u{202e}\"`");
    }

    #[test]
    fn harmless_text_stays_as_it_is() {
        assert!(matches!(harmless("a \"b\" \\ ä"), Cow::Borrowed("a \"b\" \\ ä")));
        assert_eq!(harmless("a\nb\u{1b}[31m\u{9b}\u{2028}\"ä"), "a\\nb\\u{1b}[31m\\u{9b}\\u{2028}\"ä");
    }

    #[test]
    fn a_secret_is_hushed_however_it_is_written() {
        assert_eq!(hushed("a sk-1, b sk-1", "sk-1"), "a ***, b ***");
        assert_eq!(hushed(r#"{"got":"s\"k\\1"}"#, r#"s"k\1"#), r#"{"got":"***"}"#);
        assert!(matches!(hushed("nothing", "sk-1"), Cow::Borrowed("nothing")));
        assert_eq!(hushed("nothing", ""), "nothing");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(Shown(&"ä".repeat(80)).to_string(), format!("`{}`", "ä".repeat(80)));
        assert_eq!(Shown(&"ä".repeat(81)).to_string(), format!("`{}…`", "ä".repeat(80)));
    }

    #[test]
    fn harmless_json_has_the_same_value() {
        let json = "{\n  \"a\": \"\u{9b}31m\u{7f}ü\"\n}";
        let harmless = harmless_json(json);
        assert!(!harmless.contains(|char| is_harmful(char) && char != '\n'), "{harmless}");
        let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
        assert_eq!(value(&harmless), value(json));
    }

    #[test]
    fn base64_is_the_standard_one() {
        assert_eq!(base64(b"\xff\x00a"), "/wBh");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
        assert_eq!(cut("ä", 1), "");
    }
}
