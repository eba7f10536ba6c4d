//! Methods about the server itself.

use super::method::request;
use super::{Done, Items, ScrubState, Text, owned};
use alloc::string::String;
use minicbor::{Decode, Encode};

/// The first request of every connection. Others may follow it at once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello<'a> {
    /// [`MAGIC`](super::MAGIC).
    #[b(0)]
    pub magic: &'a str,
    /// The newest version that the client speaks.
    #[n(1)]
    pub version: u32,
    /// Features that the client would use, a bit each. None is defined yet.
    #[n(2)]
    #[cbor(default)]
    pub features: u64,
    /// Name and version of the client, for whoever watches the traffic.
    #[b(3)]
    pub client: Option<&'a str>,
}
request!(Hello<'_>, HELLO, HelloResponse);

/// What the server is and allows. Limits only ever grow within a version. `T` is a text: owned
/// where it was received, borrowed where it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HelloResponse<T = Text> {
    /// The version that both will speak: at most the one asked for.
    #[n(0)]
    pub version: u32,
    /// Features that both know.
    #[n(1)]
    pub features: u64,
    /// Name and version of the server.
    #[n(2)]
    pub server: T,
    /// Largest body in bytes, either way.
    #[n(3)]
    pub max_body: u32,
    /// Largest payload in bytes, either way.
    #[n(4)]
    pub max_payload: u32,
    /// Longest path in bytes.
    #[n(5)]
    pub max_path: u32,
    /// Longest name in bytes.
    #[n(6)]
    pub max_name: u32,
    /// Handles that a connection may have open at once.
    #[n(7)]
    pub max_handles: u32,
    /// Bytes in a block.
    #[n(8)]
    pub block_size: u32,
    /// Largest file in bytes.
    #[n(9)]
    pub max_file_size: u64,
}

/// Does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {}
request!(Ping, PING, Done);

/// Asks how the server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Status {
    /// Look out for the longest turn anew from now on.
    #[n(0)]
    #[cbor(default)]
    pub fresh: bool,
}
request!(Status, STATUS, StatusResponse);

/// How the server is. Counts are since boot. `T` is a text: owned where it was received, borrowed
/// where it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StatusResponse<T = Text> {
    /// Name and version of the server.
    #[n(0)]
    pub server: T,
    /// Nanoseconds since boot.
    #[n(1)]
    pub uptime_ns: u64,
    /// Nanoseconds from the first instruction of the loader until the server was ready.
    #[n(2)]
    pub boot_ns: u64,
    /// The server's idea of the time, in nanoseconds since 1970-01-01 UTC.
    #[n(3)]
    pub now: i64,
    /// DRAM.
    #[n(4)]
    pub memory: MemoryUse,
    /// Flushes that were issued to the NVDIMM, by line.
    #[n(5)]
    pub flushes: u64,
    /// Fences that were issued.
    #[n(6)]
    pub fences: u64,
    /// Connections of this protocol that are open now.
    #[n(7)]
    pub connections: u32,
    /// Connections of this protocol so far.
    #[n(8)]
    pub connections_total: u64,
    /// Requests so far.
    #[n(9)]
    pub requests: u64,
    /// Requests so far that failed.
    #[n(10)]
    pub errors: u64,
    /// Handles that are open now.
    #[n(11)]
    pub handles: u32,
    /// Whether deleted files are still being reclaimed.
    #[n(12)]
    pub reclaiming: bool,
    /// Built with debug assertions.
    #[n(13)]
    pub debug: bool,
    /// Nanoseconds that mounting the volume took.
    #[n(14)]
    pub mount_ns: Option<u64>,
    /// Whether the last stop was not clean, so that the mount counted everything anew.
    #[n(15)]
    pub rebuilt: Option<bool>,
    /// The longest time in nanoseconds for which anybody held up all others, since that was looked
    /// out for anew (at boot, or by a status with `fresh`).
    #[n(16)]
    pub longest_turn_ns: Option<u64>,
    /// What that turn was for: the name of a method, `nbd` and that of a command, `console`,
    /// `background`.
    #[n(17)]
    pub longest_turn: Option<T>,
    /// Memory errors that lost data, those outside of the NVDIMM included.
    #[n(18)]
    pub memory_errors: Option<u64>,
    /// Memory errors that the hardware corrected.
    #[n(19)]
    pub corrected_errors: Option<u64>,
    /// Memory errors that came too fast to be recorded.
    #[n(20)]
    pub unrecorded_errors: Option<u64>,
    /// Blocks on the list of bad blocks, which is older than this boot.
    #[n(21)]
    pub bad_blocks: Option<u64>,
    /// Blocks of metadata of which one copy was written anew from the other.
    #[n(23)]
    pub mended_copies: Option<u64>,
    /// The last scrub that was begun since the volume was mounted.
    #[n(24)]
    pub scrub: Option<ScrubState>,
}

