//! Whole files, with their holes, in both directions.
//!
//! Several requests are in flight, so that the guest always has work. What is in flight is
//! bounded in bytes; answers to writes are small, so sending does not wait for a receiver.

use super::rpc::{self, ErrorCode, open};
use super::{Blocks, Client, Error, File, Result};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of one write request.
const WRITE_PIECE: u64 = 256 << 10;
/// Write requests in flight.
const WRITES_IN_FLIGHT: usize = 8;
/// Bytes of one read request; the server answers it in frames.
const READ_PIECE: u64 = 4 << 20;
/// Read requests in flight.
const READS_IN_FLIGHT: usize = 4;
/// How much of a file is asked for its runs at once.
const EXTENTS_SPAN: u64 = 4 << 30;
/// Bytes that are written to a file at once, at least: large writes get large pages of the host's cache. They fit the
/// processor's.
const CHUNK: usize = 512 << 10;
/// Zeros for a standard output, which has no holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Size of the file.
    pub size: u64,
    /// Bytes that travelled: the size without the holes.
    pub data: u64,
}

/// Hears how far a transfer is: the position in the file, and its size where it is known.
pub type Progress<'p> = &'p mut dyn FnMut(u64, Option<u64>);

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
    let mut buffer = vec![0; writes.piece()];
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at, size)? {
        at = start;
        while at < end {
            let piece = &mut buffer[..(end - at).min(writes.piece() as u64) as usize];
            let count = source.read_at(piece, at).map_err(source_failed)?;
            if count == 0 {
                // It was cut meanwhile: the rest is a hole.
                break;
            }
            writes.send(at, &piece[..count])?;
            at += count as u64;
            data += count as u64;
            progress(at, Some(size));
        }
        at = end;
    }
    writes.finish()?;
    progress(size, Some(size));
    Ok(Transferred { size, data })
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
    Ok(Transferred { size: at, data: at })
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
        let (most, block) = (u64::from(server.max_payload), u64::from(server.block_size).max(1));
        (WRITE_PIECE.min(most - most % block)).max(1) as usize
    }

    fn send(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        while self.client.in_flight() >= WRITES_IN_FLIGHT {
            self.client.receive()?;
        }
        self.client.send(&rpc::Write { handle: self.handle, offset, sync: false }, bytes)
    }

    fn finish(self) -> Result<()> {
        while self.client.in_flight() > 0 {
            self.client.receive()?;
        }
        Ok(())
    }
}

fn source_failed(error: io::Error) -> Error {
    Error::Local("read the source".into(), error)
}

fn target_failed(error: io::Error) -> Error {
    Error::Local("write the copy".into(), error)
}

