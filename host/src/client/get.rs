//! Whole files out of the server, with their holes.
//!
//! What is fetched is what the file contains when that begins: a clone without a name, which goes
//! with the handle. Its blocks stay where they are. So if the image of the NVDIMM is on this
//! machine they are copied from there (`image.rs`), and the server only says which; else they come
//! over the connection, with several requests in flight.

use super::image::{Image, Run};
use super::replace::Replacement;
use super::rpc::{self, ErrorCode, open};
use super::sink::{CHUNK, Sink, sink_failed, zeros};
use super::{Client, Error, File, Moment, Progress, Result, Transferred};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of one read request; the server answers it in frames.
const READ_PIECE: u64 = 4 << 20;
/// Read requests in flight.
const READS_IN_FLIGHT: usize = 4;
/// How much of a file is asked for its runs at once.
const EXTENTS_SPAN: u64 = 4 << 30;
/// What is read.
struct Source {
    file: File,
    /// The image of the NVDIMM, if its blocks can be read there.
    image: Option<Image>,
    moment: Moment,
}

/// Copies the file `path` into a local file, which it replaces when all is there, or into a stream
/// for `None`.
///
/// # Errors
///
/// [`Error::Local`] if the copy cannot be written; [`Error::Server`], `not-found` for example; else
/// those of the connection. The local file is then as it was.
pub fn get(
    client: &mut Client,
    path: &[u8],
    local: Option<&Path>,
    stream: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let source = open_source(client, path)?;
    let result = match local {
        None => fetch(client, &source, &mut Sink::Stream(stream), progress),
        Some(local) => fetch_to_file(client, &source, local, progress),
    };
    if let Err(Error::Local(..) | Error::Server(_)) = result {
        // What failed is not the connection. Were it to fail now, the handle would go with it.
        let _ = client.close(source.file);
    }
    result
}

fn fetch_to_file(
    client: &mut Client,
    source: &Source,
    local: &Path,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let sink = Replacement::open(local)?;
    let done = fetch(client, source, &mut Sink::File(sink.file()), progress)?;
    sink.finish().map(|()| done)
}

fn fetch(
    client: &mut Client,
    source: &Source,
    sink: &mut Sink<'_>,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let done = fetch_all(client, source, sink, progress)?;
    // Not before this has been answered is it sure that all blocks stayed where they were.
    client.close(source.file).map(|()| done)
}

/// Opens what a file contains now, and the image of the NVDIMM if that can be read here.
fn open_source(client: &mut Client, path: &[u8]) -> Result<Source> {
    match client.call(&rpc::Open { path, flags: open::FROZEN, mode: None }) {
        Ok(opened) => {
            let image = client.image.as_deref().zip(opened.identity);
            let image = image.and_then(|(image, identity)| Image::open(image, &identity[..]));
            let file = File { handle: opened.handle, ino: opened.ino, size: opened.size };
            Ok(Source { file, image, moment: Moment::One })
        }
        // A server that cannot do that, or has no room left for a clone.
        Err(error) if error.is(ErrorCode::UNSUPPORTED) || error.is(ErrorCode::NO_SPACE) => {
            Ok(Source { file: client.open(path, 0)?, image: None, moment: Moment::Several })
        }
        Err(error) => Err(error),
    }
}

fn fetch_all(
    client: &mut Client,
    source: &Source,
    sink: &mut Sink<'_>,
    progress: Progress<'_>,
) -> Result<Transferred> {
    let Source { file, image, moment } = source;
    let size = file.size;
    let mut data = 0;
    let mut span = 0;
    // At least once, so that a file on a character device or an empty one ends right too.
    while span < size {
        let end = size.min(span + EXTENTS_SPAN);
        let runs = data_runs(client, source, span, end)?;
        let joined = joined(&runs);
        data += joined.iter().map(|(start, end)| end - start).sum::<u64>();
        if let Sink::File(file) = sink {
            for &(start, end) in joined.iter().filter(|(start, end)| end - start >= CHUNK as u64) {
                provide(file, start, end)?;
            }
        }
        let progress = &mut |at| progress(at, Some(size));
        match image {
            Some(image) => image.copy(&runs, (span, end), sink, progress)?,
            None => receive_runs(client, file, &joined, (span, end), sink, progress)?,
        }
        span = end;
        progress(span);
    }
    match sink {
        Sink::File(file) => {
            // A device has no size to be set.
            if file.metadata().is_ok_and(|found| found.is_file()) {
                file.set_len(size).map_err(sink_failed)?;
            }
        }
        Sink::Stream(stream) => stream.flush().map_err(sink_failed)?,
    }
    Ok(Transferred { size, data, moment: *moment })
}

