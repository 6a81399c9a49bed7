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
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
        assert_eq!(cut("ä", 1), "");
    }
}
