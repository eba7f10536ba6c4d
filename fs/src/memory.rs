//! Memory that may not be there.
//!
//! While a volume is mounted, nothing is allocated that must not fail: an operation takes what it
//! needs with these functions before it changes anything, and too little is an error of that
//! operation alone. A lint refuses other calls (`clippy.toml`), and tests fail every allocation of
//! every operation in turn.

#![allow(clippy::disallowed_methods, reason = "this is where room is reserved first")]

use crate::error::{Error, Result};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::hash::{BuildHasherDefault, Hash, Hasher};
use core::ops::{Deref, DerefMut};
use hashbrown::HashMap;

/// A copy of some bytes.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = with_room(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// A copy of a text.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub fn copy_text(text: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| Error::NoMemory)?;
    copy.push_str(text);
    Ok(copy)
}

/// `len` items of this value.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>> {
    let mut items = with_room(len)?;
    items.resize(len, value);
    Ok(items)
}

/// No items, with room for `len`.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut items = Vec::new();
    items.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    Ok(items)
}

/// Appends an item.
///
/// # Errors
///
/// [`Error::NoMemory`]; then the items are as before.
pub fn push<T>(items: &mut Vec<T>, item: T) -> Result<()> {
    items.try_reserve(1).map_err(|_| Error::NoMemory)?;
    items.push(item);
    Ok(())
}

/// Appends an item for which there is room already.
#[inline(always)]
pub(crate) fn push_within<T>(items: &mut Vec<T>, item: T) {
    debug_assert!(items.len() < items.capacity(), "room was reserved for every item");
    items.push(item);
}

/// Puts back what was taken from `place` by [`core::mem::take`], to be used again. What is there
/// meanwhile is empty, so it need not be dropped: on the page-fault path that is worth it.
#[inline(always)]
pub(crate) fn put_back<T>(place: &mut T, taken: T) {
    core::mem::forget(core::mem::replace(place, taken));
}

/// Appends pieces of bytes, all or none.
///
/// # Errors
///
/// [`Error::NoMemory`]; then the bytes are as before.
pub fn append(bytes: &mut Vec<u8>, pieces: &[&[u8]]) -> Result<()> {
    let more = pieces.iter().map(|piece| piece.len()).sum();
    bytes.try_reserve(more).map_err(|_| Error::NoMemory)?;
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Ok(())
}

/// Forgets all bytes, and gives back what is allocated beyond `kept`, if there is memory for less.
pub fn reset(bytes: &mut Vec<u8>, kept: usize) {
    bytes.clear();
    if bytes.capacity() > kept
        && let Ok(small) = with_room(kept)
    {
        *bytes = small;
    }
}

/// A text that is formatted.
///
/// # Errors
///
/// [`Error::NoMemory`].
pub fn format(text: fmt::Arguments<'_>) -> Result<String> {
    let mut growing = Growing(String::new());
    growing.write_fmt(text).map_err(|_| Error::NoMemory)?;
    Ok(growing.0)
}

/// A text that grows while there is memory.
struct Growing(String);

impl Write for Growing {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.try_reserve(s.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(s);
        Ok(())
    }
}

/// Values by numbers, such as inodes.
pub(crate) struct Map<K, V>(HashMap<K, V, BuildHasherDefault<Spread>>);

/// A hash of one number: multiplication spreads its low bits over the upper ones, and the fold
/// brings those back down.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

impl<K: Copy + Eq + Hash, V> Map<K, V> {
    /// No values; allocates nothing.
    pub fn new() -> Self {
        Map(HashMap::default())
    }

    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.0.get(&key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.get_mut(&key)
    }

    /// The value of a key, which is `new` if the key had none.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; then the values are as before.
    pub fn get_or_insert(&mut self, key: K, new: V) -> Result<&mut V> {
        if !self.0.contains_key(&key) {
            self.0.try_reserve(1).map_err(|_| Error::NoMemory)?;
        }
        Ok(self.0.entry(key).or_insert(new))
    }

    /// Removes the value of a key.
    pub fn remove(&mut self, key: K) {
        self.0.remove(&key);
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A box of one value, whose memory may not be there.
#[derive(Debug)]
pub struct Boxed<T>(Box<[T; 1]>);

/// Memory for a value that is still to come.
#[derive(Debug)]
pub struct Vacant<T>(Vec<T>);

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
    fn texts_are_formatted() {
        assert_eq!(format(format_args!("{} of {:?}", 7, "ü")).unwrap(), "7 of \"ü\"");
    }

    #[test]
    fn values_are_found_by_their_numbers() {
        let mut map = Map::new();
        for number in 0..1000u64 {
            *map.get_or_insert(number * 512, 0).unwrap() += number;
        }
        *map.get_or_insert(512, 7).unwrap() += 1;
        map.remove(0);
        assert_eq!((map.get(0), map.get(512), map.get(999 * 512)), (None, Some(&2), Some(&999)));
    }

    #[test]
    fn large_buffers_are_given_back() {
        let mut bytes = filled(1000, 1u8).unwrap();
        reset(&mut bytes, 10);
        assert!(bytes.is_empty() && (10..100).contains(&bytes.capacity()));
        bytes.extend([1; 5]);
        reset(&mut bytes, 10);
        assert!(bytes.is_empty() && bytes.capacity() >= 10);
    }
}
