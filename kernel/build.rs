//! Link settings of the bare-metal kernel; a host build needs none.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        // A fixed address in the top 2 GiB (what the target's code model expects): no relocations
        // to apply at boot, and the addresses in a backtrace are those in the file.
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=--image-base=0xffffffff80000000");
        // The loader maps segments where they lie in the file, so a page that two of them share
        // would have the rights of both.
        println!("cargo::rustc-link-arg-bins=-zseparate-loadable-segments");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
