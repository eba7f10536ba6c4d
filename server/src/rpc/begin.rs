//! What each method does first. Most are done then; the others go on as [`Work`].

use super::connection::{Session, Work};
use super::failure::{During, Failure};
use super::listing::Listing;
use super::names::Emptying;
use super::sharing::Sharing;
use super::transfer::{Direction, Transfer};
use super::{MAX_HANDLES, bench, content, exports, names, naming};
use crate::nbd::clients::Clients;
use crate::platform::Platform;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use umbra_fs::{BLOCK_SIZE, MAX_FILE_SIZE, MAX_NAME};
use umbra_proto::rpc::{self, ErrorCode, Method};

/// Name and version of the server.
const SERVER: &str = concat!("umbra ", env!("CARGO_PKG_VERSION"));

/// Memory that a request may take, or leave taken (a handle, for example).
const REQUEST_MEMORY: usize = 32 << 10;

/// Whether a method is for when memory is short: it takes little, and leaves none taken. So whoever
/// administrates the server can see what goes on, and clients can let go of what they have.
fn is_vital(method: Method) -> bool {
    matches!(
        method,
        Method::HELLO
            | Method::PING
            | Method::STATUS
            | Method::NVDIMMS
            | Method::POWER_OFF
            | Method::RECLAIM
            | Method::SPACE
            | Method::STAT
            | Method::UNLINK
            | Method::CLOSE
            | Method::READ
            | Method::WRITE
            | Method::LOAD
            | Method::STORE
            | Method::SYNC
            | Method::MSYNC
            | Method::PAGES
            | Method::EXPORT_REMOVE
    )
}

