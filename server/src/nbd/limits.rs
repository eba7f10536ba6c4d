//! Numbers that a client is told.

/// The vsock port of this protocol.
pub const NBD_PORT: u32 = umbra_proto::nbd::PORT;

/// Largest payload of a request in bytes, as advertised, and largest read that is not cut into
/// chunks.
pub const MAX_PAYLOAD: u32 = umbra_proto::nbd::DEFAULT_MAX_PAYLOAD;
