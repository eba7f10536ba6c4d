//! Commands on files. Reading and writing here does not go through windows.

use super::args::Args;
use super::shell::{Bytes, Command, Done, Failure, Session};
use crate::arch::{clock, serial};
use crate::dax::{self, Volume};
use crate::{media, println};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use umbra_fs::{Error, FileBlock, Kind};

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
/// Entries that are taken from a directory at a time.
const ENTRIES: usize = 64;

/// Runs `f` on the volume, or says why there is none.
pub(super) fn volume<R>(f: impl FnOnce(&mut Volume) -> Result<R, Error>) -> Result<R, Failure> {
    match dax::with_volume(f) {
        Some(result) => Ok(result?),
        None => Err(Failure::NoVolume(media::why_none())),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink => "symlink",
    }
}

fn ls(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.optional().unwrap_or(b"/");
    args.end()?;
    let dir = volume(|v| v.resolve(path))?;
    let mut cookie = 0;
    loop {
        // Entries are copied in batches, so that the volume is not held while they are shown.
        let mut batch: Vec<(Vec<u8>, umbra_fs::Ino, Kind, u64)> = Vec::new();
        volume(|v| {
            v.read_dir(dir, cookie, &mut |entry| {
                batch.push((entry.name.to_vec(), entry.ino, entry.kind, entry.cookie));
                if batch.len() == ENTRIES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })?;
        for (name, ino, entry_kind, next) in &batch {
            let size = volume(|v| v.attributes(*ino))?.size;
            println!("{:<7} {:>14} {}", kind(*entry_kind), size, Bytes(name));
            cookie = *next;
        }
        if batch.len() < ENTRIES {
            return Ok(());
        }
    }
}

fn stat(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let (a, blocks) = volume(|v| {
        let ino = v.resolve(path)?;
        Ok((v.attributes(ino)?, v.blocks(ino)?))
    })?;
    println!("ino {} kind {} size {} blocks {blocks}", a.ino.0, kind(a.kind), a.size);
    println!("mode {:o} nlink {} uid {} gid {} mtime {}", a.mode, a.nlink, a.uid, a.gid, a.mtime.0);
    Ok(())
}

fn extents(_: &mut Session, mut args: Args<'_>) -> Done {
    const MOST: usize = 1000;
    let path = args.word("PATH")?;
    args.end()?;
    let ino = volume(|v| v.resolve(path))?;
    let mut from = FileBlock(0);
    for _ in 0..MOST {
        let Some(run) = volume(|v| v.extent(ino, from))? else { return Ok(()) };
        let how = match (run.unwritten, run.shared) {
            (true, _) => " unwritten",
            (false, true) => " shared",
            _ => "",
        };
        match run.at {
            Some(block) => println!("{:>10} +{:<8} at {}{how}", run.start.0, run.blocks, block.0),
            None => println!("{:>10} +{:<8} hole", run.start.0, run.blocks),
        }
        from = FileBlock(run.start.0 + run.blocks.max(1));
    }
    println!("... only the first {MOST} runs are shown");
    Ok(())
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

fn truncate(_: &mut Session, mut args: Args<'_>) -> Done {
    let (path, size) = (args.word("PATH")?, args.number("SIZE")?);
    args.end()?;
    volume(|v| {
        let ino = v.resolve(path)?;
        v.truncate(ino, size, clock::wall())
    })
}

fn cat(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    let offset = args.optional_number("OFFSET")?.unwrap_or(0);
    let mut left = args.optional_number("LENGTH")?.unwrap_or(MAX_SHOWN).min(MAX_SHOWN);
    args.end()?;
    let ino = volume(|v| v.resolve(path))?;
    let mut at = offset;
    let mut buffer = vec![0; 4096];
    while left > 0 {
        let piece = buffer.len().min(left as usize);
        let read = volume(|v| v.read(ino, at, &mut buffer[..piece]))?;
        if read == 0 {
            break;
        }
        serial::write(&buffer[..read]);
        at += read as u64;
        left -= read as u64;
    }
    println!();
    Ok(())
}

fn clone(_: &mut Session, mut args: Args<'_>) -> Done {
    let (source, target) = (args.word("SRC")?, args.word("DST")?);
    let range = match args.optional_number("SRC-OFFSET")? {
        Some(from) => Some((from, args.number("DST-OFFSET")?, args.number("LENGTH")?)),
        None => None,
    };
    args.end()?;
    let start = clock::now();
    volume(|v| {
        let src = v.resolve(source)?;
        match range {
            None => {
                let (dir, name) = v.resolve_parent(target)?;
                v.clone_file(src, dir, name, clock::wall()).map(|_| ())
            }
            Some((from, to, len)) => {
                let dst = v.resolve(target)?;
                v.clone_range(src, from, dst, to, len, clock::wall())
            }
        }
    })?;
    println!("{} us", clock::now().since(start) / 1000);
    Ok(())
}

fn rm(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    volume(|v| {
        // Before a slash there has to be a directory.
        let ino = v.resolve(path)?;
        let (dir, name) = v.resolve_parent_of_directory(path)?;
        match v.attributes(ino)?.kind {
            Kind::Directory => v.rmdir(dir, name, clock::wall()),
            _ => v.unlink(dir, name, clock::wall()),
        }
    })
}

fn mv(_: &mut Session, mut args: Args<'_>) -> Done {
    let (from, to) = (args.word("FROM")?, args.word("TO")?);
    args.end()?;
    volume(|v| {
        let [(dir, name), (to_dir, to_name)] = v.resolve_rename(from, to)?;
        v.rename(dir, name, to_dir, to_name, clock::wall())
    })
}

fn sync(_: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    volume(|v| {
        let ino = v.resolve(path)?;
        v.sync(ino)
    })
}

fn check(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let report = volume(|v| v.check())?;
    for issue in &report.issues {
        println!("{issue}");
    }
    let shown = report.issues.len() as u64;
    if report.issues_total > shown {
        println!("... and {} more", report.issues_total - shown);
    }
    println!("{} blocks, {} inodes, {} issues", report.blocks, report.inodes, report.issues_total);
    match report.issues_total {
        0 => Ok(()),
        _ => Err(Failure::Other("the volume is not clean".into())),
    }
}

fn format(_: &mut Session, mut args: Args<'_>) -> Done {
    if args.word("the word yes")? != b"yes" {
        return Err(Failure::Other("everything on the NVDIMM would be lost; say: format yes".into()));
    }
    args.end()?;
    media::format_now().map_err(Failure::Other)
}
