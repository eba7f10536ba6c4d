//! Logs that do not grow for ever.
//!
//! A log that has reached its size is put aside as `NAME.1`, in the place of the one before, and
//! begins anew: so the last bytes are there, between one and two sizes of them.

use crate::access;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log of bounded size, for its owner alone.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    len: u64,
    limit: u64,
}

impl Log {
    /// Begins anew. What is there is put aside.
    pub fn fresh(path: &Path, limit: u64) -> io::Result<Log> {
        if fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            put_aside(path)?;
        }
        Ok(Log { path: path.into(), file: access::create(path)?, len: 0, limit })
    }

    /// Goes on where it ends.
    pub fn continued(path: &Path, limit: u64) -> io::Result<Log> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        Ok(Log { path: path.into(), file, len, limit })
    }

    /// The file that has what was put aside.
    pub fn aside(path: &Path) -> PathBuf {
        path.with_added_extension("1")
    }

    /// The file that is written to now.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes a piece as a whole into one file.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.len > 0 && self.len + piece.len() as u64 > self.limit {
            put_aside(&self.path)?;
            self.file = access::create(&self.path)?;
            self.len = 0;
        }
        self.len += piece.len() as u64;
        self.file.write_all(piece)
    }
}

fn put_aside(path: &Path) -> io::Result<()> {
    match fs::rename(path, Log::aside(path)) {
        // Somebody has removed it. Then it begins anew all the same.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_end_and_no_more_than_two_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::fresh(&path, 100).unwrap();
        for number in 0..1005 {
            log.write(format!("line {number:4}\n").as_bytes()).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= 100);
        }
        let now = fs::read_to_string(&path).unwrap();
        let before = fs::read_to_string(Log::aside(&path)).unwrap();
        assert_eq!(before.len(), 100);
        assert!(now.ends_with("line 1004\n"));
        let numbers = |text: &str| -> Vec<u32> {
            text.lines().map(|line| line[5..].trim().parse().unwrap()).collect()
        };
        let kept = [numbers(&before), numbers(&now)].concat();
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{kept:?}");
        drop(log);
        // It goes on, or begins anew, and then the last one is put aside.
        Log::continued(&path, 100).unwrap().write(b"more\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{now}more\n"));
        Log::fresh(&path, 100).unwrap().write(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(Log::aside(&path)).unwrap(), format!("{now}more\n"));
        // An empty one is not worth the last one.
        drop(Log::fresh(&path, 100).unwrap());
        drop(Log::fresh(&path, 100).unwrap());
        assert_eq!(fs::read_to_string(Log::aside(&path)).unwrap(), "new\n");
    }

    #[test]
    fn what_is_larger_than_a_log_is_written_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::fresh(&path, 10).unwrap();
        log.write(&[b'x'; 50]).unwrap();
        log.write(b"y").unwrap();
        assert_eq!(fs::read(Log::aside(&path)).unwrap().len(), 50);
        assert_eq!(fs::read(&path).unwrap(), b"y");
    }
}
