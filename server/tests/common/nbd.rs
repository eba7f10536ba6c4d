//! A connection of NBD, without a network.

use umbra_fs::{Ino, Time};
use umbra_proto::nbd::{Command, InfoType, OptionCode, ReplyCode, Style, transmission_flags};
use umbra_server::nbd::Nbd;
use umbra_server::testing::nbd::{
    Client, Reply, choice, export_info, hello, option, take_greeting, take_replies,
};
use umbra_server::testing::{SoftPlatform, Wire, poll};
use umbra_server::{Progress, Stream};

pub const NOW: Time = Time(7_000);

/// All that requests and replies can look like.
pub const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

/// The inode of a path.
pub fn ino(m: &mut SoftPlatform, path: &[u8]) -> Ino {
    m.machine.volume.resolve(path).unwrap()
}

/// All bytes of a file.
pub fn content(m: &mut SoftPlatform, path: &[u8]) -> Vec<u8> {
    let ino = ino(m, path);
    let size = m.machine.volume.attributes(ino).unwrap().size as usize;
    let mut bytes = vec![0; size];
    assert_eq!(m.machine.volume.read(ino, 0, &mut bytes), Ok(size));
    bytes
}

/// A machine with a file of these bytes.
pub fn machine_with(path: &[u8], content: &[u8]) -> SoftPlatform {
    let mut machine = SoftPlatform::new(64, 16);
    let volume = &mut machine.machine.volume;
    let ino = volume.create(volume.root(), path, 0o644, NOW).unwrap();
    assert_eq!(volume.write(ino, 0, content, NOW), Ok(content.len()));
    machine
}

/// Bytes that differ from place to place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Service, stream, and what the client received.
pub struct Connection {
    pub nbd: Nbd,
    pub wire: Wire,
    pub received: Vec<u8>,
    pub client: Client,
    pub size: u64,
    pub flags: u16,
}

impl Connection {
    /// A client that was greeted and has answered.
    pub fn new(machine: &mut SoftPlatform) -> Self {
        Connection::with_rings(machine, 64 << 10, 64 << 10)
    }

    pub fn with_rings(machine: &mut SoftPlatform, window: usize, ring: usize) -> Self {
        let mut c = Connection {
            nbd: Nbd::default(),
            wire: Wire::new(window, ring),
            received: Vec::new(),
            client: Client::default(),
            size: 0,
            flags: 0,
        };
        c.run(machine, &hello());
        assert_eq!(take_greeting(&mut c.received).flags, 3);
        c
    }

    /// A client that transmits, with all contexts unless simple.
    pub fn open(machine: &mut SoftPlatform, name: &[u8], style: Style) -> Self {
        let mut c = Connection::new(machine);
        c.go(machine, name, style);
        c
    }

    pub fn go(&mut self, machine: &mut SoftPlatform, name: &[u8], style: Style) {
        let mut replies = Vec::new();
        for (code, data) in choice(name, style, &[InfoType::BLOCK_SIZE]) {
            replies = self.option(machine, code, &data);
            assert_eq!(replies.last().unwrap().0, ReplyCode::ACK, "{code}: {replies:?}");
            let contexts = code == OptionCode::SET_META_CONTEXT;
            assert!(!contexts || replies.len() == 3, "{replies:?}");
        }
        (self.size, self.flags) = export_info(&replies);
        assert_ne!(self.flags & transmission_flags::HAS_FLAGS, 0);
        self.client = Client::new(style);
    }

    /// Gives the service one turn.
    pub fn poll(&mut self, machine: &mut SoftPlatform) -> Progress {
        poll(&mut self.nbd, &mut self.wire, machine)
    }

    /// Moves bytes both ways until nothing moves.
    pub fn run(&mut self, machine: &mut SoftPlatform, mut bytes: &[u8]) {
        loop {
            let n = self.wire.to_server.push(bytes);
            bytes = &bytes[n..];
            let progress = self.poll(machine);
            let before = self.received.len();
            self.wire.to_client.pull(usize::MAX, &mut self.received);
            let idle = n == 0 && progress == Progress::Wait && before == self.received.len();
            if idle || self.wire.is_closed() {
                return;
            }
        }
    }

    pub fn option(
        &mut self,
        machine: &mut SoftPlatform,
        code: OptionCode,
        data: &[u8],
    ) -> Vec<(ReplyCode, Vec<u8>)> {
        self.run(machine, &option(code, data));
        take_replies(&mut self.received, code).expect("an answer")
    }

    /// The last reply to an option.
    pub fn answer(
        &mut self,
        machine: &mut SoftPlatform,
        code: OptionCode,
        data: &[u8],
    ) -> ReplyCode {
        self.option(machine, code, data).last().unwrap().0
    }

    pub fn ack(&mut self, machine: &mut SoftPlatform, code: OptionCode, data: &[u8]) {
        assert_eq!(self.answer(machine, code, data), ReplyCode::ACK);
    }

    /// Sends bytes of requests; returns all that was answered.
    pub fn send(&mut self, machine: &mut SoftPlatform, bytes: &[u8]) -> Vec<Reply> {
        self.run(machine, bytes);
        let received = std::mem::take(&mut self.received);
        self.client.feed(&received);
        std::iter::from_fn(|| self.client.take()).collect()
    }

    /// One request with its answer.
    pub fn call(
        &mut self,
        machine: &mut SoftPlatform,
        command: Command,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> Reply {
        let (cookie, bytes) = self.client.request(command, flags, offset, length, payload);
        let mut replies = self.send(machine, &bytes);
        assert_eq!(replies.len(), 1, "{command}: {replies:?}");
        assert_eq!(replies[0].cookie, cookie);
        replies.remove(0)
    }

    pub fn read(&mut self, machine: &mut SoftPlatform, offset: u64, length: usize) -> Vec<u8> {
        let reply = self.call(machine, Command::READ, 0, offset, length as u64, &[]);
        assert_eq!(reply.error, None);
        reply.data
    }

    pub fn write(
        &mut self,
        machine: &mut SoftPlatform,
        flags: u16,
        offset: u64,
        bytes: &[u8],
    ) -> Reply {
        self.call(
            machine,
            Command::WRITE,
            flags | self.payload_len(),
            offset,
            bytes.len() as u64,
            bytes,
        )
    }

    /// The flag that requests with a payload have.
    pub fn payload_len(&self) -> u16 {
        let extended = self.flags & transmission_flags::BLOCK_STATUS_PAYLOAD != 0;
        if extended { umbra_proto::nbd::command_flags::PAYLOAD_LEN } else { 0 }
    }

    /// The connection is gone.
    pub fn vanish(mut self, machine: &mut SoftPlatform) {
        self.wire.reset = true;
        while self.poll(machine) == Progress::Again {}
    }
}
