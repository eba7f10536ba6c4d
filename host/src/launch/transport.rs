//! How the host reaches the guest's vsock, and plain sockets before its ports.
//!
//! Where `/dev/vhost-vsock` opens, the host kernel does it and the guest has a context id (CID) on
//! the machine. Elsewhere a device of our own does it ([`crate::vsock`]), on a thread of this
//! process.

use super::relay::Relay;
use super::{LaunchError, control};
use crate::access::Access;
use crate::state::StateDir;
use crate::vsock::{self, Device, PortChoice};
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where QEMU meets the device.
const MEETING_POINT: &str = "vhost.sock";
/// Where clients ask the device for a port.
const CLIENTS: &str = "vsock.sock";

/// The way that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The host kernel, with the guest at this CID.
    Kernel {
        /// The guest's context id.
        cid: u32,
    },
    /// The device in this process.
    Device,
}

impl Transport {
    /// Looks at what the host has.
    pub(super) fn choose(state: &StateDir) -> Transport {
        match OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock") {
            Ok(_) => Transport::Kernel { cid: cid_for(state.path()) },
            Err(_) => Transport::Device,
        }
    }

    /// What clients read in the file `endpoint`.
    pub(super) fn endpoint(&self) -> String {
        match self {
            Transport::Kernel { cid } => format!("vsock:{cid}"),
            Transport::Device => CLIENTS.into(),
        }
    }

    /// QEMU's arguments for the device. `always_told`: guest and device tell each other of
    /// everything, also while the other is awake. So it has to be where the machine leaves the
    /// guest's memory barriers out: who is told only on demand could miss what was added while it
    /// went to sleep (`docs/decisions/2026-11-23-looking-before-sleeping.md`).
    pub(super) fn qemu_arguments(&self, always_told: bool) -> Vec<String> {
        let event_index = if always_told { ",event_idx=off" } else { "" };
        match self {
            Transport::Kernel { cid } => {
                vec!["-device".into(), format!("vhost-vsock-pci,guest-cid={cid}{event_index}")]
            }
            Transport::Device => vec![
                "-chardev".into(),
                format!("socket,id=vsock,path={MEETING_POINT}"),
                "-device".into(),
                format!("vhost-user-vsock-pci,chardev=vsock{event_index}"),
            ],
        }
    }

    /// Makes everything ready for QEMU. `on_end` hears when, and why, no client can be served any
    /// more.
    pub(super) fn start(
        self,
        state: &StateDir,
        access: Access,
        log: File,
        on_end: impl FnOnce(String) + Send + 'static,
    ) -> Result<Ports, LaunchError> {
        let way = match self {
            Transport::Kernel { cid } => Way::Kernel { cid },
            Transport::Device => {
                let failed = |error| LaunchError::Io("start the vsock device".into(), error);
                let device = state
                    .listen(MEETING_POINT)
                    .and_then(|qemu| Device::start(qemu, log, on_end))
                    .map_err(failed)?;
                let clients = state
                    .listen_for(access, CLIENTS)
                    .and_then(|clients| device.listen(clients, PortChoice::Asked))
                    .map_err(failed)?;
                Way::Device { device, _clients: clients }
            }
        };
        Ok(Ports { way, named: Mutex::new(()) })
    }
}

enum Way {
    Kernel { cid: u32 },
    Device { device: Device, _clients: vsock::Offer },
}

/// The guest's ports, as far as the host is concerned.
pub(super) struct Ports {
    way: Way,
    /// Held while sockets with names outside of the state directory come and go.
    named: Mutex<()>,
}

/// A plain socket before a port, until this goes.
pub(super) enum Offer {
    Device { _offer: vsock::Offer },
    Kernel { _relay: Relay },
}

impl Ports {
    /// Makes a plain socket of a listening one.
    pub(super) fn offer(&self, listener: UnixListener, port: u32) -> io::Result<Offer> {
        Ok(match &self.way {
            Way::Device { device, .. } => {
                Offer::Device { _offer: device.listen(listener, PortChoice::Port(port))? }
            }
            Way::Kernel { cid } => Offer::Kernel { _relay: Relay::start(listener, *cid, port)? },
        })
    }

    /// The clients of a port of the guest, where the device is ours and knows them.
    pub(super) fn clients(&self, port: u32) -> io::Result<Vec<vsock::Client>> {
        match &self.way {
            Way::Device { device, .. } => device.clients(port),
            Way::Kernel { .. } => Ok(Vec::new()),
        }
    }

    /// Makes a plain socket before a port, which is removed when the result is dropped. A socket in
    /// its place that nobody listens on is a leftover; anything else stays.
    pub(super) fn offer_at(
        self: &std::sync::Arc<Self>,
        port: u32,
        path: &Path,
        access: Access,
    ) -> io::Result<NamedOffer> {
        let _named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
            && UnixStream::connect(path)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if stale {
            fs::remove_file(path)?;
        }
        let offer = self.offer(access.listen(path)?, port)?;
        Ok(NamedOffer { ports: self.clone(), path: path.to_path_buf(), _offer: offer })
    }
}

/// A plain socket with a name.
pub(super) struct NamedOffer {
    ports: std::sync::Arc<Ports>,
    path: PathBuf,
    _offer: Offer,
}

impl control::Held for NamedOffer {}

impl Drop for NamedOffer {
    fn drop(&mut self) {
        // While it still listens nobody takes it for a leftover and puts another one in its place.
        let _named = self.ports.named.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

/// CIDs are machine-wide. One that follows from the path keeps two instances apart (but for
/// one chance in a billion, and then QEMU says that the CID is taken) and stays from run to run.
fn cid_for(path: &Path) -> u32 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    // 0 to 2 have meanings of their own; small numbers are what people type.
    1000 + (hasher.finish() % (1 << 30)) as u32
}
