//! Where a file that is copied out goes.

use super::Error;
use std::fs;
use std::io::{self, Write};

/// Bytes that are written to a file at once, at least: large writes get large pages of the host's
/// cache. They fit the processor's.
pub(super) const CHUNK: usize = 512 << 10;
/// Zeros for a stream, which has no holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the bytes of a file go.
pub(super) enum Sink<'t> {
    /// A file: holes are left out.
    File(&'t fs::File),
    /// A stream: holes are zeros.
    Stream(&'t mut dyn Write),
}

/// Writes zeros in place of the bytes `from` to `to`.
pub(super) fn zeros(stream: &mut dyn Write, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let count = (to - from).min(ZEROS.len() as u64);
        stream.write_all(&ZEROS[..count as usize])?;
        from += count;
    }
    Ok(())
}

/// A failure of the sink, not of the server.
pub(super) fn sink_failed(error: io::Error) -> Error {
    Error::Local("write the copy".into(), error)
}
