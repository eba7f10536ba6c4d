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
    pub fn ping(&mut self) -> Result<()> {
        self.call(&rpc::Ping {}).map(drop)
    }

    /// How the server is.
    pub fn status(&mut self) -> Result<rpc::StatusResponse> {
        self.call(&rpc::Status::default())
    }

    /// Unmounts and switches the machine off.
    pub fn shutdown(&mut self) -> Result<()> {
        self.call(&rpc::PowerOff {}).map(drop)
    }

    /// Verifies the volume and its windows.
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
    pub fn bench(&mut self, part: &str, parameter: Option<u64>) -> Result<Vec<rpc::Sample>> {
        let mut all = Vec::new();
        self.call_each(&rpc::Bench { part, parameter, keep: false }, |mut answer, _| {
            all.append(&mut answer.items);
            Ok(())
        })?;
        Ok(all)
    }

    /// Waits until the blocks of deleted files are free.
    pub fn reclaim(&mut self) -> Result<rpc::ReclaimResponse> {
        self.call(&rpc::Reclaim { wait: true })
    }
}

/// Names, attributes, space.
impl Client {
    /// The space of the volume.
    pub fn space(&mut self) -> Result<rpc::SpaceResponse> {
        self.call(&rpc::Space {})
    }

    /// The attributes of a path; its blocks are counted where asked for.
    pub fn stat(&mut self, path: &[u8], count: Blocks) -> Result<rpc::Attributes> {
        self.call(&rpc::Stat { path: Some(path), handle: None, blocks: count == Blocks::Count })
    }

    /// The entries of a directory, with their attributes.
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
    pub fn mkdir(&mut self, path: &[u8], parents: Parents) -> Result<()> {
        let parents = parents == Parents::Make;
        self.call(&rpc::MakeDirectory { path, mode: None, parents }).map(drop)
    }

    /// Removes a file.
    pub fn unlink(&mut self, path: &[u8]) -> Result<()> {
        self.call(&rpc::Unlink { path }).map(drop)
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, path: &[u8]) -> Result<()> {
        self.call(&rpc::RemoveDirectory { path }).map(drop)
    }

    /// Renames; replaces a file atomically.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.call(&rpc::Rename { from, to }).map(drop)
    }

    /// Adds a name for a file or a symbolic link.
    pub fn link(&mut self, path: &[u8], to: &[u8]) -> Result<()> {
        self.call(&rpc::Link { path: Some(path), to, ..Default::default() }).map(drop)
    }

    /// Creates a symbolic link.
    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.call(&rpc::Symlink { path, target }).map(drop)
    }

    /// What a symbolic link says.
    pub fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        Ok(self.call(&rpc::ReadLink { path })?.target)
    }

    /// Sets the size of a file.
    pub fn truncate(&mut self, path: &[u8], size: u64) -> Result<()> {
        self.call(&rpc::Truncate { path: Some(path), handle: None, size }).map(drop)
    }
}

/// Content.
impl Client {
    /// Opens a file; `flags` are those of [`rpc::open`].
    pub fn open(&mut self, path: &[u8], flags: u32) -> Result<File> {
        self.open_with_mode(path, flags, None)
    }

    /// As [`Client::open`], with the permission bits of a file that is created.
    pub fn open_with_mode(&mut self, path: &[u8], flags: u32, mode: Option<u16>) -> Result<File> {
        let opened = self.call(&rpc::Open { path, flags, mode })?;
        Ok(File { handle: opened.handle, ino: opened.ino, size: opened.size })
    }

    /// Opens a file, and creates it where missing.
    pub fn open_or_create(&mut self, path: &[u8]) -> Result<File> {
        self.open(path, open::CREATE)
    }

    /// Opens a file that has no name, in a directory.
    pub fn open_unnamed(&mut self, directory: &[u8], mode: Option<u16>) -> Result<File> {
        let opened = self.call(&rpc::OpenUnnamed { path: directory, mode, uid: 0, gid: 0 })?;
        Ok(File { handle: opened.handle, ino: opened.ino, size: opened.size })
    }

    /// Gives an open file a name, which is taken from the file that has it now.
    pub fn link_open(&mut self, file: &File, to: &[u8]) -> Result<()> {
        let (handle, replace) = (Some(file.handle), true);
        self.call(&rpc::Link { path: None, to, handle, replace, check: false }).map(drop)
    }

    /// Whether [`Client::link_open`] would be refused now.
    pub fn may_link_open(&mut self, file: &File, to: &[u8]) -> Result<()> {
        let (handle, replace) = (Some(file.handle), true);
        self.call(&rpc::Link { path: None, to, handle, replace, check: true }).map(drop)
    }

    /// Closes a file; what was stored through it is durable then.
    pub fn close(&mut self, file: File) -> Result<()> {
        self.call(&rpc::Close { handle: file.handle }).map(drop)
    }

    /// Reads: fewer bytes than asked for only at the end of the file.
    pub fn read(&mut self, file: &File, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.call_each(&rpc::Read { handle: file.handle, offset, len }, |_, payload| {
            all.extend_from_slice(payload);
            Ok(())
        })?;
        Ok(all)
    }

    /// Writes all bytes, in as many requests as it takes.
    pub fn write(&mut self, file: &File, mut offset: u64, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(self.server().max_payload as usize) {
            self.call_with(&rpc::Write { handle: file.handle, offset, sync: false }, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes a file durable.
    pub fn sync(&mut self, file: &File) -> Result<()> {
        self.call(&rpc::Sync { handle: file.handle }).map(drop)
    }

    /// The runs of a range of a file.
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
    pub fn clone_file(&mut self, from: &[u8], to: &[u8]) -> Result<rpc::Cloned> {
        self.call(&rpc::CloneFile { from, to })
    }

    /// Shares a range of a file into another; without a length to the end of the source.
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
    pub fn load(&mut self, file: &File, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.load_each(file, offset, len, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    /// Stores at most one payload through the mapping.
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
