//! What each method does first. Most are done then; the others go on as [`Work`].

use super::failure::{During, Failure};
use super::handles::MAX_HANDLES;
use super::listing::{Listing, Until};
use super::names::Emptying;
use super::session::Session;
use super::sharing::Sharing;
use super::transfer::{Direction, Then, Transfer};
use super::work::Work;
use super::{bench, content, exports, names, naming, poison, scrub};
use crate::nbd::clients::Clients;
use crate::platform::Platform;
use crate::text::write_text;
use umbra_fs::{BLOCK_SIZE, MAX_FILE_SIZE, MAX_NAME};
use umbra_proto::rpc::{self, ErrorCode, Method};

/// Name and version of the server.
const SERVER: &str = concat!("umbra ", env!("CARGO_PKG_VERSION"));

/// Longest name of a turn in bytes: a method, or `nbd` and a command.
const MAX_TURN: usize = 32;
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
            | Method::EVENTS
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

/// Starts the request of `session` with this body: it is answered, or it goes on as the work that
/// is returned. The first digit of a method's number tells what the method is about.
///
/// # Errors
///
/// Why the request failed.
pub fn begin<M: Platform>(
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
    match method.0 >> 4 {
        0x0 | 0x5 => of_server(s, method, body, machine),
        0x1 => of_names(s, method, body, machine),
        0x2 | 0x3 => of_content(s, method, body, machine),
        0x4 => of_exports(s, method, body, machine, clients),
        _ => Err(unknown(method)),
    }
}

fn unknown(method: Method) -> Failure {
    Failure::new(
        ErrorCode::UNSUPPORTED,
        format_args!("this server knows no method {:#06x}", method.0),
    )
}

/// Methods about the server itself.
fn of_server<M: Platform>(
    s: &mut Session,
    method: Method,
    body: &[u8],
    machine: &mut M,
) -> Result<Option<Work>, Failure> {
    match method {
        Method::HELLO => hello(s, rpc::decode(body)?)?,
        Method::PING => {
            let rpc::Ping {} = rpc::decode(body)?;
            s.reply(0, &rpc::Done {});
        }
        Method::STATUS => {
            let rpc::Status { fresh } = rpc::decode(body)?;
            let mut text = [0; MAX_TURN];
            let longest = machine.counters().turns.longest();
            let longest = longest.map(|what| write_text(&mut text, format_args!("{what}")));
            s.reply(0, &status(machine, longest));
            if fresh {
                machine.counters().turns.start_anew();
            }
        }
        Method::POWER_OFF => {
            let rpc::PowerOff {} = rpc::decode(body)?;
            s.reply(0, &rpc::Done {});
            machine.power_off();
        }
        Method::NVDIMMS => {
            let rpc::Nvdimms {} = rpc::decode(body)?;
            return Ok(Some(Listing::nvdimms().into()));
        }
        Method::CHECK => {
            let rpc::Check {} = rpc::decode(body)?;
            return Ok(Some(Listing::check()?.into()));
        }
        Method::RECLAIM => {
            let rpc::Reclaim { wait } = rpc::decode(body)?;
            return Ok(Some(Listing::reclaim(if wait { Until::Done } else { Until::Now }).into()));
        }
        Method::POISON_LIST => {
            let rpc::PoisonList {} = rpc::decode(body)?;
            return Ok(Some(Listing::Owners(poison::begin_search(machine)?).into()));
        }
        Method::POISON_INJECT => poison::inject(s, machine, rpc::decode(body)?)?,
        Method::POISON_CLEAR => {
            let rpc::PoisonClear {} = rpc::decode(body)?;
            poison::clear(s, machine)?;
        }
        Method::SCRUB => {
            let part = scrub::begin(machine, rpc::decode(body)?)?;
            return Ok(Some(Listing::Scrub(part).into()));
        }
        Method::EVENTS => {
            let rpc::Events { since } = rpc::decode(body)?;
            return Ok(Some(Listing::events(since).into()));
        }
        Method::BENCH => {
            let samples = bench::run(machine, rpc::decode(body)?)?;
            return Ok(Some(Listing::samples(samples).into()));
        }
        other => return Err(unknown(other)),
    }
    Ok(None)
}

