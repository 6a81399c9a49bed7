//! Bodies: for people to look at, and with some of their IDs only.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::broker::corpse::Corpse;
use crate::request::gzip;
use crate::text::{harmless, harmless_json};

/// Bytes of a body that are shown; `export` has all.
const SHOWN_BYTES_MAX: usize = 64 * 1024;
const HEX_COLUMNS: usize = 16;

/// Prints a body: JSON indented, text as it is, anything else as hex.
pub(super) fn write(corpse: &Corpse, out: &mut impl Write) -> io::Result<()> {
    let body = &corpse.body;
    let bytes = body.len();
    if body.is_empty() {
        return writeln!(out, "body: empty");
    }
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        let pretty = serde_json::to_string_pretty(&value).expect("values always serialize");
        writeln!(out, "body, {bytes} bytes of JSON")?;
        return indented(&harmless_json(&pretty), out);
    }
    match str::from_utf8(body) {
        Ok(text) => {
            writeln!(out, "body, {bytes} bytes of text")?;
            indented(&text.split('\n').map(harmless).collect::<Vec<_>>().join("\n"), out)
        }
        Err(_) => {
            writeln!(out, "body, {bytes} bytes")?;
            hex(body, out)
        }
    }
}

fn indented(text: &str, out: &mut impl Write) -> io::Result<()> {
    let shown = crate::text::cut(text, SHOWN_BYTES_MAX);
    for line in shown.lines() {
        writeln!(out, "  {line}")?;
    }
    more(text.len() - shown.len(), out)
}

fn hex(body: &[u8], out: &mut impl Write) -> io::Result<()> {
    let shown = &body[..body.len().min(SHOWN_BYTES_MAX)];
    for (row, bytes) in shown.chunks(HEX_COLUMNS).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String = bytes.iter().map(|byte| printable(*byte)).collect();
        let width = HEX_COLUMNS * 3;
        writeln!(out, "  {:08x}  {hex:width$} {text}", row * HEX_COLUMNS)?;
    }
    more(body.len() - shown.len(), out)
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }
}

fn more(bytes: usize, out: &mut impl Write) -> io::Result<()> {
    if bytes > 0 { writeln!(out, "  ... {bytes} bytes more, see export") } else { Ok(()) }
}

/// The body with only the IDs of it that failed; `None` if these are all, or if none is known to.
///
/// # Errors
/// Why it can't be made.
pub(super) fn failed_only(corpse: &Corpse) -> Result<Option<Vec<u8>>, &'static str> {
    let failed = corpse.failed_ids();
    let Some(count) = corpse.number("failed-count").filter(|count| *count > 0) else { return Ok(None) };
    if failed.len() as u64 != count {
        return Err("its list of failed IDs was cut short: replay it without --failed-ids-only");
    }
    let asked = super::letter::request(corpse).ok_or("it can't be read, so it can't be cut")?.ids;
    if asked.iter().all(|id| failed.iter().any(|failed| failed == id.as_str())) {
        return Ok(None);
    }
    let is_packed = corpse.content().1.is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip"));
    let unpacked = is_packed.then(|| gzip::unpack(&corpse.body)).transpose();
    let unpacked = unpacked.map_err(|_| "it can't be decompressed")?;
    let value = serde_json::from_slice(unpacked.as_ref().unwrap_or(&corpse.body));
    let mut value: Value = value.map_err(|_| "it isn't JSON")?;
    replace(&mut value, &failed);
    Ok(Some(value.to_string().into_bytes()))
}

/// Puts `ids` in the place of those that a request, or the data of an event, has.
fn replace(value: &mut Value, ids: &[String]) {
    match value {
        Value::Array(list) => *list = ids.iter().map(|id| json!(id)).collect(),
        Value::Object(members) => {
            if members.contains_key("videoNos") || members.contains_key("videoNo") {
                members.remove("videoNo");
                members.insert("videoNos".to_owned(), json!(ids));
            } else if let Some(data) = members.get_mut("data") {
                replace(data, ids);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        let mut value = serde_json::from_str(text).expect("JSON");
        replace(&mut value, &["VI2".to_owned()]);
        value.to_string()
    }

    #[test]
    fn only_the_ids_are_replaced() {
        assert_eq!(replaced(r#"["VI1","VI2"]"#), r#"["VI2"]"#);
        let whole = r#"{"namespace":"n","reason":"r","videoNos":["VI1","VI2"]}"#;
        assert_eq!(replaced(whole), r#"{"namespace":"n","reason":"r","videoNos":["VI2"]}"#);
        let event = r#"{"data":["VI1","VI2"],"id":"7","source":"s","specversion":"1.0","type":"t"}"#;
        assert_eq!(replaced(event), event.replace(r#""VI1","#, ""));
    }

    #[test]
    fn hex_has_places_and_text() {
        let mut out = Vec::new();
        hex(b"\x00abc\xff0123456789abcd", &mut out).expect("a vector");
        let expected = "  00000000  00 61 62 63 ff 30 31 32 33 34 35 36 37 38 39 61  .abc.0123456789a\n  00000010  62 63 64                                         bcd\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
