//! One connection: its state, and the stream that its server sees.

use super::device::{Buffer, Device, PAYLOAD};
use super::packet::{Header, Operation, SHUTDOWN_BOTH, TYPE_STREAM};
use super::pool::{Pool, Queue, chunks_of};
use super::table::Key;
use super::window::{ReceiveWindow, SendWindow};
use super::{Cid, Millis};
use umbra_fs::{BLOCK_SIZE, Block};
use umbra_server::Stream;

/// How far closing from this end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Not closed.
    Open,
    /// The peer has not yet taken all that was sent.
    Draining,
    /// The peer was told; its reset is awaited.
    Told,
}

/// Packets without payload that are to be sent once there is room for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    pub(crate) response: bool,
    pub(crate) credit_update: bool,
    pub(crate) credit_request: bool,
    pub(crate) shutdown: bool,
}

/// What the server found missing when it wanted to send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacking {
    /// Credit of the peer.
    pub(crate) credit: bool,
    /// A buffer of the device.
    pub(crate) buffer: bool,
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(crate) key: Key,
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
    /// What was received and not consumed.
    pub(crate) queue: Queue,
    /// Chunks that the pool keeps for it.
    pub(crate) reserved: usize,
    /// Gone: nothing is sent any more.
    pub(crate) gone: bool,
    /// The peer will send no more.
    pub(crate) peer_finished: bool,
    /// The peer says that it will receive no more.
    pub(crate) peer_deaf: bool,
    pub(crate) closing: Closing,
    pub(crate) pending: Pending,
    pub(crate) lacking: Lacking,
    /// In its last turn the server got a buffer.
    pub(crate) took_buffer: bool,
    /// The peer asked for credit when there was none to give.
    pub(crate) owes_credit: bool,
    /// Bytes received since the window was made larger.
    pub(crate) since_growth: u32,
    /// In the list of those whose server has something to do.
    pub(crate) is_ready: bool,
    /// In the list of those whose server waits for a buffer.
    pub(crate) is_starved: bool,
    /// In the list of those with pending packets.
    pub(crate) is_pending: bool,
    /// When something is to be done if nothing happened before: ask again, or give up.
    pub(crate) ask_at: Option<Millis>,
    pub(crate) ask_after_ms: u64,
    pub(crate) give_up_at: Option<Millis>,
}

impl Connection {
    /// A connection that was just granted; the pool keeps what its window takes.
    pub(crate) fn new(key: Key, window: u32) -> Self {
        Self {
            key,
            send: SendWindow::default(),
            receive: ReceiveWindow::new(window),
            queue: Queue::new(),
            reserved: chunks_of(window),
            gone: false,
            peer_finished: false,
            peer_deaf: false,
            closing: Closing::Open,
            pending: Pending { response: true, ..Pending::default() },
            lacking: Lacking::default(),
            took_buffer: false,
            owes_credit: false,
            since_growth: 0,
            is_ready: false,
            is_starved: false,
            is_pending: false,
            ask_at: None,
            ask_after_ms: 0,
            give_up_at: None,
        }
    }

    /// The header of a packet to the peer. It tells the peer of the receive window.
    pub(crate) fn header(&mut self, local: Cid, operation: Operation, len: usize) -> Header {
        self.receive.told();
        Header {
            source: super::Address { cid: local, port: self.key.port },
            destination: self.key.peer,
            len: len as u32,
            kind: TYPE_STREAM,
            operation: operation as u16,
            flags: if operation == Operation::Shutdown { SHUTDOWN_BOTH } else { 0 },
            buf_alloc: self.receive.size(),
            fwd_cnt: self.receive.consumed(),
        }
    }

    /// Makes the receive window larger, up to `wanted`, as far as the pool has chunks
    /// above `keep`. Half of what is there is left for the next one.
    pub(crate) fn grow_window(&mut self, pool: &mut Pool, wanted: u32, keep: usize) {
        let spare = pool.unreserved().saturating_sub(keep) / 2;
        let more = chunks_of(wanted).saturating_sub(self.reserved).min(spare);
        if more > 0 && pool.reserve(more).is_ok() {
            self.reserved += more;
            self.receive.grow((self.reserved as u32 - 1) * super::pool::CHUNK as u32);
        }
    }

    /// Gives everything back to the pool.
    pub(crate) fn release(&mut self, pool: &mut Pool) {
        self.queue.clear(pool);
        pool.release(self.reserved);
        self.reserved = 0;
    }

    /// Whether bytes may be sent.
    fn can_send(&self) -> bool {
        !self.gone && self.closing == Closing::Open
    }
}

/// The stream of a connection while its server is polled.
pub(super) struct Polled<'a, D: Device> {
    connection: &'a mut Connection,
    pool: &'a mut Pool,
    device: &'a mut D,
    local: Cid,
    /// Bytes of a packet that was just received, behind those in the queue: they are
    /// looked at where they lie, and only what is left of them is copied.
    arrived: &'a [u8],
    /// How many they were at first, and the blocks that they lie in.
    arrived_len: usize,
    blocks: Option<Block>,
    /// The server could take over what comes, if it came in blocks.
    wants_blocks: bool,
    /// The packet being filled, and how far.
    open: Option<(Buffer, usize)>,
    /// Buffers that it may still take in this turn.
    quota: usize,
    /// It wanted more than its quota.
    quota_hit: bool,
    close: bool,
}

