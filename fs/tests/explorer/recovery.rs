//! What is done with each crash state: mount, check, look at it, mount again, use it up.

use super::ops::{NOW, SLOTS};
use super::tree::{Tree, dump};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use umbra_fs::testing::{
    LogPmem, SoftMmu, claims_clean, derived_area, in_superblocks, is_metadata, mount,
};
use umbra_fs::{Block, Kind, MountError, Pmem, Volume};

type Mounted = Volume<LogPmem, SoftMmu>;

/// What became of a state.
pub enum Outcome {
    Fine {
        tree: Rc<Tree>,
        /// Free blocks once it was used and everything deleted.
        free: u64,
        /// Fences of its recovery.
        fences: u64,
    },
    Bad(String),
}

/// Recovers states of volumes of one size.
pub struct Recovery {
    garbage: Vec<u8>,
    derived: std::ops::Range<u64>,
    /// Fences of a recovery that has nothing to repair.
    pub usual_fences: u64,
}

/// Runs `f`; a panic is an error with its message.
pub fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        format!("panic: {text}")
    })
}

impl Recovery {
    pub fn new(pmem: &LogPmem) -> Self {
        let derived = derived_area(pmem.len());
        let mut x = 0x1234_5678_9abc_def1u64;
        let garbage = (derived.clone())
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x as u8
            })
            .collect();
        Recovery { garbage, derived, usual_fences: 2 }
    }

    /// Derived state of a volume that was not left cleanly is worth nothing: garbage.
    pub fn spoil(&self, pmem: &LogPmem) {
        if !claims_clean(pmem) {
            pmem.put(self.derived.start, &self.garbage);
        }
    }

    pub fn mount_only(&self, pmem: &LogPmem) -> Result<Mounted, MountError> {
        mount(pmem.clone(), SLOTS)
    }

    /// Recovers what is in the memory. The words that recovery and looking at everything
    /// read are told too. The memory is left changed.
    pub fn run(&self, pmem: &LogPmem) -> (Outcome, Vec<(u32, u8)>) {
        pmem.take_reads();
        let mut reads = Vec::new();
        let result = caught(|| self.recover(pmem, &mut reads)).and_then(|r| r);
        if reads.is_empty() {
            reads = pmem.take_reads();
        }
        let outcome = match result {
            Ok((tree, free, fences)) => Outcome::Fine { tree: Rc::new(tree), free, fences },
            Err(what) => Outcome::Bad(what),
        };
        (outcome, reads)
    }

    fn recover(
        &self,
        pmem: &LogPmem,
        reads: &mut Vec<(u32, u8)>,
    ) -> Result<(Tree, u64, u64), String> {
        let before = pmem.fences();
        let clean_before = claims_clean(pmem);
        pmem.take_reads();
        let mut volume = mount(pmem.clone(), SLOTS).map_err(|e| format!("mount: {e}"))?;
        let fences = pmem.fences() - before;
        if clean_before && volume.was_rebuilt() {
            return Err("it was left clean, but its checkpoint is not there".into());
        }
        let tree = dump(&volume).map_err(|e| format!("after recovery: {e}"))?;
        *reads = pmem.take_reads();
        clean(&mut volume)?;
        let (pmem, _) = volume.unmount().map_err(|e| format!("unmount: {e}"))?;
        let mut volume = mount(pmem, SLOTS).map_err(|e| format!("second mount: {e}"))?;
        if dump(&volume).map_err(|e| format!("after a second mount: {e}"))? != tree {
            return Err("a second mount shows something else".into());
        }
        use_up(&mut volume, &tree)?;
        clean(&mut volume)?;
        Ok((tree, volume.space().free, fences))
    }

    /// Mounts with one line unreadable. Of metadata and superblocks there are two copies, so all
    /// has to be there that may be; what is in a line of a file's content is an error; with a line
    /// of derived state the volume may be refused.
    pub fn poisoned(
        &self,
        pmem: &LogPmem,
        line: u64,
        expected: &dyn Fn(&Tree) -> Result<(), String>,
    ) -> Result<(), String> {
        pmem.mark();
        pmem.poison(&[line]);
        let result = caught(|| {
            let derived = derived_area(pmem.len()).contains(&line);
            let mut volume = match mount(pmem.clone(), SLOTS) {
                Err(_) if derived => return Ok(()),
                mounted => mounted.map_err(|e| format!("mount: {e}"))?,
            };
            let dumped = dump(&volume);
            if !derived {
                clean(&mut volume)?;
            }
            let is_content = || {
                let block = Block(line / umbra_fs::BLOCK_SIZE);
                !in_superblocks(line) && is_metadata(&volume, block) == Ok(false)
            };
            match dumped {
                Ok(found) => expected(&found),
                Err(_) if derived || is_content() => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        pmem.poison(&[]);
        pmem.rollback();
        pmem.take_reads();
        result.and_then(|r| r)
    }
}

fn clean(volume: &mut Mounted) -> Result<(), String> {
    let report = volume.check().map_err(|e| format!("check: {e}"))?;
    match report.issues.first() {
        None => Ok(()),
        Some(issue) => Err(format!("check: {issue}")),
    }
}

/// Creates, writes, clones, and then deletes everything.
fn use_up(volume: &mut Mounted, tree: &Tree) -> Result<(), String> {
    let fail = |what: &'static str| move |e: umbra_fs::Error| format!("{what}: {e}");
    let root = volume.root();
    let made = volume.create(root, b"use-1", 0o600, NOW).map_err(fail("create"))?;
    let bytes = [0xab; 9000];
    volume.write(made, 100, &bytes, NOW).map_err(fail("write"))?;
    let copy = volume.clone_file(made, root, b"use-2", NOW).map_err(fail("clone"))?;
    volume.write(copy, 0, &[0xcd; 5000], NOW).map_err(fail("write to the clone"))?;
    let mut found = [0; 9100];
    volume.read(made, 0, &mut found).map_err(fail("read"))?;
    if found[..100] != [0; 100] || found[100..] != bytes {
        return Err("a new file does not hold what was written".into());
    }
    // A file of what is there is changed, too: nothing else may notice.
    if let Some((path, seen)) =
        tree.iter().find(|(_, s)| s.kind == Kind::File && !s.content.is_empty())
    {
        volume.write(seen.ino, 0, &[0x77; 5000], NOW).map_err(fail("write to an old file"))?;
        let mut expected = tree.clone();
        for (other, node) in expected.iter_mut() {
            if other == path || node.ino == seen.ino {
                node.content.resize(node.content.len().max(5000), 0);
                node.content[..5000].fill(0x77);
                node.mtime = NOW;
            }
        }
        let mut now = dump(volume).map_err(fail("after use"))?;
        now.retain(|name, _| !name.starts_with("use-"));
        if now != expected {
            return Err("writing to one file changed another".into());
        }
    }
    for name in [&b"use-1"[..], b"use-2"] {
        volume.unlink(root, name, NOW).map_err(fail("unlink"))?;
    }
    // In reverse order of their paths, directories come after what is in them.
    for (path, seen) in tree.iter().rev() {
        let (dir, name) = volume.resolve_parent(path.as_bytes()).map_err(fail("a parent"))?;
        match seen.kind {
            Kind::Directory => volume.rmdir(dir, name, NOW).map_err(fail("rmdir"))?,
            _ => volume.unlink(dir, name, NOW).map_err(fail("unlink"))?,
        }
    }
    while volume.reclaim_step().map_err(fail("reclaim"))? {}
    Ok(())
}
