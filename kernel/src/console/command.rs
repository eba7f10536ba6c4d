//! What a command is: how it is called, how it fails, and what it leaves to the next one.

use super::args::{ArgError, Args};
use crate::dax::{self, Volume};
use crate::media;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::dax::AccessError;
use umbra_fs::{Error, Ino, Window};

/// Why a command failed.
pub(super) enum Failure {
    /// Its arguments.
    Args(ArgError),
    /// The filesystem.
    Fs(Error),
    /// A load or store through a window.
    Access(AccessError),
    /// There is no volume; why.
    NoVolume(String),
    /// Anything else.
    Other(String),
}

impl From<ArgError> for Failure {
    fn from(error: ArgError) -> Self {
        Failure::Args(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fs(error)
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Self {
        Failure::Access(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Args(why) => write!(f, "{why}"),
            Failure::Fs(why) => write!(f, "{why}"),
            Failure::Access(e) => write!(f, "{} (after {} bytes)", e.error, e.done),
            Failure::NoVolume(why) => write!(f, "no volume: {why}"),
            Failure::Other(why) => f.write_str(why),
        }
    }
}

/// What a command gives back.
pub(super) type Done = Result<(), Failure>;

/// A command.
pub(super) struct Command {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its arguments, and what it does.
    pub(crate) help: &'static str,
    /// Runs it.
    pub(crate) run: fn(&mut Session, Args<'_>) -> Done,
}

/// What lives from command to command.
#[derive(Default)]
pub(super) struct Session {
    /// Windows that the console opened.
    pub(crate) windows: Vec<(Window, Ino)>,
    /// What the last command goes on with.
    pub(crate) running: Option<Box<dyn Task>>,
}

impl Session {
    /// Has the command go on with this.
    pub(crate) fn go_on(&mut self, task: impl Task + 'static) -> Done {
        self.running = Some(Box::new(task));
        Ok(())
    }
}

/// A command under way that takes more than one turn of the poll loop. Connections have their turns
/// between two steps; the console reads its next line when the command is over.
pub(super) trait Task {
    /// Takes a step of bounded work.
    ///
    /// # Errors
    ///
    /// Why the command failed; it is over then.
    fn step(&mut self, session: &mut Session) -> Result<Step, Failure>;
}

/// Whether a command is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do.
    GoesOn,
    /// It is over.
    Over,
}

/// Runs `f` on the volume, or says why there is none.
pub(super) fn volume<R>(f: impl FnOnce(&mut Volume) -> Result<R, Error>) -> Result<R, Failure> {
    match dax::with_volume(f) {
        Some(result) => Ok(result?),
        None => Err(Failure::NoVolume(media::why_none())),
    }
}

/// Bytes that may be anything, as text.
pub(super) struct Bytes<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?
                } else {
                    write!(f, "{c}")?
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}
