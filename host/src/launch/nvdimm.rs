//! The image file behind the NVDIMM.
//!
//! It is created sparse and then only ever mapped: nothing here truncates, overwrites or
//! removes an existing one.

use super::{DEFAULT_NVDIMM_SIZE, LaunchError};
use crate::state::StateDir;
use crate::units::show_bytes;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// QEMU maps the file in pages.
const GRANULE: u64 = 4096;

/// Makes sure that the image is there with the right size, and returns its size; 0 means
/// that the guest gets no NVDIMM.
pub(super) fn prepare(state: &StateDir, wanted: Option<u64>) -> Result<u64, LaunchError> {
    if wanted == Some(0) {
        return Ok(0);
    }
    let path = state.nvdimm();
    match fs::metadata(&path) {
        Ok(found) if !found.is_file() => {
            Err(LaunchError::Unusable(format!("{} is not a regular file", path.display())))
        }
        Ok(found) => check_existing(state, found.len(), wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(state, wanted.unwrap_or(DEFAULT_NVDIMM_SIZE))
        }
        Err(error) => Err(LaunchError::Io(format!("look at {}", path.display()), error)),
    }
}

fn check_existing(state: &StateDir, size: u64, wanted: Option<u64>) -> Result<u64, LaunchError> {
    let path = state.nvdimm();
    if let Some(wanted) = wanted.filter(|&wanted| wanted != size) {
        return Err(LaunchError::Unusable(format!(
            "{} has {} ({size} bytes), but --nvdimm-size asks for {} ({wanted} bytes); an image keeps its \
             size: leave the option out, or use another --state",
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

fn create(state: &StateDir, size: u64) -> Result<u64, LaunchError> {
    let path = state.nvdimm();
    if !size.is_multiple_of(GRANULE) {
        return Err(LaunchError::Unusable(format!(
            "--nvdimm-size {size} is not possible: the size of an NVDIMM is a multiple of {GRANULE}"
        )));
    }
    // Sized under another name, so that a half-made image never carries the real one.
    let making = state.file("nvdimm.img.new");
    let failed = |error| {
        LaunchError::Io(format!("create an image of {} at {}", show_bytes(size), path.display()), error)
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&making)
        .map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    fs::rename(&making, &path).map_err(failed)?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_made_once_and_keeps_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        assert_eq!(prepare(&state, Some(0)).unwrap(), 0);
        assert!(!state.nvdimm().exists());
        assert_eq!(prepare(&state, Some(1 << 20)).unwrap(), 1 << 20);
        fs::write(state.nvdimm(), vec![7; 8192]).unwrap();
        assert_eq!(prepare(&state, None).unwrap(), 8192);
        assert_eq!(prepare(&state, Some(8192)).unwrap(), 8192);
        let error = prepare(&state, Some(1 << 20)).unwrap_err().to_string();
        assert!(error.contains("keeps its size"), "{error}");
        assert_eq!(fs::read(state.nvdimm()).unwrap(), vec![7; 8192]);
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
