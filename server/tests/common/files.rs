//! Files through a connection, over a volume in memory.

use super::{Connection, Random, Response};
use umbra_proto::rpc::{self, open};
pub use umbra_server::testing::SoftPlatform as Full;

pub const CREATE: u32 = open::CREATE;

pub fn start() -> (Connection, Full) {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(32, 8));
    c.greet(&mut m);
    (c, m)
}

pub fn opened(c: &mut Connection, m: &mut Full, path: &[u8], flags: u32) -> u32 {
    c.ok(m, &rpc::Open { path, flags, mode: None }).handle
}

pub fn write(c: &mut Connection, m: &mut Full, handle: u32, offset: u64, bytes: &[u8]) -> Response {
    c.call(m, &rpc::Write { handle, offset, sync: false }, bytes)
}

pub fn put(c: &mut Connection, m: &mut Full, path: &[u8], bytes: &[u8]) -> u32 {
    let handle = opened(c, m, path, CREATE);
    for (number, piece) in bytes.chunks(1 << 20).enumerate() {
        let done = write(c, m, handle, (number as u64) << 20, piece);
        assert_eq!(done.body::<rpc::Written>().done, piece.len() as u64);
    }
    handle
}

pub fn read(c: &mut Connection, m: &mut Full, handle: u32, offset: u64, len: u64) -> Vec<u8> {
    let r = c.call(m, &rpc::Read { handle, offset, len }, &[]);
    assert!(!r.failed, "{:?}", r.error());
    r.payload
}

pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

pub fn stat(c: &mut Connection, m: &mut Full, path: &[u8]) -> rpc::Attributes {
    c.ok(m, &rpc::Stat { path: Some(path), handle: None, blocks: true })
}
