//! Whole files into the server, with their holes.
//!
//! Several requests are in flight, so that the guest always has work. What is in flight is
//! bounded in bytes; answers to writes are small, so sending does not wait for a receiver. Nothing is copied on the way but by
//! the device: this end sends pages of the host's cache, and the guest takes the blocks over that they come in.

use super::get::zeros;
use super::rpc::{self, ErrorCode, open};
use super::{Blocks, Client, Error, File, Moment, Progress, Result, Stream, Transferred};
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{SystemTime, UNIX_EPOCH};

/// Write requests in flight, each as large as the server allows: what is between them it has to look at.
const WRITES_IN_FLIGHT: usize = 4;
/// Bytes that are copied at once, where the system does not do it.
const COPY_PIECE: usize = 256 << 10;

/// Copies what `source` holds into the file `path`. It comes under another name and is renamed
/// when all is there: an interrupted transfer leaves an existing file as it was.
pub fn put(
    client: &mut Client,
    source: &mut fs::File,
    path: &[u8],
    progress: Progress<'_>,
) -> Result<Transferred> {
    // Found out before a gigabyte has travelled.
    match client.stat(path, Blocks::Skip) {
        Ok(found) if found.kind == rpc::kind::DIRECTORY => {
            let text = String::from_utf8_lossy(path);
            return Err(Error::Local(
                format!("write {text} on the server"),
                io::ErrorKind::IsADirectory.into(),
            ));
        }
        Err(error) if !error.is(ErrorCode::NOT_FOUND) => return Err(error),
        _ => {}
    }
    let metadata = source.metadata().map_err(|error| Error::Local("look at the source".into(), error))?;
    let temporary = temporary_name(path);
    let mode = metadata.is_file().then_some((metadata.mode() & 0o777) as u16);
    let file = client
        .open_with_mode(&temporary, open::CREATE | open::EXCLUSIVE, mode)
        .map_err(|error| about(error, &temporary, path))?;
    let result = send_all(client, source, &file, metadata.is_file().then_some(metadata.len()), progress)
        .and_then(|done| client.sync(&file).map(|()| done))
        .and_then(|done| client.close(file).map(|()| done))
        .and_then(|done| client.rename(&temporary, path).map(|()| done));
    if result.is_err() {
        // The connection may be what failed. Then the name stays, and tells what it is.
        let _ = client.unlink(&temporary);
    }
    result.map_err(|error| about(error, &temporary, path))
}

/// A name beside `path` that nobody else has.
fn temporary_name(path: &[u8]) -> Vec<u8> {
    let parent = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let mut name = path[..parent].to_vec();
    name.extend(format!(".umbra-put-{}-{nanos:x}", std::process::id()).into_bytes());
    name
}

/// The server's message names the temporary file; people know the real one.
fn about(error: Error, temporary: &[u8], path: &[u8]) -> Error {
    match error {
        Error::Server(mut body) => {
            let (temporary, path) = (String::from_utf8_lossy(temporary), String::from_utf8_lossy(path));
            body.message = body.message.replace(&*temporary, &path);
            Error::Server(body)
        }
        other => other,
    }
}

fn send_all(
    client: &mut Client,
    source: &mut fs::File,
    file: &File,
    size: Option<u64>,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let Some(size) = size else { return send_stream(client, source, file, progress) };
    // With the size set first, no write has to extend the file.
    client.call(&rpc::Truncate { path: None, handle: Some(file.handle), size })?;
    let mut writes = Writes::new(client, file);
    let mut data = 0;
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at, size)? {
        at = start;
        while at < end {
            let len = (end - at).min(writes.piece() as u64) as usize;
            let count = writes.send_from(at, source, len)?;
            data += count as u64;
            // It was cut meanwhile: behind this piece, which was made up with zeros, the rest is a hole.
            at = if count < len { end } else { at + len as u64 };
            progress(at, Some(size));
        }
    }
    writes.finish()?;
    progress(size, Some(size));
    Ok(Transferred { size, data, moment: Moment::Several })
}

