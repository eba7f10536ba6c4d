//! Exports: what NBD serves under a name of its own; and the URIs under which clients find it.

use super::rpc::{self, Export, ExportAdd, ExportClient, ExportClients, ExportList, ExportRemove};
use super::{Client, Result};
use crate::state::StateDir;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use umbra_proto::nbd;

/// The longest path that fits in `sockaddr_un` with its closing NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Exports.
impl Client {
    /// Adds an export, or replaces one.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `exists`, `not-found`, `is-directory`, `no-space`, `busy`.
    pub fn export_add(&mut self, export: &ExportAdd<'_>) -> Result<()> {
        self.call(export).map(drop)
    }

    /// Removes an export that nobody uses. The file stays.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`, `busy` while a client uses it.
    pub fn export_remove(&mut self, name: &str) -> Result<()> {
        self.call(&ExportRemove { name, force: false }).map(drop)
    }

    /// Removes an export, and ends the connections of all clients that came by its name; returns
    /// how many there were.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`]: `not-found`.
    pub fn export_evict(&mut self, name: &str) -> Result<u32> {
        self.call(&ExportRemove { name, force: true }).map(|removed| removed.evicted)
    }

    /// The clients of all exports.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn export_clients(&mut self) -> Result<Vec<ExportClient>> {
        let mut all = Vec::new();
        self.call_each(&ExportClients {}, |mut part: rpc::Items<ExportClient>, _| {
            all.append(&mut part.items);
            Ok(())
        })?;
        Ok(all)
    }

    /// Exports that were added, files that clients use by their path, and NVDIMM regions without a
    /// volume.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn exports(&mut self) -> Result<Vec<Export>> {
        let mut all = Vec::new();
        self.call_each(&ExportList {}, |mut part: rpc::Items<Export>, _| {
            all.append(&mut part.items);
            Ok(())
        })?;
        Ok(all)
    }
}

/// Where clients of NBD find a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdServer {
    /// Its plain UNIX socket; `None` if its path is longer than the address of a socket can be.
    pub socket: Option<PathBuf>,
    /// The guest's CID, where the host's kernel knows it.
    pub cid: Option<u32>,
}

impl NbdServer {
    /// Of the instance of a state directory that is ready.
    ///
    /// # Errors
    ///
    /// The system's, if no instance is ready: it has no file `endpoint` then.
    pub fn of(state: &StateDir) -> io::Result<NbdServer> {
        let endpoint = fs::read_to_string(state.file("endpoint"))?;
        let cid = endpoint.trim().strip_prefix("vsock:").and_then(|cid| cid.parse().ok());
        let socket = std::path::absolute(state.file(StateDir::NBD_SOCKET))?;
        let fits = socket.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX;
        Ok(NbdServer { socket: fits.then_some(socket), cid })
    }

    /// The URI of an export over the socket (NBD's `doc/uri.md`).
    pub fn uri(&self, export: &str) -> Option<String> {
        let socket = escape(self.socket.as_ref()?.as_os_str().as_bytes());
        Some(format!("nbd+unix:///{}?socket={socket}", escape(export.as_bytes())))
    }

    /// The URI of an export over the host kernel's vsock.
    pub fn vsock_uri(&self, export: &str) -> Option<String> {
        let port = nbd::PORT;
        Some(format!("nbd+vsock://{}:{port}/{}", self.cid?, escape(export.as_bytes())))
    }
}

/// Bytes as a part of a URI (RFC 3986, 2): what has no meaning of its own there stays.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_escaped() {
        let server = NbdServer { socket: Some("/run/user 1/nbd.sock".into()), cid: Some(1234) };
        let uri = server.uri("a b?ü/c").unwrap();
        assert_eq!(uri, "nbd+unix:///a%20b%3F%C3%BC/c?socket=/run/user%201/nbd.sock");
        assert_eq!(server.vsock_uri("nvdimm:1").unwrap(), "nbd+vsock://1234:10809/nvdimm%3A1");
        assert_eq!(NbdServer { socket: None, cid: None }.uri("a"), None);
    }
}
