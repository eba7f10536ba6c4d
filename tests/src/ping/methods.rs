//! The native protocol, method by method.

use super::{Bench, GIB, MIB, Subject};
use std::io::{Read, Write};
use umbra::client::rpc::{self, HEADER_LEN, Header, Method, Request, open};
use umbra::client::{Blocks, Client, Error, Msync, Parents, Result, Stream, connect};

/// Measures every method there is, but for those of [`last`] and [`power_off`].
pub(super) fn all(bench: &mut Bench) {
    for (method, name) in Method::ALL {
        if !one(bench, *method, name) {
            bench.missing.push(format!("method {name}"));
        }
    }
}

/// Measures a method; false if there is no row for it.
fn one(b: &mut Bench, method: Method, name: &str) -> bool {
    match method {
        Method::HELLO => {
            b.measure(name, "", |b| {
                let clients: Result<Vec<Client>> =
                    (0..32).map(|_| Client::connect(b.vm.state())).collect();
                clients.map(drop)
            });
        }
        Method::PING => drop(b.measure(name, "", |b| b.client.ping())),
        Method::STATUS => drop(b.measure(name, "", |b| b.client.status())),
        Method::NVDIMMS => drop(b.measure(name, "", |b| b.client.call(&rpc::Nvdimms {}))),
        // Both are done when all else was.
        Method::POWER_OFF => {}
        Method::CHECK => check(b, name),
        Method::RECLAIM => reclaim(b, name),
        Method::POISON_LIST => drop(b.measure(name, "", |b| b.client.bad_blocks())),
        Method::POISON_INJECT => poison(b, name),
        Method::POISON_CLEAR => drop(b.measure(name, "", |b| b.client.clear_bad_blocks())),
        Method::EVENTS => drop(b.measure(name, "", |b| b.client.events(0))),
        Method::SCRUB => drop(b.measure(name, "", |b| b.client.scrub(None, u64::MAX))),
        Method::SPACE => drop(b.measure(name, "", |b| b.client.space())),
        Method::STAT => {
            b.measure_each(name, |b, s| b.client.stat(s.path.as_bytes(), Blocks::Count).map(drop));
        }
        Method::LIST => drop(b.measure(name, "/names", |b| b.client.list(b"/names"))),
        Method::CREATE => {
            let create = rpc::Create { path: b"/names/new", mode: None };
            b.measure(name, "/names", |b| b.client.call(&create));
        }
        Method::MAKE_DIRECTORY => {
            b.measure(name, "", |b| b.client.mkdir(b"/a/b/c/d", Parents::Make));
        }
        Method::UNLINK => b.measure_copies(name, |b, path, _| b.client.unlink(path.as_bytes())),
        Method::REMOVE_DIRECTORY => remove_directory(b, name),
        Method::RENAME => rename(b, name),
        Method::TRUNCATE => truncate(b, name),
        Method::SET_ATTRIBUTES => {
            let set = |path| rpc::SetAttributes {
                path: Some(path),
                mode: Some(0o600),
                ..Default::default()
            };
            b.measure_copies(name, |b, path, _| b.client.call(&set(path.as_bytes())).map(drop));
        }
        Method::LINK => drop(b.measure(name, "/1G", |b| b.client.link(b"/1G", b"/names/link"))),
        Method::SYMLINK => {
            b.measure(name, "", |b| b.client.symlink(b"/symlink", &[b'x'; 4000]));
        }
        Method::READ_LINK => drop(b.measure(name, "", |b| b.client.read_link(b"/symlink"))),
        Method::OPEN => open_files(b, name),
        Method::CLOSE => close(b, name),
        Method::READ => b.measure_each(name, |b, s| {
            pieces(b, s, |b, file, at, len| b.client.read(file, at, len))
        }),
        Method::LOAD => b.measure_each(name, |b, s| {
            pieces(b, s, |b, file, at, len| b.client.load(file, at, len))
        }),
        Method::WRITE => write(b, name),
        Method::STORE => store(b, name),
        Method::SYNC => sync(b, name),
        Method::MSYNC => msync(b, name),
        Method::EXTENTS => b.measure_each(name, |b, s| {
            let file = b.open(s.path, 0);
            b.client.extents(&file, 0, None)?;
            b.client.close(file)
        }),
        Method::CLONE => clone(b, name),
        Method::CLONE_RANGE => clone_range(b, name),
        Method::DEDUPE => b.measure_copies(name, |b, path, s| {
            b.client.dedupe((s.path.as_bytes(), 0), (path.as_bytes(), 0), None).map(drop)
        }),
        Method::OPEN_UNNAMED => open_unnamed(b, name),
        Method::PAGES => pages(b, name),
        Method::EXPORT_ADD | Method::EXPORT_LIST | Method::EXPORT_REMOVE => {
            exports(b, method, name)
        }
        Method::EXPORT_CLIENTS => drop(b.measure(name, "", |b| b.client.export_clients())),
        // Benchmarks measure, and nothing else is to happen meanwhile.
        Method::BENCH => {}
        _ => return false,
    }
    true
}

