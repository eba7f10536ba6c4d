//! Writes the golden images of the present format version into a folder:
//! `cargo run -p umbra-fs --example golden -- fs/tests/golden`.

#[path = "../tests/golden/content.rs"]
#[allow(dead_code)]
mod content;

use miniz_oxide::deflate::compress_to_vec_zlib;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let volume = content::build();
    let unclean = volume.pmem().bytes().to_vec();
    let (memory, _) = volume.unmount().expect("it can be unmounted");
    for (name, bytes) in [("v2-unclean.z", &unclean[..]), ("v2-clean.z", memory.bytes())] {
        let path = Path::new(&folder).join(name);
        let packed = compress_to_vec_zlib(&content::pack(bytes), 10);
        println!("{}: {} bytes", path.display(), packed.len());
        std::fs::write(path, packed)?;
    }
    Ok(())
}
