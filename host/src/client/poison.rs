//! Memory errors: which blocks are bad, whose they are; scrubs; what happened to the server.

use super::rpc::{self, BadBlock, Event, Events, PoisonClear, PoisonInject, PoisonList};
use super::{Client, Result};

/// Memory errors.
impl Client {
    /// The bad blocks, then the ranges of files that have them.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn bad_blocks(&mut self) -> Result<Vec<BadBlock>> {
        let mut all = Vec::new();
        self.call_each(&PoisonList {}, |mut part: rpc::Items<BadBlock>, _| {
            all.append(&mut part.items);
            Ok(())
        })?;
        Ok(all)
    }

    /// Has the server act as if the memory had lost the block that has this byte of a file; returns
    /// which block that is.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `is-directory`, `invalid` where the file has no
    /// block.
    pub fn lose_block_of(&mut self, path: &[u8], offset: u64) -> Result<u64> {
        let inject = PoisonInject { path: Some(path), offset, block: None };
        self.call(&inject).map(|injected| injected.block)
    }

    /// The same, of a block of the NVDIMM.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `out-of-range`.
    pub fn lose_block(&mut self, block: u64) -> Result<()> {
        self.call(&PoisonInject { path: None, offset: 0, block: Some(block) }).map(drop)
    }

    /// Empties the list of bad blocks; returns how many it had.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn clear_bad_blocks(&mut self) -> Result<u64> {
        self.call(&PoisonClear {}).map(|cleared| cleared.blocks)
    }

    /// Takes a part of a scrub, of `blocks` blocks at most: of scrub `number`, or of one that
    /// begins now. The server answers when the part is over.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `busy` if another scrub has begun meanwhile.
    pub fn scrub(&mut self, number: Option<u64>, blocks: u64) -> Result<rpc::ScrubState> {
        self.call(&rpc::Scrub { number, blocks })
    }

    /// What happened since the server started, behind the event of this number.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]; `unsupported` by an older server.
    pub fn events(&mut self, since: u64) -> Result<Vec<Event>> {
        let mut all = Vec::new();
        self.call_each(&Events { since }, |mut part: rpc::Items<Event>, _| {
            all.append(&mut part.items);
            Ok(())
        })?;
        Ok(all)
    }
}
