//! Whole files into the server, with their holes.
//!
//! Several requests are in flight, so that the guest always has work. What is in flight is bounded
//! in bytes; answers to writes are small, so sending does not wait for a receiver. Nothing is
//! copied on the way but by the device: this end sends pages of the host's cache, and the guest
//! takes the blocks over that they come in.

use super::rpc::{self, ErrorCode};
use super::sink::zeros;
use super::{Client, Error, File, Moment, Progress, Result, Stream, Transferred};
use crate::units::show_bytes;
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

/// Write requests in flight, each as large as the server allows: what is between them it has to
/// look at.
const WRITES_IN_FLIGHT: usize = 4;
/// Bytes that are copied at once, where the system does not do it.
const COPY_PIECE: usize = 256 << 10;

/// Copies what `source` holds into the file `path`. It has no name there until all of it is
/// durable, and then takes the place of a file that has the name: an interrupted transfer leaves
/// that as it was, and nothing else.
///
/// # Errors
///
/// [`Error::Local`] if the file cannot be read; [`Error::Server`], `no-space` for example, also
/// before anything travels where the size is known; else those of the connection. What was there
/// before is still there then.
pub fn put(
    client: &mut Client,
    source: &mut fs::File,
    path: &[u8],
    progress: Progress<'_>,
) -> Result<Transferred> {
    let metadata =
        source.metadata().map_err(|error| Error::Local("look at the source".into(), error))?;
    let mode = metadata.is_file().then_some((metadata.mode() & 0o777) as u16);
    let size = metadata.is_file().then_some(metadata.len());
    let file = client.open_unnamed(directory_of(path), mode)?;
    let result = send_and_name(client, source, &file, size, path, progress);
    match result {
        Ok(done) => client.close(file).map(|()| done),
        Err(error) => {
            let error = about(error, &file, path);
            if let Error::Local(..) | Error::Server(_) = error {
                // What failed is not the connection. Were it to fail now, the handle would go with
                // it.
                let _ = client.close(file);
            }
            Err(error)
        }
    }
}

/// The server's message names the file by its number; people know its name.
fn about(error: Error, file: &File, path: &[u8]) -> Error {
    match error {
        Error::Server(mut body) => {
            let number = format!("inode {}", file.ino);
            body.message = body.message.replace(&number, &String::from_utf8_lossy(path));
            Error::Server(body)
        }
        other => other,
    }
}

/// The directory of a path, with its slash.
fn directory_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => &path[..=at],
        None => b"/",
    }
}

fn send_and_name(
    client: &mut Client,
    source: &mut fs::File,
    file: &File,
    size: Option<u64>,
    path: &[u8],
    progress: Progress<'_>,
) -> Result<Transferred> {
    // Found out before a gigabyte has travelled.
    client.may_link_open(file, path)?;
    let done = match size {
        Some(size) => send_file(client, source, file, size, progress)?,
        None => send_stream(client, source, file, progress)?,
    };
    client.link_open(file, path).map(|()| done)
}

/// Blocks that a file takes beside those of its content, at most, and but for one each [`LEAF`].
const NODES: u64 = 8;
/// Bytes of content that one block of pointers leads to.
const LEAF: u64 = 2 << 20;

/// Whether what is to be sent finds room, so that it does not take all there is from others before
/// it fails.
fn check_room(client: &mut Client, source: &fs::File, size: u64) -> Result<()> {
    let block = u64::from(client.server().block_size.max(1));
    let (mut blocks, mut behind) = (0, 0);
    let (mut leaves, mut behind_leaf) = (0, 0);
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at, size)? {
        // Two ranges may be in one block.
        blocks += end.div_ceil(block) - behind.max(start / block);
        leaves += end.div_ceil(LEAF) - behind_leaf.max(start / LEAF);
        (behind, behind_leaf, at) = (end.div_ceil(block), end.div_ceil(LEAF), end);
    }
    let needed = blocks + leaves + NODES;
    let mut available = client.space()?.blocks_available;
    if available.is_some_and(|available| available < needed) {
        client.reclaim()?;
        available = client.space()?.blocks_available;
    }
    match available {
        Some(available) if available < needed && blocks > 0 => Err(Error::Server(rpc::ErrorBody {
            code: ErrorCode::NO_SPACE,
            message: format!(
                "no space left: {} are needed, and {} are free",
                show_bytes(needed * block),
                show_bytes(available * block)
            ),
            done: None,
        })),
        _ => Ok(()),
    }
}

fn send_file(
    client: &mut Client,
    source: &mut fs::File,
    file: &File,
    size: u64,
    progress: Progress<'_>,
) -> Result<Transferred> {
    check_room(client, source, size)?;
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
            // It was cut meanwhile: behind this piece, which was made up with zeros, the rest is a
            // hole.
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

/// Sends what comes until it ends; blocks of zeros become holes.
fn send_stream(
    client: &mut Client,
    source: &mut fs::File,
    file: &File,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let most = client.server().max_file_size;
    let block = client.server().block_size.max(1) as usize;
    let mut writes = Writes::new(client, file);
    let mut buffer = vec![0; writes.piece()];
    let (mut at, mut data) = (0, 0);
    loop {
        let count = fill(source, &mut buffer).map_err(source_failed)?;
        if count == 0 {
            break;
        }
        if count as u64 > most.saturating_sub(at) {
            return Err(Error::Server(rpc::ErrorBody {
                code: ErrorCode::TOO_LARGE,
                message: format!("a file has at most {}", show_bytes(most)),
                done: None,
            }));
        }
        for (start, end) in runs_of_data(&buffer[..count], block) {
            writes.send(at + start as u64, &buffer[start..end])?;
            data += (end - start) as u64;
        }
        at += count as u64;
        progress(at, None);
    }
    writes.finish()?;
    // It may end with a hole.
    client.call(&rpc::Truncate { path: None, handle: Some(file.handle), size: at })?;
    Ok(Transferred { size: at, data, moment: Moment::Several })
}

/// Where the blocks are that are not all zeros, joined.
fn runs_of_data(bytes: &[u8], block: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, piece) in bytes.chunks(block).enumerate().filter(|(_, piece)| !is_zero(piece)) {
        let start = index * block;
        match runs.last_mut() {
            Some(last) if last.1 == start => last.1 += piece.len(),
            _ => runs.push((start, start + piece.len())),
        }
    }
    runs
}

fn is_zero(bytes: &[u8]) -> bool {
    // Each byte equals the next one, and the first is zero: compared as fast as memory is.
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
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

    /// Sends what `source` has at `offset`; returns how much of `len` bytes that was. The rest went
    /// as zeros.
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

/// Copies a range of a file into a stream; fails if the stream does. Without a copy in between,
/// where the system can do that.
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