/// Starts the request of `session` with this body. Either it is answered, or it goes on as
/// work, or it failed.
pub(super) fn begin<M: Platform>(
    session: &mut Session,
    body: &[u8],
    machine: &mut M,
    clients: &mut Clients,
) -> Result<Option<Work>, Failure> {
    let s = session;
    let method = Method(s.request.header.method);
    if !is_vital(method) && !machine.has_memory(REQUEST_MEMORY) {
        return Err(Failure::no_memory("do this"));
    }
    match method {
        Method::HELLO => hello(s, rpc::decode(body)?)?,
        Method::PING => {
            let rpc::Ping {} = rpc::decode(body)?;
            s.reply(0, &rpc::Done {});
        }
        Method::STATUS => {
            let rpc::Status { fresh } = rpc::decode(body)?;
            s.reply(0, &status(machine));
            if fresh {
                machine.counters().turns.start_anew();
            }
        }
        Method::NVDIMMS => {
            let rpc::Nvdimms {} = rpc::decode(body)?;
            return Ok(Some(Work::Listing(Listing::nvdimms())));
        }
        Method::POWER_OFF => {
            let rpc::PowerOff {} = rpc::decode(body)?;
            s.reply(0, &rpc::Done {});
            machine.power_off();
        }
        Method::CHECK => {
            let rpc::Check {} = rpc::decode(body)?;
            return Ok(Some(Work::Listing(Listing::check())));
        }
        Method::RECLAIM => {
            let rpc::Reclaim { wait } = rpc::decode(body)?;
            return Ok(Some(Work::Listing(Listing::reclaim(wait))));
        }
        Method::SPACE => {
            let rpc::Space {} = rpc::decode(body)?;
            s.reply(0, &names::space(machine));
        }
        Method::STAT => return names::stat(s, machine, rpc::decode(body)?),
        Method::LIST => {
            return names::list(machine, rpc::decode(body)?).map(|l| Some(Work::Listing(l)));
        }
        Method::CREATE => {
            let created = names::create(machine, rpc::decode(body)?)?;
            s.reply(0, &created);
        }
        Method::MAKE_DIRECTORY => return names::make_directory(s, machine, rpc::decode(body)?),
        Method::UNLINK => {
            names::unlink(machine, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
        }
        Method::REMOVE_DIRECTORY => return Emptying::removing(s, machine, rpc::decode(body)?),
        Method::RENAME => return Emptying::renaming(s, machine, rpc::decode(body)?),
        Method::TRUNCATE => return names::truncate(s, machine, rpc::decode(body)?),
        Method::SET_ATTRIBUTES => {
            names::set_attributes(s, machine, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
        }
        Method::LINK => return naming::link(s, machine, rpc::decode(body)?),
        Method::SYMLINK => {
            let created = names::symlink(machine, rpc::decode(body)?)?;
            s.reply(0, &created);
        }
        Method::READ_LINK => {
            let target = names::read_link(machine, rpc::decode(body)?)?;
            s.reply(0, &target);
        }
        Method::OPEN => return content::open(s, machine, rpc::decode(body)?),
        Method::OPEN_UNNAMED => {
            let opened = content::open_unnamed(s, machine, rpc::decode(body)?)?;
            s.reply(0, &opened);
        }
        Method::CLOSE => {
            let rpc::Close { handle } = rpc::decode(body)?;
            return content::close(s, machine, handle);
        }
        Method::SYNC => {
            let rpc::Sync { handle } = rpc::decode(body)?;
            return content::sync(s, machine, handle);
        }
        Method::MSYNC => {
            let rpc::Msync { handle } = rpc::decode(body)?;
            return content::sync(s, machine, handle);
        }
        Method::EXTENTS => {
            let extents: rpc::Extents = rpc::decode(body)?;
            let file = s.file(extents.handle)?;
            return Ok(Some(Work::Listing(Listing::extents(file.ino, extents))));
        }
        Method::CLONE => return content::clone(s, machine, rpc::decode(body)?),
        Method::CLONE_RANGE => return content::clone_range(s, machine, rpc::decode(body)?),
        Method::DEDUPE => {
            let sharing = Sharing::new(machine, rpc::decode(body)?)?;
            return Ok(Some(Work::Sharing(Box::new(sharing))));
        }
        Method::BENCH => {
            let samples = bench::run(machine, rpc::decode(body)?)?;
            return Ok(Some(Work::Listing(Listing::samples(samples))));
        }
        Method::READ => {
            let rpc::Read { handle, offset, len } = rpc::decode(body)?;
            let file = s.file(handle)?;
            return Ok(Some(Work::Transfer(Transfer::new(
                Direction::Read,
                file,
                offset,
                len,
                false,
            ))));
        }
        Method::LOAD => {
            let rpc::Load { handle, offset, len } = rpc::decode(body)?;
            let file = s.file(handle)?;
            return Ok(Some(Work::Transfer(Transfer::new(
                Direction::Load,
                file,
                offset,
                len,
                false,
            ))));
        }
        Method::WRITE => {
            let rpc::Write { handle, offset, sync } = rpc::decode(body)?;
            let (file, len) = (s.file_to_change(handle)?, s.request.payload_left.into());
            return Ok(Some(Work::Transfer(Transfer::new(
                Direction::Write,
                file,
                offset,
                len,
                sync,
            ))));
        }
        Method::STORE => {
            let rpc::Store { handle, offset, sync } = rpc::decode(body)?;
            let (file, len) = (s.file_to_change(handle)?, s.request.payload_left.into());
            return Ok(Some(Work::Transfer(Transfer::new(
                Direction::Store,
                file,
                offset,
                len,
                sync,
            ))));
        }
        Method::PAGES => return content::pages(s, machine, rpc::decode(body)?),
        Method::EXPORT_ADD => {
            exports::add(machine, clients, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
        }
        Method::EXPORT_REMOVE => {
            let removed = exports::remove(machine, clients, rpc::decode(body)?)?;
            s.reply(0, &removed);
        }
        Method::EXPORT_LIST => {
            let rpc::ExportList {} = rpc::decode(body)?;
            let all = exports::list(machine, clients).during(format_args!("list the exports"))?;
            return Ok(Some(Work::Listing(Listing::exports(all))));
        }
        Method::EXPORT_CLIENTS => {
            let rpc::ExportClients {} = rpc::decode(body)?;
            let all = exports::list_clients(clients);
            return Ok(Some(Work::Listing(Listing::export_clients(all))));
        }
        Method(other) => {
            return Err(Failure::new(
                ErrorCode::UNSUPPORTED,
                format_args!("this server knows no method {other:#06x}"),
            ));
        }
    }
    Ok(None)
}

fn hello(s: &mut Session, hello: rpc::Hello) -> Result<(), Failure> {
    if hello.magic != rpc::MAGIC {
        return Err(Failure::new(
            ErrorCode::NO_HELLO,
            format_args!("the hello is of another protocol"),
        ));
    }
    if hello.version == 0 {
        return Err(Failure::new(
            ErrorCode::VERSION,
            format_args!("version 0 is not served here, only 1 to {}", rpc::VERSION),
        ));
    }
    s.greeted = true;
    s.reply(
        0,
        &rpc::HelloResponse {
            version: hello.version.min(rpc::VERSION),
            features: 0,
            server: String::from(SERVER),
            max_body: rpc::MAX_BODY,
            max_payload: rpc::MAX_PAYLOAD,
            max_path: rpc::MAX_PATH as u32,
            max_name: MAX_NAME as u32,
            max_handles: MAX_HANDLES,
            block_size: BLOCK_SIZE as u32,
            max_file_size: MAX_FILE_SIZE,
        },
    );
    Ok(())
}

fn status<M: Platform>(machine: &mut M) -> rpc::StatusResponse {
    let (memory, persisted, counters) =
        (machine.memory(), machine.persisted(), *machine.counters());
    let mounted = machine.mounted();
    rpc::StatusResponse {
        server: String::from(SERVER),
        uptime_ns: machine.uptime_ns(),
        boot_ns: machine.boot_ns(),
        now: machine.now().0,
        memory: rpc::Memory {
            total: memory.total,
            heap_used: memory.heap_used,
            heap_total: memory.heap_total,
            frames_used: memory.frames_used,
            frames_total: memory.frames_total,
        },
        flushes: persisted.flushes,
        fences: persisted.fences,
        connections: counters.connections,
        connections_total: counters.connections_total,
        requests: counters.requests,
        errors: counters.errors,
        handles: counters.handles,
        reclaiming: counters.reclaiming,
        debug: cfg!(debug_assertions),
        mount_ns: Some(mounted.took_ns),
        rebuilt: Some(mounted.rebuilt),
        longest_turn_ns: Some(counters.turns.longest_ns()),
        longest_turn: counters.turns.longest().map(|what| what.to_string()),
    }
}