/// The ranges between `from` and `to` that are not zeros for sure, joined where one goes on where
/// another ends, in the image too.
fn data_runs(client: &mut Client, source: &Source, from: u64, to: u64) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let block_size = u64::from(client.server().block_size);
    for extent in client.extents(&source.file, from, Some(to - from))? {
        let (start, end) =
            (extent.offset.max(from), extent.offset.saturating_add(extent.len).min(to));
        if extent.bad && start < end {
            verify_readable(client, source, start)?;
        }
        let block = extent.block.or(extent.bad.then_some(u64::MAX));
        let Some(block) = block.filter(|_| !extent.is_zero() && start < end) else {
            continue;
        };
        let in_image = block.saturating_mul(block_size).saturating_add(start - extent.offset);
        match runs.last_mut() {
            Some(last)
                if last.end == start
                    && last.in_image.checked_add(last.end - last.start) == Some(in_image) =>
            {
                last.end = end;
            }
            _ => runs.push(Run { start, end, in_image }),
        }
    }
    Ok(runs)
}

/// Has the server say why it cannot read a block that is on its list of bad blocks. If it can by
/// now, because the block was written or the list was cleared, the block comes over the connection.
/// Where the others come from the image, there is no such way.
fn verify_readable(client: &mut Client, source: &Source, at: u64) -> Result<()> {
    client.read(&source.file, at, 1)?;
    match source.image {
        None => Ok(()),
        Some(_) => {
            let why = std::io::Error::other("its list of bad blocks was cleared meanwhile");
            Err(Error::Local("read a block in the image of the NVDIMM".into(), why))
        }
    }
}

/// The ranges of runs, joined wherever they are in the image.
fn joined(runs: &[Run]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for run in runs {
        match all.last_mut() {
            Some(last) if last.1 == run.start => last.1 = run.end,
            _ => all.push((run.start, run.end)),
        }
    }
    all
}

/// Has the disk give space for a range at once: writing to it is cheaper then, and a full disk is
/// known before anything has travelled. A filesystem, or a device, that cannot do that is written
/// to as it is.
fn provide(file: &fs::File, start: u64, end: u64) -> Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, start, end - start) {
        Err(error @ Errno::NOSPC) => Err(sink_failed(error.into())),
        _ => Ok(()),
    }
}

fn receive_runs(
    client: &mut Client,
    file: &File,
    runs: &[(u64, u64)],
    span: (u64, u64),
    sink: &mut Sink<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let pieces: Vec<(u64, u64)> = runs.iter().flat_map(|&run| cut(run)).collect();
    let reads = Reads { client, handle: file.handle, pieces: &pieces, asked: 0 };
    match sink {
        Sink::File(file) => to_file(reads, file, progress),
        Sink::Stream(stream) => to_stream(reads, span, *stream, progress),
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
        zeros(stream, at, start).map_err(sink_failed)?;
        at = start;
        loop {
            let response = reads.client.receive()?;
            let more = response.more;
            stream.write_all(response.payload).map_err(sink_failed)?;
            at += response.payload.len() as u64;
            progress(at);
            if !more {
                break;
            }
        }
    }
    zeros(stream, at, end).map_err(sink_failed)
}

/// By one thread, which finds in the processor's caches what it has just received: with a second
/// one to write, it took longer. What the file lacks, because it was cut meanwhile, is a hole.
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
            file.write_all_at(&bytes[..len], at).map_err(sink_failed)?;
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