/// What came of a poll, beside what the server answered.
pub(super) struct Outcome {
    /// The server asked to close.
    pub(crate) close: bool,
    /// It used up its turn and has more to send.
    pub(crate) again: bool,
    /// What was received found no room, though the peer kept to its window.
    pub(crate) overflow: bool,
    /// It could take over what comes, if it came in blocks.
    pub(crate) wants_blocks: bool,
}

/// What a packet brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived<'a> {
    pub(crate) bytes: &'a [u8],
    /// The blocks that they lie in, from the start of this one on.
    pub(crate) blocks: Option<Block>,
}

impl<'a, D: Device> Polled<'a, D> {
    pub(crate) fn new(
        connection: &'a mut Connection,
        pool: &'a mut Pool,
        device: &'a mut D,
        local: Cid,
        arrived: Arrived<'a>,
    ) -> Self {
        connection.lacking = Lacking::default();
        Self {
            connection,
            pool,
            device,
            local,
            arrived: arrived.bytes,
            arrived_len: arrived.bytes.len(),
            blocks: arrived.blocks,
            wants_blocks: false,
            open: None,
            quota: super::BUFFERS_A_TURN,
            quota_hit: false,
            close: false,
        }
    }

    /// Sends what was committed and keeps what was not consumed.
    pub(crate) fn finish(mut self) -> Outcome {
        self.flush();
        self.connection.took_buffer = self.quota < super::BUFFERS_A_TURN;
        // A server that asked to close will not look at it any more.
        let keep = !self.close && self.connection.closing == Closing::Open;
        let mut overflow = false;
        if keep {
            overflow = self.connection.queue.push(self.pool, self.arrived).is_err();
        } else {
            self.consume(usize::MAX);
        }
        Outcome {
            close: self.close,
            again: self.quota_hit,
            overflow,
            wants_blocks: self.wants_blocks,
        }
    }

    /// Sends the open packet, or gives its buffer back.
    fn flush(&mut self) {
        let Some((buffer, filled)) = self.open.take() else { return };
        if filled == 0 {
            self.device.put_back(buffer);
            return;
        }
        let header = self.connection.header(self.local, Operation::Data, filled);
        self.device.send(&header, buffer);
    }

    /// Opens a packet with room for at least one byte, if that can be.
    fn open_packet(&mut self) {
        if !self.connection.can_send() || self.close {
            return;
        }
        if self.connection.send.free() == 0 {
            self.connection.lacking.credit = true;
            return;
        }
        if self.open.as_ref().is_some_and(|(_, filled)| *filled == PAYLOAD) {
            self.flush();
        }
        if self.open.is_some() {
            return;
        }
        if self.quota == 0 {
            self.quota_hit = true;
            return;
        }
        // A response that waits for room must go first.
        let buffer = if self.connection.pending.response { None } else { self.device.take() };
        match buffer {
            Some(buffer) => {
                self.quota -= 1;
                self.open = Some((buffer, 0));
            }
            None => self.connection.lacking.buffer = true,
        }
    }
}

impl<D: Device> Stream for Polled<'_, D> {
    fn received(&self) -> &[u8] {
        if self.connection.queue.is_empty() {
            self.arrived
        } else {
            self.connection.queue.front(self.pool)
        }
    }

    fn available(&self) -> usize {
        self.connection.queue.len() + self.arrived.len()
    }

    fn consume(&mut self, n: usize) {
        let queued = self.connection.queue.drop_front(self.pool, n);
        let arrived = (n - queued).min(self.arrived.len());
        self.arrived = &self.arrived[arrived..];
        self.connection.receive.consume(queued + arrived);
    }

    fn received_in(&mut self) -> Option<Block> {
        let behind = (self.arrived_len - self.arrived.len()) as u64;
        if self.arrived.is_empty()
            || !self.connection.queue.is_empty()
            || !behind.is_multiple_of(BLOCK_SIZE)
        {
            return None;
        }
        self.wants_blocks = true;
        self.blocks.map(|Block(first)| Block(first + behind / BLOCK_SIZE))
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.open_packet();
        let credit = self.connection.send.free();
        match &mut self.open {
            Some((buffer, filled)) if !self.close => {
                let end = PAYLOAD.min(*filled + credit);
                &mut buffer.payload[*filled..end]
            }
            _ => &mut [],
        }
    }

    fn commit(&mut self, n: usize) {
        let credit = self.connection.send.free();
        if let Some((_, filled)) = &mut self.open
            && !self.close
        {
            let n = n.min(PAYLOAD - *filled).min(credit);
            *filled += n;
            self.connection.send.sent(n);
        }
    }

    fn finished(&self) -> bool {
        self.connection.peer_finished || self.connection.gone
    }

    fn is_closed(&self) -> bool {
        self.connection.gone
    }

    fn close(&mut self) {
        self.close = true;
    }
}
