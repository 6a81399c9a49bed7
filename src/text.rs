//! How text from outside is shown in sentences: escaped, and cut to a bound.

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

/// The longest beginning of `text` that has at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether `char` could speak to a terminal, or change the order in which others are read; line ends may stay.
pub(crate) fn is_harmful(char: char) -> bool {
    crate::log::is_harmful(char) && char != '\n'
}

/// Text from outside for a terminal: what is harmful as in Rust's string literals. Line ends are escaped too.
pub(crate) fn plain(text: &str) -> String {
    let escape = |char: char| {
        let harmful = crate::log::is_harmful(char);
        let escaped = harmful.then(|| char.escape_default());
        escaped.into_iter().flatten().chain((!harmful).then_some(char))
    };
    text.chars().flat_map(escape).collect()
}

/// JSON text for a terminal, the same value: outside of strings JSON has nothing but ASCII.
pub(crate) fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for char in json.chars() {
        if is_harmful(char) {
            plain.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            plain.push(char);
        }
    }
    plain
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
    fn long_text_is_cut_and_says_so() {
        assert_eq!(Shown(&"ä".repeat(80)).to_string(), format!("`{}`", "ä".repeat(80)));
        assert_eq!(Shown(&"ä".repeat(81)).to_string(), format!("`{}…`", "ä".repeat(80)));
    }

    #[test]
    fn nothing_speaks_to_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nü\u{202e}"), "a\\u{1b}[31m\\nü\\u{202e}");
        let json = "{\n  \"a\": \"\u{9b}31m\u{7f}ü\"\n}";
        let plain = plain_json(json);
        assert!(!plain.contains(is_harmful), "{plain}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&plain).ok(),
            serde_json::from_str(json).ok(),
            "the same value"
        );
        assert_eq!(base64(b"\xff\x00a"), "/wBh");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
        assert_eq!(cut("ä", 1), "");
    }
}
