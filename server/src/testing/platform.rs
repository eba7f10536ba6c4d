//! A machine with a volume in plain memory and a software MMU.

use crate::nbd::table;
use crate::platform::{
    Counters, Event, EventKind, Events, MemoryErrors, MemoryUse, Mounted, Persisted, Platform,
    Region,
};
use crate::service::{Service, Shared};
use crate::stream::{Progress, Stream};
use alloc::string::String;
use alloc::vec::Vec;
use umbra_fs::dax::{AccessError, Machine, Page};
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, new_volume};
use umbra_fs::{Block, Time, Volume};

/// The machine; its clock goes on by a microsecond whenever it is looked at.
pub struct SoftPlatform {
    /// Volume and MMU.
    pub machine: SoftMachine<MemPmem>,
    /// Counters of the servers.
    pub counters: Counters,
    /// What the services of its connections share.
    pub shared: Shared,
    /// NVDIMM regions; those with memory can be served.
    pub regions: Vec<Region>,
    /// Their memory.
    pub devices: Vec<Option<MemPmem>>,
    /// Whether a client asked for it.
    pub powered_off: bool,
    /// Memory that each request of a client may have.
    pub memory: usize,
    /// Memory errors and events.
    pub errors: MemoryErrors,
    events: Events,
    clock: core::cell::Cell<u64>,
}

impl SoftPlatform {
    /// A new volume of `mib` MiB, with `slots` slots of 2 MiB for windows.
    pub fn new(mib: u64, slots: u32) -> Self {
        SoftPlatform {
            machine: SoftMachine { volume: new_volume(mib << 20, slots) },
            counters: Counters::default(),
            shared: Shared::default(),
            regions: Vec::new(),
            devices: Vec::new(),
            powered_off: false,
            memory: usize::MAX,
            errors: MemoryErrors::default(),
            events: Events::new(),
            clock: core::cell::Cell::new(0),
        }
    }

    /// Has the clock go on by this much.
    pub fn clock_goes_on(&mut self, ns: u64) {
        self.clock.set(self.clock.get() + ns);
    }

    /// Adds an NVDIMM region of `mib` MiB that holds no volume; returns its number.
    pub fn add_region(&mut self, mib: u64) -> usize {
        let (address, size) = ((self.regions.len() as u64 + 1) << 40, mib << 20);
        self.regions.push(Region { address, size, served: false, flush: "clwb", problem: None });
        self.devices.push(Some(MemPmem::new(size)));
        self.regions.len() - 1
    }

    /// Adds an export to the list in the volume.
    pub fn add_export(&mut self, name: &str, path: &[u8], read_only: bool, size: Option<u64>) {
        let mut all = table::read(self).expect("the list can be read");
        all.push(table::Added { name: name.into(), path: path.into(), read_only, size });
        let encoded = table::encode(&all).expect("the list is short");
        table::write(self, &encoded).expect("the list can be written");
    }

    /// The time of day, in nanoseconds.
    pub fn machine_time(&self) -> i64 {
        self.now().0
    }

    /// Exports that clients use now.
    pub fn exports_in_use(&self) -> usize {
        self.shared.exports_in_use()
    }

    /// Every test ends with this.
    pub fn check(&mut self) {
        let report = self.machine.volume.check().expect("the check can be done");
        assert_eq!(report.issues, Vec::<String>::new());
    }
}

/// A machine of tests, which keeps what the services of its connections share.
pub trait Keeper: Platform {
    /// What they share.
    fn shared(&mut self) -> &mut Shared;
}

/// Polls a service with what it shares with others.
pub fn poll<M: Keeper>(
    service: &mut (impl Service<M> + ?Sized),
    stream: &mut dyn Stream,
    machine: &mut M,
) -> Progress {
    let mut shared = core::mem::take(machine.shared());
    let progress = service.poll(stream, machine, &mut shared);
    *machine.shared() = shared;
    progress
}

impl Keeper for SoftPlatform {
    fn shared(&mut self) -> &mut Shared {
        &mut self.shared
    }
}

impl Machine for SoftPlatform {
    type Pmem = MemPmem;
    type Mmu = SoftMmu;
    fn volume<R>(&mut self, f: impl FnOnce(&mut Volume<MemPmem, SoftMmu>) -> R) -> R {
        self.machine.volume(f)
    }
    fn load(&mut self, page: Page, offset: usize, into: &mut [u8]) -> Result<(), AccessError> {
        self.machine.load(page, offset, into)
    }
    fn store(&mut self, page: Page, offset: usize, from: &[u8]) -> Result<(), AccessError> {
        self.machine.store(page, offset, from)
    }
}

impl Platform for SoftPlatform {
    type Device = MemPmem;

    fn now(&self) -> Time {
        Time(1_700_000_000_000_000_000 + self.uptime_ns() as i64)
    }
    fn uptime_ns(&self) -> u64 {
        self.clock.set(self.clock.get() + 1000);
        self.clock.get()
    }
    fn boot_ns(&self) -> u64 {
        1
    }
    fn mounted(&self) -> Mounted {
        Mounted { took_ns: 1, rebuilt: self.machine.volume.was_rebuilt() }
    }
    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }
    fn allocations(&self) -> u64 {
        0
    }
    fn has_memory(&mut self, bytes: usize) -> bool {
        bytes <= self.memory
    }
    fn persisted(&mut self) -> Persisted {
        let pmem = self.machine.volume.pmem();
        Persisted { flushes: pmem.flushes, fences: pmem.fences }
    }
    fn nvdimms(&self) -> &[Region] {
        &self.regions
    }
    fn power_off(&mut self) {
        self.powered_off = true;
    }
    fn device(&mut self, index: usize) -> Option<&mut MemPmem> {
        self.devices.get_mut(index)?.as_mut()
    }
    fn is_closing(&self) -> bool {
        self.powered_off
    }
    fn memory_errors(&mut self) -> MemoryErrors {
        let volume = &self.machine.volume;
        let (bad_blocks, mended) = (volume.bad_blocks().len() as u64, volume.mended());
        MemoryErrors { bad_blocks, mended, scrub: volume.last_scrub(), ..self.errors }
    }
    fn lose(&mut self, block: Block) {
        self.errors.uncorrected += 1;
        let kind = match self.machine.volume.memory_error(block, 1) {
            Ok(_) => EventKind::BadBlocks,
            Err(_) => EventKind::BadBlocksFailed,
        };
        let (number, time, block, count) = (0, self.now(), Some(block.0), Some(1));
        self.events.add(Event { number, time, kind, address: None, block, count });
    }
    fn add_event(&mut self, event: Event) {
        self.events.add(event);
    }
    fn event_behind(&self, number: u64) -> Option<Event> {
        self.events.behind(number)
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
