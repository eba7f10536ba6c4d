//! Files as disks over NBD.

use super::{Context, server_path, shown};
use crate::cli::{Export, ExportAdd};
use crate::names::{self, escaped};
use crate::output::{Class, Failure, Outcome};
use serde_json::{Value, json};
use umbra::client::{NbdServer, rpc};
use umbra::launch::control::{self, ClientProcess};
use umbra::units::{show_bytes, show_time};
use umbra_proto::nbd;

/// Where clients would not find the socket.
const NO_SOCKET: &str = "the path of the state directory is too long for a socket: \
    use a shorter --state; until then `umbra relay 10809 SOCKET` makes a socket elsewhere, \
    which serves every file by its path";

/// `umbra export`
pub fn export(context: &Context, options: Export) -> Outcome {
    match options {
        Export::Add(it) => add(context, it),
        Export::Remove { name, force: false } => {
            context.connect()?.export_remove(&name)?;
            context.format.report(json!({ "name": name, "evicted": 0 }), String::new)
        }
        Export::Remove { name, force: true } => {
            let evicted = context.connect()?.export_evict(&name)?;
            context.format.report(json!({ "name": name, "evicted": evicted }), || match evicted {
                0 => String::new(),
                1 => "1 client was evicted\n".into(),
                more => format!("{more} clients were evicted\n"),
            })
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
    let fields =
        json!({ "name": name, "uri": server.uri(&name), "vsock_uri": server.vsock_uri(&name) });
    context.format.report(fields, || uris(&server, &name, ""))
}

fn list(context: &Context) -> Outcome {
    let mut client = context.connect()?;
    let exports = client.exports()?;
    let clients = client.export_clients()?;
    let server = server(context)?;
    // Who they are is told by another process, which need not know.
    let known =
        if clients.is_empty() { None } else { control::clients(&context.state, nbd::PORT).ok() };
    let processes = known.flatten().unwrap_or_default();
    let rows = exports.iter().map(|export| Row {
        export,
        clients: clients.iter().filter(|client| uses(client, export)).collect(),
        processes: &processes,
        server: &server,
    });
    let rows = rows.collect::<Vec<_>>();
    let fields = json!({ "exports": rows.iter().map(Row::fields).collect::<Vec<_>>() });
    context.format.report(fields, || rows.iter().map(Row::text).collect::<String>())
}

/// Whether a client is one of those that an export of the list counts.
fn uses(client: &rpc::ExportClient, export: &rpc::Export) -> bool {
    client.ino == export.ino && client.by_path == export.by_path && client.name == export.name
}

/// An export with its clients.
struct Row<'a> {
    export: &'a rpc::Export,
    clients: Vec<&'a rpc::ExportClient>,
    processes: &'a [ClientProcess],
    server: &'a NbdServer,
}

impl Row<'_> {
    fn fields(&self) -> Value {
        let Row { export, server, .. } = self;
        let connections: Vec<_> =
            self.clients.iter().map(|client| self.connection(client)).collect();
        let mut fields = json!({
            "name": export.name,
            "uri": server.uri(&export.name),
            "vsock_uri": server.vsock_uri(&export.name),
            "inode": export.ino,
            "read_only": export.read_only,
            "size": export.size,
            "fixed_size": export.fixed_size,
            "clients": export.clients,
            "by_path": export.by_path,
            "moved": export.moved,
            "problem": export.problem,
            "connections": connections,
        });
        names::insert(&mut fields, "path", export.path.as_deref());
        fields
    }

    fn process(&self, client: &rpc::ExportClient) -> Option<&ClientProcess> {
        self.processes.iter().find(|process| Some(process.port) == client.port)
    }

    fn connection(&self, client: &rpc::ExportClient) -> Value {
        let process = self.process(client);
        json!({
            "since": client.since,
            "cid": client.cid,
            "port": client.port,
            "read_only": client.read_only,
            "size": client.size,
            "pid": process.map(|process| process.pid),
            "command": process.and_then(|process| process.command.as_deref()),
        })
    }

    fn text(&self) -> String {
        let mut text = text_of(self.export, self.server);
        for client in &self.clients {
            text.push_str(&format!("  client since {}", show_time(client.since)));
            if let (Some(cid), Some(port)) = (client.cid, client.port) {
                text.push_str(&format!(", vsock {cid}:{port}"));
            }
            if let Some(process) = self.process(client) {
                let command = process.command.as_deref().unwrap_or("has ended");
                text.push_str(&format!(", process {} ({})", process.pid, command.escape_debug()));
            }
            text.push('\n');
        }
        text
    }
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
    if export.moved {
        say("(the name leads elsewhere now)");
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