/// Use of DRAM, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MemoryUse {
    /// All DRAM that the machine has.
    #[n(0)]
    pub total: u64,
    /// Heap in use.
    #[n(1)]
    pub heap_used: u64,
    /// Size of the heap.
    #[n(2)]
    pub heap_total: u64,
    /// Page frames in use, times their size (page tables, pools, buffers; the heap too).
    #[n(3)]
    pub frames_used: u64,
    /// Page frames, times their size.
    #[n(4)]
    pub frames_total: u64,
}

/// Lists the NVDIMMs of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Nvdimms {}
request!(Nvdimms, NVDIMMS, Items<Nvdimm>);

/// One NVDIMM region. `T` is a text: owned where it was received, borrowed where it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Nvdimm<T = Text> {
    /// Physical address of its first byte.
    #[n(0)]
    pub address: u64,
    /// Its size in bytes.
    #[n(1)]
    pub size: u64,
    /// Whether the volume that is served is on it.
    #[n(2)]
    pub served: bool,
    /// How a line is written back: `clwb`, `clflushopt`, `clflush`, or `none` where the
    /// platform flushes caches on power loss.
    #[n(3)]
    pub flush: T,
    /// Why it is not served, if it could not be.
    #[n(4)]
    pub problem: Option<T>,
}

/// Measures one round of a part of the benchmarks, in the server. Everything else waits meanwhile.
/// Files whose names start with `.umbra-bench-` in the root directory are removed before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bench<'a> {
    /// The part: see `docs/protocols.md`.
    #[cbor(b(0))]
    pub part: &'a str,
    /// What the part makes of it.
    #[n(1)]
    pub parameter: Option<u64>,
    /// Leave the files.
    #[n(2)]
    #[cbor(default)]
    pub keep: bool,
}
request!(Bench<'_>, BENCH, Items<Sample>);

/// One operation of a benchmark: what it took, for all times that it was done together.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sample {
    /// Its name.
    #[cbor(n(0), with = "owned::text")]
    pub name: String,
    /// How often it was done.
    #[n(1)]
    pub ops: u64,
    /// Nanoseconds of the machine's clock; instructions, where that counts them.
    #[n(2)]
    pub ns: u64,
    /// Lines that were flushed.
    #[n(3)]
    pub flushes: u64,
    /// Fences that were issued.
    #[n(4)]
    pub fences: u64,
    /// Allocations from the heap.
    #[n(5)]
    pub allocations: u64,
}

/// Unmounts the volume cleanly and switches the machine off. The response comes
/// before that; the connection ends when it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PowerOff {}
request!(PowerOff, POWER_OFF, Done);

/// Verifies the volume and the invariants of windows, step by step while others work. Checks wait
/// for each other. The answer is one or more frames; together they hold all lines, and the counts
/// are in the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Check {}
request!(Check, CHECK, CheckResponse);

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CheckResponse {
    /// One line for each finding; the first 100 only.
    #[cbor(n(0), with = "owned::list")]
    pub issues: alloc::vec::Vec<Text>,
    /// All findings. Only in the last frame.
    #[n(1)]
    pub issues_total: Option<u64>,
    /// Blocks that were looked at. Only in the last frame.
    #[n(2)]
    pub blocks: Option<u64>,
    /// Inodes that were looked at. Only in the last frame.
    #[n(3)]
    pub inodes: Option<u64>,
    /// Blocks and inodes that were not judged, since they changed meanwhile. Only in the last
    /// frame.
    #[n(4)]
    pub changed: Option<u64>,
}

/// Asks about, or waits for, the reclaiming of deleted files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reclaim {
    /// Answer only when nothing is left to reclaim.
    #[n(0)]
    #[cbor(default)]
    pub wait: bool,
}
request!(Reclaim, RECLAIM, ReclaimResponse);

/// How far reclaiming is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReclaimResponse {
    /// Whether something is left to do.
    #[n(0)]
    pub pending: bool,
    /// Steps that were done since boot.
    #[n(1)]
    pub steps: u64,
}
