//! PCI: finding functions, addresses for their registers, message-signalled interrupts.
//!
//! Everything that decides is pure and tested on the host, over the
//! [`ConfigurationAccess`](virtio_drivers::transport::pci::bus::ConfigurationAccess) of
//! `virtio-drivers`.
//!
//! Left out: memory-mapped configuration space (mechanism 1 reaches all that is needed
//! here), routing and numbering of bridges (what firmware did is used), I/O space, legacy
//! interrupts, hot-plug, power states.
//!
//! | file | what |
//! |---|---|
//! | `scan.rs` | functions of all buses that firmware has numbered |
//! | `bars.rs` | base addresses where firmware assigned none |
//! | `msix.rs` | the MSI-X capability, and messages |
//! | `ports.rs` | configuration space through ports 0xCF8 and 0xCFC |
//! | `registers.rs` | a checked block of device registers |
//!
//! Follows PCI Local Bus 3.0 and PCI-to-PCI Bridge 1.2.

pub(crate) mod bars;
#[cfg(test)]
mod fake;
pub(crate) mod msix;
#[cfg(target_os = "none")]
pub(crate) mod ports;
#[cfg(target_os = "none")]
pub(crate) mod registers;
pub(crate) mod scan;
