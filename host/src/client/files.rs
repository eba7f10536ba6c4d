//! A method for each request of the protocol. Paths are byte strings from the root.

use super::rpc::{self, open};
use super::{Client, Error, Result};

/// A file that a connection has open: a window of the server, which ends with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its number on the connection.
    pub handle: u32,
    /// Its inode.
    pub ino: u64,
    /// Its size when it was opened.
    pub size: u64,
}

/// A store of several frames that may have ended midway.
#[derive(Debug)]
pub struct Poked {
    /// Bytes that are stored, counted from the first.
    pub stored: u64,
    /// Why not all of them are.
    pub error: Option<Error>,
}

/// The server.
impl Client {
    /// Does nothing, there and back.
    ///
    /// # Errors
    ///
    /// Those of the connection only.
    pub fn ping(&mut self) -> Result<()> {
        self.call(&rpc::Ping {}).map(drop)
    }

    /// How the server is.
    ///
    /// # Errors
    ///
    /// Those of the connection only.
    pub fn status(&mut self) -> Result<rpc::StatusResponse> {
        self.call(&rpc::Status::default())
    }

    /// Unmounts and switches the machine off.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn shutdown(&mut self) -> Result<()> {
        self.call(&rpc::PowerOff {}).map(drop)
    }

    /// Verifies the volume and its windows.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: what is wrong with the volume is in the response.
    pub fn check(&mut self) -> Result<rpc::CheckResponse> {
        let mut all = rpc::CheckResponse::default();
        self.call_each(&rpc::Check {}, |mut part, _| {
            all.issues.append(&mut part.issues);
            all.issues_total = part.issues_total.or(all.issues_total);
            all.blocks = part.blocks.or(all.blocks);
            all.inodes = part.inodes.or(all.inodes);
            all.changed = part.changed.or(all.changed);
            Ok(())
        })?;
        Ok(all)
    }

    /// Measures one round of a part of the benchmarks, in the server.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: a part that does not exist, `no-space`.
    pub fn bench(&mut self, part: &str, parameter: Option<u64>) -> Result<Vec<rpc::Sample>> {
        let mut all = Vec::new();
        self.call_each(&rpc::Bench { part, parameter, keep: false }, |mut answer, _| {
            all.append(&mut answer.items);
            Ok(())
        })?;
        Ok(all)
    }

    /// Waits until the blocks of deleted files are free.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn reclaim(&mut self) -> Result<rpc::ReclaimResponse> {
        self.call(&rpc::Reclaim { wait: true })
    }
}

/// Names, attributes, space.
impl Client {
    /// The space of the volume.
    ///
    /// # Errors
    ///
    /// Those of the connection only.
    pub fn space(&mut self) -> Result<rpc::SpaceResponse> {
        self.call(&rpc::Space {})
    }

    /// The attributes of a path; its blocks are counted where asked for.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `not-directory`.
    pub fn stat(&mut self, path: &[u8], count: Blocks) -> Result<rpc::Attributes> {
        self.call(&rpc::Stat { path: Some(path), handle: None, blocks: count == Blocks::Count })
    }

