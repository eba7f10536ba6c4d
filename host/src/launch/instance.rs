//! An instance as its control socket knows it: what requests are answered from.

use super::console::Console;
use super::control::{self, ClientProcess, EndGuard, Instance, Stopped};
use super::event::{Event, Waiting};
use super::transport::Ports;
use super::{Status, monitor};
use crate::access::Access;
use crate::state::StateDir;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the control socket's threads see.
pub(super) struct SharedState {
    pub(super) state: StateDir,
    pub(super) status: Mutex<Status>,
    pub(super) started: Instant,
    pub(super) console: Console,
    pub(super) ports: Arc<Ports>,
    /// To whom sockets for clients are open, where nothing else is said.
    pub(super) access: Access,
    pub(super) sender: Mutex<Sender<Event>>,
}

impl SharedState {
    /// The status, to be read or changed.
    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        // Every state of it is complete.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance for SharedState {
    fn status(&self) -> Status {
        let status = SharedState::status(self).clone();
        let paused = monitor::paused(&self.state, status.qemu_pid);
        Status { uptime_s: self.started.elapsed().as_secs_f64(), paused, ..status }
    }

    fn stop(&self) -> (Stopped, EndGuard) {
        let (sender, outcome) = channel();
        let (guard, passed_on) = channel();
        let event = Event::Stop(Waiting { outcome: sender, passed_on });
        // If the loop is over, the receiver below says so.
        let _ = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(event);
        let gone = Stopped { clean: false, message: Some("the supervisor ended meanwhile".into()) };
        (outcome.recv().unwrap_or(gone), guard)
    }

    fn console(&self) -> Console {
        self.console.clone()
    }

    fn relay(
        &self,
        port: u32,
        socket: &Path,
        access: Option<Access>,
    ) -> io::Result<Box<dyn control::Held>> {
        Ok(Box::new(self.ports.offer_at(port, socket, access.unwrap_or(self.access))?))
    }

    fn clients(&self, port: u32) -> io::Result<Vec<ClientProcess>> {
        let all = self.ports.clients(port)?.into_iter().filter_map(|client| {
            let pid = client.process?.as_raw_nonzero().get();
            // It fails if the process has ended.
            let command = std::fs::read(format!("/proc/{pid}/comm")).ok();
            let command =
                command.map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned());
            Some(ClientProcess { port: client.number, pid, command })
        });
        Ok(all.collect())
    }
}
