//! The numbers of the methods.

use minicbor::{Decode, Encode};

/// The number of a method. An open set: what a server does not know it answers with
/// [`ErrorCode::UNSUPPORTED`](super::ErrorCode::UNSUPPORTED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

macro_rules! methods {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Method {
            $($(#[doc = $doc])* pub const $name: Method = Method($code);)*

            /// All methods that this version knows, with their names.
            pub const ALL: &[(Method, &'static str)] = &[$((Method($code), $text)),*];
        }
    };
}

methods! {
    /// [`Hello`](super::Hello)
    HELLO = 0x00, "hello";
    /// [`Ping`](super::Ping)
    PING = 0x01, "ping";
    /// [`Status`](super::Status)
    STATUS = 0x02, "status";
    /// [`Nvdimms`](super::Nvdimms)
    NVDIMMS = 0x03, "nvdimms";
    /// [`PowerOff`](super::PowerOff)
    POWER_OFF = 0x04, "power-off";
    /// [`Check`](super::Check)
    CHECK = 0x05, "check";
    /// [`Reclaim`](super::Reclaim)
    RECLAIM = 0x06, "reclaim";
    /// [`PoisonList`](super::PoisonList)
    POISON_LIST = 0x07, "poison-list";
    /// [`PoisonInject`](super::PoisonInject)
    POISON_INJECT = 0x08, "poison-inject";
    /// [`PoisonClear`](super::PoisonClear)
    POISON_CLEAR = 0x09, "poison-clear";
    /// [`Events`](super::Events)
    EVENTS = 0x0a, "events";
    /// [`Scrub`](super::Scrub)
    SCRUB = 0x0b, "scrub";
    /// [`Space`](super::Space)
    SPACE = 0x10, "space";
    /// [`Stat`](super::Stat)
    STAT = 0x11, "stat";
    /// [`List`](super::List)
    LIST = 0x12, "list";
    /// [`Create`](super::Create)
    CREATE = 0x13, "create";
    /// [`MakeDirectory`](super::MakeDirectory)
    MAKE_DIRECTORY = 0x14, "make-directory";
    /// [`Unlink`](super::Unlink)
    UNLINK = 0x15, "unlink";
    /// [`RemoveDirectory`](super::RemoveDirectory)
    REMOVE_DIRECTORY = 0x16, "remove-directory";
    /// [`Rename`](super::Rename)
    RENAME = 0x17, "rename";
    /// [`Truncate`](super::Truncate)
    TRUNCATE = 0x18, "truncate";
    /// [`SetAttributes`](super::SetAttributes)
    SET_ATTRIBUTES = 0x19, "set-attributes";
    /// [`Link`](super::Link)
    LINK = 0x1a, "link";
    /// [`Symlink`](super::Symlink)
    SYMLINK = 0x1b, "symlink";
    /// [`ReadLink`](super::ReadLink)
    READ_LINK = 0x1c, "read-link";
    /// [`Open`](super::Open)
    OPEN = 0x20, "open";
    /// [`Close`](super::Close)
    CLOSE = 0x21, "close";
    /// [`Read`](super::Read)
    READ = 0x22, "read";
    /// [`Write`](super::Write)
    WRITE = 0x23, "write";
    /// [`Sync`](super::Sync)
    SYNC = 0x24, "sync";
    /// [`Extents`](super::Extents)
    EXTENTS = 0x25, "extents";
    /// [`Clone`](super::CloneFile)
    CLONE = 0x26, "clone";
    /// [`CloneRange`](super::CloneRange)
    CLONE_RANGE = 0x27, "clone-range";
    /// [`Dedupe`](super::Dedupe)
    DEDUPE = 0x28, "dedupe";
    /// [`OpenUnnamed`](super::OpenUnnamed)
    OPEN_UNNAMED = 0x29, "open-unnamed";
    /// [`Load`](super::Load)
    LOAD = 0x30, "load";
    /// [`Store`](super::Store)
    STORE = 0x31, "store";
    /// [`Msync`](super::Msync)
    MSYNC = 0x32, "msync";
    /// [`Pages`](super::Pages)
    PAGES = 0x33, "pages";
    /// [`ExportAdd`](super::ExportAdd)
    EXPORT_ADD = 0x40, "export-add";
    /// [`ExportRemove`](super::ExportRemove)
    EXPORT_REMOVE = 0x41, "export-remove";
    /// [`ExportList`](super::ExportList)
    EXPORT_LIST = 0x42, "export-list";
    /// [`ExportClients`](super::ExportClients)
    EXPORT_CLIENTS = 0x43, "export-clients";
    /// [`Bench`](super::Bench)
    BENCH = 0x50, "bench";
}

impl Method {
    /// Its name; `None` for a number that is not known.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(method, _)| *method == self).map(|(_, name)| *name)
    }
}

/// The body of a request, and what it is answered with.
pub trait Request: Encode<()> {
    /// The method.
    const METHOD: Method;
    /// The body of the response (of each, if there are several).
    type Response: for<'b> Decode<'b, ()>;
}

macro_rules! request {
    ($type:ty, $method:ident, $response:ty) => {
        impl $crate::rpc::Request for $type {
            const METHOD: $crate::rpc::Method = $crate::rpc::Method::$method;
            type Response = $response;
        }
    };
}
pub(super) use request;

/// The body of a response that says nothing but that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Done {}

/// Optional byte strings, as `minicbor` has byte strings.
pub(super) mod optional_bytes {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub fn encode<C, W: Write>(
        v: &Option<&[u8]>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match v {
            Some(bytes) => e.bytes(bytes)?.ok(),
            None => e.null()?.ok(),
        }
    }

    pub fn decode<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<Option<&'b [u8]>, Error> {
        if d.datatype()? == minicbor::data::Type::Null {
            return d.null().map(|()| None);
        }
        d.bytes().map(Some)
    }

    pub fn nil<'b>() -> Option<Option<&'b [u8]>> {
        Some(None)
    }

    pub fn is_nil(v: &Option<&[u8]>) -> bool {
        v.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use alloc::vec::Vec;

    fn bytes<T: minicbor::Encode<()>>(body: &T) -> Vec<u8> {
        let mut v = Vec::new();
        encode_append(body, &mut v);
        let mut fixed = [0; 256];
        let n = encode_into(body, &mut fixed).unwrap();
        assert_eq!(v, fixed[..n]);
        assert!(encode_into(body, &mut fixed[..n - 1]).is_none());
        v
    }

    #[test]
    fn absent_fields_take_no_room() {
        let stat = Stat { path: Some(b"/a"), handle: None, blocks: false };
        assert_eq!(bytes(&stat), [0xa2, 0x00, 0x42, b'/', b'a', 0x02, 0xf4]);
        assert_eq!(decode::<Stat>(&bytes(&stat)).unwrap(), stat);
        let stat = Stat { path: None, handle: Some(7), blocks: true };
        assert_eq!(bytes(&stat), [0xa2, 0x01, 0x07, 0x02, 0xf5]);
        assert_eq!(decode::<Stat>(&bytes(&stat)).unwrap(), stat);
    }

    #[test]
    fn unknown_keys_are_ignored_and_absent_options_are_none() {
        let newer =
            [0xa3, 0x00, 0x42, b'/', b'a', 0x18, 99, 0x82, 0x01, 0xa0, 0x19, 1, 0, 0x9f, 0xff];
        assert_eq!(
            decode::<Stat>(&newer).unwrap(),
            Stat { path: Some(b"/a"), handle: None, blocks: false }
        );
        assert_eq!(decode::<Stat>(&[0xa1, 0x00, 0xf6]).unwrap(), Stat::default());
        assert_eq!(decode::<Ping>(&newer).unwrap(), Ping {});
    }

    #[test]
    fn missing_and_mistyped_fields_are_errors() {
        assert!(matches!(decode::<Read>(&[0xa0]), Err(BodyError::Field(_))));
        assert!(matches!(decode::<Read>(&[0xa3, 0, 0x20, 1, 0, 2, 0]), Err(BodyError::Field(_))));
        assert!(matches!(decode::<Stat>(&[0xa1, 0, 0x61, b'a']), Err(BodyError::Field(_))));
        let too_big = [0xa1, 0x00, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(matches!(decode::<Close>(&too_big), Err(BodyError::Field(_))));
    }

    #[test]
    fn numbers_are_unique() {
        for (i, (m, name)) in Method::ALL.iter().enumerate() {
            assert!(Method::ALL[..i].iter().all(|(n, other)| n.0 < m.0 && other != name));
        }
        for (i, (c, name)) in ErrorCode::ALL.iter().enumerate() {
            assert!(ErrorCode::ALL[..i].iter().all(|(d, other)| d.0 < c.0 && other != name));
        }
    }
}
