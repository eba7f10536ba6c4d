//! Stores and loads through mappings, and what they leave behind.

use super::{Context, server_path};
use crate::cli::{Pages, Peek, Poke};
use crate::names;
use crate::output::{Class, Failure, Format, Outcome, one_line, print};
use serde_json::json;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use umbra::client::{Fill, Msync};

/// Bytes in a line of `peek --hex`.
const HEX_LINE: usize = 16;

/// `umbra poke`
pub fn poke(context: &Context, options: Poke) -> Outcome {
    let (fill, len): (Box<dyn Fill>, u64) =
        match (options.what.hex, options.what.text, options.what.fill) {
            (Some(bytes), _, _) => (Box::new(bytes.0.clone()), bytes.0.len() as u64),
            (_, Some(text), _) => {
                let bytes = text.into_vec();
                let len = bytes.len() as u64;
                (Box::new(bytes), len)
            }
            // The command line lets no other combination through.
            (_, _, fill) => {
                (Box::new(fill.unwrap_or_default()), options.length.unwrap_or_default())
            }
        };
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    let file = client.open(&path, 0)?;
    let msync = if options.no_sync { Msync::Later } else { Msync::Now };
    let poked = client.poke(&file, options.offset, len, &*fill, msync);
    if let Some(error) = poked.error {
        let text = format!("{error} ({} of {len} bytes are stored)", poked.stored);
        return Err(Failure::from(error).saying(text).with("stored", poked.stored));
    }
    // Closing makes durable what was stored; with --no-sync that is left to the end of the
    // connection.
    let durable = !options.no_sync;
    if durable {
        client.close(file)?;
    }
    let stored = poked.stored;
    context.format.report(json!({ "stored": stored, "durable": durable }), || {
        format!("{stored} bytes stored{}\n", if durable { "" } else { ", not synced" })
    })
}

/// `umbra peek`
pub fn peek(context: &Context, options: Peek) -> Outcome {
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    let file = client.open(&path, 0)?;
    if context.format == Format::Json {
        let bytes = client.load(&file, options.offset, options.length)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let fields = json!({ "offset": options.offset, "length": bytes.len(), "hex": hex });
        return context.format.report(fields, String::new);
    }
    let mut at = options.offset;
    let mut dump = Dump::default();
    let mut failed = None;
    client.load_each(&file, options.offset, options.length, |piece| {
        if failed.is_none() {
            let outcome = if options.hex { dump.add(at, piece) } else { print(piece) };
            failed = outcome.err();
        }
        at += piece.len() as u64;
        Ok(())
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    if options.hex {
        return dump.finish();
    }
    // So that the prompt does not stand behind the bytes.
    if io::stdout().is_terminal() { print(b"\n") } else { Ok(()) }
}

/// Lines of hexadecimal digits and characters, across pieces of any length.
#[derive(Default)]
struct Dump {
    start: u64,
    pending: Vec<u8>,
}

impl Dump {
    fn add(&mut self, at: u64, bytes: &[u8]) -> Outcome {
        if self.pending.is_empty() {
            self.start = at;
        }
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() / HEX_LINE * HEX_LINE;
        let rest = self.pending.split_off(whole);
        self.flush()?;
        self.start += whole as u64;
        self.pending = rest;
        Ok(())
    }

    fn finish(self) -> Outcome {
        self.flush()
    }

    fn flush(&self) -> Outcome {
        let mut text = String::new();
        for (number, line) in self.pending.chunks(HEX_LINE).enumerate() {
            let at = self.start + (number * HEX_LINE) as u64;
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let characters: String = line
                .iter()
                .map(
                    |&byte| {
                        if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' }
                    },
                )
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{at:012x}  {:<47}  |{characters}|", hex.join(" "));
        }
        print(text.as_bytes())
    }
}

/// `umbra pages`
pub fn pages(context: &Context, options: Pages) -> Outcome {
    let path = options.path.as_ref().map(|path| server_path(path));
    let p = context.connect()?.pages(path.as_deref())?;
    let f = p.faults;
    let mut fields = json!({
        "masters": p.masters, "shadows": p.shadows, "windows": p.windows, "slots": p.slots,
        "zero": p.zero, "writable": p.writable,
        "faults": {
            "read": f.read, "write": f.write, "cow": f.cow, "failed": f.failed,
            "tossed": f.tossed, "foreign_unmapped": f.foreign_unmapped,
        },
        "flushes": p.flushes, "fences": p.fences,
    });
    names::insert(&mut fields, "path", options.path.as_ref().map(|path| path.as_bytes()));
    context.format.report(fields, || {
        format!(
            "windows:  {} ({} slots)\nmasters:  {}\nshadows:  {}\nzero:     {}\nwritable: {}\n\
             faults since mount:  {} read, {} write, {} copy on write, {} failed\n\
             shadows since mount: {} tossed, {} of other files unmapped\n\
             NVDIMM since boot:   {} lines flushed, {} fences\n",
            p.windows,
            p.slots,
            p.masters,
            p.shadows,
            p.zero,
            p.writable,
            f.read,
            f.write,
            f.cow,
            f.failed,
            f.tossed,
            f.foreign_unmapped,
            p.flushes,
            p.fences,
        )
    })
}

/// `umbra check`: a volume with findings is a failure.
pub fn check(context: &Context) -> Outcome {
    let report = context.connect()?.check()?;
    let total = report.issues_total.unwrap_or(report.issues.len() as u64);
    let issues: Vec<&str> = report.issues.iter().map(|issue| &**issue).collect();
    let clean = total == 0;
    let fields = json!({
        "clean": clean, "issues": issues, "issues_total": total,
        "blocks": report.blocks, "inodes": report.inodes, "changed": report.changed,
    });
    context.format.report(fields, || {
        let mut text: String =
            report.issues.iter().map(|issue| format!("{}\n", one_line(issue))).collect();
        if clean {
            let (blocks, inodes) = (report.blocks.unwrap_or(0), report.inodes.unwrap_or(0));
            text = format!("clean: {blocks} blocks and {inodes} inodes looked at\n");
            // What others change all the time cannot be judged.
            if let Some(changed @ 1..) = report.changed {
                text += &format!("{changed} of them changed meanwhile, and were not judged\n");
            }
        }
        text
    })?;
    match clean {
        true => Ok(()),
        false => {
            Err(Failure::of(Class::Other, "damaged", format!("the volume has {total} issues")))
        }
    }
}
