//! The start of a connection, and the flags of both ends ("Newstyle negotiation", "Flag fields").

use super::{BadMagic, Fields, Reader};

/// `NBDMAGIC`: the first bytes that a server sends.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: newstyle; also the first bytes of every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;

/// Bytes of [`Greeting`].
pub const GREETING_LEN: usize = 18;
/// Bytes of the client's flags.
pub const CLIENT_FLAGS_LEN: usize = 4;

/// Flags that a server greets with.
pub mod handshake_flags {
    /// The fixed newstyle handshake.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// The 124 zeros after `EXPORT_NAME` can be left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Flags that a client answers with; the same bits as those of [`handshake_flags`].
pub mod client_flags {
    /// The client knows the fixed newstyle handshake.
    pub const FIXED_NEWSTYLE: u32 = 1 << 0;
    /// The client wants no zeros after `EXPORT_NAME`.
    pub const NO_ZEROES: u32 = 1 << 1;
    /// All bits that are known.
    pub const ALL: u32 = FIXED_NEWSTYLE | NO_ZEROES;
}

/// What an export allows ("Transmission flags").
pub mod transmission_flags {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Changes fail.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The command flag `FUA` is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// The export behaves like a rotating disk.
    pub const ROTATIONAL: u16 = 1 << 4;
    /// `TRIM` is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` and the command flag `NO_HOLE` are known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The command flag `DF` is known.
    pub const SEND_DF: u16 = 1 << 7;
    /// All connections see one coherent disk.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// `RESIZE` is known (experimental).
    pub const SEND_RESIZE: u16 = 1 << 9;
    /// `CACHE` is known.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The command flag `FAST_ZERO` is known.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
    /// `BLOCK_STATUS` can be asked for some of the selected contexts.
    pub const BLOCK_STATUS_PAYLOAD: u16 = 1 << 12;
}

/// What a server sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Bits of [`handshake_flags`].
    pub flags: u16,
}

impl Greeting {
    /// The bytes.
    pub fn encode(self) -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        Fields::new(&mut bytes).u64(INIT_MAGIC).u64(OPTION_MAGIC).u16(self.flags);
        bytes
    }

    /// From the bytes.
    ///
    /// # Errors
    ///
    /// It does not begin as a greeting of NBD does.
    pub fn decode(bytes: &[u8; GREETING_LEN]) -> Result<Self, BadMagic> {
        let mut r = Reader(bytes);
        for magic in [INIT_MAGIC, OPTION_MAGIC] {
            match r.u64() {
                Some(found) if found == magic => {}
                found => return Err(BadMagic(found.unwrap_or(0))),
            }
        }
        Ok(Greeting { flags: r.u16().unwrap_or(0) })
    }
}

/// Bytes of the answer to `EXPORT_NAME`, without the zeros.
pub const EXPORT_NAME_REPLY_LEN: usize = 10;
/// Zeros that follow it unless both ends agreed to leave them out.
pub const EXPORT_NAME_ZEROES: usize = 124;

/// The answer to `EXPORT_NAME`: size in bytes, and bits of [`transmission_flags`].
pub fn export_name_reply(size: u64, flags: u16) -> [u8; EXPORT_NAME_REPLY_LEN] {
    let mut bytes = [0; EXPORT_NAME_REPLY_LEN];
    Fields::new(&mut bytes).u64(size).u16(flags);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_nbdmagic_and_ihaveopt() {
        let bytes = Greeting { flags: 3 }.encode();
        assert_eq!(&bytes, b"NBDMAGICIHAVEOPT\0\x03");
        assert_eq!(Greeting::decode(&bytes), Ok(Greeting { flags: 3 }));
        assert!(
            Greeting::decode(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\x03").is_err(),
            "oldstyle"
        );
        assert_eq!(export_name_reply(0x1_0000, 0x102), [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]);
    }
}
