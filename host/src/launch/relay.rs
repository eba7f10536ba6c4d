//! A plain UNIX socket before a port of the guest, where the host kernel does vsock.
//!
//! A connection is opened in the guest when one arrives here. Each direction is copied, and ends,
//! by itself.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use vsock::{VsockAddr, VsockStream};

/// A socket that is served until this goes.
pub(super) struct Relay {
    listener: Arc<UnixListener>,
}

impl Relay {
    /// Serves a socket.
    pub(super) fn start(listener: UnixListener, cid: u32, port: u32) -> io::Result<Relay> {
        let listener = Arc::new(listener);
        let accepting = listener.clone();
        thread::Builder::new().name("relay".into()).spawn(move || {
            for client in accepting.incoming() {
                match client {
                    Ok(client) => {
                        // A thread that cannot be had ends this client's connection only.
                        let _ = thread::Builder::new().spawn(move || serve(&client, cid, port));
                    }
                    // It was shut down.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                    // Out of descriptors, most likely: wait for one to come back.
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
            }
        })?;
        Ok(Relay { listener })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Wakes the thread. It fails only for what is no socket.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

/// Copies in both directions until both are at their end. A client of a port that refuses is hung
/// up on.
fn serve(client: &UnixStream, cid: u32, port: u32) {
    let Ok(guest) = VsockStream::connect(&VsockAddr::new(cid, port)) else { return };
    thread::scope(|scope| {
        scope.spawn(|| {
            // A side that breaks the connection ends it for both; it need not be told.
            let _ = io::copy(&mut &guest, &mut &*client);
            let _ = client.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &*client, &mut &guest);
        let _ = guest.shutdown(Shutdown::Write);
    });
}