/// Methods about names, attributes and space.
fn of_names<M: Platform>(
    s: &mut Session,
    method: Method,
    body: &[u8],
    machine: &mut M,
) -> Result<Option<Work>, Failure> {
    match method {
        Method::SPACE => {
            let rpc::Space {} = rpc::decode(body)?;
            s.reply(0, &names::space(machine));
        }
        Method::STAT => return go_on(names::stat(s, machine, rpc::decode(body)?)),
        Method::LIST => return names::list(machine, rpc::decode(body)?).map(|l| Some(l.into())),
        Method::CREATE => {
            let created = names::create(machine, rpc::decode(body)?)?;
            s.reply(0, &created);
        }
        Method::MAKE_DIRECTORY => {
            return go_on(names::make_directory(s, machine, rpc::decode(body)?));
        }
        Method::UNLINK => {
            names::unlink(machine, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
        }
        Method::REMOVE_DIRECTORY => {
            return go_on(Emptying::removing(s, machine, rpc::decode(body)?));
        }
        Method::RENAME => return go_on(Emptying::renaming(s, machine, rpc::decode(body)?)),
        Method::TRUNCATE => return go_on(names::truncate(s, machine, rpc::decode(body)?)),
        Method::SET_ATTRIBUTES => {
            names::set_attributes(s, machine, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
        }
        Method::LINK => return go_on(naming::link(s, machine, rpc::decode(body)?)),
        Method::SYMLINK => {
            let created = names::symlink(machine, rpc::decode(body)?)?;
            s.reply(0, &created);
        }
        Method::READ_LINK => {
            let target = names::read_link(machine, rpc::decode(body)?)?;
            s.reply(0, &target);
        }
        other => return Err(unknown(other)),
    }
    Ok(None)
}

/// Methods about content: files that are opened, what is in them, what is shown of them.
fn of_content<M: Platform>(
    s: &mut Session,
    method: Method,
    body: &[u8],
    machine: &mut M,
) -> Result<Option<Work>, Failure> {
    match method {
        Method::OPEN => go_on(content::open(s, machine, rpc::decode(body)?)),
        Method::OPEN_UNNAMED => {
            let opened = content::open_unnamed(s, machine, rpc::decode(body)?)?;
            s.reply(0, &opened);
            Ok(None)
        }
        Method::CLOSE => {
            let rpc::Close { handle } = rpc::decode(body)?;
            go_on(content::close(s, machine, handle))
        }
        Method::READ | Method::LOAD | Method::WRITE | Method::STORE => {
            transfer(s, method, body).map(|transfer| Some(transfer.into()))
        }
        Method::SYNC => {
            let rpc::Sync { handle } = rpc::decode(body)?;
            go_on(content::sync(s, machine, handle))
        }
        Method::MSYNC => {
            let rpc::Msync { handle } = rpc::decode(body)?;
            go_on(content::sync(s, machine, handle))
        }
        Method::EXTENTS => {
            let extents: rpc::Extents = rpc::decode(body)?;
            let file = s.file(extents.handle)?;
            Ok(Some(Listing::extents(file.ino, extents).into()))
        }
        Method::CLONE => go_on(content::clone(s, machine, rpc::decode(body)?)),
        Method::CLONE_RANGE => go_on(content::clone_range(s, machine, rpc::decode(body)?)),
        Method::DEDUPE => go_on(Sharing::new(machine, rpc::decode(body)?).map(Some)),
        Method::PAGES => go_on(content::pages(s, machine, rpc::decode(body)?)),
        other => Err(unknown(other)),
    }
}

/// Methods that move bytes.
fn transfer(s: &Session, method: Method, body: &[u8]) -> Result<Transfer, Failure> {
    let (direction, file, offset, len, then) = match method {
        Method::READ => {
            let rpc::Read { handle, offset, len } = rpc::decode(body)?;
            (Direction::Read, s.file(handle)?, offset, len, Then::Answer)
        }
        Method::LOAD => {
            let rpc::Load { handle, offset, len } = rpc::decode(body)?;
            (Direction::Load, s.file(handle)?, offset, len, Then::Answer)
        }
        Method::WRITE => {
            let rpc::Write { handle, offset, sync } = rpc::decode(body)?;
            let len = s.request.payload_left.into();
            (Direction::Write, s.file_to_change(handle)?, offset, len, Then::of(sync))
        }
        Method::STORE => {
            let rpc::Store { handle, offset, sync } = rpc::decode(body)?;
            let len = s.request.payload_left.into();
            (Direction::Store, s.file_to_change(handle)?, offset, len, Then::of(sync))
        }
        other => return Err(unknown(other)),
    };
    Ok(Transfer::new(direction, file, offset, len, then))
}

/// Methods about exports.
fn of_exports<M: Platform>(
    s: &mut Session,
    method: Method,
    body: &[u8],
    machine: &mut M,
    clients: &mut Clients,
) -> Result<Option<Work>, Failure> {
    match method {
        Method::EXPORT_ADD => {
            exports::add(machine, clients, rpc::decode(body)?)?;
            s.reply(0, &rpc::Done {});
            Ok(None)
        }
        Method::EXPORT_REMOVE => {
            let removed = exports::remove(machine, clients, rpc::decode(body)?)?;
            s.reply(0, &removed);
            Ok(None)
        }
        Method::EXPORT_LIST => {
            let rpc::ExportList {} = rpc::decode(body)?;
            let all = exports::list(machine, clients).during(format_args!("list the exports"))?;
            Ok(Some(Listing::exports(all).into()))
        }
        Method::EXPORT_CLIENTS => {
            let rpc::ExportClients {} = rpc::decode(body)?;
            let all = exports::list_clients(clients).during(format_args!("list the clients"))?;
            Ok(Some(Listing::export_clients(all).into()))
        }
        other => Err(unknown(other)),
    }
}

/// Has a request that is not over go on as work.
fn go_on<W: Into<Work>>(begun: Result<Option<W>, Failure>) -> Result<Option<Work>, Failure> {
    begun.map(|work| work.map(Into::into))
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
            server: SERVER,
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

fn status<'t, M: Platform>(
    machine: &mut M,
    longest_turn: Option<&'t str>,
) -> rpc::StatusResponse<&'t str> {
    let (persisted, counters) = (machine.persisted(), *machine.counters());
    let mounted = machine.mounted();
    let errors = machine.memory_errors();
    rpc::StatusResponse {
        server: SERVER,
        uptime_ns: machine.uptime_ns(),
        boot_ns: machine.boot_ns(),
        now: machine.now().0,
        memory: machine.memory(),
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
        longest_turn,
        memory_errors: Some(errors.uncorrected),
        corrected_errors: Some(errors.corrected),
        unrecorded_errors: Some(errors.unrecorded),
        bad_blocks: Some(errors.bad_blocks),
        mended_copies: Some(errors.mended),
        scrub: errors.scrub.map(scrub::state),
    }
}
