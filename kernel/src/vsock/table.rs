//! The connections: a bounded table, and a hash that finds one by its two ends.
//!
//! An entry can leave the hash before it leaves the table: a connection that is gone is
//! not found any more, while its server still gets to know of it.

use super::packet::{Address, Port};
use alloc::vec::Vec;

/// What identifies a connection: the peer's end, and the port here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The peer's end.
    pub(crate) peer: Address,
    /// The port here.
    pub(crate) port: Port,
}

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u16);

/// No slot.
const NONE: u16 = u16::MAX;

struct Entry<E> {
    /// The next place in the same bucket, or in the free list.
    next: u16,
    content: Option<(Key, E)>,
}

/// A table of at most as many entries as it was made for. It allocates only when made.
pub(crate) struct Table<E> {
    entries: Vec<Entry<E>>,
    /// First place of each bucket; their number is a power of two.
    buckets: Vec<u16>,
    free: u16,
    len: usize,
}

impl<E> Table<E> {
    /// A table for `capacity` entries (at most 32,768).
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(1 << 15);
        let entries = (0..capacity)
            .map(|i| Entry {
                next: if i + 1 == capacity { NONE } else { i as u16 + 1 },
                content: None,
            })
            .collect();
        let buckets = (0..(capacity * 2).next_power_of_two()).map(|_| NONE).collect();
        Self { entries, buckets, free: if capacity == 0 { NONE } else { 0 }, len: 0 }
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry finds room any more.
    pub(crate) fn is_full(&self) -> bool {
        self.free == NONE
    }

    fn bucket(&self, key: &Key) -> usize {
        // Ports of one peer mostly count up: any odd multiplier spreads them.
        let ends = u64::from(key.peer.port.0) | u64::from(key.port.0) << 32;
        let hash = (ends ^ key.peer.cid.0.rotate_left(48)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }

    /// Finds an entry by its key.
    pub(crate) fn find(&self, key: &Key) -> Option<Slot> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let place = &self.entries[usize::from(at)];
            if place.content.as_ref().is_some_and(|(k, _)| k == key) {
                return Some(Slot(at));
            }
            at = place.next;
        }
        None
    }

    /// Adds an entry whose key is not in the hash; gives it back if the table is full.
    pub(crate) fn insert(&mut self, key: Key, entry: E) -> Result<Slot, E> {
        let at = self.free;
        if at == NONE {
            return Err(entry);
        }
        let bucket = self.bucket(&key);
        let place = &mut self.entries[usize::from(at)];
        self.free = place.next;
        place.next = self.buckets[bucket];
        place.content = Some((key, entry));
        self.buckets[bucket] = at;
        self.len += 1;
        Ok(Slot(at))
    }

    /// The entry in a slot.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut E> {
        self.entries.get_mut(usize::from(slot.0))?.content.as_mut().map(|(_, entry)| entry)
    }

    /// Takes an entry out of the hash, if it is there; it stays in the table.
    pub(crate) fn hide(&mut self, slot: Slot) {
        let Some(Some((key, _))) =
            self.entries.get(usize::from(slot.0)).map(|place| &place.content)
        else {
            return;
        };
        let bucket = self.bucket(key);
        let after = self.entries[usize::from(slot.0)].next;
        let mut at = self.buckets[bucket];
        if at == slot.0 {
            self.buckets[bucket] = after;
            return;
        }
        while at != NONE {
            let next = self.entries[usize::from(at)].next;
            if next == slot.0 {
                self.entries[usize::from(at)].next = after;
                return;
            }
            at = next;
        }
    }

    /// Takes an entry out of the table.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<E> {
        self.hide(slot);
        let place = self.entries.get_mut(usize::from(slot.0))?;
        let (_, entry) = place.content.take()?;
        place.next = self.free;
        self.free = slot.0;
        self.len -= 1;
        Some(entry)
    }

    /// Entries that find room.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// The slot number `i`, if it holds an entry; `i` counts up to the capacity.
    pub(crate) fn slot(&self, i: usize) -> Option<Slot> {
        self.entries.get(i)?.content.as_ref().map(|_| Slot(i as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Cid;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(n: u32) -> Key {
        Key {
            peer: Address { cid: Cid(2 + u64::from(n % 3)), port: Port(n / 3) },
            port: Port(n % 2),
        }
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_map_finds(
            steps in prop::collection::vec((0..3u8, 0..60u32), 1..300),
        ) {
            let mut table = Table::new(16);
            let mut hidden = Vec::new();
            let mut model: HashMap<Key, u32> = HashMap::new();
            for (step, n) in steps {
                let found = table.find(&key(n));
                prop_assert_eq!(found.is_some(), model.contains_key(&key(n)));
                match (step, found) {
                    (0, None) => {
                        let full = model.len() + hidden.len() == 16;
                        prop_assert_eq!(table.is_full(), full);
                        match table.insert(key(n), n) {
                            Ok(_) => { model.insert(key(n), n); }
                            Err(back) => prop_assert!(full && back == n),
                        }
                    }
                    (1, Some(slot)) => {
                        prop_assert_eq!(table.remove(slot), model.remove(&key(n)));
                        prop_assert!(table.get_mut(slot).is_none());
                    }
                    (2, Some(slot)) => {
                        table.hide(slot);
                        table.hide(slot);
                        hidden.push((slot, model.remove(&key(n)).unwrap()));
                    }
                    (2, None) => {
                        if let Some((slot, n)) = hidden.pop() {
                            prop_assert_eq!(table.remove(slot), Some(n));
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len() + hidden.len());
                let slots = (0..table.capacity()).filter_map(|i| table.slot(i));
                prop_assert_eq!(slots.count(), table.len());
                for (slot, n) in &hidden {
                    prop_assert_eq!(table.get_mut(*slot).copied(), Some(*n));
                }
            }
        }
    }
}
