//! The seam to a vsock device: packets in, packets out.

use super::packet::{HEADER_LEN, Header};
use umbra_fs::{BLOCK_SIZE, Block, LENT_RUN};

/// Bytes of payload that a buffer holds, and the largest packet that is sent.
pub(crate) const PAYLOAD: usize = 64 * 1024;

/// Memory of one packet, shared with the device while that has it.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Its header.
    pub(crate) header: &'static mut [u8; HEADER_LEN],
    /// Its payload. It begins with a page.
    pub(crate) payload: &'static mut [u8; PAYLOAD],
    /// The run of blocks that the payload is, if it is one that the volume has lent.
    pub(crate) blocks: Option<Block>,
}

const _: () = assert!(PAYLOAD as u64 == LENT_RUN * BLOCK_SIZE);

/// A packet that the device received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Where it is.
    pub(crate) buffer: Buffer,
    /// Bytes that the device wrote, the header included.
    pub(crate) written: usize,
}

/// A device that moves packets. Nothing here waits.
pub(crate) trait Device {
    /// The next packet received, in order.
    fn receive(&mut self) -> Option<Packet>;

    /// Gives the buffer of a received packet back to receive into.
    fn recycle(&mut self, buffer: Buffer);

    /// Servers could take over what comes, if it came in blocks of the volume: buffers that are
    /// recycled from now on may be such. A hint.
    fn want_blocks(&mut self);

    /// A buffer to fill and send; `None` while all are under way.
    fn take(&mut self) -> Option<Buffer>;

    /// Gives back a buffer that was taken and is not sent.
    fn put_back(&mut self, buffer: Buffer);

    /// Sends a buffer with the first `header.len` bytes of its payload (at least one).
    /// There is always room for every buffer that was taken.
    fn send(&mut self, header: &Header, buffer: Buffer);

    /// Sends a packet without payload, if there is room for it now.
    fn send_control(&mut self, header: &Header) -> Result<(), Busy>;

    /// Collects what was sent, unless there is room in plenty; returns whether there is room again
    /// that was not before. If there is not, the device has something as soon as there is.
    fn reap(&mut self) -> Room;

    /// Whether a packet has come.
    fn has_news(&self) -> bool;

    /// Asks for an interrupt when a packet comes; returns whether one has come already.
    fn listen(&self) -> bool;

    /// Whether everything that was sent has left. What it finds to have left is room that
    /// [`Device::reap`] tells of.
    fn is_drained(&mut self) -> bool;

    /// Tells the device of what was sent and recycled since the last call.
    fn notify(&mut self);
}

/// No room for another packet until some of those under way are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Whether a call made room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It did.
    Made,
    /// It did not.
    AsBefore,
}

/// Whether a counter that went from `old` to `new` passed `event`, all modulo 2^16: so both ends of
/// a queue say which entry is the one that they want to be told of (virtio 1.2, 2.7.10.1).
pub(crate) fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_met_once_wherever_the_counters_are() {
        for event in [0u16, 1, 100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF] {
            for before in 0..200u16 {
                let old = event.wrapping_sub(before);
                for steps in 1..200 {
                    let new = old.wrapping_add(steps);
                    assert_eq!(crosses(event, old, new), steps > before, "{event} in {old}..{new}");
                }
                // It was met before.
                let old = event.wrapping_add(1 + before);
                assert!(!crosses(event, old, old.wrapping_add(1)));
            }
        }
    }
}