fn check(b: &mut Bench, name: &str) {
    // Windows of many pages, some of them dirty.
    let file = b.open("/dense", 0);
    b.client.load(&file, 0, b.sizes.dirty.min(64 * MIB)).expect("it loads");
    let path = b.copy(b.subjects[3]);
    let copy = b.open(path, 0);
    b.dirty(&copy, b.sizes.dense);
    let report = b.measure(name, "", |b| b.client.check());
    let issues = report.map(|report| report.issues);
    assert!(issues.as_ref().is_none_or(Vec::is_empty), "{issues:?}");
    for file in [file, copy] {
        b.client.close(file).expect("it closes");
    }
}

fn reclaim(b: &mut Bench, name: &str) {
    // The nodes of a copy that has its own all go.
    let path = b.copy(b.subjects[3]);
    let file = b.open(path, 0);
    for at in (0..b.sizes.dense).step_by(2 * MIB as usize) {
        b.client.write(&file, at, &[1]).expect("there is room");
    }
    b.client.close(file).expect("it closes");
    b.measure(format!("{name}, own nodes"), "/dense", |b| {
        b.client.unlink(path.as_bytes())?;
        b.client.reclaim()
    });
}

fn poison(b: &mut Bench, name: &str) {
    // A block of each subject turns bad; the search for the owners is the long part.
    b.measure_copies(name, |b, path, _| {
        let file = b.client.open(path.as_bytes(), 0)?;
        let run = b.client.extents(&file, 0, None)?.into_iter().find(|run| run.block.is_some());
        b.client.close(file)?;
        b.client.lose_block_of(path.as_bytes(), run.map_or(0, |run| run.offset))?;
        b.client.bad_blocks().map(drop)?;
        b.client.clear_bad_blocks().map(drop)
    });
}

fn remove_directory(b: &mut Bench, name: &str) {
    let count = b.sizes.names;
    b.make_names("/emptied", count);
    b.each_name("/emptied", count, |path| rpc::Unlink { path });
    b.measure(name, "/emptied", |b| b.client.rmdir(b"/emptied"));
}

fn rename(b: &mut Bench, name: &str) {
    b.measure_copies(&format!("{name}, over a clone"), |b, path, s| {
        b.client.clone_file(s.path.as_bytes(), b"/replaced")?;
        b.client.rename(path.as_bytes(), b"/replaced")?;
        b.client.unlink(b"/replaced")
    });
    b.measure(format!("{name}, a directory"), "/names", |b| {
        b.client.rename(b"/names", b"/a/names")?;
        b.client.rename(b"/a/names", b"/names")
    });
}

fn truncate(b: &mut Bench, name: &str) {
    b.measure_copies(&format!("{name}, to nothing"), |b, path, _| {
        b.client.truncate(path.as_bytes(), 0)
    });
    b.measure_copies(&format!("{name}, by a byte and a half"), |b, path, s| {
        b.client.truncate(path.as_bytes(), s.size - 1)?;
        b.client.truncate(path.as_bytes(), s.size / 2 + 1)?;
        b.client.truncate(path.as_bytes(), s.size)
    });
    let subject = b.subjects[3];
    let path = b.copy(subject);
    let file = b.open(path, 0);
    b.dirty(&file, subject.size);
    b.measure(format!("{name}, dirty"), subject.path, |b| b.client.truncate(path.as_bytes(), 4096));
    b.client.close(file).expect("it closes");
}

fn open_files(b: &mut Bench, name: &str) {
    b.measure_copies(&format!("{name}, as it is"), |b, path, _| {
        let file = b.client.open(path.as_bytes(), 0)?;
        b.client.close(file)
    });
    b.measure_copies(&format!("{name}, frozen"), |b, path, _| {
        let file = b.client.open(path.as_bytes(), open::FROZEN)?;
        b.client.close(file)
    });
    b.measure_copies(&format!("{name}, truncating"), |b, path, _| {
        let file = b.client.open(path.as_bytes(), open::CREATE | open::TRUNCATE)?;
        b.client.close(file)
    });
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        let file = b.open(path, 0);
        b.dirty(&file, subject.size);
        b.measure(format!("{name}, frozen and dirty"), subject.path, |b| {
            let frozen = b.client.open(path.as_bytes(), open::FROZEN)?;
            b.client.close(frozen)
        });
        b.client.close(file).expect("it closes");
    }
}

