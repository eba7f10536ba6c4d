//! The one copy that everything uses.
//!
//! Which way of copying is fastest differs by orders of magnitude: under emulation a loop of
//! 8-byte moves beats `rep movsb` fifty-fold, on hardware it is the other way round. So
//! [`choose`] measures them at start, and `memcpy`, `memmove` and `memset` (which the compiler
//! calls by name) jump through what was chosen. Until then it is the loop. All of it is
//! assembly, so that no compiler turns the inside of `memcpy` into a call of `memcpy`.
//!
//! [`load`] and [`store`] are the same through windows: their page faults are resolved, and if one
//! cannot be, the copy ends early instead of the kernel. [`read`] is for persistent memory: where
//! the hardware reports that what is being loaded is lost, the copy ends early.
//!
//! What is stored to persistent memory is stored in aligned words of 8 bytes, each by one
//! instruction: after a crash each is old or new ([`store`], [`write()`], [`zero`]). So `rep movsb`
//! is never used for that, and of a word that is stored in part, the rest is loaded first.
//!
//! | file | what it holds |
//! |---|---|
//! | `methods.rs` | the ways to copy, which is used, and what for |
//! | `plain.rs` | copies and fills that cannot fail |
//! | `fallible.rs` | copies that end early, and where they go on then |
//! | `ways.rs` | the insides of both |
//! | `words.rs` | stores of whole aligned words |
//! | `libc.rs` | `memcpy`, `memmove` and `memset` |

mod fallible;
#[cfg(target_os = "none")]
mod libc;
mod methods;
mod plain;
mod ways;
mod words;

pub(crate) use fallible::{Failed, fixup_of, is_about_to_store, loads_at};
#[cfg(target_os = "none")]
pub(crate) use methods::choose;
pub(crate) use methods::{METHODS, Method, chosen, load, read, store, write, zero};
