//! `umbra bench`

use super::Context;
use super::vm::{default_up, guest};
use crate::cli::Bench;
use crate::output::{Failure, Outcome};
use std::path::Path;
use std::time::Duration;
use umbra::access::Access;
use umbra::bench::{self, Figure, Unit, to_json, to_text};
use umbra::client::Client;
use umbra::launch::{DEFAULT_MEMORY, Options, accel, control, detach};
use umbra::plot;
use umbra::state::StateDir;
use umbra::this_process::CleanUp;

/// Size of the NVDIMM of a machine that is only measured.
const NVDIMM_SIZE: u64 = 512 << 20;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// `umbra bench`
pub fn bench(context: &Context, options: Bench) -> Outcome {
    let unit = if options.icount { Unit::Instructions } else { Unit::Nanoseconds };
    let (floor, results) = if options.icount {
        on_a_machine_of_its_own(&options)?
    } else {
        let mut client = context.connect()?;
        measure(&mut client, &options)?
    };
    if let Some(path) = &options.plot {
        let svg = figure(unit, &floor, &results).map_err(Failure::new)?;
        std::fs::write(path, svg)
            .map_err(Failure::while_doing(format!("write {}", path.display())))?;
    }
    context.format.report(to_json(unit, &floor, &results), || to_text(unit, &floor, &results))
}

fn measure(client: &mut Client, options: &Bench) -> Outcome<(Vec<Figure>, Vec<Figure>)> {
    // A round takes a second or two, and much longer where instructions are counted.
    client.set_timeout(Some(PATIENCE))?;
    // The floor belongs to the operations; what grows is compared with itself.
    let floor = match options.part.as_str() {
        "operations" => bench::run(client, "floor", None, options.rounds)?,
        _ => Vec::new(),
    };
    Ok((floor, bench::run(client, &options.part, options.parameter, options.rounds)?))
}

/// Boots a machine whose clock counts instructions, and ends it again.
fn on_a_machine_of_its_own(options: &Bench) -> Outcome<(Vec<Figure>, Vec<Figure>)> {
    let (loader, kernel) = guest(options.loader.clone(), options.kernel.clone())?;
    // In memory, if that is possible: nobody waits for a disk then.
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new()
        .prefix(&format!("umbra-bench-{}-", std::process::id()))
        .tempdir_in(&base)
        .map_err(Failure::while_doing(format!("make a folder in {}", base.display())))?;
    let state = StateDir::new(folder.path());
    let of_signals = folder.path().to_path_buf();
    let _clean_up = CleanUp::on_signals(move || {
        // The machine serves nobody else. Where it cannot be stopped, its supervisor's log and
        // the folder go all the same: this process ends.
        let _ = control::stop(&StateDir::new(&of_signals));
        let _ = std::fs::remove_dir_all(of_signals);
    })
    .map_err(Failure::while_doing("handle signals"))?;
    detach::start(&Options {
        state: folder.path().to_path_buf(),
        nvdimm_size: Some(NVDIMM_SIZE),
        extra_nvdimms: Vec::new(),
        memory: DEFAULT_MEMORY,
        accel: accel::Choice::Tcg,
        qemu: default_up().qemu,
        format: false,
        guest_config: Vec::new(),
        icount: true,
        prealloc: true,
        access: Access::OWNER,
        loader,
        kernel,
    })?;
    let result = Client::connect(&state)
        .map_err(Failure::from)
        .and_then(|mut client| measure(&mut client, options));
    let stopped = control::stop(&state).map_err(Failure::while_doing("stop the machine"));
    let result = result?;
    stopped.map(|_| result)
}

fn figure(unit: Unit, floor: &[Figure], results: &[Figure]) -> Result<String, String> {
    let groups: Vec<_> =
        floor.iter().chain(results).map(|f| (f.name.clone(), vec![f.per_op])).collect();
    let axis = match unit {
        Unit::Nanoseconds => plot::Axis {
            label: "time of one operation",
            show: |value| Unit::Nanoseconds.show(value),
        },
        Unit::Instructions => plot::Axis {
            label: "instructions of one operation",
            show: |value| Unit::Instructions.show(value),
        },
    };
    plot::bars("Umbra, floor and operations", axis, &["umbra"], &groups)
}
