//! Video numbers and namespaces.

use std::fmt;

use compact_str::CompactString;

/// The longest [`Id`] or [`Namespace`], in characters.
pub const CHARS_MAX: usize = 128;

/// One video number: 1 to [`CHARS_MAX`] characters, none of them white space or a control character.
///
/// Up to 24 bytes are kept in place, so the documented form (`VI` and 18 digits) needs no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(CompactString);

/// A v1.2 `unique_id`, under the same rule as an [`Id`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(CompactString);

/// Why a string is neither an [`Id`] nor a [`Namespace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No character at all.
    #[error("is empty")]
    Empty,
    /// More than [`CHARS_MAX`] characters.
    #[error("has {0} characters, more than {CHARS_MAX}")]
    Long(usize),
    /// White space at this character, counted from 0.
    #[error("has white space at character {0}")]
    WhiteSpace(usize),
    /// A control character at this character, counted from 0.
    #[error("has a control character at character {0}")]
    Control(usize),
}

impl Id {
    /// Takes `text` as it is; nothing is trimmed.
    ///
    /// # Errors
    /// [`Unfit`] says what is wrong, and where.
    pub fn new(text: &str) -> Result<Self, Unfit> {
        fit(text).map(|()| Self(CompactString::new(text)))
    }

    /// The video number as the endpoint knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Namespace {
    /// Takes `text` as it is; nothing is trimmed.
    ///
    /// # Errors
    /// [`Unfit`] says what is wrong, and where.
    pub fn new(text: &str) -> Result<Self, Unfit> {
        fit(text).map(|()| Self(CompactString::new(text)))
    }

    /// The namespace as the endpoint knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn fit(text: &str) -> Result<(), Unfit> {
    if text.is_empty() {
        return Err(Unfit::Empty);
    }
    if text.len() <= CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    for (position, char) in text.chars().enumerate() {
        if position == CHARS_MAX {
            return Err(Unfit::Long(text.chars().count()));
        }
        if char.is_whitespace() {
            return Err(Unfit::WhiteSpace(position));
        }
        if char.is_control() {
            return Err(Unfit::Control(position));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_in_characters_not_bytes() {
        assert!(Id::new(&"ä".repeat(128)).is_ok());
        assert_eq!(Id::new(&"ä".repeat(129)), Err(Unfit::Long(129)));
        assert_eq!(Id::new(""), Err(Unfit::Empty));
    }

    #[test]
    fn white_space_and_control_characters_are_named_by_position() {
        assert_eq!(Id::new(" VI1"), Err(Unfit::WhiteSpace(0)));
        assert_eq!(Id::new("VI\u{a0}1"), Err(Unfit::WhiteSpace(2)));
        assert_eq!(Id::new("VI\n1"), Err(Unfit::WhiteSpace(2)));
        assert_eq!(Id::new("VI1\u{7f}"), Err(Unfit::Control(3)));
        assert_eq!(Id::new("VI\u{0}"), Err(Unfit::Control(2)));
    }

    #[test]
    fn documented_ids_are_kept_in_place() {
        let id = Id::new("VI625239098370850816").expect("documented form");
        assert!(!id.0.is_heap_allocated());
    }
}
