//! A plain UNIX socket before a port of the guest, for clients that know nothing of vsock.
//!
//! The supervisor makes and serves it; this waits, and the socket goes with it.

use super::{Context, report_of};
use crate::cli::Relay;
use crate::output::{Failure, Format, Outcome, say};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use umbra::client::{Error, connect};
use umbra::launch::control;

/// `umbra relay`
pub fn relay(context: &Context, options: Relay) -> Outcome {
    // Says now that no server runs, or that nothing listens, and not to the first client.
    drop(connect(&context.state, options.port)?);
    let gone = || Error::NotRunning { state: context.state.path().to_path_buf() };
    let mut held =
        control::relay(&context.state, options.port, &options.socket, options.sockets.given())
            .map_err(|error| Failure::new(error.to_string()))?
            .ok_or_else(gone)?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(Failure::while_doing("handle signals"))?;
    let asked = Arc::new(AtomicBool::new(false));
    let (hang_up, by_signal) =
        (held.try_clone().map_err(Failure::while_doing("wait"))?, asked.clone());
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            by_signal.store(true, Ordering::Relaxed);
            // It fails if the supervisor is gone, and then the wait is over already.
            let _ = hang_up.shutdown(Shutdown::Write);
        }
    });
    match context.format {
        Format::Text => {
            say(&format!("port {} of the guest is at {}", options.port, options.socket.display()))
        }
        Format::Json => {
            let socket = options.socket.as_os_str().as_bytes();
            let fields = report_of(&[("socket", socket)], json!({ "port": options.port }));
            context.format.report(fields, String::new)?;
        }
    }
    // It hangs up when it has removed the socket, or because it ends.
    let _ = held.read(&mut [0]);
    if asked.load(Ordering::Relaxed) {
        return Ok(());
    }
    // Nobody else does it now. It may be gone with its folder.
    let _ = fs::remove_file(&options.socket);
    Err(gone().into())
}
