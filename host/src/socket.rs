//! Sockets between the clients and the guest, as both of their ends want them.

use std::os::unix::net::UnixStream;

/// Bytes that a socket should hold: enough to go on while the other end is being woken.
const BUFFER: usize = 1 << 20;

/// Lets a socket hold as much as the system grants, up to [`BUFFER`]. With less it is slower, and
/// no worse.
pub(crate) fn widen(stream: &UnixStream) {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, BUFFER);
}
