//! The image files behind the NVDIMMs: the volume's, and any beside it.
//!
//! They are created sparse and then only ever mapped: nothing here truncates, overwrites or
//! removes an existing one.

use super::{DEFAULT_NVDIMM_SIZE, LaunchError};
use crate::state::StateDir;
use crate::units::{parse_bytes, show_bytes};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// QEMU maps the file in pages.
const GRANULE: u64 = 4096;

/// An NVDIMM that is not the volume's: its image file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraNvdimm {
    /// The file, by an absolute path.
    pub path: PathBuf,
    /// What a new file gets, and an existing one must have. `None`: it is there.
    pub size: Option<u64>,
}

/// From `PATH` or `PATH:SIZE`.
impl FromStr for ExtraNvdimm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What follows a colon and is no size is a part of the path.
        let sized =
            text.rsplit_once(':').and_then(|(path, size)| Some((path, parse_bytes(size).ok()?)));
        let (path, size) = sized.map_or((text, None), |(path, size)| (path, Some(size)));
        let path =
            std::path::absolute(path).map_err(|error| format!("'{path}' is no path: {error}"))?;
        Ok(ExtraNvdimm { path, size })
    }
}

/// The NVDIMM of the volume, ready to be mapped.
#[derive(Debug)]
pub(super) struct Own {
    /// 0 if there is none.
    pub(super) size: u64,
    /// Keeps it to this machine.
    pub(super) _lock: Option<File>,
}

/// An NVDIMM beside the volume's, ready to be mapped.
pub(super) struct Extra {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Keeps it to this machine.
    pub(super) _lock: File,
}

/// Keeps an image to one machine, for as long as the result lives: two would overwrite each other's
/// volume.
fn lock(path: &Path) -> Result<File, LaunchError> {
    let shown = path.display();
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let file = opened.map_err(|error| LaunchError::Io(format!("open {shown}"), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(LaunchError::Unusable(format!("{shown} is in use as an NVDIMM already")))
        }
        Err(TryLockError::Error(error)) => Err(LaunchError::Io(format!("lock {shown}"), error)),
    }
}

/// Makes sure that the images beside the volume's are there, and nobody else's.
pub(super) fn prepare_extra(
    state: &StateDir,
    volume: u64,
    wanted: &[ExtraNvdimm],
) -> Result<Vec<Extra>, LaunchError> {
    if volume == 0 && !wanted.is_empty() {
        return Err(LaunchError::Unusable(
            "--extra-nvdimm needs the NVDIMM of the volume beside it: with --nvdimm-size 0 there \
             is none"
                .into(),
        ));
    }
    wanted.iter().map(|wanted| prepare_one(state, wanted)).collect()
}

fn prepare_one(state: &StateDir, wanted: &ExtraNvdimm) -> Result<Extra, LaunchError> {
    let ExtraNvdimm { path, size } = wanted;
    let shown = path.display();
    let unusable = |why: String| LaunchError::Unusable(why);
    let found = match (fs::metadata(path), size) {
        (Ok(found), _) if !found.is_file() => {
            return Err(unusable(format!("{shown} is not a regular file")));
        }
        (Ok(found), _) => checked(path, found.len(), *size, "--extra-nvdimm")?,
        (Err(error), Some(size)) if error.kind() == io::ErrorKind::NotFound => {
            make(path, path, *size, "--extra-nvdimm")?
        }
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unusable(format!(
                "{shown} does not exist: --extra-nvdimm {shown}:SIZE makes an image of that size"
            )));
        }
        (Err(error), _) => return Err(LaunchError::Io(format!("look at {shown}"), error)),
    };
    if fs::canonicalize(path).ok() == fs::canonicalize(state.nvdimm()).ok() {
        return Err(unusable(format!(
            "{shown} is the NVDIMM of the volume; --extra-nvdimm is for others"
        )));
    }
    Ok(Extra { path: path.clone(), size: found, _lock: lock(path)? })
}

/// Makes sure that the volume's image is there with the right size, and nobody else's. Size 0 means
/// that the guest gets no NVDIMM.
pub(super) fn prepare(state: &StateDir, wanted: Option<u64>) -> Result<Own, LaunchError> {
    if wanted == Some(0) {
        return Ok(Own { size: 0, _lock: None });
    }
    let path = state.nvdimm();
    let size = match fs::metadata(&path) {
        Ok(found) if !found.is_file() => {
            Err(LaunchError::Unusable(format!("{} is not a regular file", path.display())))
        }
        Ok(found) => checked(&path, found.len(), wanted, "--nvdimm-size"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Sized under another name, so that a half-made image never carries the real one.
            make(
                &path,
                &state.file("nvdimm.img.new"),
                wanted.unwrap_or(DEFAULT_NVDIMM_SIZE),
                "--nvdimm-size",
            )
        }
        Err(error) => Err(LaunchError::Io(format!("look at {}", path.display()), error)),
    }?;
    Ok(Own { size, _lock: Some(lock(&path)?) })
}