/// Where [`get`] writes.
enum Target<'t> {
    /// A file: holes are left out.
    File(&'t fs::File),
    /// A stream: holes are zeros.
    Stream(&'t mut dyn Write),
}

/// Copies the file `path` into a new local file, or into a stream for `None`.
pub fn get(
    client: &mut Client,
    path: &[u8],
    local: Option<&Path>,
    stream: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let file = client.open(path, 0)?;
    let result = match local {
        None => receive_all(client, &file, &mut Target::Stream(stream), progress),
        Some(local) => {
            let failed = |error| Error::Local(format!("create {}", local.display()), error);
            let target = fs::File::create(local).map_err(failed)?;
            let result = receive_all(client, &file, &mut Target::File(&target), progress);
            if result.is_err() && target.metadata().is_ok_and(|found| found.is_file()) {
                // Half a copy looks like a whole one. What fails here leaves it, named in the error.
                let _ = fs::remove_file(local);
            }
            result
        }
    };
    if result.is_ok() {
        client.close(file)?;
    }
    result
}

fn receive_all(
    client: &mut Client,
    file: &File,
    target: &mut Target<'_>,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let size = file.size;
    let mut data = 0;
    let mut span = 0;
    // At least once, so that a file on a character device or an empty one ends right too.
    while span < size {
        let end = size.min(span + EXTENTS_SPAN);
        let runs = data_runs(client, file, span, end)?;
        for &(start, stop) in &runs {
            data += stop - start;
        }
        receive_runs(client, file, &runs, (span, end), target, &mut |at| progress(at, Some(size)))?;
        span = end;
        progress(span, Some(size));
    }
    match target {
        Target::File(file) => {
            // A device has no size to be set.
            if file.metadata().is_ok_and(|found| found.is_file()) {
                file.set_len(size).map_err(target_failed)?;
            }
        }
        Target::Stream(stream) => stream.flush().map_err(target_failed)?,
    }
    Ok(Transferred { size, data })
}

/// The ranges between `from` and `to` that are not zeros for sure, neighbours joined.
fn data_runs(client: &mut Client, file: &File, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for extent in client.extents(file, from, Some(to - from))? {
        let (start, end) = (extent.offset.max(from), extent.offset.saturating_add(extent.len).min(to));
        if extent.is_zero() || start >= end {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => runs.push((start, end)),
        }
    }
    Ok(runs)
}

fn receive_runs(
    client: &mut Client,
    file: &File,
    runs: &[(u64, u64)],
    (at, end): (u64, u64),
    target: &mut Target<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let pieces: Vec<(u64, u64)> = runs.iter().flat_map(|&run| cut(run)).collect();
    let reads = Reads { client, handle: file.handle, pieces: &pieces, asked: 0 };
    match target {
        Target::File(file) => {
            for &(start, end) in runs.iter().filter(|(start, end)| end - start >= CHUNK as u64) {
                provide(file, start, end)?;
            }
            to_file(reads, file, progress)
        }
        Target::Stream(stream) => to_stream(reads, (at, end), *stream, progress),
    }
}

/// Reads in flight.
struct Reads<'r> {
    client: &'r mut Client,
    handle: u32,
    /// What is read.
    pieces: &'r [(u64, u64)],
    /// How many of them were asked for.
    asked: usize,
}

impl Reads<'_> {
    /// Keeps requests in flight.
    fn ask(&mut self) -> Result<()> {
        while self.client.in_flight() < READS_IN_FLIGHT
            && let Some(&(offset, end)) = self.pieces.get(self.asked)
        {
            self.client.send(&rpc::Read { handle: self.handle, offset, len: end - offset }, &[])?;
            self.asked += 1;
        }
        Ok(())
    }
}

/// In order, with zeros for holes, and for what a file that was cut meanwhile lacks.
fn to_stream(
    mut reads: Reads<'_>,
    (mut at, end): (u64, u64),
    stream: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    for &(start, _) in reads.pieces {
        reads.ask()?;
        zeros(stream, at, start)?;
        at = start;
        loop {
            let response = reads.client.receive()?;
            let more = response.more;
            stream.write_all(response.payload).map_err(target_failed)?;
            at += response.payload.len() as u64;
            progress(at);
            if !more {
                break;
            }
        }
    }
    zeros(stream, at, end)
}

/// Has the disk give space for a range at once: writing to it is cheaper then, and a full disk is known before anything has
/// travelled. A filesystem, or a device, that cannot do that is written to as it is.
fn provide(file: &fs::File, start: u64, end: u64) -> Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, start, end - start) {
        Err(error @ Errno::NOSPC) => Err(target_failed(error.into())),
        _ => Ok(()),
    }
}

/// By one thread, which finds in the processor's caches what it has just received: with a second one to write, it took longer. What
/// the file lacks, because it was cut meanwhile, is a hole.
fn to_file(mut reads: Reads<'_>, file: &fs::File, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let mut bytes = vec![0; CHUNK + reads.client.server().max_payload as usize];
    for &(mut at, _) in reads.pieces {
        reads.ask()?;
        let mut more = true;
        while more {
            let mut len = 0;
            while more && len < CHUNK {
                let count;
                (count, more) = reads.client.receive_payload(&mut bytes[len..])?;
                len += count;
            }
            file.write_all_at(&bytes[..len], at).map_err(target_failed)?;
            at += len as u64;
            progress(at);
        }
    }
    Ok(())
}

/// A range in pieces of [`READ_PIECE`].
fn cut((start, end): (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    (start..end).step_by(READ_PIECE as usize).map(move |at| (at, end.min(at + READ_PIECE)))
}

fn zeros(stream: &mut dyn Write, mut from: u64, to: u64) -> Result<()> {
    while from < to {
        let count = (to - from).min(ZEROS.len() as u64);
        stream.write_all(&ZEROS[..count as usize]).map_err(target_failed)?;
        from += count;
    }
    Ok(())
}
