//! Blocks of the server, read where its NVDIMM is a file on this machine.
//!
//! Only what is frozen is read so: blocks that nobody changes or uses for anything else as long as
//! their handle is open. The machine maps the file, so what the guest has stored is in the host's
//! cache of it, on the disk or not.
//!
//! They are copied by way of a buffer that fits the processor's caches. To let the filesystem copy
//! (`copy_file_range`) is little faster, and some then share blocks between the copy and the image:
//! the machine's next stores there would need new ones, on a disk that may be full.
//!
//! Blocks with memory errors that the guest knows of are not among those that it names.

use super::sink::{CHUNK, Sink, sink_failed, zeros};
use super::{Error, Result};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A range of a file that is not zeros for sure, in bytes, and where it begins in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u64,
    pub end: u64,
    pub in_image: u64,
}

/// The image of the server's NVDIMM.
pub(super) struct Image {
    file: fs::File,
}

impl Image {
    /// Opens it, if it can be read and begins with what the server says that its NVDIMM does.
    pub fn open(path: &Path, identity: &[u8]) -> Option<Image> {
        let file = fs::File::open(path).ok()?;
        let mut start = vec![0; identity.len()];
        file.read_exact_at(&mut start, 0).ok()?;
        (start == identity).then_some(Image { file })
    }

    /// Copies runs of a file, of which `from` to `to` is looked at.
    pub fn copy(
        &self,
        runs: &[Run],
        (from, to): (u64, u64),
        sink: &mut Sink<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut bytes = vec![0; CHUNK];
        let mut end = from;
        for run in runs {
            if let Sink::Stream(stream) = sink {
                zeros(stream, end, run.start).map_err(sink_failed)?;
            }
            end = run.end;
            for at in (run.start..run.end).step_by(CHUNK) {
                let piece = &mut bytes[..(run.end - at).min(CHUNK as u64) as usize];
                // What a server says may be beyond everything; that is no place in a file.
                let from = run.in_image.saturating_add(at - run.start);
                self.file.read_exact_at(piece, from).map_err(source_failed)?;
                let written = match sink {
                    Sink::File(file) => file.write_all_at(piece, at),
                    Sink::Stream(stream) => stream.write_all(piece),
                };
                written.map_err(sink_failed)?;
                progress(at + piece.len() as u64);
            }
        }
        match sink {
            Sink::File(_) => Ok(()),
            Sink::Stream(stream) => zeros(stream, end, to).map_err(sink_failed),
        }
    }
}

fn source_failed(error: io::Error) -> Error {
    let error = match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::other("it ends before the block"),
        _ => error,
    };
    Error::Local("read a block in the image of the NVDIMM".into(), error)
}
