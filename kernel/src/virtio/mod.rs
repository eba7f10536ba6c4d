//! Virtio devices over PCI (virtio 1.2): the vsock device.
//!
//! The queues and the transport are those of `virtio-drivers`; what that crate lacks is here:
//! MSI-X, so that a guest without work sleeps, and notifications that cost one register access.
//!
//! Left out: devices that only speak the legacy interface, and other kinds of devices.
//!
//! | file | what |
//! |---|---|
//! | `hal.rs` | memory and registers for `virtio-drivers` |
//! | `pci.rs` | finding a device, its capabilities, its interrupts |
//! | `vsock.rs` | the vsock device: three queues and their buffers |

mod hal;
mod pci;
mod vsock;

pub(crate) use hal::page;
pub(crate) use vsock::Vsock;
