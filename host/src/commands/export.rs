//! Files as disks over NBD.

use super::{Context, server_path, shown};
use crate::cli::{Export, ExportAdd};
use crate::names::{self, escaped};
use crate::output::{Class, Failure, Outcome};
use serde_json::{Value, json};
use umbra::client::{NbdServer, rpc};
use umbra::units::show_bytes;

/// Where clients would not find the socket.
const NO_SOCKET: &str = "the path of the state directory is too long for a socket: use a shorter --state; \
    until then `umbra relay 10809 SOCKET` makes a socket elsewhere, which serves every file by its path";

/// `umbra export`
pub fn export(context: &Context, options: Export) -> Outcome {
    match options {
        Export::Add(it) => add(context, it),
        Export::Remove { name } => {
            context.connect()?.export_remove(&name)?;
            context.format.report(json!({ "name": name }), String::new)
        }
        Export::List => list(context),
    }
}

fn server(context: &Context) -> Outcome<NbdServer> {
    NbdServer::of(&context.state).map_err(Failure::while_doing("find the server's socket"))
}

fn add(context: &Context, options: ExportAdd) -> Outcome {
    let path = server_path(&options.path);
    let name = match &options.name {
        Some(name) => name.clone(),
        None => String::from_utf8(path[1..].to_vec())
            .map_err(|_| Failure::new("the path is not UTF-8: give the export a name"))?,
    };
    let mut client = context.connect()?;
    // Before it is added: nobody could use it.
    let server = server(context)?;
    if server.uri(&name).or_else(|| server.vsock_uri(&name)).is_none() {
        return Err(Failure::of(Class::Other, "path-too-long", NO_SOCKET));
    }
    client.export_add(&rpc::ExportAdd {
        name: &name,
        path: &path,
        read_only: options.read_only,
        size: options.size,
        replace: options.replace,
    })?;
    let fields = json!({ "name": name, "uri": server.uri(&name), "vsock_uri": server.vsock_uri(&name) });
    context.format.report(fields, || uris(&server, &name, ""))
}

fn list(context: &Context) -> Outcome {
    let mut client = context.connect()?;
    let exports = client.exports()?;
    let server = server(context)?;
    let fields = json!({ "exports": exports.iter().map(|it| fields_of(it, &server)).collect::<Vec<_>>() });
    context.format.report(fields, || exports.iter().map(|it| text_of(it, &server)).collect::<String>())
}

fn fields_of(export: &rpc::Export, server: &NbdServer) -> Value {
    let mut fields = json!({
        "name": export.name,
        "uri": server.uri(&export.name),
        "vsock_uri": server.vsock_uri(&export.name),
        "read_only": export.read_only,
        "size": export.size,
        "fixed_size": export.fixed_size,
        "clients": export.clients,
        "by_path": export.by_path,
        "problem": export.problem,
    });
    names::insert(&mut fields, "path", export.path.as_deref());
    fields
}

fn text_of(export: &rpc::Export, server: &NbdServer) -> String {
    let mut line = escaped(export.name.as_bytes());
    let mut say = |text: &str| {
        line.push_str("  ");
        line.push_str(text);
    };
    if let Some(size) = export.size {
        say(&show_bytes(size));
    }
    if export.read_only {
        say("read-only");
    }
    if export.by_path {
        say("(by its path)");
    }
    match export.clients {
        0 => {}
        1 => say("1 client"),
        clients => say(&format!("{clients} clients")),
    }
    match &export.path {
        Some(path) if !export.by_path => say(&format!("of {}", shown(path))),
        Some(_) => {}
        None => say("NVDIMM region"),
    }
    if let Some(problem) = &export.problem {
        say(&format!("unusable: {problem}"));
    }
    format!("{line}\n{}", uris(server, &export.name, "  "))
}

fn uris(server: &NbdServer, name: &str, indent: &str) -> String {
    let socket = server.uri(name).unwrap_or_else(|| NO_SOCKET.into());
    let vsock = server.vsock_uri(name);
    [Some(socket), vsock].into_iter().flatten().map(|uri| format!("{indent}{uri}\n")).collect()
}
