//! Commands on files. Reading and writing here does not go through windows.

use super::args::Args;
use super::command::{Command, Done, Failure, Session, volume};
use super::tasks::{
    Checking, Extents, Listing, MAX_RUNS, Removing, Renaming, Showing, Then, operate,
};
use crate::arch::clock;
use crate::arch::serial::println;
use crate::media;
use umbra_fs::{Climb, Error, FileBlock};

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "ls", help: "[DIR]           list a directory", run: ls },
    Command { name: "stat", help: "PATH          attributes of a file or directory", run: stat },
    Command { name: "map-of", help: "PATH        where the blocks of a file are", run: extents },
    Command { name: "df", help: "                space of the volume", run: df },
    Command { name: "mkdir", help: "PATH         create a directory", run: mkdir },
    Command { name: "write", help: "PATH OFFSET BYTES  write, creating the file", run: write },
    Command { name: "truncate", help: "PATH SIZE  set the size of a file", run: truncate },
    Command { name: "cat", help: "PATH [OFFSET [LENGTH]]  show content (at most 64K)", run: cat },
    Command {
        name: "clone",
        help: "SRC DST [SRC-OFFSET DST-OFFSET LENGTH]  share all, or a range",
        run: clone,
    },
    Command { name: "rm", help: "PATH            remove a file or an empty directory", run: rm },
    Command { name: "mv", help: "FROM TO         rename", run: mv },
    Command { name: "sync", help: "PATH          make all stores to a file durable", run: sync },
    Command { name: "check", help: "             verify the volume and its windows", run: check },
    Command {
        name: "format",
        help: "yes         overwrite an NVDIMM that is not served with an empty volume",
        run: format,
    },
];

/// Most bytes that `cat` shows.
const MAX_SHOWN: u64 = 64 << 10;

fn ls(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.optional().unwrap_or(b"/");
    args.end()?;
    let dir = volume(|v| v.resolve(path))?;
    session.go_on(Listing { dir, cookie: 0 })
}

fn stat(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let (ino, begun) = volume(|v| {
        let ino = v.resolve(path)?;
        Ok((ino, v.begin_count(ino)?))
    })?;
    operate(session, begun, Then::Attributes(ino))
}

fn extents(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let ino = volume(|v| v.resolve(path))?;
    session.go_on(Extents { ino, from: FileBlock(0), left: MAX_RUNS })
}

fn df(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let s = volume(|v| Ok(v.space()))?;
    println!(
        "blocks of {} bytes: {} total, {} free, {} shared",
        umbra_fs::BLOCK_SIZE,
        s.total,
        s.free,
        s.shared
    );
    println!("inodes: {}", s.inodes);
    Ok(())
}

fn mkdir(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    volume(|v| {
        let (dir, name) = v.resolve_parent_of_directory(path)?;
        v.mkdir(dir, name, 0o755, clock::wall())
    })?;
    Ok(())
}

fn write(_: &mut Session, mut args: Args<'_>) -> Done {
    let (path, offset) = (args.word("PATH")?, args.number("OFFSET")?);
    let bytes = args.payload()?;
    let written = volume(|v| {
        let ino = match v.resolve(path) {
            Err(Error::NotFound) => {
                let (dir, name) = v.resolve_parent(path)?;
                v.create(dir, name, 0o644, clock::wall())?
            }
            found => found?,
        };
        v.write(ino, offset, &bytes, clock::wall())
    })?;
    println!("{written} bytes");
    if written < bytes.len() { Err(Error::NoSpace.into()) } else { Ok(()) }
}

fn truncate(session: &mut Session, mut args: Args<'_>) -> Done {
    let (path, size) = (args.word("PATH")?, args.number("SIZE")?);
    args.end()?;
    let begun = volume(|v| {
        let ino = v.resolve(path)?;
        v.begin_truncate(ino, size, clock::wall())
    })?;
    operate(session, begun, Then::Nothing)
}

fn cat(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    let at = args.optional_number("OFFSET")?.unwrap_or(0);
    let left = args.optional_number("LENGTH")?.unwrap_or(MAX_SHOWN).min(MAX_SHOWN);
    args.end()?;
    let ino = volume(|v| v.resolve(path))?;
    session.go_on(Showing { ino, at, left })
}

fn clone(session: &mut Session, mut args: Args<'_>) -> Done {
    let (source, target) = (args.word("SRC")?, args.word("DST")?);
    let range = match args.optional_number("SRC-OFFSET")? {
        Some(from) => Some((from, args.number("DST-OFFSET")?, args.number("LENGTH")?)),
        None => None,
    };
    args.end()?;
    let start = clock::now();
    let begun = volume(|v| {
        let src = v.resolve(source)?;
        match range {
            None => {
                let (dir, name) = v.resolve_parent(target)?;
                v.begin_clone(src, dir, name, clock::wall())
            }
            Some((from, to, len)) => {
                let dst = v.resolve(target)?;
                v.begin_clone_range(src, from, dst, to, len, clock::wall())
            }
        }
    })?;
    operate(session, begun, Then::Elapsed(start))
}

fn rm(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    session.go_on(Removing { path: path.to_vec() })
}

fn mv(session: &mut Session, mut args: Args<'_>) -> Done {
    let (from, to) = (args.word("FROM")?, args.word("TO")?);
    args.end()?;
    let (from, to, climb) = (from.to_vec(), to.to_vec(), Climb::default());
    session.go_on(Renaming { from, to, climb })
}

fn sync(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let begun = volume(|v| {
        let ino = v.resolve(path)?;
        v.begin_sync(ino)
    })?;
    operate(session, begun, Then::Nothing)
}

fn check(session: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    session.go_on(Checking(None))
}

fn format(_: &mut Session, mut args: Args<'_>) -> Done {
    if args.word("the word yes")? != b"yes" {
        return Err(Failure::Other(
            "everything on the NVDIMM would be lost; say: format yes".into(),
        ));
    }
    args.end()?;
    media::format_now().map_err(Failure::Other)
}
