//! What QEMU says: the device's end of vhost-user (QEMU's docs/interop/vhost-user.rst).
//!
//! Messages are handled on the thread that moves the data, between two rounds of it: so the rings
//! are either there as a whole or not at all when they are looked at.

use super::GUEST_CID;
use super::events::{Token, watch};
use super::ring::{Broken, GuestMemory, Ring};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap};

/// The ring of packets to the guest.
pub(super) const RECEIVE: usize = 0;
/// The ring of packets from the guest. (That of events is QEMU's own.)
pub(super) const TRANSMIT: usize = 1;

/// `VIRTIO_F_EVENT_IDX`: notifications by index (virtio 1.2, 2.7.10).
const EVENT_INDEX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;

/// A part of the guest's memory, by the addresses of QEMU, in which it speaks of rings.
#[derive(Debug)]
struct Mapping {
    qemu: u64,
    guest: u64,
    len: u64,
}

/// What was agreed with QEMU.
pub(super) struct Session {
    epoll: Arc<OwnedFd>,
    pub(super) memory: GuestMemory,
    mappings: Vec<Mapping>,
    pub(super) rings: [Ring; 2],
    features: u64,
    /// The rings were stopped since the last look: all connections are lost.
    pub(super) stopped: bool,
}

impl Session {
    pub(super) fn new(epoll: Arc<OwnedFd>) -> Session {
        Session {
            epoll,
            memory: GuestMemory::new(),
            mappings: Vec::new(),
            rings: [Ring::new(), Ring::new()],
            features: 0,
            stopped: false,
        }
    }

    /// Whether packets can go both ways.
    pub(super) fn is_running(&self) -> bool {
        self.rings.iter().all(Ring::is_running)
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        self.rings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    fn guest_address(&self, qemu: u64) -> Result<u64> {
        let mapping = self.mappings.iter().find(|it| qemu.wrapping_sub(it.qemu) < it.len);
        mapping.map(|it| it.guest + (qemu - it.qemu)).ok_or(Error::InvalidParam)
    }

    fn stop(&mut self, index: usize) -> u16 {
        let (position, kick) = self.rings[index].stop();
        if let Some(kick) = kick {
            // QEMU has it too, so that closing it is not enough. It fails if it is not there.
            let _ = epoll::delete(&*self.epoll, &kick);
        }
        self.stopped = true;
        position
    }
}

fn refused(broken: Broken) -> Error {
    Error::ReqHandlerError(io::Error::other(broken.to_string()))
}

/// What this device does not offer, and QEMU therefore does not ask for.
fn unsupported<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered by this device"))
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in [RECEIVE, TRANSMIT] {
            self.stop(index);
        }
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(VERSION_1 | EVENT_INDEX | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<vhost::VhostUserMemoryRegionBase>>> {
        let mut memory = GuestMemory::new();
        let mut mappings = Vec::new();
        for (region, file) in regions.iter().zip(files) {
            let mapped = GuestRegionMmap::new(
                region.mmap_region(file)?,
                GuestAddress(region.guest_phys_addr),
            )
            .ok_or(Error::InvalidParam)?;
            mappings.push(Mapping {
                qemu: region.user_addr,
                guest: region.guest_phys_addr,
                len: mapped.len(),
            });
            memory = memory
                .insert_region(Arc::new(mapped))
                .map_err(|error| Error::ReqHandlerError(io::Error::other(error)))?;
        }
        (self.memory, self.mappings) = (memory, mappings);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.set_size(size).map_err(refused)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let [descriptor, used, available] =
            [descriptor, used, available].map(|at| self.guest_address(at));
        let (descriptor, used, available) = (descriptor?, used?, available?);
        self.ring(index)?.place(descriptor, available, used).map_err(refused)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let position = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.set_position(position);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.ring(index)?;
        Ok(VhostUserVringState::new(index, self.stop(index as usize).into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = fd.ok_or(Error::InvalidParam)?;
        let index = usize::from(index);
        let ring = self.rings.get_mut(index).ok_or(Error::InvalidParam)?;
        if let Some(before) = ring.kick() {
            // It fails if it is not there, and then there is nothing to do.
            let _ = epoll::delete(&*self.epoll, before);
        }
        watch(&self.epoll, &kick, Token::Kick(index), epoll::EventFlags::IN)
            .map_err(Error::ReqHandlerError)?;
        ring.start(&self.memory, kick, self.features & EVENT_INDEX != 0).map_err(refused)?;
        // Otherwise it waits for `set_vring_enable`.
        if self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            ring.set_enabled(true);
        }
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.set_call(fd);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        // Errors end this device, which ends the machine.
        self.ring(index.into()).map(drop)
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.set_enabled(enable);
        Ok(())
    }

    /// `struct virtio_vsock_config`: the guest's context id (virtio 1.2, 5.10.4).
    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        let config = GUEST_CID.to_le_bytes();
        let end = offset.checked_add(size).ok_or(Error::InvalidParam)?;
        config.get(offset as usize..end as usize).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn set_config(
        &mut self,
        _offset: u32,
        _buf: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Result<()> {
        unsupported()
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        unsupported()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported()
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        unsupported()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        unsupported()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unsupported()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<vhost::VhostUserMemoryRegionBase>> {
        unsupported()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        unsupported()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        unsupported()
    }
}
