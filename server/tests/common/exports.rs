//! Exports, and their clients, through both protocols.

use super::Connection as Rpc;
use super::nbd::Connection as Nbd;
use umbra_proto::nbd::{InfoRequest, OptionCode, ReplyCode};
use umbra_proto::rpc::{Export, ExportAdd, ExportClient, ExportClients, ExportList};
use umbra_server::testing::SoftPlatform;

/// A client of the native protocol that has said hello.
pub fn rpc(m: &mut SoftPlatform) -> Rpc {
    let mut c = Rpc::new(64 << 10, 64 << 10);
    c.greet(m);
    c
}

/// The request to add an export.
pub fn add<'a>(name: &'a str, path: &'a [u8]) -> ExportAdd<'a> {
    ExportAdd { name, path, read_only: false, size: None, replace: false }
}

/// All exports.
pub fn list(c: &mut Rpc, m: &mut SoftPlatform) -> Vec<Export> {
    c.call(m, &ExportList {}, &[]).items()
}

/// All clients of exports.
pub fn clients(c: &mut Rpc, m: &mut SoftPlatform) -> Vec<ExportClient> {
    c.call(m, &ExportClients {}, &[]).items()
}

/// Chooses an export; the answer to that.
pub fn go(client: &mut Nbd, m: &mut SoftPlatform, name: &[u8]) -> ReplyCode {
    let mut data = Vec::new();
    InfoRequest::encode(name, &[], &mut data);
    client.answer(m, OptionCode::GO, &data)
}