fn close(b: &mut Bench, name: &str) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        let file = b.open(path, 0);
        b.dirty(&file, subject.size);
        b.measure(format!("{name}, dirty"), subject.path, |b| b.client.close(file));
        // Without anybody who waits for it.
        let mut other = b.vm.client();
        let file = other.open(path.as_bytes(), 0).expect("it opens");
        let poked = other.poke(&file, 0, b.sizes.dirty.min(subject.size), &1, Msync::Later);
        assert!(poked.error.is_none(), "{poked:?}");
        b.measure(format!("{name}, by a connection that ends"), subject.path, |b| {
            drop(other);
            // The close comes before what is asked after it has gone.
            while b.client.pages(None)?.windows > 0 {}
            Ok::<_, Error>(())
        });
    }
}

/// Moves 8 MiB at each of three places of a file.
fn pieces<T>(
    b: &mut Bench,
    subject: Subject,
    mut moved: impl FnMut(&mut Bench, &umbra::client::File, u64, u64) -> Result<T>,
) -> Result<()> {
    let file = b.open(subject.path, 0);
    for at in [0, subject.size / 2 + 4096, subject.size - 8 * MIB] {
        moved(b, &file, at, 8 * MIB)?;
    }
    b.client.close(file)
}

fn write(b: &mut Bench, name: &str) {
    let bytes = vec![7; 4 * MIB as usize];
    b.measure_copies(name, |b, path, s| {
        let file = b.open(path, 0);
        // Aligned, so that blocks are taken over; across blocks; with a sync each.
        for at in [0, s.size / 2, s.size - 4 * MIB, s.size / 2 + 1000] {
            b.client.write(&file, at, &bytes)?;
            b.client.call_with(
                &rpc::Write { handle: file.handle, offset: at, sync: true },
                &bytes[..100_000],
            )?;
        }
        b.client.close(file)
    });
}

fn store(b: &mut Bench, name: &str) {
    b.measure_copies(name, |b, path, s| {
        let file = b.open(path, 0);
        for at in [0, s.size / 2, s.size - 8 * MIB, s.size / 2 + 1000] {
            let poked = b.client.poke(&file, at, 8 * MIB - 1000, &3, Msync::Now);
            poked.error.map_or(Ok(()), Err)?;
        }
        b.client.close(file)
    });
}

fn sync(b: &mut Bench, name: &str) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        let file = b.open(path, 0);
        b.client
            .write(&file, subject.size - 4 * MIB, &vec![7; 4 * MIB as usize])
            .expect("there is room");
        b.measure(format!("{name}, written"), subject.path, |b| b.client.sync(&file));
        b.dirty(&file, subject.size);
        b.measure(format!("{name}, dirty"), subject.path, |b| b.client.sync(&file));
        b.client.close(file).expect("it closes");
    }
}

fn msync(b: &mut Bench, name: &str) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        let file = b.open(path, 0);
        b.dirty(&file, subject.size);
        b.measure(format!("{name}, dirty"), subject.path, |b| {
            b.client.call(&rpc::Msync { handle: file.handle })
        });
        b.client.close(file).expect("it closes");
    }
}

fn clone(b: &mut Bench, name: &str) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        b.measure(name, subject.path, |b| b.client.clone_file(path.as_bytes(), b"/clone"));
        let _ = b.client.unlink(b"/clone");
        let file = b.open(path, 0);
        b.dirty(&file, subject.size);
        b.measure(format!("{name}, dirty"), subject.path, |b| {
            b.client.clone_file(path.as_bytes(), b"/clone")
        });
        b.client.close(file).expect("it closes");
        let _ = b.client.unlink(b"/clone");
    }
}

