//! The documented reply, `{"code": "…", "msg": "…", …}`.

use std::fmt;

use compact_str::{CompactString, ToCompactString};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A reply's `code`, as text: the newer API family answers with an integer.
pub(super) fn code(body: &[u8]) -> Option<CompactString> {
    #[derive(Deserialize)]
    struct Reply {
        code: Code,
    }
    // serde would take a list for a struct, its items for the members in order.
    let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if start != Some(&b'{') {
        return None;
    }
    let Reply { code: Code(code) } = serde_json::from_slice(body).ok()?;
    Some(code)
}

/// A reply's `msg`, if it has one in words.
pub(super) fn msg(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Reply {
        msg: String,
    }
    serde_json::from_slice::<Reply>(body).ok().map(|reply| reply.msg).filter(|msg| !msg.is_empty())
}

struct Code(CompactString);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CodeVisitor)
    }
}

struct CodeVisitor;

impl Visitor<'_> for CodeVisitor {
    type Value = Code;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer")
    }

    fn visit_str<E: Error>(self, code: &str) -> Result<Code, E> {
        Ok(Code(code.into()))
    }

    fn visit_u64<E: Error>(self, code: u64) -> Result<Code, E> {
        Ok(Code(code.to_compact_string()))
    }

    fn visit_i64<E: Error>(self, code: i64) -> Result<Code, E> {
        Ok(Code(code.to_compact_string()))
    }
}
