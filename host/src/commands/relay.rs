//! A plain UNIX socket before a port of the guest, for clients that know nothing of vsock.
//!
//! A connection is opened in the guest when one arrives here. Bytes that come before the guest
//! has accepted wait here: on its way they would be lost.

use super::Context;
use crate::cli::Relay;
use crate::output::{Failure, Outcome};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, process, thread};
use umbra::client::{Stream, connect};
use umbra::state::StateDir;

/// `umbra relay`
pub fn relay(context: &Context, options: Relay) -> Outcome {
    // Says now that no server runs, or that nothing listens, and not to the first client.
    drop(connect(&context.state, options.port)?);
    let listener = listen(&options.socket)
        .map_err(Failure::while_doing(format!("listen on {}", options.socket.display())))?;
    remove_at_end(options.socket.clone())?;
    eprintln!("umbra: port {} of the guest is at {}", options.port, options.socket.display());
    for client in listener.incoming() {
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                eprintln!("umbra: cannot accept: {error}");
                // Out of descriptors, most likely: wait for one to come back.
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let (state, port) = (context.state.clone(), options.port);
        thread::spawn(move || {
            if let Err(error) = serve(client, &state, port) {
                eprintln!("umbra: a connection failed: {error}");
            }
        });
    }
    Ok(())
}

/// Listens on a path; a socket there that nobody listens on is a leftover, anything else stays.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let stale = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if stale {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

fn remove_at_end(path: PathBuf) -> Outcome {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::while_doing("handle signals"))?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Somebody may have removed it already.
            let _ = fs::remove_file(path);
            process::exit(0);
        }
    });
    Ok(())
}

/// Bytes that are taken from the guest at once.
const PIECE: usize = 64 << 10;
/// How long nothing may have come from the guest before it is told that the client sends no more.
const QUIET: Duration = Duration::from_millis(200);

/// Copies in both directions until both are at their end.
///
/// The vsock daemon forgets what it still holds for this side once this side has said that it
/// sends no more. So that is said only when nothing has come back for a while.
fn serve(client: UnixStream, state: &StateDir, port: u32) -> Outcome {
    let guest = connect(state, port)?;
    let failed = || Failure::while_doing("relay");
    let to_client = (guest.try_clone().map_err(failed())?, client.try_clone().map_err(failed())?);
    let came_back = Arc::new(AtomicU64::new(0));
    let counter = came_back.clone();
    let back = thread::spawn(move || {
        let (mut guest, mut client) = to_client;
        let mut piece = vec![0; PIECE];
        // A side that breaks the connection ends it for both; it need not be told.
        while let Ok(count @ 1..) = guest.read(&mut piece) {
            if client.write_all(&piece[..count]).is_err() {
                break;
            }
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
        let _ = client.shutdown(Shutdown::Write);
    });
    let (mut client, mut guest): (UnixStream, Stream) = (client, guest);
    let _ = io::copy(&mut client, &mut guest);
    let mut before = None;
    while !back.is_finished() && before != Some(came_back.load(Ordering::Relaxed)) {
        before = Some(came_back.load(Ordering::Relaxed));
        thread::sleep(QUIET);
    }
    let _ = guest.shutdown(Shutdown::Write);
    // It ends when the guest closes.
    let _ = back.join();
    Ok(())
}
