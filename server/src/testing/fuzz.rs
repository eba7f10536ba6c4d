//! What the fuzz target of NBD does, so that `cargo test` can replay its inputs.
//!
//! An input is what a client sends, with a start of its own that says how the connection was
//! negotiated before, and in which pieces bytes move. Whatever comes: no panic, no endless turn, no
//! memory beyond what a connection has, and the volume passes its check.

use super::{SoftPlatform, Wire, nbd, poll};
use crate::accept::accept;
use crate::nbd::NBD_PORT;
use crate::platform::Counters;
use crate::service::{Room, Service, Shared};
use crate::stream::{Peer, Progress, Stream};
use alloc::boxed::Box;
use alloc::vec::Vec;
use umbra_fs::Time;
use umbra_fs::testing::{MemPmem, SoftMachine, mount};
use umbra_proto::nbd::{
    BadOption, ContextRequest, InfoRequest, InfoType, OptionCode, REQUEST_LEN, Request,
};

const NOW: Time = Time(9_000);
/// The client.
const PEER: Peer = Peer { cid: 2, port: 1024 };
/// Turns after which a connection that goes on without bytes moving is taken for endless.
const MOST_TURNS: usize = 20_000;

/// A volume with a disk and a clone of it.
pub struct Template(MemPmem);

impl Default for Template {
    fn default() -> Self {
        Self::new()
    }
}

impl Template {
    /// Builds the volume.
    pub fn new() -> Self {
        let mut volume = umbra_fs::testing::new_volume(8 << 20, 2);
        let root = volume.root();
        let disk = volume.create(root, b"disk", 0o644, NOW).expect("a file can be made");
        volume.truncate(disk, (3 << 20) + 100, NOW).expect("and made longer");
        volume.write(disk, 4096, &[7; 40_000], NOW).expect("and written");
        volume.clone_file(disk, root, b"clone", NOW).expect("and cloned");
        let (pmem, _) = volume.unmount().expect("a volume can be unmounted");
        Template(pmem)
    }

    fn machine(&self) -> SoftPlatform {
        let volume = mount(self.0.clone(), 2).expect("a volume can be mounted");
        let mut machine = SoftPlatform::new(8, 2);
        machine.machine = SoftMachine { volume };
        (machine.counters, machine.shared) = (Counters::default(), Shared::default());
        machine.add_region(1);
        machine
    }

    /// Sends an input to a connection; the volume is checked.
    pub fn nbd(&self, data: &[u8]) {
        // The decoders take any bytes.
        let _: (Result<_, BadOption>, Result<_, BadOption>) =
            (InfoRequest::decode(data), ContextRequest::decode(data).map(|r| r.queries().count()));
        let _ = data.first_chunk::<REQUEST_LEN>().map(Request::decode);
        let Some((&[how, pieces], sent)) = data.split_first_chunk::<2>() else { return };
        let mut machine = self.machine();
        let service = accept::<SoftPlatform>(NBD_PORT, PEER, Room::Plenty);
        let Some(mut service) = service else { return };
        let mut wire = Wire::new(4096 + 64 * usize::from(pieces >> 4), 512 << (pieces & 7));
        let mut bytes = negotiation(how);
        bytes.extend_from_slice(sent);
        run(&mut service, &mut wire, &mut machine, &bytes, usize::from(how >> 4) * 97 + 1);
        wire.reset = true;
        while poll(&mut *service, &mut wire, &mut machine) == Progress::Again {}
        machine.check();
        assert_eq!(
            machine.machine.volume.pages(None).expect("pages").windows,
            0,
            "a window is left open"
        );
    }
}

/// What a client sends before the input: nothing, or all that it takes to transmit.
fn negotiation(how: u8) -> Vec<u8> {
    if how & 1 == 0 {
        return Vec::new();
    }
    let mut bytes = nbd::hello();
    let name: &[u8] = if how & 8 == 0 { b"disk" } else { b"nvdimm:0" };
    match how >> 1 & 3 {
        0 => {}
        1 => bytes.extend(nbd::option(OptionCode::STRUCTURED_REPLY, b"")),
        _ => bytes.extend(nbd::option(OptionCode::EXTENDED_HEADERS, b"")),
    }
    let mut data = Vec::new();
    ContextRequest::encode(name, &[b"base:allocation", b"x-umbra:sharing"], &mut data);
    bytes.extend(nbd::option(OptionCode::SET_META_CONTEXT, &data));
    data.clear();
    InfoRequest::encode(name, &[InfoType::NAME, InfoType::BLOCK_SIZE], &mut data);
    bytes.extend(nbd::option(OptionCode::GO, &data));
    bytes
}

fn run(
    service: &mut Box<dyn Service<SoftPlatform>>,
    wire: &mut Wire,
    machine: &mut SoftPlatform,
    mut bytes: &[u8],
    piece: usize,
) {
    let mut received = Vec::new();
    let mut idle = 0;
    loop {
        assert!(idle < MOST_TURNS, "the connection does not come to an end");
        let n = wire.to_server.push(&bytes[..bytes.len().min(piece)]);
        bytes = &bytes[n..];
        wire.finished = bytes.is_empty();
        let progress = poll(&mut **service, wire, machine);
        received.clear();
        wire.to_client.pull(usize::MAX, &mut received);
        idle = if n == 0 && received.is_empty() { idle + 1 } else { 0 };
        if wire.is_closed() || (n == 0 && received.is_empty() && progress == Progress::Wait) {
            return;
        }
    }
}
