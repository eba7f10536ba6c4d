//! Figures and tables put into the documentation.
//!
//! `performance.md` has a place for each curve, and one for how all were measured:
//!
//! ```text
//! <!-- growth NAME -->
//! the figure, its table
//! <!-- end -->
//! ```

use crate::curve::Curve;
use std::fs;
use std::path::Path;
use std::process::Command;

const END: &str = "<!-- end -->";

/// Writes the figures, and replaces the tables in the text, where there is one.
pub fn write(docs: &Path, curves: &[Curve]) -> Result<(), String> {
    let error = |path: &Path| {
        let path = path.display().to_string();
        move |e| format!("cannot write {path}: {e}")
    };
    let folder = docs.join("growth");
    fs::create_dir_all(&folder).map_err(error(&folder))?;
    let path = docs.join("performance.md");
    let mut text = fs::read_to_string(&path).ok();
    for curve in curves {
        let file = folder.join(format!("{}.svg", curve.name));
        fs::write(&file, curve.svg()? + "\n").map_err(error(&file))?;
        eprintln!("wrote {}", file.display());
        let place = format!("![{}](growth/{}.svg)\n\n{}", curve.title, curve.name, curve.table());
        text = text.map(|text| replace(&text, curve.name, &place)).transpose()?;
    }
    if let Some(text) = text {
        fs::write(&path, replace(&text, "conditions", &conditions())?).map_err(error(&path))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Puts new text into a place.
fn replace(text: &str, name: &str, new: &str) -> Result<String, String> {
    let start = format!("<!-- growth {name} -->");
    let parts =
        text.split_once(&start).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, behind) =
        parts.ok_or_else(|| format!("performance.md has no {start} ... {END}"))?;
    Ok(format!("{before}{start}\n{new}\n{END}{behind}"))
}

/// When and where this was measured.
fn conditions() -> String {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_string())
    };
    let date = said("date", "+%F").unwrap_or_default();
    let qemu = said("qemu-system-x86_64", "--version").unwrap_or_default();
    let qemu =
        qemu.trim_start_matches("QEMU emulator version ").split(' ').next().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    format!("Last run: {date}, QEMU {qemu}, {cores} cores, mean load {load} with the run's own.")
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn only_the_place_is_replaced() {
        let text = "a\n<!-- growth x -->\nold\n<!-- end -->\nb\n<!-- growth y -->\n<!-- end -->\n";
        let once = replace(text, "x", "new").unwrap();
        assert_eq!(
            once,
            "a\n<!-- growth x -->\nnew\n<!-- end -->\nb\n<!-- growth y -->\n<!-- end -->\n"
        );
        assert_eq!(replace(&once, "x", "new").unwrap(), once);
        assert!(replace(text, "z", "new").is_err());
    }
}
