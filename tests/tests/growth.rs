//! Figures are drawn, and every curve of `docs/performance.md` can be measured again.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use umbra_tests::Vm;

fn documentation() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Asserts that a file is SVG, with these texts in it.
#[track_caller]
fn assert_figure(path: &Path, texts: &[&str]) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let svg =
        roxmltree::Document::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let root = svg.root_element();
    assert_eq!(
        (root.tag_name().name(), root.tag_name().namespace()),
        ("svg", Some("http://www.w3.org/2000/svg"))
    );
    let said: String = svg.descendants().filter_map(|node| node.text()).collect();
    for expected in texts {
        assert!(said.contains(expected), "{} does not say {expected}: {said}", path.display());
    }
    // Numbers that are none leave marks like this.
    assert!(!text.contains("NaN") && !text.contains("inf"), "{}", path.display());
}

/// Names of the places in a text, or of the figures that it shows.
fn names(text: &str, before: &str, behind: &str) -> BTreeSet<String> {
    text.split(before).skip(1).map(|rest| rest.split(behind).next().unwrap().to_string()).collect()
}

#[test]
fn bench_draws_what_it_measured() {
    let vm = Vm::launch("128M");
    let figure = vm.file("bench.svg");
    let path = figure.to_str().unwrap();
    let report = vm.json(&["bench", "--rounds", "1", "--parameter", "2", "--plot", path]);
    let results = report["results"].as_array().unwrap();
    let names: Vec<&str> = results.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"clone_contiguous") && names.len() > 15, "{names:?}");
    assert_figure(&figure, &[&names[..], &["fault_copy_4k", "time of one operation"]].concat());

    vm.ok(&[
        "bench",
        "--rounds",
        "1",
        "--part",
        "clone-size",
        "--parameter",
        "4096",
        "--plot",
        path,
    ]);
    assert_figure(&figure, &["clone"]);
    let no_folder = vm.file("none/bench.svg");
    let why = vm.fails(&[
        "bench",
        "--rounds",
        "1",
        "--parameter",
        "2",
        "--plot",
        no_folder.to_str().unwrap(),
    ]);
    assert!(why.contains("write") && why.contains("none/bench.svg"), "{why}");
}

#[test]
fn two_points_of_every_curve_are_measured_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("performance.md");
    fs::copy(documentation().join("performance.md"), &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_growth"))
        .args(["--quick", "--rounds", "1", "--json", "--docs"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let curves = report["curves"].as_array().unwrap();
    let measured: BTreeSet<String> =
        curves.iter().map(|c| c["name"].as_str().unwrap().to_string()).collect();
    let mut aims = 0;
    for curve in curves {
        for series in curve["series"].as_array().unwrap() {
            let points = series["points"].as_array().unwrap();
            assert_eq!(points.len(), 2, "{} of {}", series["name"], curve["name"]);
            assert!(points.iter().all(|point| point[1].as_f64().unwrap() >= 0.0), "{series}");
            // Aims are about counts only: instructions, and bytes.
            assert_ne!(series["aim_met"], false, "{series} of {}", curve["name"]);
            aims += usize::from(series["aim_met"] == true);
        }
        let name = curve["name"].as_str().unwrap();
        assert_figure(
            &folder.path().join(format!("growth/{name}.svg")),
            &[curve["x"].as_str().unwrap()],
        );
    }

    assert_eq!(aims, 8, "clones against two things, faults against three, memory");

    // All places of the text are filled, and all its figures there: now, and as they are kept.
    let new = fs::read_to_string(&text).unwrap();
    let mut places = names(&new, "<!-- growth ", " -->");
    assert!(places.remove("conditions"));
    assert_eq!(places, measured);
    assert_eq!(names(&new, "](growth/", ".svg)"), measured);
    for name in &measured {
        assert_figure(&documentation().join(format!("growth/{name}.svg")), &[]);
    }
}