fn checked(path: &Path, size: u64, wanted: Option<u64>, option: &str) -> Result<u64, LaunchError> {
    if let Some(wanted) = wanted.filter(|&wanted| wanted != size) {
        return Err(LaunchError::Unusable(format!(
            "{} has {} ({size} bytes), but {option} asks for {} ({wanted} bytes); an image keeps \
             its size: leave it out, or use another file or --state",
            path.display(),
            show_bytes(size),
            show_bytes(wanted),
        )));
    }
    if size == 0 || !size.is_multiple_of(GRANULE) {
        return Err(LaunchError::Unusable(format!(
            "{} has {size} bytes: the size of an NVDIMM is a multiple of {GRANULE}",
            path.display()
        )));
    }
    Ok(size)
}

/// Makes a sparse image, under the name `making` until it has its size.
fn make(path: &Path, making: &Path, size: u64, option: &str) -> Result<u64, LaunchError> {
    if size == 0 || !size.is_multiple_of(GRANULE) {
        return Err(LaunchError::Unusable(format!(
            "{option}: {size} bytes are not possible: the size of an NVDIMM is a multiple of \
             {GRANULE}"
        )));
    }
    let failed = |error| {
        LaunchError::Io(
            format!("create an image of {} at {}", show_bytes(size), path.display()),
            error,
        )
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(making)
        .map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    fs::rename(making, path).map_err(failed)?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_made_once_and_keeps_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let size = |wanted| prepare(&state, wanted).unwrap().size;
        assert_eq!(size(Some(0)), 0);
        assert!(!state.nvdimm().exists());
        assert_eq!(size(Some(1 << 20)), 1 << 20);
        fs::write(state.nvdimm(), vec![7; 8192]).unwrap();
        assert_eq!(size(None), 8192);
        assert_eq!(size(Some(8192)), 8192);
        let error = prepare(&state, Some(1 << 20)).unwrap_err().to_string();
        assert!(error.contains("keeps its size"), "{error}");
        assert_eq!(fs::read(state.nvdimm()).unwrap(), vec![7; 8192]);
    }

    #[test]
    fn an_extra_image_is_a_path_and_perhaps_a_size() {
        let parse = |text: &str| text.parse::<ExtraNvdimm>().unwrap();
        assert_eq!(parse("/a/b.img"), ExtraNvdimm { path: "/a/b.img".into(), size: None });
        assert_eq!(
            parse("/a/b.img:4G"),
            ExtraNvdimm { path: "/a/b.img".into(), size: Some(4 << 30) }
        );
        assert_eq!(parse("/a:b/c"), ExtraNvdimm { path: "/a:b/c".into(), size: None });
        assert!(parse("b.img").path.is_absolute());
        assert!("".parse::<ExtraNvdimm>().is_err());
    }

    #[test]
    fn an_extra_image_is_made_kept_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        prepare(&state, Some(1 << 20)).unwrap();
        let extra = |size| ExtraNvdimm { path: dir.path().join("extra"), size };
        let refused = |volume, wanted: &[ExtraNvdimm]| match prepare_extra(&state, volume, wanted) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was taken"),
        };
        assert!(refused(1 << 20, &[extra(None)]).contains("does not exist"));
        assert!(refused(1 << 20, &[extra(Some(0))]).contains("not possible"));
        assert!(refused(0, &[extra(Some(8192))]).contains("--nvdimm-size 0"));
        let made = prepare_extra(&state, 1 << 20, &[extra(Some(8192))]).unwrap();
        assert_eq!((made.len(), made[0].size), (1, 8192));
        assert!(refused(1 << 20, &[extra(None)]).contains("in use"));
        drop(made);
        assert_eq!(prepare_extra(&state, 1 << 20, &[extra(None)]).unwrap()[0].size, 8192);
        assert!(refused(1 << 20, &[extra(Some(4096))]).contains("keeps its size"));
        assert!(refused(1 << 20, &[extra(None), extra(None)]).contains("in use"));
        let own = ExtraNvdimm { path: state.nvdimm(), size: None };
        assert!(refused(1 << 20, &[own]).contains("is the NVDIMM of the volume"));
    }

    #[test]
    fn no_two_machines_have_one_image() {
        let dir = tempfile::tempdir().unwrap();
        let state = |name| {
            let mut state = StateDir::new(dir.path().join(name));
            state.create().unwrap();
            state
        };
        let (first, second) = (state("first"), state("second"));
        let running = prepare(&first, Some(8192)).unwrap();
        let own = prepare(&second, Some(8192)).unwrap();
        let beside = |path| prepare_extra(&second, own.size, &[ExtraNvdimm { path, size: None }]);
        let refused = |error: Option<LaunchError>| {
            let error = error.expect("it was taken").to_string();
            assert!(error.contains("in use as an NVDIMM already"), "{error}");
        };
        // Beside the volume of another machine, under whatever name.
        fs::hard_link(first.nvdimm(), dir.path().join("link")).unwrap();
        refused(beside(first.nvdimm()).err());
        refused(beside(dir.path().join("link")).err());
        // As its volume.
        let third = state("third");
        std::os::unix::fs::symlink(first.nvdimm(), third.nvdimm()).unwrap();
        refused(prepare(&third, None).err());
        drop(running);
        let extra = beside(first.nvdimm()).unwrap();
        // And the other way round.
        refused(prepare(&first, None).err());
        drop(extra);
        prepare(&third, None).unwrap();
    }

    #[test]
    fn odd_sizes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        assert!(prepare(&state, Some(5000)).is_err());
        fs::write(state.nvdimm(), b"").unwrap();
        assert!(prepare(&state, None).is_err());
    }
}
