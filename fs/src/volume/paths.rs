//! Paths: the only place where they are taken apart.
//!
//! A path is bytes: names with `/` between them, from the root, with or without a `/` in front.
//!
//! - Empty names and `.` are skipped. `..` goes up; above the root is the root.
//! - What stands before a `/`, a `.` or a `..` has to be a directory.
//! - Symbolic links are not followed.
//!
//! What makes or removes a name needs one at the end of its path: `.`, `..` or nothing is
//! [`Error::InvalidName`] there.

use super::Volume;
use super::dir::check_name;
use crate::error::{Error, Result};
use crate::pmem::Pmem;
use crate::types::Ino;
use crate::windows::mmu::Mmu;

/// A step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component<'p> {
    /// `..`
    Up,
    /// A name, which was not looked at yet.
    Name(&'p [u8]),
}

/// The steps of a path.
pub fn components(path: &[u8]) -> impl Iterator<Item = Component<'_>> {
    path.split(|&byte| byte == b'/').filter_map(|name| match name {
        b"" | b"." => None,
        b".." => Some(Component::Up),
        name => Some(Component::Name(name)),
    })
}

/// The part of a path before its last name, that name, and whether slashes follow it.
fn split_last(path: &[u8]) -> Result<(&[u8], &[u8], bool)> {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    let start = path[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let name = &path[start..end];
    check_name(name)?;
    Ok((&path[..start], name, end < path.len()))
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Finds the inode of a path.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NameTooLong`], [`Error::InvalidName`]
    /// for a NUL byte, or a [media error](Error#media-errors).
    pub fn resolve(&self, path: &[u8]) -> Result<Ino> {
        let mut at = self.root();
        for component in components(path) {
            at = match component {
                Component::Up => {
                    self.dir(at)?;
                    self.parent_of(at)?
                }
                Component::Name(name) => self.lookup(at, name)?,
            };
        }
        // What comes before a name was looked up in; what comes before anything else was not.
        if path
            .rsplit(|&byte| byte == b'/')
            .next()
            .is_none_or(|last| matches!(last, b"" | b"." | b".."))
        {
            self.dir(at)?;
        }
        Ok(at)
    }

    /// The directory that holds the last name of a path, and that name, for anything but a
    /// directory: a `/` behind the name is an error, whether the name exists or not.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if the path ends with no name, [`Error::IsDirectory`] if a `/`
    /// follows it, and as [`Volume::resolve`].
    pub fn resolve_parent<'p>(&self, path: &'p [u8]) -> Result<(Ino, &'p [u8])> {
        let (before, name, is_directory) = split_last(path)?;
        if is_directory {
            self.resolve(path)?;
            return Err(Error::IsDirectory);
        }
        Ok((self.resolve(before)?, name))
    }

    /// As [`Volume::resolve_parent`], for what is or becomes a directory: a `/` may follow the
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if the path ends with no name, and as [`Volume::resolve`].
    pub fn resolve_parent_of_directory<'p>(&self, path: &'p [u8]) -> Result<(Ino, &'p [u8])> {
        let (before, name, _) = split_last(path)?;
        Ok((self.resolve(before)?, name))
    }

    /// Directory and name of both ends of a rename. A `/` behind either name says that a directory
    /// is renamed.
    ///
    /// # Errors
    ///
    /// As [`Volume::resolve_parent_of_directory`], for either path.
    pub fn resolve_rename<'p>(&self, from: &'p [u8], to: &'p [u8]) -> Result<[(Ino, &'p [u8]); 2]> {
        let ((_, _, from_slash), (_, _, to_slash)) = (split_last(from)?, split_last(to)?);
        let ends = [self.resolve_parent_of_directory(from)?, self.resolve_parent_of_directory(to)?];
        if from_slash || to_slash {
            let [(dir, name), _] = ends;
            let moved = self.lookup(dir, name)?;
            self.dir(moved)?;
        }
        Ok(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn paths_are_steps() {
        let steps = |path: &'static str| components(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(steps("/"), []);
        assert_eq!(steps("//./."), []);
        assert_eq!(
            steps("a/./../b//"),
            [Component::Name(b"a"), Component::Up, Component::Name(b"b")]
        );
        assert_eq!(steps("..."), [Component::Name(b"...")]);
    }

    #[test]
    fn the_last_name_of_a_path() {
        let last = |path: &'static str| split_last(path.as_bytes());
        assert_eq!(last("f"), Ok((&b""[..], &b"f"[..], false)));
        assert_eq!(last("/a/./f//"), Ok((&b"/a/./"[..], &b"f"[..], true)));
        for bad in ["", "/", "//", ".", "/a/.", "/a/..", "/a/../", "../"] {
            assert_eq!(last(bad), Err(Error::InvalidName), "{bad}");
        }
    }
}
