//! The machine under test.

use crate::programs;
use crate::qemus::Qemu;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use umbra::client::Client;
use umbra::launch::control;
use umbra::state::StateDir;

/// Lines of a log that a failed test shows.
const SHOWN_LINES: usize = 30;

/// What to launch. The default is what `umbra up` does, with a small NVDIMM.
#[derive(Clone, Debug)]
pub struct Machine {
    nvdimm_size: String,
    memory: String,
    features: Vec<&'static str>,
    in_memory: bool,
    qemu: Qemu,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            nvdimm_size: "64M".into(),
            memory: "64M".into(),
            features: Vec::new(),
            in_memory: false,
            qemu: Qemu::installed(),
        }
    }
}

impl Machine {
    /// With an NVDIMM of this size.
    pub fn nvdimm(size: &str) -> Machine {
        Machine { nvdimm_size: size.into(), ..Machine::default() }
    }

    /// With so much memory.
    pub fn memory(self, size: &str) -> Machine {
        Machine { memory: size.into(), ..self }
    }

    /// With its NVDIMM in memory, where that is possible: nobody waits for a disk then.
    pub fn in_memory(self) -> Machine {
        Machine { in_memory: true, ..self }
    }

    /// Under this QEMU.
    pub fn under(self, qemu: &Qemu) -> Machine {
        Machine { qemu: qemu.clone(), ..self }
    }

    /// With a feature of the kernel.
    pub fn feature(mut self, name: &'static str) -> Machine {
        self.features.push(name);
        self
    }

    /// Launches it on a new state directory, and waits until it serves.
    pub fn launch(self) -> Vm {
        let vm = self.prepare();
        vm.up();
        vm
    }

    /// Makes the state directory, and launches nothing yet.
    pub fn prepare(self) -> Vm {
        let shm = Path::new("/dev/shm");
        let base =
            if self.in_memory && shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("umbra-test-").tempdir_in(base);
        let folder = folder.expect("a folder for the test");
        let images = programs::images(&self.features);
        let state = StateDir::new(folder.path().join("state"));
        Vm {
            machine: self,
            folder: Some(folder),
            state,
            loader: images.loader,
            kernel: images.kernel,
        }
    }
}

/// A machine on a state directory of its own. When it goes, the machine is killed, and the
/// directory removed unless the test has failed.
pub struct Vm {
    machine: Machine,
    /// Taken when it is to be kept.
    folder: Option<TempDir>,
    state: StateDir,
    loader: PathBuf,
    kernel: PathBuf,
}

impl Vm {
    /// A machine like `umbra up` makes it, with an NVDIMM of this size.
    pub fn launch(nvdimm_size: &str) -> Vm {
        Machine::nvdimm(nvdimm_size).launch()
    }

    /// The state directory.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// A path for a file of the test; it goes with the machine.
    pub fn file(&self, name: &str) -> PathBuf {
        self.state.path().parent().expect("it is in the test's folder").join(name)
    }

    /// `umbra` with these arguments, on this machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::umbra());
        command
            .args(arguments)
            .env("UMBRA_STATE", self.state.path())
            .env("UMBRA_LOADER", &self.loader)
            .env("UMBRA_KERNEL", &self.kernel)
            .env("UMBRA_QEMU", self.machine.qemu.system())
            .stdin(Stdio::null());
        command
    }

    /// Runs `umbra`, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("umbra runs")
    }

    /// Runs a command that succeeds, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "umbra {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Runs a command that succeeds, and returns its report.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let report: Value =
            serde_json::from_slice(&self.ok(&[arguments, &["--json"]].concat())).expect("JSON");
        assert_eq!(report["version"], 1, "of {report}");
        report
    }

    /// Runs a command that fails, though it is used correctly, and returns the one line that says
    /// why.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status.code();
        assert!(
            matches!(status, Some(1 | 3..=7)),
            "umbra {arguments:?} ended with {status:?}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "umbra {arguments:?} said: {text}");
        text
    }

    /// Starts it with these options besides its own, and waits until it serves.
    #[track_caller]
    pub fn up_with(&self, options: &[&str]) -> Value {
        let machine = &self.machine;
        let mut arguments = vec!["up", "--detach", "--memory", &machine.memory];
        // An image that is there already may have another size on purpose.
        if !self.state.nvdimm().exists() {
            arguments.extend(["--nvdimm-size", &machine.nvdimm_size]);
        }
        self.json(&[&arguments, options].concat())
    }

    /// Starts it, and waits until it serves.
    #[track_caller]
    pub fn up(&self) -> Value {
        self.up_with(&[])
    }

    /// Shuts it down cleanly.
    #[track_caller]
    pub fn down(&self) {
        self.ok(&["down"]);
    }

    /// A connection to its server.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.state).expect("a connection")
    }

    /// Runs a command on its console and returns what that prints.
    #[track_caller]
    pub fn console(&self, command: &str) -> String {
        let mut arguments = vec!["console"];
        arguments.extend(command.split(' '));
        String::from_utf8_lossy(&self.ok(&arguments)).into_owned()
    }

    /// What its console has said since the last start.
    pub fn console_log(&self) -> String {
        let log = fs::read(self.state.console_log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What its supervisor has said since the last start: nothing, unless something went wrong.
    pub fn supervisor_log(&self) -> String {
        fs::read_to_string(self.state.file("supervisor.log")).unwrap_or_default()
    }

    /// Kills QEMU without any warning, and waits until all that belongs to it has ended.
    #[track_caller]
    pub fn kill_qemu(&self) {
        let status = control::status(&self.state).expect("a status").expect("it runs");
        kill(status.qemu_pid);
        self.wait_until_over();
    }

    /// Waits until the supervisor has ended.
    #[track_caller]
    pub fn wait_until_over(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.state.is_locked() {
            assert!(Instant::now() < deadline, "the supervisor does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks the volume.
    #[track_caller]
    pub fn assert_clean(&self) {
        let report = self.json(&["check"]);
        assert_eq!(report["clean"], true, "{report}");
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let running = control::status(&self.state).ok().flatten();
        if let Some(status) = &running {
            // The others go with it.
            kill(status.supervisor_pid);
        }
        if thread::panicking() {
            let kept = self.folder.take().map(TempDir::keep);
            eprintln!(
                "\nthe state of the machine is kept in {}",
                kept.unwrap_or_default().display()
            );
            for log in ["console.log", "qemu.log", "vsock.log", "supervisor.log"] {
                show_end(&self.state.file(log));
            }
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while running.is_some() && self.state.is_locked() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn show_end(log: &Path) {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if !lines.is_empty() {
        eprintln!("--- the end of {}:", log.display());
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            eprintln!("{line}");
        }
    }
}
