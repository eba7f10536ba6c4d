//! Blocks of the server, read where its NVDIMM is a file on this machine.
//!
//! Only what is frozen is read so: blocks that nobody changes or uses for anything else as long as their handle is open.
//! The machine maps the file, so what the guest has stored is in the host's cache of it, on the disk or not.

use super::get::{CHUNK, Run, Target, target_failed, zeros};
use super::{Error, Result};
use rustix::fs::copy_file_range;
use rustix::io::Errno;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Most bytes that the system is asked to copy at once: progress is told in between.
const PIECE: u64 = 16 << 20;

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
        target: &mut Target<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut at = from;
        for run in runs {
            match target {
                Target::File(file) => self.copy_to_file(*run, file, &mut bytes, progress)?,
                Target::Stream(stream) => {
                    zeros(stream, at, run.start).map_err(target_failed)?;
                    self.copy_in_pieces(*run, &mut bytes, &mut |piece, at| {
                        stream.write_all(piece)?;
                        progress(at + piece.len() as u64);
                        Ok(())
                    })?;
                    at = run.end;
                }
            }
        }
        match target {
            Target::File(_) => Ok(()),
            Target::Stream(stream) => zeros(stream, at, to).map_err(target_failed),
        }
    }

    /// Lets the system copy, which has both files in one cache; where it cannot do that, by way of `bytes`.
    fn copy_to_file(
        &self,
        mut run: Run,
        file: &fs::File,
        bytes: &mut Vec<u8>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        while run.start < run.end {
            let (mut from, mut to) = (run.in_image, run.start);
            let len = (run.end - run.start).min(PIECE) as usize;
            match copy_file_range(&self.file, Some(&mut from), file, Some(&mut to), len) {
                Ok(0) => return Err(ended()),
                Ok(count) => {
                    run.start += count as u64;
                    run.in_image += count as u64;
                    progress(run.start);
                }
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                    return Err(target_failed(error.into()));
                }
                // Not between these two files; or one of them fails, which is told apart below.
                Err(_) => {
                    return self.copy_in_pieces(run, bytes, &mut |piece, at| {
                        file.write_all_at(piece, at)?;
                        progress(at + piece.len() as u64);
                        Ok(())
                    });
                }
            }
        }
        Ok(())
    }

    /// Hands a run to `write` in pieces, each with its place in the file.
    fn copy_in_pieces(
        &self,
        run: Run,
        bytes: &mut Vec<u8>,
        write: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
    ) -> Result<()> {
        bytes.resize(CHUNK, 0);
        for at in (run.start..run.end).step_by(CHUNK) {
            let piece = &mut bytes[..(run.end - at).min(CHUNK as u64) as usize];
            self.file.read_exact_at(piece, run.in_image + (at - run.start)).map_err(|error| {
                match error.kind() {
                    ErrorKind::UnexpectedEof => ended(),
                    _ => source_failed(error),
                }
            })?;
            write(piece, at).map_err(target_failed)?;
        }
        Ok(())
    }
}

fn ended() -> Error {
    source_failed(io::Error::other("it ends before the block"))
}

fn source_failed(error: io::Error) -> Error {
    Error::Local("read a block in the image of the NVDIMM".into(), error)
}
