//! Whether a volume is what its model says.

use super::{Frozen, Node, Pair};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::testing::{MemPmem, SoftMmu};
use umbra_fs::{Ino, Kind, Volume, dax};

impl Pair {
    /// Everything is as the model says.
    pub fn compare(&mut self) {
        let report = self.volume().check().unwrap();
        assert_eq!(report.issues, Vec::<String>::new());
        let mut found = BTreeMap::new();
        let root = self.volume().root();
        list(self.volume(), root, "", &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), self.names.keys().collect::<Vec<_>>());
        let mut inos = BTreeMap::new();
        for (path, seen) in &found {
            let Node::File(id) = self.names[path] else {
                assert_eq!(seen.kind, Kind::Directory, "{path}");
                continue;
            };
            let file = &self.files[id];
            assert_eq!(seen.kind, file.kind, "{path}");
            assert!(seen.content == file.content, "content of {path} differs");
            let names = self.names.values().filter(|node| **node == Node::File(id)).count();
            assert_eq!(seen.nlink as usize, names, "{path}");
            assert_eq!(*inos.entry(id).or_insert(seen.ino), seen.ino, "{path}");
        }
        for (window, id) in self.windows.clone() {
            let content = &self.files[id].content;
            let mut bytes = vec![0; content.len()];
            dax::load(&mut self.machine, window, 0, &mut bytes).unwrap();
            assert!(bytes == *content, "a window shows something else");
        }
        for Frozen { window, ino, content, blocks } in self.frozen.clone() {
            let mut bytes = vec![0; content.len()];
            dax::load(&mut self.machine, window, 0, &mut bytes).unwrap();
            assert!(bytes == content, "a file that is frozen has changed");
            assert_eq!(self.blocks(ino), blocks, "blocks of a file that is frozen have moved");
        }
    }
}

/// What a volume shows under a name.
struct Seen {
    ino: Ino,
    kind: Kind,
    nlink: u32,
    content: Vec<u8>,
}

fn list(
    volume: &Volume<MemPmem, SoftMmu>,
    dir: Ino,
    prefix: &str,
    into: &mut BTreeMap<String, Seen>,
) {
    let mut names = Vec::new();
    volume
        .read_dir(dir, 0, &mut |entry| {
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.ino, entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    for (name, ino, kind) in names {
        let path = format!("{prefix}{name}");
        let found = volume.attributes(ino).unwrap();
        assert_eq!(found.kind, kind);
        let mut content = Vec::new();
        match kind {
            Kind::Directory => list(volume, ino, &format!("{path}/"), into),
            Kind::Symlink => content = volume.read_link(ino).unwrap(),
            Kind::File => {
                content.resize(found.size as usize, 0);
                assert_eq!(volume.read(ino, 0, &mut content), Ok(found.size as usize));
            }
        }
        into.insert(path, Seen { ino, kind, nlink: found.nlink, content });
    }
}
