//! Receive buffers between two owners of memory: RAM of their own, and blocks that the volume
//! lends.
//!
//! A server that could take over blocks says so with each packet. The buffers that are recycled
//! soon after get blocks; each that comes back with blocks gives them back first, taken over or
//! not, and gets others, or its own memory again.

use super::device::{Buffer, PAYLOAD};
use alloc::vec::Vec;
use umbra_fs::Block;

/// PayloadMemory of a payload.
pub(crate) type PayloadMemory = &'static mut [u8; PAYLOAD];

/// Buffers that get blocks after a server would have taken some over: there are several packets
/// between two exchanges.
const WISH: usize = 16;

/// The owner of blocks that are lent.
pub(crate) trait Lender {
    /// Lends a run, which has this memory; `None` if there is none to lend.
    fn lend(&mut self) -> Option<(Block, PayloadMemory)>;

    /// Takes a run back that was lent. Its memory is used no more.
    fn take_back(&mut self, run: Block);
}

/// Buffers that wait for other memory, and memory that waits for buffers.
#[derive(Debug)]
pub(crate) struct Exchange {
    waiting: Vec<Buffer>,
    /// How many buffers are still to get blocks.
    wanted: usize,
    /// The own memory of those that have blocks.
    spare: Vec<PayloadMemory>,
}

impl Exchange {
    /// An exchange for so many buffers.
    pub(crate) fn new(buffers: usize) -> Self {
        Self { waiting: Vec::with_capacity(buffers), wanted: 0, spare: Vec::with_capacity(buffers) }
    }

    /// Blocks are wanted: see [`Device::want_blocks`](super::Device::want_blocks).
    pub(crate) fn want(&mut self) {
        self.wanted = WISH;
    }

    /// Keeps a buffer that is recycled, or hands it back if it can be used on as it is.
    pub(crate) fn keep(&mut self, buffer: Buffer) -> Option<Buffer> {
        if self.wanted == 0 && buffer.blocks.is_none() {
            return Some(buffer);
        }
        self.waiting.push(buffer);
        None
    }

