//! Methods about memory errors and events.

use super::failure::{During, Failure};
use super::session::Session;
use super::subject::checked_path;
use crate::events::{Event, EventKind};
use crate::platform::Platform;
use crate::text::Shown;
use umbra_fs::memory::Boxed;
use umbra_fs::{BLOCK_SIZE, Block, Error, FileBlock, Loss, OwnerSearch, Owners, Pmem};
use umbra_proto::rpc::{self, ErrorCode, ItemsWriter, loss};

/// A list of bad blocks and their owners, on its way out.
#[derive(Debug)]
pub struct BadBlocks {
    owners: Owners,
    /// The next block, and the next range once all blocks are out.
    block: usize,
    range: usize,
}

impl BadBlocks {
    /// Fills a frame with items; true if these are the last.
    pub fn fill(&mut self, frame: &mut ItemsWriter<'_>) -> bool {
        let BadBlocks { owners, block, range } = self;
        while let Some(bad) = owners.blocks.get(*block) {
            let (number, out_of_use, more) = (bad.block.0, bad.out_of_use, bad.more);
            let item = rpc::BadBlockRef { block: number, out_of_use, more, ..Default::default() };
            if !frame.push(&item) {
                return false;
            }
            *block += 1;
        }
        while let Some(owned) = owners.ranges.get(*range) {
            let item = rpc::BadBlockRef {
                block: owned.block.0,
                ino: Some(owned.ino.0),
                path: owners.path(owned.ino).unwrap_or_default(),
                loss: Some(match owned.loss {
                    Loss::Content => loss::CONTENT,
                    Loss::Node => loss::NODE,
                    Loss::Inode => loss::INODE,
                    Loss::Names => loss::NAMES,
                }),
                offset: Some(owned.first.0.saturating_mul(BLOCK_SIZE)),
                len: Some(owned.blocks.saturating_mul(BLOCK_SIZE)),
                ..Default::default()
            };
            if !frame.push(&item) {
                return false;
            }
            *range += 1;
        }
        true
    }
}

/// Begins to look for the owners of bad blocks.
pub fn begin_search<M: Platform>(machine: &mut M) -> Result<Boxed<OwnerSearch>, Failure> {
    let what = "list the bad blocks";
    let bytes = machine.volume(|v| v.owners_memory());
    if !machine.has_memory(bytes) {
        return Err(Failure::no_memory(what));
    }
    machine.volume(|v| v.begin_owners()).and_then(Boxed::new).during(format_args!("{what}"))
}

/// Takes a step of looking for owners.
pub fn search<M: Platform>(
    machine: &mut M,
    search: &mut OwnerSearch,
) -> Result<Option<BadBlocks>, Failure> {
    let step = machine.volume(|v| v.owners_step(search));
    let found = step.during(format_args!("list the bad blocks"))?;
    Ok(found.map(|owners| BadBlocks { owners, block: 0, range: 0 }))
}

/// Has the machine act as if a block were lost.
pub fn inject<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::PoisonInject<'_>,
) -> Result<(), Failure> {
    let block = match (r.path, r.block) {
        (Some(path), None) => {
            checked_path(path)?;
            machine
                .volume(|v| {
                    let ino = v.resolve(path)?;
                    let extent = v.extent(ino, FileBlock(r.offset / BLOCK_SIZE))?;
                    let at = extent.and_then(|extent| extent.at);
                    at.ok_or(Error::Invalid("the file has no block there"))
                })
                .during(format_args!("inject an error at {} of {}", r.offset, Shown(path)))?
        }
        (None, Some(block)) => Block(block),
        _ => {
            let message = format_args!("either a path or a block is needed, not none and not both");
            return Err(Failure::new(ErrorCode::INVALID, message));
        }
    };
    let blocks = machine.volume(|v| v.pmem().len()) / BLOCK_SIZE;
    if block.0 >= blocks {
        let message = format_args!(
            "cannot inject an error into block {}: the NVDIMM has {blocks} blocks",
            block.0
        );
        return Err(Failure::new(ErrorCode::OUT_OF_RANGE, message));
    }
    machine.lose(block);
    s.reply(0, &rpc::PoisonInjected { block: block.0 });
    Ok(())
}

/// Empties the list.
pub fn clear<M: Platform>(s: &mut Session, machine: &mut M) -> Result<(), Failure> {
    let cleared = machine.volume(|v| v.clear_bad_blocks());
    let blocks = cleared.during(format_args!("empty the list of bad blocks"))?;
    let (number, time, kind) = (0, machine.now(), EventKind::BadBlocksCleared);
    let event = Event { number, time, kind, address: None, block: None, count: Some(blocks) };
    machine.add_event(event);
    s.reply(0, &rpc::PoisonCleared { blocks });
    Ok(())
}

/// Fills a frame with events behind a number; true if these are the last.
pub fn events<M: Platform>(machine: &mut M, since: &mut u64, frame: &mut ItemsWriter<'_>) -> bool {
    while let Some(event) = machine.event_behind(*since) {
        let Event { number, time, kind, address, block, count } = event;
        let (time, kind) = (time.0, kind.name());
        if !frame.push(&rpc::Event { number, time, kind, address, block, count }) {
            return false;
        }
        *since = number;
    }
    true
}