fn clone_range(b: &mut Bench, name: &str) {
    let into = |b: &mut Bench, subject: Subject, from: u64, to: u64, dirty: bool, what: &str| {
        let path = b.copy(subject);
        b.remove("/into");
        let made = b.client.open_or_create(b"/into").expect("it can be created");
        b.client.close(made).expect("it closes");
        let file = b.open(path, 0);
        if dirty {
            b.dirty(&file, subject.size);
        }
        let len = (subject.size - from).min(512 * GIB - to);
        b.measure(format!("{name}, {what}"), subject.path, |b| {
            b.client.clone_range((path.as_bytes(), from), (b"/into", to), Some(len))
        });
        b.client.close(file).expect("it closes");
    };
    for subject in b.subjects.clone() {
        into(b, subject, 0, 0, false, "all");
        into(b, subject, 2 * MIB, 4 * MIB, false, "leaves line up");
        into(b, subject, 0, MIB, false, "1 MiB further");
        into(b, subject, 8192, 4096, false, "a block back");
        into(b, subject, 0, MIB, true, "dirty, 1 MiB further");
        // Within a file, and over what is there.
        let path = b.copy(subject);
        let half = subject.size / 2;
        b.measure(format!("{name}, half of it over the rest"), subject.path, |b| {
            b.client.clone_range((path.as_bytes(), 0), (path.as_bytes(), half), Some(half))
        });
    }
    b.remove("/into");
}

/// Opens a file without a name, and names it in the place of each of the clones.
fn open_unnamed(b: &mut Bench, name: &str) {
    b.measure_copies(&format!("{name}, named in the place of another"), |b, path, _| {
        let request = rpc::OpenUnnamed { path: b"/", mode: None, uid: 0, gid: 0 };
        let handle = b.client.call(&request)?.handle;
        let to = path.as_bytes();
        let link = rpc::Link { path: None, to, handle: Some(handle), replace: true, check: false };
        b.client.call(&link)?;
        b.client.call(&rpc::Close { handle }).map(drop)
    });
}

fn pages(b: &mut Bench, name: &str) {
    let file = b.open("/dense", 0);
    b.client.load(&file, 0, b.sizes.dirty.min(64 * MIB)).expect("it loads");
    b.measure(format!("{name}, of all"), "", |b| b.client.pages(None));
    b.measure(name, "/dense", |b| b.client.pages(Some(b"/dense")));
    b.client.close(file).expect("it closes");
}

fn exports(b: &mut Bench, method: Method, name: &str) {
    for subject in b.subjects.clone() {
        let export = format!("export{}", subject.path.replace('/', "-"));
        let path = subject.path.as_bytes();
        let add =
            rpc::ExportAdd { name: &export, path, read_only: false, size: None, replace: false };
        b.measure(name, subject.path, |b| match method {
            Method::EXPORT_ADD => b.client.export_add(&add),
            Method::EXPORT_LIST => b.client.exports().map(drop),
            _ => b.client.export_remove(&export),
        });
    }
}

/// Removes what no clone shares any more.
pub(super) fn last(b: &mut Bench) {
    for path in ["/copy", "/clone", "/into", "/replaced"] {
        b.remove(path);
    }
    b.measure_each("unlink, own blocks", |b, s| b.client.unlink(s.path.as_bytes()));
}

/// Switches the machine off. Its longest turn is asked for in the same write: the server has that
/// request, too, before it is off.
pub(super) fn power_off(b: &mut Bench) {
    let stream = connect(b.vm.state(), rpc::PORT).expect("a connection");
    let mut frames = stream.try_clone().expect("a second descriptor");
    Client::over(stream)
        .and_then(|mut client| client.call(&rpc::Status { fresh: true }))
        .expect("a status");
    // The client has numbered its requests from 1 on, and reads nothing any more.
    let both = [frame(1000, &rpc::PowerOff {}), frame(1001, &rpc::Status::default())].concat();
    frames.write_all(&both).expect("they can be sent");
    read_frame(&mut frames);
    let body = read_frame(&mut frames);
    let status: rpc::StatusResponse = rpc::decode(&body).expect("a status");
    b.rows.push(super::Row {
        operation: "power-off".into(),
        subject: String::new(),
        longest: status.longest_turn_ns.unwrap_or(u64::MAX),
        what: status.longest_turn.unwrap_or_default().0,
        failed: None,
    });
}

/// A request without a payload.
fn frame<R: Request>(id: u32, request: &R) -> Vec<u8> {
    let mut body = Vec::new();
    rpc::encode_append(request, &mut body);
    let header = Header::request(id, R::METHOD.0, body.len() as u32, 0);
    [&header.encode()[..], &body].concat()
}

/// The body of a response.
fn read_frame(from: &mut Stream) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header).expect("a header");
    let header = Header::decode(&header);
    header.check_response().expect("a response");
    assert!(!header.is_error(), "an error to method {:#x}", header.method);
    let mut body = vec![0; header.length as usize];
    from.read_exact(&mut body).expect("a body");
    body
}
