//! The packet header, to the byte (virtio 1.2, 5.10.6).
//!
//! Headers come from the device, so parsing cannot fail on their content: what an
//! operation or type number means is decided by whoever handles the packet.

/// Bytes of a packet header.
pub const HEADER_LEN: usize = 44;

/// The only type of socket served here: a reliable stream of bytes.
pub const TYPE_STREAM: u16 = 1;

/// A context identifier: the number of a machine (2 is the host).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cid(pub u64);

/// A port of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(pub u32);

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The machine.
    pub cid: Cid,
    /// Its port.
    pub port: Port,
}

/// What a packet does (`op`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Does nothing; no device should send it, some do.
    #[default]
    Invalid = 0,
    /// Asks for a connection.
    Request = 1,
    /// Grants it.
    Response = 2,
    /// The connection does not exist (any more).
    Reset = 3,
    /// One or both directions end.
    Shutdown = 4,
    /// Carries bytes.
    Data = 5,
    /// Carries nothing but the credit that is in every header.
    CreditUpdate = 6,
    /// Asks for a credit update.
    CreditRequest = 7,
}

impl Operation {
    /// The operation of a number; `None` if the specification has no such number.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Invalid,
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// Flag of [`Operation::Shutdown`]: the sender will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of [`Operation::Shutdown`]: the sender will send no more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// A packet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub source: Address,
    /// Whom it is for.
    pub destination: Address,
    /// Bytes of payload.
    pub len: u32,
    /// Type of socket.
    pub kind: u16,
    /// Number of the operation.
    pub operation: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// Size of the sender's receive buffer for this connection.
    pub buf_alloc: u32,
    /// Bytes that the sender took from that buffer since the connection began, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            source: Address { cid: Cid(u64_at(0)), port: Port(u32_at(16)) },
            destination: Address { cid: Cid(u64_at(8)), port: Port(u32_at(20)) },
            len: u32_at(24),
            kind: u16_at(28),
            operation: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// Writes a header.
    pub fn encode(&self, into: &mut [u8; HEADER_LEN]) {
        into[0..8].copy_from_slice(&self.source.cid.0.to_le_bytes());
        into[8..16].copy_from_slice(&self.destination.cid.0.to_le_bytes());
        into[16..20].copy_from_slice(&self.source.port.0.to_le_bytes());
        into[20..24].copy_from_slice(&self.destination.port.0.to_le_bytes());
        into[24..28].copy_from_slice(&self.len.to_le_bytes());
        into[28..30].copy_from_slice(&self.kind.to_le_bytes());
        into[30..32].copy_from_slice(&self.operation.to_le_bytes());
        into[32..36].copy_from_slice(&self.flags.to_le_bytes());
        into[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        into[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
    }

    /// The answer to a packet of no connection: a reset, with the ends swapped.
    pub fn reset_for(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            kind: self.kind,
            operation: Operation::Reset as u16,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_is_laid_out_as_virtio_5_10_6_has_it() {
        let header = Header {
            source: Address { cid: Cid(0x0807_0605_0403_0201), port: Port(0x1413_1211) },
            destination: Address { cid: Cid(0x100F_0E0D_0C0B_0A09), port: Port(0x1817_1615) },
            len: 0x1C1B_1A19,
            kind: 0x1E1D,
            operation: 0x201F,
            flags: 0x2423_2221,
            buf_alloc: 0x2827_2625,
            fwd_cnt: 0x2C2B_2A29,
        };
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        let expected: [u8; HEADER_LEN] = core::array::from_fn(|i| i as u8 + 1);
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_and_encode_to_themselves(bytes: [u8; 32], rest: [u8; 12]) {
            let mut all = [0; HEADER_LEN];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest);
            let mut again = [0; HEADER_LEN];
            Header::parse(&all).encode(&mut again);
            prop_assert_eq!(all, again);
        }

        #[test]
        fn operations_have_their_numbers(number: u16) {
            match Operation::from_number(number) {
                Some(operation) => prop_assert_eq!(operation as u16, number),
                None => prop_assert!(number > 7),
            }
        }
    }
}
