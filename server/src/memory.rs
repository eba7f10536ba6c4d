//! Memory that may not be there.
//!
//! After start-up a server allocates nothing that must not fail: what a request needs is taken with
//! these functions before the request changes anything, and too little is an error of that request
//! alone. A test of this crate fails every allocation of every method and command in turn.

#![allow(clippy::disallowed_methods, reason = "this is where room is reserved first")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use umbra_fs::{Error, Result};

/// A copy of some bytes.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub(crate) fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = with_room(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// A copy of a text.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub(crate) fn copy_text(text: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Error::NoMemory)?;
    copy.push_str(text);
    Ok(copy)
}

/// `len` bytes of this value.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub(crate) fn filled(len: usize, value: u8) -> Result<Vec<u8>> {
    let mut bytes = with_room(len)?;
    bytes.resize(len, value);
    Ok(bytes)
}

/// No items, with room for `len`.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub(crate) fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut items = Vec::new();
    items.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    Ok(items)
}

/// Appends an item.
///
/// # Errors
///
/// [`Error::NoMemory`]; then the items are as before.
pub(crate) fn push<T>(items: &mut Vec<T>, item: T) -> Result<()> {
    items.try_reserve(1).map_err(|_| Error::NoMemory)?;
    items.push(item);
    Ok(())
}

/// Appends bytes.
///
/// # Errors
///
/// [`Error::NoMemory`]; then the bytes are as before.
pub(crate) fn append(bytes: &mut Vec<u8>, more: &[u8]) -> Result<()> {
    bytes.try_reserve(more.len()).map_err(|_| Error::NoMemory)?;
    bytes.extend_from_slice(more);
    Ok(())
}

/// Forgets all bytes, and gives back what is allocated beyond `kept`, if there is memory for less.
pub(crate) fn reset(bytes: &mut Vec<u8>, kept: usize) {
    bytes.clear();
    if bytes.capacity() > kept
        && let Ok(small) = with_room(kept)
    {
        *bytes = small;
    }
}

/// A box of one value, whose memory may not be there.
#[derive(Debug)]
pub(crate) struct Boxed<T>(Box<[T; 1]>);

/// Memory for a value that is still to come.
#[derive(Debug)]
pub(crate) struct Vacant<T>(Vec<T>);

impl<T> Boxed<T> {
    /// Memory for a value.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`].
    pub fn vacant() -> Result<Vacant<T>> {
        with_room(1).map(Vacant)
    }

    /// Moves a value to memory of its own.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; the value is dropped.
    pub fn new(value: T) -> Result<Self> {
        Ok(Boxed::vacant()?.fill(value))
    }

    /// Moves the value out.
    pub fn into_inner(self) -> T {
        let [value] = *self.0;
        value
    }

    /// The box itself, of an array of one.
    pub fn into_box(self) -> Box<[T; 1]> {
        self.0
    }
}

impl<T> Vacant<T> {
    /// Moves a value there.
    pub fn fill(mut self, value: T) -> Boxed<T> {
        self.0.push(value);
        match self.0.try_into() {
            Ok(array) => Boxed(array),
            Err(_) => unreachable!("one value was pushed to none, which makes an array of one"),
        }
    }
}

impl<T> Deref for Boxed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        let [value] = &*self.0;
        value
    }
}

impl<T> DerefMut for Boxed<T> {
    fn deref_mut(&mut self) -> &mut T {
        let [value] = &mut *self.0;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_holds_its_value() {
        let mut boxed = Boxed::new(7u32).unwrap();
        *boxed += 1;
        assert_eq!(*boxed, 8);
        assert_eq!(*boxed.into_box(), [8]);
        assert_eq!(Boxed::new("text").unwrap().into_inner(), "text");
    }

    #[test]
    fn large_buffers_are_given_back() {
        let mut bytes = filled(1000, 1).unwrap();
        reset(&mut bytes, 10);
        assert!(bytes.is_empty() && (10..100).contains(&bytes.capacity()));
        bytes.extend([1; 5]);
        reset(&mut bytes, 10);
        assert!(bytes.is_empty() && bytes.capacity() >= 10);
    }
}
