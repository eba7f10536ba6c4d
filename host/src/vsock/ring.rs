//! A virtqueue as the device sees it (virtio 1.2, 2.7), and the chains of memory in it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory as _, GuestMemoryMmap, Permissions, VolatileSlice,
};

/// The guest's memory.
pub(super) type GuestMemory = GuestMemoryMmap;

/// Entries of a ring at most.
pub(super) const SIZE_MAX: u16 = 1024;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`: the driver wants no notifications (2.7.7.1).
const NO_INTERRUPT: u16 = 1;

/// The rings cannot be what the driver says they are, or the memory is not there: why.
#[derive(Debug)]
pub(super) struct Broken(String);

impl Broken {
    /// The host has nothing to put behind memory of the guest: that of its RAM, or, since it may be
    /// told to receive there, of an NVDIMM.
    pub(super) fn unbacked() -> Broken {
        let why = "the host has no room left for the guest's memory; is the disk with the image of \
                   its NVDIMM full?";
        Broken(why.into())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn broken(error: impl fmt::Display) -> Broken {
    Broken(format!("the guest's vsock rings are broken: {error}"))
}

/// A virtqueue.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    /// Written by the guest's side when it has added something.
    kick: Option<File>,
    /// Written here when something was used.
    call: Option<File>,
    enabled: bool,
    /// The driver is asked to kick.
    armed: bool,
    /// Something was used that the driver has not been told of.
    news: bool,
}

impl Ring {
    pub(super) fn new() -> Ring {
        // It fails only for sizes that are not powers of two.
        let queue = Queue::new(SIZE_MAX).unwrap_or_default();
        Ring { queue, kick: None, call: None, enabled: false, armed: false, news: false }
    }

    /// Where the ring is; what the driver says is looked at by [`Ring::start`].
    pub(super) fn place(
        &mut self,
        descriptors: u64,
        available: u64,
        used: u64,
    ) -> Result<(), Broken> {
        self.queue.try_set_desc_table_address(GuestAddress(descriptors)).map_err(broken)?;
        self.queue.try_set_avail_ring_address(GuestAddress(available)).map_err(broken)?;
        self.queue.try_set_used_ring_address(GuestAddress(used)).map_err(broken)
    }

    pub(super) fn set_size(&mut self, size: u16) -> Result<(), Broken> {
        self.queue.try_set_size(size).map_err(broken)
    }

    /// The next entry that is looked at.
    pub(super) fn set_position(&mut self, position: u16) {
        self.queue.set_next_avail(position);
    }

    pub(super) fn set_call(&mut self, call: Option<File>) {
        self.call = call;
    }

    pub(super) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(super) fn kick(&self) -> Option<&File> {
        self.kick.as_ref()
    }

    /// Starts it, if all of it is in the guest's memory.
    pub(super) fn start(
        &mut self,
        memory: &GuestMemory,
        kick: File,
        by_index: bool,
    ) -> Result<(), Broken> {
        self.queue.set_event_idx(by_index);
        self.queue.set_ready(true);
        if !self.queue.is_valid(memory) {
            self.queue.set_ready(false);
            return Err(broken("they are outside of its memory"));
        }
        let used = self.queue.used_idx(memory, Ordering::Acquire).map_err(broken)?;
        self.queue.set_next_used(used.0);
        self.kick = Some(kick);
        // Told at least once: what was used before the start may not have been noticed.
        (self.armed, self.news) = (true, true);
        Ok(())
    }

    /// Stops it; returns the entry that would have been next, and what kicked it.
    pub(super) fn stop(&mut self) -> (u16, Option<File>) {
        self.queue.set_ready(false);
        self.enabled = false;
        self.call = None;
        (self.queue.next_avail(), self.kick.take())
    }

    pub(super) fn is_running(&self) -> bool {
        self.enabled && self.queue.ready()
    }

    /// The next chain that the driver has made available: of what the device may read, or write.
    pub(super) fn pop<'m>(
        &mut self,
        memory: &'m GuestMemory,
        access: Permissions,
    ) -> Result<Option<Chain<'m>>, Broken> {
        if self.armed {
            self.armed = false;
            self.queue.disable_notification(memory).map_err(broken)?;
        }
        let Some(chain) = self.queue.iter(memory).map_err(broken)?.next() else { return Ok(None) };
        let mut found = Chain { head: chain.head_index(), parts: Vec::with_capacity(2) };
        let wanted = access == Permissions::Write;
        for descriptor in chain.filter(|descriptor| descriptor.is_write_only() == wanted) {
            let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
            let all = slices.and_then(|mut slices| {
                slices.try_for_each(|slice| slice.map(|slice| found.parts.push(slice)))
            });
            if all.is_err() {
                // Outside of the memory. A chain without memory is no packet.
                found.parts.clear();
                break;
            }
        }
        Ok(Some(found))
    }

    /// Leaves the chain that was popped last to the next pop.
    pub(super) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back, with so many bytes written.
    pub(super) fn give_back(
        &mut self,
        memory: &GuestMemory,
        head: u16,
        written: usize,
    ) -> Result<(), Broken> {
        self.news = true;
        self.queue.add_used(memory, head, written as u32).map_err(broken)
    }

    /// Asks the driver to kick when it adds something; returns whether it has done so already.
    pub(super) fn arm(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        self.armed = true;
        self.queue.enable_notification(memory).map_err(broken)
    }

    /// Lets the driver know of what was used, if it wants to.
    pub(super) fn signal(&mut self, memory: &GuestMemory) -> Result<(), Broken> {
        if !std::mem::take(&mut self.news) || !self.wants_signal(memory)? {
            return Ok(());
        }
        if let Some(mut call) = self.call.as_ref() {
            // It fails only if 2^64 - 2 signals are waiting.
            let _ = call.write(&1u64.to_ne_bytes());
        }
        Ok(())
    }

    fn wants_signal(&mut self, memory: &GuestMemory) -> Result<bool, Broken> {
        // It fences, too: what was used is visible before the driver's wish is read.
        let wants = self.queue.needs_notification(memory).map_err(broken)?;
        if self.queue.event_idx_enabled() {
            return Ok(wants);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(broken)?;
        Ok(u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    /// Takes note of kicks.
    pub(super) fn kicked(&self) {
        if let Some(mut kick) = self.kick.as_ref() {
            // Nothing to read is no news.
            let _ = kick.read(&mut [0; 8]);
        }
    }
}

/// The memory of a packet: a chain of descriptors.
pub(super) struct Chain<'m> {
    pub(super) head: u16,
    parts: Vec<VolatileSlice<'m, ()>>,
}

impl<'m> Chain<'m> {
    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(VolatileSlice::len).fold(0, usize::saturating_add)
    }

    /// The pieces of memory of a range, as far as there is some.
    pub(super) fn range(
        &self,
        at: usize,
        len: usize,
    ) -> impl Iterator<Item = VolatileSlice<'m, ()>> {
        let (mut skip, mut left) = (at, len);
        self.parts.iter().filter_map(move |part| {
            let from = skip.min(part.len());
            skip -= from;
            let count = left.min(part.len() - from);
            left -= count;
            // Both are within the part.
            if count == 0 { None } else { part.subslice(from, count).ok() }
        })
    }

    /// Copies out as many bytes as there are.
    pub(super) fn copy_out(&self, at: usize, into: &mut [u8]) -> usize {
        let mut done = 0;
        for part in self.range(at, into.len()) {
            done += part.copy_to(&mut into[done..]);
        }
        done
    }

    /// Copies into the first bytes.
    pub(super) fn copy_in(&self, bytes: &[u8]) {
        let mut done = 0;
        for part in self.range(0, bytes.len()) {
            let next = done + part.len();
            part.copy_from(&bytes[done..next]);
            done = next;
        }
    }
}

/// The error of a system call on guest memory.
pub(super) fn io_error(error: vm_memory::VolatileMemoryError) -> io::Error {
    match error {
        vm_memory::VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}
