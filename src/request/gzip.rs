//! Bodies with `content_encoding: gzip`.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::Malformed;

/// What a body may grow to; RabbitMQ's own default for a message since 4.0.
pub(super) const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Decompresses every member (RFC 1952, 2.2), and refuses whatever else is there.
pub(crate) fn unpack(body: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut unpacked = Vec::new();
    decoder.by_ref().take(BYTES_MAX + 1).read_to_end(&mut unpacked).map_err(|error| {
        let offset = body.len() - decoder.get_ref().len();
        Malformed(format!("the body is not gzip at byte {offset} (before decompression): {error}"))
    })?;
    if unpacked.len() as u64 > BYTES_MAX {
        return Err(Malformed(format!("the body decompresses to more than {BYTES_MAX} bytes")));
    }
    Ok(unpacked)
}
