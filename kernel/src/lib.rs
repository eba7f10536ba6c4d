//! The kernel: addresses, where the filesystem has block numbers.
//!
//! CPU, page tables, traps, ACPI, the NVDIMM, devices and the serial console. It is started
//! by any loader of the `bootloader_api` contract and runs on one processor, in ring 0, with
//! one loop that polls whatever has work and sleeps otherwise.
//!
//! Rooms without hardware compile on the host too and are tested there; they forbid unsafe code,
//! but for `counter` and the copies of `arch`, which are assembly. The others exist on bare metal
//! only.
//!
//! | room | what it is |
//! |---|---|
//! | `nfit`, `acpi_sleep` | what firmware tables say, as pure functions over bytes |
//! | `calendar`, `config` | the date, options |
//! | `counter`, `frame_map` | counters, free frames |
//! | `console` | log lines and the command line on the serial port |
//! | `cpu` | what the processor can do; its control registers |
//! | `mm` | the address space, frames, heap |
//! | `acpi`, `power` | firmware's tables; powering off |
//! | `memory_errors`, `error_log` | errors of memory: records; counts and the log |
//! | `arch` | interrupts, time, machine checks, the serial port; copies, those through windows too |
//! | `nvdimm` | persistent memory |
//! | `dax` | windows: page tables, the fault path, loads and stores |
//! | `traps` | descriptor tables, exceptions, last reports |
//! | `vsock` | streams over virtio-vsock: the protocol, without the hardware |
//! | `pci`, `virtio` | finding devices; the vsock device |
//! | `net` | clients: connections and their servers |
//! | `platform` | what servers see of the machine; their loads and stores go through it |
//! | `start`, `serve` | start-up, the poll loop |
//! | `measure` | what faults, copies and counts cost here: the floor of benchmarks |
//! | `media` | mounting and formatting |
#![cfg_attr(target_os = "none", no_std)]
#![warn(unreachable_pub, clippy::missing_docs_in_private_items)]
// On the host only tests use what is here; on bare metal all of it must have a use.
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports))]

extern crate alloc;

mod acpi_sleep;
#[cfg(any(target_os = "none", all(test, target_os = "linux", target_arch = "x86_64")))]
mod arch;
mod calendar;
mod config;
mod console;
#[cfg(target_arch = "x86_64")]
mod counter;
mod frame_map;
mod memory_errors;
mod nfit;
mod pci;
mod vsock;

#[cfg(target_os = "none")]
mod acpi;
#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod dax;
#[cfg(target_os = "none")]
mod error_log;
#[cfg(target_os = "none")]
mod fw_cfg;
#[cfg(target_os = "none")]
mod measure;
#[cfg(target_os = "none")]
mod media;
#[cfg(target_os = "none")]
mod mm;
#[cfg(target_os = "none")]
mod net;
#[cfg(target_os = "none")]
mod nvdimm;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod serve;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod traps;
#[cfg(target_os = "none")]
mod virtio;

#[cfg(target_os = "none")]
pub use {mm::DIRECT, start::start};
