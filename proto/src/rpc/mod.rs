//! The native protocol, version 1: frames of a fixed header, a CBOR map, and raw bytes.
//!
//! A client sends request frames and receives response frames, in the order of the
//! requests. The map has small integer keys; either side may add keys, and ignores those
//! it does not know, so both can grow apart. File content is never inside the map: it
//! follows it as *payload*, so that neither side has to copy it through a codec.
//!
//! | file | what |
//! |---|---|
//! | `frame.rs` | the header, and the limits |
//! | `body.rs` | encoding and decoding of bodies; what is refused before decoding |
//! | `method.rs` | numbers of methods, by their first digit in groups; requests and answers |
//! | `error.rs` | the numbers of the errors, and the body of an error |
//! | `server.rs` | methods about the server: hello, status, check, ... |
//! | `poison.rs` | methods about memory errors and events |
//! | `scrub.rs` | the method of a scrub |
//! | `volume.rs` | methods about names, attributes and space |
//! | `content.rs` | methods about content: read, write, clone, load, store, ... |
//! | `exports.rs` | methods about exports |
//! | `owned.rs` | texts and byte strings that a body owns |
//! | `sequence.rs` | answers of many items, spread over frames |

mod body;
mod content;
mod error;
mod exports;
mod frame;
mod method;
mod owned;
mod poison;
mod scrub;
mod sequence;
mod server;
mod volume;

pub use body::*;
pub use content::*;
pub use error::*;
pub use exports::*;
pub use frame::*;
pub use method::*;
pub use owned::Text;
pub use poison::*;
pub use scrub::*;
pub use sequence::*;
pub use server::*;
pub use volume::*;

/// Version of the protocol. It changes only when the frame header or [`Hello`] does;
/// everything else grows by new keys, methods and features.
pub const VERSION: u32 = 1;

/// The vsock port where it is served.
pub const PORT: u32 = 1;

/// What the first request carries, so that other protocols are told apart from ours.
pub const MAGIC: &str = "umbra";