/// The next range of a file that is not a hole.
fn next_data(source: &fs::File, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(source, SeekFrom::Data(at)) {
        Ok(start) => start,
        // No data behind `at`.
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that does not know: all is data.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(source_failed(error.into())),
    };
    let end = seek(source, SeekFrom::Hole(start)).map_err(|error| source_failed(error.into()))?;
    Ok((start < size).then_some((start, end.min(size))))
}

fn send_stream(
    client: &mut Client,
    source: &mut fs::File,
    file: &File,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let mut writes = Writes::new(client, file);
    let mut buffer = vec![0; writes.piece()];
    let mut at = 0;
    loop {
        let count = fill(source, &mut buffer).map_err(source_failed)?;
        if count == 0 {
            break;
        }
        writes.send(at, &buffer[..count])?;
        at += count as u64;
        progress(at, None);
    }
    writes.finish()?;
    Ok(Transferred { size: at, data: at, moment: Moment::Several })
}

/// Reads until the buffer is full or the stream ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match source.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Writes in flight.
struct Writes<'c> {
    client: &'c mut Client,
    handle: u32,
}

impl<'c> Writes<'c> {
    fn new(client: &'c mut Client, file: &File) -> Self {
        Writes { client, handle: file.handle }
    }

    /// Bytes of one write: whole blocks, or the last write of one block would be the first of
    /// the next.
    fn piece(&self) -> usize {
        let server = self.client.server();
        let (most, block) = (server.max_payload, server.block_size.max(1));
        (most - most % block).max(1) as usize
    }

    fn send(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let write = self.next(offset)?;
        self.client.send(&write, bytes)
    }

    /// Sends what `source` has at `offset`; returns how much of `len` bytes that was. The rest went as zeros.
    fn send_from(&mut self, offset: u64, source: &fs::File, len: usize) -> Result<usize> {
        let write = self.next(offset)?;
        let mut copied = Copied { done: 0, error: None };
        self.client.send_with(&write, len, |stream, front| {
            stream.write_all(front)?;
            copied = copy_out(source, offset, len, stream)?;
            // The request is whole in any case, and the connection of further use.
            zeros(stream, copied.done as u64, len as u64)
        })?;
        copied.error.map_or(Ok(copied.done), |error| Err(source_failed(error)))
    }

    /// The next request, once there is room for one more.
    fn next(&mut self, offset: u64) -> Result<rpc::Write> {
        while self.client.in_flight() >= WRITES_IN_FLIGHT {
            self.client.receive()?;
        }
        Ok(rpc::Write { handle: self.handle, offset, sync: false })
    }

    fn finish(self) -> Result<()> {
        while self.client.in_flight() > 0 {
            self.client.receive()?;
        }
        Ok(())
    }
}

/// How much of a range of a file was copied, and why not more, if it was not the end of the file.
pub(super) struct Copied {
    pub done: usize,
    pub error: Option<io::Error>,
}

/// Copies a range of a file into a stream; fails if the stream does. Without a copy in between, where the system can do that.
pub(super) fn copy_out(
    source: &fs::File,
    offset: u64,
    len: usize,
    stream: &mut Stream,
) -> io::Result<Copied> {
    let mut done = 0;
    while done < len {
        let mut at = offset + done as u64;
        match sendfile(&*stream, source, Some(&mut at), len - done) {
            Ok(0) => return Ok(Copied { done, error: None }),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error @ (Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)) => {
                return Err(error.into());
            }
            // Not between these two; or it is the source that failed, which is found out below.
            Err(_) => break,
        }
    }
    if done == len {
        return Ok(Copied { done, error: None });
    }
    let mut buffer = vec![0; COPY_PIECE.min(len - done)];
    while done < len {
        let piece = &mut buffer[..COPY_PIECE.min(len - done)];
        match source.read_at(piece, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => {
                stream.write_all(&piece[..count])?;
                done += count;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Copied { done, error: Some(error) }),
        }
    }
    Ok(Copied { done, error: None })
}

fn source_failed(error: io::Error) -> Error {
    Error::Local("read the source".into(), error)
}
