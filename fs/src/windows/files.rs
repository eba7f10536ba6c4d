//! Windows that are open, and the files that they are open on.
//!
//! A file is known here while a window is open on it, or while its page faults are parked. It is
//! found by its [`FileKey`], like all that is known of a file beside what is on media.

use crate::error::{Error, Result};
use crate::memory::{Map, push_within};
use crate::types::FileKey;
use alloc::vec::Vec;

/// No slot, no window.
pub(crate) const NONE: u32 = u32::MAX;

/// An open window: a view of one file that plain loads and stores go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window(pub u32);

/// What a window shows, and whether it pins that.
#[derive(Clone, Copy, Debug)]
struct OpenWindow {
    file: FileKey,
    pin: Pin,
}

/// Whether a window pins its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// The file may be cut and may lose its last name.
    Loose,
    /// The file keeps its size and its last name.
    Pinned,
}

/// Whether an open file has names. A file without a name goes with its last window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HasNames {
    /// It has at least one.
    Some,
    /// It has none yet, and may be given one.
    NotYet,
    /// It had one, or is never to have one.
    NoMore,
}

/// What is known of a file.
#[derive(Debug)]
struct OpenFile {
    windows: u32,
    /// How many of the windows pin the file.
    pins: u32,
    /// How many operations have its page faults wait.
    parkings: u32,
    /// The first of the slots that show it.
    first_slot: u32,
    names: HasNames,
}

impl OpenFile {
    const UNKNOWN: OpenFile =
        OpenFile { windows: 0, pins: 0, parkings: 0, first_slot: NONE, names: HasNames::Some };
}

/// All windows of a volume, and the files that they show.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    /// By number; `None` is free.
    windows: Vec<Option<OpenWindow>>,
    /// How many are open.
    open: u64,
    files: Map<FileKey, OpenFile>,
    /// Sum of all files' parkings: faults mostly need no more than to see that there are none.
    parkings: u64,
}

impl OpenFiles {
    /// No windows.
    pub fn new() -> Self {
        OpenFiles { windows: Vec::new(), open: 0, files: Map::new(), parkings: 0 }
    }

    /// Windows that are open.
    pub fn windows(&self) -> u64 {
        self.open
    }

    /// Windows that are open on a file.
    pub fn windows_of(&self, file: FileKey) -> u64 {
        self.files.get(file).map_or(0, |file| file.windows.into())
    }

    /// The file that a window shows.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such window.
    pub fn file_of(&self, window: Window) -> Result<FileKey> {
        let open = self.windows.get(window.0 as usize).copied().flatten();
        open.map(|open| open.file).ok_or(Error::Invalid("there is no such window"))
    }

    /// Whether any window is open on the file.
    pub fn is_open(&self, file: FileKey) -> bool {
        self.windows_of(file) > 0
    }

    /// Has a window pin its file, or not.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such window.
    pub fn set_pin(&mut self, window: Window, pin: Pin) -> Result<()> {
        let key = self.file_of(window)?;
        let Some(open) = &mut self.windows[window.0 as usize] else { return Ok(()) };
        let before = core::mem::replace(&mut open.pin, pin);
        if let Some(file) = self.files.get_mut(key) {
            file.pins =
                file.pins + u32::from(pin == Pin::Pinned) - u32::from(before == Pin::Pinned);
        }
        Ok(())
    }

    /// Whether any window pins the file.
    pub fn is_pinned(&self, file: FileKey) -> bool {
        self.files.get(file).is_some_and(|file| file.pins > 0)
    }

    /// Notes whether a file has names, if it is open.
    pub fn set_names(&mut self, file: FileKey, names: HasNames) {
        if let Some(file) = self.files.get_mut(file).filter(|file| file.windows > 0) {
            file.names = names;
        }
    }

    /// Whether the file is open and has no name.
    pub fn is_orphan(&self, file: FileKey) -> bool {
        self.files.get(file).is_some_and(|file| file.names != HasNames::Some)
    }

    /// Whether the file is open, has no name, and may be given one.
    pub fn is_unnamed(&self, file: FileKey) -> bool {
        self.files.get(file).is_some_and(|file| file.names == HasNames::NotYet)
    }

    /// Closes windows, to which no slots are attached, up to the last one of a file without a name:
    /// that file. `None`: all are closed.
    pub fn close_up_to_orphan(&mut self) -> Option<FileKey> {
        while let Some(last) = self.windows.len().checked_sub(1) {
            let window = Window(last as u32);
            let file = self.file_of(window);
            let orphan = self.close(window);
            self.windows.pop();
            if orphan == Ok(true) {
                return file.ok();
            }
        }
        None
    }

    /// Has the page faults of a file wait.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; then they do not wait.
    pub fn park(&mut self, file: FileKey) -> Result<()> {
        self.files.get_or_insert(file, OpenFile::UNKNOWN)?.parkings += 1;
        self.parkings += 1;
        Ok(())
    }

    /// Undoes one [`OpenFiles::park`].
    pub fn unpark(&mut self, file: FileKey) {
        if let Some(known) = self.files.get_mut(file).filter(|known| known.parkings > 0) {
            known.parkings -= 1;
            self.parkings -= 1;
            self.forget_unused(file);
        }
    }

    /// Whether the page faults of a file have to wait.
    #[inline(always)]
    pub fn is_parked(&self, file: FileKey) -> bool {
        self.parkings > 0 && self.files.get(file).is_some_and(|file| file.parkings > 0)
    }

    /// Opens a window on a file.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]: clients can open as many as there is memory for.
    pub fn open(&mut self, file: FileKey) -> Result<Window> {
        let index = match self.windows.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                let len = self.windows.len();
                if len == self.windows.capacity() {
                    self.windows.try_reserve_exact(len / 8 + 64).map_err(|_| Error::NoMemory)?;
                }
                len
            }
        };
        self.files.get_or_insert(file, OpenFile::UNKNOWN)?.windows += 1;
        let window = Some(OpenWindow { file, pin: Pin::Loose });
        match self.windows.get_mut(index) {
            Some(place) => *place = window,
            None => push_within(&mut self.windows, window),
        }
        self.open += 1;
        Ok(Window(index as u32))
    }

    /// Closes a window to which no slot is attached. Tells whether it was the last one of a file
    /// without a name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such window.
    pub fn close(&mut self, window: Window) -> Result<bool> {
        let key = self.file_of(window)?;
        self.set_pin(window, Pin::Loose)?;
        self.windows[window.0 as usize] = None;
        self.open -= 1;
        let Some(file) = self.files.get_mut(key) else { return Ok(false) };
        file.windows -= 1;
        let mut orphan = false;
        if file.windows == 0 {
            orphan = core::mem::replace(&mut file.names, HasNames::Some) != HasNames::Some;
            self.forget_unused(key);
        }
        Ok(orphan)
    }

    fn forget_unused(&mut self, key: FileKey) {
        if self.files.get(key).is_some_and(|file| file.windows == 0 && file.parkings == 0) {
            self.files.remove(key);
        }
    }

    /// The first of the slots that show a file, or [`NONE`].
    #[inline]
    pub fn first_slot(&self, file: FileKey) -> u32 {
        self.files.get(file).map_or(NONE, |file| file.first_slot)
    }

    /// Sets the first of the slots that show a file, if the file is open; returns what it was.
    pub fn replace_first_slot(&mut self, file: FileKey, slot: u32) -> u32 {
        let file = self.files.get_mut(file);
        file.map_or(NONE, |file| core::mem::replace(&mut file.first_slot, slot))
    }
}
