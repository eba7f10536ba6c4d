//! The kernel: addresses, where the filesystem has block numbers.
//!
//! CPU, page tables, traps, ACPI, the NVDIMM, devices and the serial console. It is started
//! by any loader of the `bootloader_api` contract and runs on one processor, in ring 0, with
//! one loop that polls whatever has work and sleeps otherwise.
//!
//! Rooms without hardware compile on the host too and are tested there; they forbid unsafe
//! code. The others exist on bare metal only.
//!
//! | room | what it is |
//! |---|---|
//! | [`nfit`], [`acpi_sleep`] | what firmware tables say, as pure functions over bytes |
//! | [`calendar`], [`config`], [`frame_map`] | the date, options, free frames |
//! | [`console`] | log lines and the command line on the serial port |
//! | `arch` | registers, descriptor tables, traps, interrupts, time, copies, ports |
//! | `mm` | the address space, frames, heap |
//! | `acpi` | tables, power-off |
//! | `nvdimm` | persistent memory |
//! | `dax` | windows: page tables, the fault path, loads and stores |
//! | [`vsock`] | streams over virtio-vsock: the protocol, without the hardware |
//! | [`pci`], `virtio` | finding devices; the vsock device |
//! | `net` | clients: connections and their servers |
//! | `platform` | what servers see of the machine |
//! | `start`, `serve` | start-up, the poll loop |
//! | `measure` | what faults, copies and counts cost here: the floor of benchmarks |
//! | `media` | mounting and formatting |
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod acpi_sleep;
pub mod calendar;
pub mod config;
pub mod console;
pub mod frame_map;
pub mod nfit;
pub mod pci;
pub mod vsock;

#[cfg(target_os = "none")]
pub mod acpi;
#[cfg(target_os = "none")]
pub mod arch;
#[cfg(target_os = "none")]
pub mod dax;
#[cfg(target_os = "none")]
pub mod fw_cfg;
#[cfg(target_os = "none")]
pub mod measure;
#[cfg(target_os = "none")]
pub mod media;
#[cfg(target_os = "none")]
pub mod mm;
#[cfg(target_os = "none")]
pub mod net;
#[cfg(target_os = "none")]
pub mod nvdimm;
#[cfg(target_os = "none")]
pub mod platform;
#[cfg(target_os = "none")]
pub mod serve;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(target_os = "none")]
pub mod virtio;
