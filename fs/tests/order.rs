//! Programs that get the order of a commit wrong do not compile, and for the right reason.
//!
//! Each file in `order/` becomes a module of the crate (the types are private to it). Its
//! first line says which error the compiler has to give.

use std::path::{Path, PathBuf};
use std::process::Command;

fn compile(case: &Path, target: &Path) -> (bool, String) {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["rustc", "--quiet", "--lib", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .args(["--", "--cfg", "order_case", "--emit=metadata", "--cap-lints=warn"])
        .env("UMBRA_ORDER_CASE", case)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo can be run");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_wrong_order_does_not_compile() {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("order");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/order");
    let mut cases = 0;
    for entry in std::fs::read_dir(&dir).expect("the cases") {
        let path = entry.expect("an entry").path();
        let source = std::fs::read_to_string(&path).expect("a case");
        let (compiles, errors) = compile(&path, &target);
        match source.lines().next().and_then(|line| line.strip_prefix("// error: ")) {
            None => assert!(compiles, "{} should compile:\n{errors}", path.display()),
            Some(expected) => {
                assert!(!compiles, "{} should not compile", path.display());
                assert!(
                    errors.contains(expected),
                    "{}: not '{expected}':\n{errors}",
                    path.display()
                );
                let count = errors.lines().filter(|line| line.starts_with("error[")).count();
                assert_eq!(count, 1, "{}: one error only:\n{errors}", path.display());
            }
        }
        cases += 1;
    }
    assert_eq!(cases, 12);
}