    /// The entries of a directory, with their attributes.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `not-directory`.
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<rpc::Entry>> {
        let mut all = Vec::new();
        self.call_each(
            &rpc::List { path, cookie: 0, max: None, attributes: true },
            |mut part, _| {
                all.append(&mut part.items);
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `exists`, `not-found`, `not-directory`, `no-space`.
    pub fn mkdir(&mut self, path: &[u8], parents: Parents) -> Result<()> {
        let parents = parents == Parents::Make;
        self.call(&rpc::MakeDirectory { path, mode: None, parents }).map(drop)
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `is-directory`, `busy` while clients of NBD use the
    /// file.
    pub fn unlink(&mut self, path: &[u8]) -> Result<()> {
        self.call(&rpc::Unlink { path }).map(drop)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `not-directory`, `not-empty`.
    pub fn rmdir(&mut self, path: &[u8]) -> Result<()> {
        self.call(&rpc::RemoveDirectory { path }).map(drop)
    }

    /// Renames; replaces a file atomically.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `exists`, `not-empty`, `no-space`, `busy` while
    /// clients of NBD use the file that would be replaced.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.call(&rpc::Rename { from, to }).map(drop)
    }

    /// Adds a name for a file or a symbolic link.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `exists`, `is-directory`, `no-space`.
    pub fn link(&mut self, path: &[u8], to: &[u8]) -> Result<()> {
        self.call(&rpc::Link { path: Some(path), to, ..Default::default() }).map(drop)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `exists`, `not-found`, `name-too-long`, `no-space`.
    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.call(&rpc::Symlink { path, target }).map(drop)
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `invalid` if it is none.
    pub fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        Ok(self.call(&rpc::ReadLink { path })?.target)
    }

    /// Sets the size of a file.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `no-space`, `busy` while clients of NBD use what
    /// would be cut.
    pub fn truncate(&mut self, path: &[u8], size: u64) -> Result<()> {
        self.call(&rpc::Truncate { path: Some(path), handle: None, size }).map(drop)
    }
}

/// Content.
impl Client {
    /// Opens a file; `flags` are those of [`rpc::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `exists`, `is-directory`, `no-space`, and
    /// `too-many-handles` if the connection has all handles that it can have.
    pub fn open(&mut self, path: &[u8], flags: u32) -> Result<File> {
        self.open_with_mode(path, flags, None)
    }

    /// As [`Client::open`], with the permission bits of a file that is created.
    ///
    /// # Errors
    ///
    /// Those of [`Client::open`].
    pub fn open_with_mode(&mut self, path: &[u8], flags: u32, mode: Option<u16>) -> Result<File> {
        let opened = self.call(&rpc::Open { path, flags, mode })?;
        Ok(File { handle: opened.handle, ino: opened.ino, size: opened.size })
    }

    /// Opens a file, and creates it where missing.
    ///
    /// # Errors
    ///
    /// Those of [`Client::open`].
    pub fn open_or_create(&mut self, path: &[u8]) -> Result<File> {
        self.open(path, open::CREATE)
    }

    /// Opens a file that has no name, in a directory.
    ///
    /// # Errors
    ///
    /// Those of [`Client::open`], for the directory.
    pub fn open_unnamed(&mut self, directory: &[u8], mode: Option<u16>) -> Result<File> {
        let opened = self.call(&rpc::OpenUnnamed { path: directory, mode, uid: 0, gid: 0 })?;
        Ok(File { handle: opened.handle, ino: opened.ino, size: opened.size })
    }

    /// Gives an open file a name, which is taken from the file that has it now.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `is-directory`, `no-space`, `busy` while clients of
    /// NBD use the file that would be replaced.
    pub fn link_open(&mut self, file: &File, to: &[u8]) -> Result<()> {
        let (handle, replace) = (Some(file.handle), true);
        self.call(&rpc::Link { path: None, to, handle, replace, check: false }).map(drop)
    }

    /// Whether [`Client::link_open`] would be refused now.
    ///
    /// # Errors
    ///
    /// Those of [`Client::link_open`].
    pub fn may_link_open(&mut self, file: &File, to: &[u8]) -> Result<()> {
        let (handle, replace) = (Some(file.handle), true);
        self.call(&rpc::Link { path: None, to, handle, replace, check: true }).map(drop)
    }

    /// Closes a file; what was stored through it is durable then.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]; the handle is closed even so.
    pub fn close(&mut self, file: File) -> Result<()> {
        self.call(&rpc::Close { handle: file.handle }).map(drop)
    }

    /// Reads: fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `poisoned` where the medium cannot be read.
    pub fn read(&mut self, file: &File, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.call_each(&rpc::Read { handle: file.handle, offset, len }, |_, payload| {
            all.extend_from_slice(payload);
            Ok(())
        })?;
        Ok(all)
    }

    /// Writes all bytes, in as many requests as it takes.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `no-space`, `too-large`. Pieces before the one that failed are
    /// written.
    pub fn write(&mut self, file: &File, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(self.server().max_payload as usize) {
            self.call_with(&rpc::Write { handle: file.handle, offset, sync: false }, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes a file durable.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn sync(&mut self, file: &File) -> Result<()> {
        self.call(&rpc::Sync { handle: file.handle }).map(drop)
    }

    /// The runs of a range of a file.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn extents(
        &mut self,
        file: &File,
        offset: u64,
        len: Option<u64>,
    ) -> Result<Vec<rpc::Extent>> {
        let mut all = Vec::new();
        let request = rpc::Extents { handle: file.handle, offset, len, max: None };
        self.call_each(&request, |mut part, _| {
            all.append(&mut part.items);
            Ok(())
        })?;
        Ok(all)
    }

    /// Clones a file: the new one shares all content.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `exists`, `is-directory`, `no-space`.
    pub fn clone_file(&mut self, from: &[u8], to: &[u8]) -> Result<rpc::Cloned> {
        self.call(&rpc::CloneFile { from, to })
    }

    /// Shares a range of a file into another; without a length to the end of the source.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `invalid` where offsets and length are not multiples
    /// of a block, `no-space`.
    pub fn clone_range(
        &mut self,
        (from, from_offset): (&[u8], u64),
        (to, to_offset): (&[u8], u64),
        len: Option<u64>,
    ) -> Result<rpc::Cloned> {
        self.call(&rpc::CloneRange { from, to, from_offset, to_offset, len })
    }

    /// Shares a range of a file into another where both contain the same; without a length to
    /// the end of the source.
    ///
    /// # Errors
    ///
    /// Those of [`Client::clone_range`]. Content that differs is no error, but in the response.
    pub fn dedupe(
        &mut self,
        (from, from_offset): (&[u8], u64),
        (to, to_offset): (&[u8], u64),
        len: Option<u64>,
    ) -> Result<rpc::Deduped> {
        self.call(&rpc::Dedupe { from, to, from_offset, to_offset, len })
    }
}

/// Mappings.
impl Client {
    /// Loads through the mapping, and hands over the pieces as they come.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `out-of-range`, `poisoned`; and the first one of `each`.
    pub fn load_each(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.call_each(&rpc::Load { handle: file.handle, offset, len }, |_, payload| each(payload))
    }

    /// Loads through the mapping.
    ///
    /// # Errors
    ///
    /// Those of [`Client::load_each`].
    pub fn load(&mut self, file: &File, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.load_each(file, offset, len, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    /// Stores at most one payload through the mapping.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] for more than one payload; those of [`Client::call`]: `out-of-range`,
    /// `no-space`, `poisoned`. Then [`ErrorBody::done`](rpc::ErrorBody::done) says how many bytes
    /// are stored.
    pub fn store(&mut self, file: &File, offset: u64, bytes: &[u8], msync: Msync) -> Result<u64> {
        let request = rpc::Store { handle: file.handle, offset, sync: msync == Msync::Now };
        Ok(self.call_with(&request, bytes)?.done)
    }

    /// Stores any number of bytes through the mapping, piece by piece, and stops at the first
    /// piece that fails. With [`Msync::Now`] what was stored is durable at return, also then.
    pub fn poke(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        fill: &dyn Fill,
        msync: Msync,
    ) -> Poked {
        let piece_max = u64::from(self.server().max_payload);
        let mut piece = Vec::new();
        let mut stored = 0;
        let mut failed = None;
        while stored < len && failed.is_none() {
            piece.clear();
            piece.resize((len - stored).min(piece_max) as usize, 0);
            fill.fill(stored, &mut piece);
            match self.store(file, offset + stored, &piece, Msync::Later) {
                Ok(done) => stored += done,
                Err(error) => {
                    if let Error::Server(body) = &error {
                        stored += body.done.unwrap_or(0);
                    }
                    failed = Some(error);
                }
            }
        }
        if msync == Msync::Now
            && let Err(error) = self.call(&rpc::Msync { handle: file.handle })
        {
            failed.get_or_insert(error);
        }
        Poked { stored, error: failed }
    }

    /// The state of windows, masters and shadows, of one file or of all.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`.
    pub fn pages(&mut self, path: Option<&[u8]>) -> Result<rpc::PagesResponse> {
        self.call(&rpc::Pages { path, handle: None })
    }
}

/// Where the bytes of [`Client::poke`] come from.
pub trait Fill {
    /// Writes the bytes from `at` on (counted from the first to be stored).
    fn fill(&self, at: u64, into: &mut [u8]);
}

/// The bytes themselves.
impl Fill for Vec<u8> {
    fn fill(&self, at: u64, into: &mut [u8]) {
        let at = at as usize;
        into.copy_from_slice(&self[at..at + into.len()]);
    }
}

/// One byte, over and over.
impl Fill for u8 {
    fn fill(&self, _at: u64, into: &mut [u8]) {
        into.fill(*self);
    }
}

/// Whether [`Client::stat`] counts blocks, which takes time by the size of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Count them.
    Count,
    /// Leave them out.
    Skip,
}

/// Whether [`Client::mkdir`] makes what is missing above, and accepts what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// It does.
    Make,
    /// It fails.
    Need,
}

/// Whether stores through a mapping are made durable before the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Msync {
    /// They are.
    Now,
    /// They may not be: whoever needs it syncs later.
    Later,
}
