//! Names, attributes, space, clones.

use super::{Context, destination, for_each, report_of, server_path, shown};
use crate::cli::{Clone, Dedupe, Ls, Mkdir, Mv, OnePath, Rm, Truncate};
use crate::names::{self, listed};
use crate::output::{Class, Failure, Format, Outcome};
use serde_json::{Value, json};
use std::time::Instant;
use umbra::client::rpc::{Attributes, Entry, ErrorCode, kind};
use umbra::client::{Blocks, Client, Error, Parents};
use umbra::units::{show_bytes, show_mode, show_time};

/// `umbra ls`
pub fn ls(context: &Context, options: Ls) -> Outcome {
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    let mut entries = match client.list(&path) {
        Ok(entries) => entries,
        // As everywhere: the listing of a file is that file.
        Err(error) if error.is(ErrorCode::NOT_DIRECTORY) => vec![entry_of(&mut client, &path)?],
        Err(error) => return Err(error.into()),
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut targets = Vec::with_capacity(entries.len());
    for entry in &entries {
        let asked = entry.kind == kind::SYMLINK && (options.long || context.format == Format::Json);
        targets.push(if asked { target_of(&mut client, &path, entry)? } else { None });
    }
    let entries: Vec<_> = entries.iter().zip(&targets).collect();
    let fields =
        json!({ "entries": entries.iter().map(|(e, t)| entry_json(e, t)).collect::<Vec<_>>() });
    context.format.report(fields, || {
        entries.iter().flat_map(|(e, t)| line(e, t, options.long)).collect::<Vec<u8>>()
    })
}

fn entry_of(client: &mut Client, path: &[u8]) -> Outcome<Entry> {
    let attributes = client.stat(path, Blocks::Skip)?;
    let name = path.to_vec();
    Ok(Entry {
        name,
        ino: attributes.ino,
        kind: attributes.kind,
        cookie: 0,
        attributes: Some(attributes),
    })
}

/// What a link of a listing says; `None` if it went meanwhile, or is damaged.
fn target_of(client: &mut Client, listed: &[u8], entry: &Entry) -> Outcome<Option<Vec<u8>>> {
    let path =
        if entry.name == listed { listed.to_vec() } else { [listed, b"/", &entry.name].concat() };
    match client.read_link(&path) {
        Ok(target) => Ok(Some(target)),
        Err(Error::Server(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn entry_json(entry: &Entry, target: &Option<Vec<u8>>) -> Value {
    let attributes = entry.attributes.as_ref();
    let mut fields = json!({
        "ino": entry.ino,
        "kind": kind_name(entry.kind),
        "size": attributes.map(|a| a.size),
        "mode": attributes.map(|a| a.mode),
        "mtime": attributes.map(|a| a.mtime),
        "nlink": attributes.map(|a| a.nlink),
    });
    names::insert(&mut fields, "name", Some(&entry.name));
    names::insert(&mut fields, "target", target.as_deref());
    fields
}

fn line(entry: &Entry, target: &Option<Vec<u8>>, long: bool) -> Vec<u8> {
    let mark = match (entry.kind, target) {
        (kind::DIRECTORY, _) => b"/".to_vec(),
        (_, Some(target)) => [b" -> ", &listed(target)[..]].concat(),
        _ => Vec::new(),
    };
    let front = match &entry.attributes {
        Some(a) if long => {
            format!(
                "{} {:>3} {:>14} {} ",
                show_mode(a.kind, a.mode),
                a.nlink,
                a.size,
                show_time(a.mtime)
            )
        }
        _ => String::new(),
    };
    [front.as_bytes(), &listed(&entry.name), &mark, b"\n"].concat()
}

fn kind_name(number: u8) -> &'static str {
    match number {
        kind::FILE => "file",
        kind::DIRECTORY => "directory",
        kind::SYMLINK => "symlink",
        _ => "unknown",
    }
}

/// `umbra stat`
pub fn stat(context: &Context, options: OnePath) -> Outcome {
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    let a: Attributes = client.stat(&path, Blocks::Count)?;
    let target = if a.kind == kind::SYMLINK { Some(client.read_link(&path)?) } else { None };
    let mut fields = json!({
        "ino": a.ino, "kind": kind_name(a.kind), "size": a.size, "blocks": a.blocks, "mode": a.mode,
        "mtime": a.mtime, "ctime": a.ctime, "btime": a.btime,
        "nlink": a.nlink, "uid": a.uid, "gid": a.gid,
    });
    names::insert(&mut fields, "path", Some(&path));
    names::insert(&mut fields, "target", target.as_deref());
    context.format.report(fields, || {
        format!(
            "path:   {}\nkind:   {}\n{}ino:    {}\nnames:  {}\nsize:   {} ({})\nblocks: {}\n\
             mode:   {} ({:04o})\nmtime:  {} UTC\nctime:  {} UTC\n",
            shown(&path),
            kind_name(a.kind),
            target.as_deref().map_or(String::new(), |it| format!("target: {}\n", shown(it))),
            a.ino,
            a.nlink,
            a.size,
            show_bytes(a.size),
            a.blocks.map_or("-".into(), |blocks| blocks.to_string()),
            show_mode(a.kind, a.mode),
            a.mode,
            show_time(a.mtime),
            show_time(a.ctime),
        )
    })
}

/// `umbra rm`
pub fn rm(context: &Context, options: Rm) -> Outcome {
    let missing = |error: &Error| {
        options.force && (error.is(ErrorCode::NOT_FOUND) || error.is(ErrorCode::NOT_DIRECTORY))
    };
    for_each(context, &options.paths, "removed", |client, path| match client.unlink(path) {
        Ok(()) => Ok(()),
        Err(error) if missing(&error) => Ok(()),
        Err(error) if error.is(ErrorCode::IS_DIRECTORY) && options.recursive => {
            remove_tree(client, path)
        }
        Err(error) if error.is(ErrorCode::IS_DIRECTORY) => {
            let text = format!("{error}; -r removes directories");
            Err(Failure::from(error).saying(text))
        }
        Err(error) => Err(error.into()),
    })
}

/// Removes a directory and what is in it, leaves first. (A loop, not a recursion: the depth of
/// a tree is bounded only by its paths.)
fn remove_tree(client: &mut Client, root: &[u8]) -> Outcome {
    let mut pending = vec![(root.to_vec(), false)];
    while let Some((path, emptied)) = pending.pop() {
        if emptied {
            // The root directory itself stays.
            if path.iter().any(|&byte| byte != b'/') {
                client.rmdir(&path)?;
            }
            continue;
        }
        let entries = client.list(&path)?;
        pending.push((path.clone(), true));
        for entry in entries {
            let mut below = path.clone();
            below.push(b'/');
            below.extend_from_slice(&entry.name);
            match entry.kind {
                kind::DIRECTORY => pending.push((below, false)),
                _ => client.unlink(&below)?,
            }
        }
    }
    Ok(())
}

/// `umbra mv`
pub fn mv(context: &Context, options: Mv) -> Outcome {
    let from = server_path(&options.from);
    let to = destination(&options.to, &from)?;
    context.connect()?.rename(&from, &to)?;
    context.format.report(report_of(&[("from", &from), ("to", &to)], json!({})), String::new)
}

/// `umbra mkdir`
pub fn mkdir(context: &Context, options: Mkdir) -> Outcome {
    let parents = if options.parents { Parents::Make } else { Parents::Need };
    for_each(context, &options.paths, "made", |client, path| Ok(client.mkdir(path, parents)?))
}

/// `umbra truncate`
pub fn truncate(context: &Context, options: Truncate) -> Outcome {
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    match client.truncate(&path, options.size) {
        Err(error) if error.is(ErrorCode::NOT_FOUND) => {
            client.open_or_create(&path)?;
            client.truncate(&path, options.size)?;
        }
        other => other?,
    }
    context
        .format
        .report(report_of(&[("path", &path)], json!({ "size": options.size })), String::new)
}

/// `umbra df`
pub fn df(context: &Context) -> Outcome {
    let space = context.connect()?.space()?;
    let used = space.blocks_total.saturating_sub(space.blocks_free);
    let size = u64::from(space.block_size);
    let fields = json!({
        "block_size": space.block_size, "blocks_total": space.blocks_total,
        "blocks_free": space.blocks_free, "blocks_shared": space.blocks_shared,
        "blocks_used": used, "inodes": space.inodes,
    });
    context.format.report(fields, || {
        format!(
            "total:  {}\nused:   {}\nfree:   {}\nshared: {}\ninodes: {}\n",
            show_bytes(space.blocks_total * size),
            show_bytes(used * size),
            show_bytes(space.blocks_free * size),
            show_bytes(space.blocks_shared * size),
            space.inodes,
        )
    })
}

/// `umbra clone`
pub fn clone(context: &Context, options: Clone) -> Outcome {
    let from = server_path(&options.from);
    let to = destination(&options.to, &from)?;
    let mut client = context.connect()?;
    let range = options
        .length
        .map(|length| (options.src_offset.unwrap_or(0), options.dst_offset.unwrap_or(0), length));
    if range.is_some() {
        match client.stat(&to, Blocks::Skip) {
            Err(error) if error.is(ErrorCode::NOT_FOUND) => drop(client.open_or_create(&to)?),
            _ => {}
        }
    }
    let start = Instant::now();
    let cloned = match range {
        None => client.clone_file(&from, &to)?,
        Some((src, dst, length)) => client.clone_range((&from, src), (&to, dst), Some(length))?,
    };
    let elapsed_us = start.elapsed().as_secs_f64() * 1e6;
    let fields = json!({
        "elapsed_us": elapsed_us, "server_us": cloned.elapsed_ns as f64 / 1e3, "ino": cloned.ino,
    });
    let fields = report_of(&[("from", &from), ("to", &to)], fields);
    context.format.report(fields, || format!("cloned in {elapsed_us:.0} us\n"))
}

/// `umbra dedupe`
pub fn dedupe(context: &Context, options: Dedupe) -> Outcome {
    let (from, to) = (server_path(&options.from), server_path(&options.to));
    let (src, dst) = (options.src_offset, options.dst_offset);
    let done = context.connect()?.dedupe((&from, src), (&to, dst), options.length)?;
    let server_us = done.elapsed_ns as f64 / 1e3;
    let fields = json!({
        "equal": done.differs_at.is_none(), "shared": done.shared,
        "differs_at": done.differs_at, "server_us": server_us,
    });
    context.format.report(fields, || match done.differs_at {
        None => format!("equal: {} bytes are shared now that were not\n", done.shared),
        Some(_) => String::new(),
    })?;
    match done.differs_at {
        None => Ok(()),
        Some(at) => Err(Failure::of(
            Class::Other,
            "different",
            format!(
                "{} and {} differ: byte {} of the one, byte {} of the other{}",
                shown(&from),
                shown(&to),
                src + at,
                dst + at,
                if done.shared > 0 {
                    format!("; {} bytes before it are shared now", done.shared)
                } else {
                    String::new()
                }
            ),
        )),
    }
}
