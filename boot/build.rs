//! Link settings of the bare-metal loader; a host build needs none.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=src/entry.s");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=--script={manifest}/link.ld");
        // The code is position independent, its address is not: PVH jumps to a fixed one.
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
        // Without this, lld lays the ELF header into the first segment, below its address.
        println!("cargo::rustc-link-arg-bins=--nmagic");
    }
}