    /// Whether buffers wait.
    pub(crate) fn is_pending(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives each buffer that waits its memory, and hands it on.
    pub(crate) fn settle(&mut self, lender: &mut impl Lender, mut on: impl FnMut(Buffer)) {
        let mut buffers = core::mem::take(&mut self.waiting);
        for buffer in &mut buffers {
            if let Some(run) = buffer.blocks.take() {
                // There is some for each buffer that has blocks.
                let own = self.spare.pop();
                debug_assert!(own.is_some());
                if let Some(own) = own {
                    buffer.payload = own;
                }
                lender.take_back(run);
            }
        }
        for mut buffer in buffers.drain(..) {
            if self.wanted > 0 {
                self.wanted -= 1;
                if let Some((run, memory)) = lender.lend() {
                    self.spare.push(core::mem::replace(&mut buffer.payload, memory));
                    buffer.blocks = Some(run);
                }
            }
            on(buffer);
        }
        self.waiting = buffers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsock::HEADER_LEN;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use umbra_fs::testing::{MemPmem, SoftMmu, new_volume};
    use umbra_fs::{BLOCK_SIZE, FileBlock, Ino, LENT_RUN, Pmem, Time, Volume};

    const NOW: Time = Time(1);
    const BUFFERS: usize = 8;

    fn memory(mark: u8) -> PayloadMemory {
        Box::leak(vec![mark; PAYLOAD].into_boxed_slice()).as_mut_array().unwrap()
    }

    /// The volume, and the file that is written to.
    struct Lends(Volume<MemPmem, SoftMmu>, Ino);

    impl Lender for Lends {
        fn lend(&mut self) -> Option<(Block, PayloadMemory)> {
            self.0.lend().map(|run| (run, memory(b'l')))
        }
        fn take_back(&mut self, run: Block) {
            self.0.take_back(run);
        }
    }

    impl Lends {
        /// What the device holds is nobody else's, and all that is lent.
        fn check(&mut self, ring: &VecDeque<Buffer>) {
            let mut runs: Vec<u64> =
                ring.iter().filter_map(|buffer| buffer.blocks).map(|run| run.0).collect();
            runs.sort();
            assert!(runs.windows(2).all(|two| two[0] + LENT_RUN <= two[1]), "lent twice: {runs:?}");
            assert_eq!(self.0.lending().lent, runs.len() as u64 * LENT_RUN);
            let mut at = 0;
            while let Some(extent) = self.0.extent(self.1, FileBlock(at)).unwrap() {
                if let Some(Block(first)) = extent.at {
                    let apart =
                        |&run: &u64| first + extent.blocks <= run || run + LENT_RUN <= first;
                    assert!(runs.iter().all(apart), "a file has block {first} of {runs:?}");
                }
                at += extent.blocks;
            }
            // What has no blocks has its own memory.
            assert!(
                ring.iter().all(|buffer| (buffer.payload[0] == b'l') == buffer.blocks.is_some())
            );
            assert_eq!(self.0.check().unwrap().issues, Vec::<String>::new());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Packets come in the order of the ring; some are taken over, some of the file goes again,
        /// before the buffers are settled.
        #[test]
        fn the_device_never_has_what_somebody_else_has(
            steps in prop::collection::vec(
                prop_oneof![
                    6 => (0u64..64, 1u64..17, any::<bool>()).prop_map(Some),
                    1 => Just(None),
                ],
                1..120,
            ),
            // How much of the file stays, and how far the search for free blocks goes on.
            keep in prop::collection::vec((prop_oneof![Just(0u64), 0u64..64], 0u64..400), 1..20),
        ) {
            let mut volume = new_volume(8 << 20, 2);
            let root = volume.root();
            // Little is free, so that the search goes round and round.
            let filler = volume.create(root, b"filler", 0o600, NOW).unwrap();
            let fill = (volume.space().free - 600) * BLOCK_SIZE;
            volume.truncate(filler, fill, NOW).unwrap();
            let mut filled = 0;
            while filled < fill {
                filled += volume.provide_zeros(filler, filled, fill - filled, NOW).unwrap();
            }
            let ino = volume.create(root, b"f", 0o600, NOW).unwrap();
            let mut lends = Lends(volume, ino);
            let mut exchange = Exchange::new(BUFFERS);
            let mut ring: VecDeque<Buffer> = (0..BUFFERS)
                .map(|_| Buffer {
                    header: Box::leak(Box::new([0; HEADER_LEN])),
                    payload: memory(b'r'),
                    blocks: None,
                })
                .collect();
            let mut keep = keep.into_iter().cycle();
            for step in steps {
                match step {
                    Some((at, n, want)) if !ring.is_empty() => {
                        let buffer = ring.pop_front().unwrap();
                        if let (true, Some(run)) = (want, buffer.blocks) {
                            let bytes = vec![at as u8; (n * BLOCK_SIZE) as usize];
                            lends.0.pmem_mut().write(run.0 * BLOCK_SIZE, &bytes);
                            let _ = lends.0.write_received(ino, at * BLOCK_SIZE, &bytes, run, NOW);
                        }
                        if want {
                            exchange.want();
                        }
                        ring.extend(exchange.keep(buffer));
                    }
                    _ => {
                        let (size, search) = keep.next().unwrap();
                        for blocks in [size, size + search, size] {
                            lends.0.truncate(ino, blocks * BLOCK_SIZE, NOW).unwrap();
                            // Once more than there is, it may be too much.
                            let _ = lends.0.provide_zeros(ino, 0, blocks * BLOCK_SIZE, NOW);
                        }
                        exchange.settle(&mut lends, |buffer| ring.push_back(buffer));
                        prop_assert!(!exchange.is_pending() && ring.len() == BUFFERS);
                        lends.check(&ring);
                    }
                }
            }
            exchange.settle(&mut lends, |buffer| ring.push_back(buffer));
            lends.check(&ring);
        }
    }
}
