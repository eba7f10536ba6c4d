//! What servers see of the machine.

use crate::arch::clock::{self, Instant};
use crate::dax::{Processor, Volume, WindowTables};
use crate::error_log;
use crate::measure;
use crate::media;
use crate::mm::{PAGE, frames, heap};
use crate::nvdimm::{self, Nvdimm};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;
use umbra_fs::dax::{AccessError, Machine, Page};
use umbra_fs::{Block, Time};
use umbra_server::Platform;
use umbra_server::platform::{
    Counters, Event, MemoryErrors, MemoryUse, Mounted, Persisted, Region, Sample,
};

/// The machine with its counters: one, for all servers.
pub(crate) struct KernelPlatform {
    processor: Processor,
    counters: Counters,
    regions: Vec<Region>,
    /// Of these: those that hold no volume.
    devices: Vec<Option<Nvdimm>>,
    ready: Instant,
    power_off: bool,
}

impl KernelPlatform {
    /// The machine, served from now on. `processor` says that a volume is.
    pub(crate) fn new(processor: Processor, ready: Instant) -> Self {
        let regions = match nvdimm::table() {
            Ok(nfit) => nfit
                .persistent()
                .map(|range| Region {
                    address: range.base,
                    size: range.length,
                    served: nvdimm::is_served(range),
                    flush: nvdimm::flush_name(),
                    problem: nfit.usable(range).err().map(|why| why.to_string()),
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        KernelPlatform {
            processor,
            counters: Counters::default(),
            regions,
            devices: nvdimm::regions(),
            ready,
            power_off: false,
        }
    }

    /// Whether a client asked for power-off.
    pub(crate) fn wants_power_off(&self) -> bool {
        self.power_off
    }
}

impl Machine for KernelPlatform {
    type Pmem = Nvdimm;
    type Mmu = WindowTables;

    fn volume<R>(&mut self, f: impl FnOnce(&mut Volume) -> R) -> R {
        self.processor.volume(f)
    }
    fn load(&mut self, page: Page, offset: usize, into: &mut [u8]) -> Result<(), AccessError> {
        self.processor.load(page, offset, into)
    }
    fn store(&mut self, page: Page, offset: usize, from: &[u8]) -> Result<(), AccessError> {
        self.processor.store(page, offset, from)
    }
}

impl Platform for KernelPlatform {
    type Device = Nvdimm;

    fn now(&self) -> Time {
        clock::wall()
    }
    fn uptime_ns(&self) -> u64 {
        clock::now().0
    }
    fn boot_ns(&self) -> u64 {
        self.ready.0
    }
    fn mounted(&self) -> Mounted {
        media::mounted()
    }
    fn memory(&self) -> MemoryUse {
        let (heap, frames) = (heap::counts(), frames::counts());
        let total = frames.total as u64 * PAGE;
        MemoryUse {
            total,
            heap_used: heap.used,
            heap_total: heap.size,
            frames_used: total - frames.free as u64 * PAGE,
            frames_total: total,
        }
    }
    fn allocations(&self) -> u64 {
        heap::counts().allocations
    }
    fn has_memory(&mut self, bytes: usize) -> bool {
        heap::admits(bytes)
    }
    fn persisted(&mut self) -> Persisted {
        let counts = nvdimm::counts();
        Persisted { flushes: counts.flushes, fences: counts.fences }
    }
    fn nvdimms(&self) -> &[Region] {
        &self.regions
    }
    fn power_off(&mut self) {
        self.power_off = true;
    }
    fn device(&mut self, index: usize) -> Option<&mut Nvdimm> {
        self.devices.get_mut(index)?.as_mut()
    }
    fn is_closing(&self) -> bool {
        self.power_off
    }
    fn floor(&mut self) -> Vec<Sample> {
        measure::run()
    }
    fn fault_in(&mut self, blocks: Range<u64>) {
        // The volume is at rest: nobody else stores meanwhile.
        blocks.for_each(|block| nvdimm::rewrite_word(block * PAGE));
    }
    fn memory_errors(&mut self) -> MemoryErrors {
        error_log::counts()
    }
    fn lose(&mut self, block: Block) {
        if let Some(address) = nvdimm::address_of(block) {
            error_log::report(address);
        }
    }
    fn add_event(&mut self, event: Event) {
        error_log::add_event(event);
    }
    fn event_behind(&self, number: u64) -> Option<Event> {
        error_log::event_behind(number)
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
