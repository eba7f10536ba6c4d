//! A machine without a volume, for what happens before one is needed.

use umbra_fs::dax::{AccessError, Frame, Machine, Mmu, Page, Rights, Slot};
use umbra_fs::pmem::{Pmem, Poisoned};
use umbra_fs::{Block, Time, Volume};
use umbra_server::Shared;
use umbra_server::platform::{
    Counters, Event, MemoryErrors, MemoryUse, Persisted, Platform, Region,
};
use umbra_server::testing::Keeper;

/// Facts and counters; no volume.
#[derive(Default)]
pub struct Bare {
    pub counters: Counters,
    pub nvdimms: Vec<Region>,
    pub shared: Shared,
    pub powered_off: bool,
}

pub struct NoPmem;
pub struct NoMmu;

impl Pmem for NoPmem {
    fn len(&self) -> u64 {
        0
    }
    fn load(&self, _: u64) -> Result<u64, Poisoned> {
        unreachable!()
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Poisoned> {
        unreachable!()
    }
    fn store(&mut self, _: u64, _: u64) {
        unreachable!()
    }
    fn write(&mut self, _: u64, _: &[u8]) {
        unreachable!()
    }
    fn zero(&mut self, _: u64, _: u64) {
        unreachable!()
    }
    fn copy(&mut self, _: u64, _: u64, _: u64) -> Result<(), Poisoned> {
        unreachable!()
    }
    fn flush(&mut self, _: u64, _: u64) {
        unreachable!()
    }
    fn fence(&mut self) {
        unreachable!()
    }
}

impl Mmu for NoMmu {
    fn slots(&self) -> u32 {
        0
    }
    fn set(&mut self, _: Page, _: Frame, _: Rights) {
        unreachable!()
    }
    fn clear(&mut self, _: Page) {
        unreachable!()
    }
    fn get(&self, _: Page) -> Option<(Frame, Rights)> {
        unreachable!()
    }
    fn invalidate(&mut self, _: Page) {
        unreachable!()
    }
    fn invalidate_slot(&mut self, _: Slot) {
        unreachable!()
    }
}

impl Keeper for Bare {
    fn shared(&mut self) -> &mut Shared {
        &mut self.shared
    }
}

impl Machine for Bare {
    type Pmem = NoPmem;
    type Mmu = NoMmu;
    fn volume<R>(&mut self, _: impl FnOnce(&mut Volume<NoPmem, NoMmu>) -> R) -> R {
        panic!("a volume was needed")
    }
    fn load(&mut self, _: Page, _: usize, _: &mut [u8]) -> Result<(), AccessError> {
        unreachable!()
    }
    fn store(&mut self, _: Page, _: usize, _: &[u8]) -> Result<(), AccessError> {
        unreachable!()
    }
}

impl Platform for Bare {
    type Device = NoPmem;

    fn now(&self) -> Time {
        Time(1_700_000_000_000_000_000)
    }
    fn uptime_ns(&self) -> u64 {
        5_000
    }
    fn boot_ns(&self) -> u64 {
        400
    }
    fn mounted(&self) -> umbra_server::platform::Mounted {
        umbra_server::platform::Mounted::default()
    }
    fn memory(&self) -> MemoryUse {
        MemoryUse { total: 5, heap_used: 1, heap_total: 2, frames_used: 3, frames_total: 4 }
    }
    fn allocations(&self) -> u64 {
        5
    }
    fn has_memory(&mut self, _: usize) -> bool {
        true
    }
    fn persisted(&mut self) -> Persisted {
        Persisted { flushes: 7, fences: 8 }
    }
    fn nvdimms(&self) -> &[Region] {
        &self.nvdimms
    }
    fn power_off(&mut self) {
        self.powered_off = true;
    }
    fn device(&mut self, _: usize) -> Option<&mut NoPmem> {
        None
    }
    fn is_closing(&self) -> bool {
        self.powered_off
    }
    fn memory_errors(&mut self) -> MemoryErrors {
        MemoryErrors {
            uncorrected: 9,
            corrected: 10,
            unrecorded: 11,
            bad_blocks: 12,
            mended: 13,
            scrub: None,
        }
    }
    fn lose(&mut self, _: Block) {
        unreachable!()
    }
    fn add_event(&mut self, _: Event) {
        unreachable!()
    }
    fn event_behind(&self, _: u64) -> Option<Event> {
        None
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
