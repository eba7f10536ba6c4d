//! The machine: start, stop, look.

use super::Context;
use crate::cli::{Cli, Command, Console, Up};
use crate::output::{Failure, Format, Outcome, print};
use crate::terminal::attach;
use clap::Parser;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use umbra::build;
use umbra::launch::console::Console as SerialLine;
use umbra::launch::control::CommandEnd;
use umbra::launch::{Options, Reporter, Status, control, detach, supervise};

/// After a clean end the supervisor still removes its files; this long.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// What `umbra up` without options is.
pub fn default_up() -> Up {
    match Cli::parse_from(["umbra", "up"]).command {
        Some(Command::Up(up)) => up,
        _ => unreachable!("`umbra up` is the command up"),
    }
}

/// `umbra up`
pub fn up(context: &Context, options: Up) -> Outcome {
    let state = &context.state;
    // Before the guest is built: that takes longer than to say no.
    if state.is_locked() {
        drop(state.lock()?);
    }
    let (loader, kernel) = guest(options.loader, options.kernel)?;
    let launch = Options {
        state: state.path().to_path_buf(),
        nvdimm_size: options.nvdimm_size,
        extra_nvdimms: options.extra_nvdimm,
        memory: options.memory,
        accel: options.accel,
        format: options.format,
        guest_config: options.guest_config,
        icount: options.icount,
        prealloc: options.prealloc,
        loader,
        kernel,
    };
    if options.detach {
        let status = detach::start(&launch)?;
        return context.format.report(status_json(context, Some(&status)), || {
            format!("{}; state {}\n", status.summary(), state.path().display())
        });
    }
    let mut foreground = Foreground { context, printer: None };
    let result = supervise(&launch, &mut foreground);
    // The guest's last words; QEMU is gone, so they have an end.
    if let Some(printer) = foreground.printer.take() {
        let _ = printer.join();
    }
    Ok(result?)
}

/// The two ELF files of the guest: those that were named, or built now.
pub(super) fn guest(loader: Option<PathBuf>, kernel: Option<PathBuf>) -> Outcome<(PathBuf, PathBuf)> {
    match (loader, kernel) {
        (Some(loader), Some(kernel)) => Ok((existing(&loader)?, existing(&kernel)?)),
        _ => {
            // Where nobody looks on, the output of cargo is part of the error, if there is one.
            let show_progress = io::stderr().is_terminal();
            let images = build::build(&build::Request { show_progress, ..build::Request::default() })
                .map_err(|error| Failure::new(error.to_string()))?;
            Ok((images.loader, images.kernel))
        }
    }
}

/// An absolute path: QEMU runs in another folder.
fn existing(path: &Path) -> Outcome<PathBuf> {
    path.canonicalize().map_err(Failure::while_doing(format!("find {}", path.display())))
}

/// The instance in the foreground, with the terminal as its console.
struct Foreground<'c> {
    context: &'c Context,
    /// Shows what the guest says.
    printer: Option<JoinHandle<()>>,
}

impl Reporter for Foreground<'_> {
    fn console(&mut self, console: &SerialLine) {
        // A JSON report and a console do not go into one stream.
        if self.context.format == Format::Text {
            let output = console.listen();
            self.printer = Some(thread::spawn(move || {
                for piece in output {
                    if print(&piece).is_err() {
                        break;
                    }
                }
            }));
        }
        let input = console.clone();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            let mut stdin = io::stdin().lock();
            while let Ok(count @ 1..) = stdin.read(&mut buffer) {
                if input.write(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
    }

    fn ready(&mut self, status: &Status) -> io::Result<()> {
        if self.context.format == Format::Json {
            let fields = status_json(self.context, Some(status));
            return self
                .context
                .format
                .report(fields, String::new)
                .map_err(|e| io::Error::other(e.to_string()));
        }
        let state = self.context.state.path().display();
        self.note(&format!("{}; state {state}; Ctrl-C shuts down", status.summary()));
        Ok(())
    }

    fn note(&mut self, text: &str) {
        // Nothing can be said where stderr is closed.
        let _ = writeln!(io::stderr(), "umbra: {text}");
    }
}

/// `umbra down`
pub fn down(context: &Context) -> Outcome {
    let state = &context.state;
    let asking = Failure::while_doing("ask the supervisor to stop");
    let Some(stopped) = control::stop(state).map_err(asking)? else {
        return Err(Failure::new(format!("no server is running for state {}", state.path().display())));
    };
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    while state.is_locked() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if !stopped.clean {
        let why = stopped.message.unwrap_or_else(|| "for no known reason".into());
        return Err(Failure::new(format!("the server did not stop cleanly: {why}")));
    }
    context.format.report(json!({ "stopped": true }), String::new)
}

/// `umbra status`
pub fn status(context: &Context) -> Outcome {
    let asking = Failure::while_doing("ask the supervisor");
    let status = control::status(&context.state).map_err(asking)?;
    context.format.report(status_json(context, status.as_ref()), || match &status {
        None => format!("not running; state {}\n", context.state.path().display()),
        Some(status) => format!(
            "running: {}\nstate:   {}\nQEMU:    process {}\nmemory:  {}\nNVDIMM:  {}\nuptime:  {:.0} s\n",
            status.summary(),
            context.state.path().display(),
            status.qemu_pid,
            umbra::units::show_bytes(status.memory),
            umbra::units::show_bytes(status.nvdimm_size),
            status.uptime_s,
        ),
    })
}

fn status_json(context: &Context, status: Option<&Status>) -> Value {
    let mut fields = json!({
        "running": status.is_some(),
        "state": context.state.path().display().to_string(),
        "boot_ms": null, "qemu_pid": null, "accel": null,
    });
    if let (Some(object), Some(status)) = (fields.as_object_mut(), status)
        && let Ok(Value::Object(more)) = serde_json::to_value(status)
    {
        object.extend(more);
    }
    fields
}

/// `umbra console`
pub fn console(context: &Context, options: Console) -> Outcome {
    let asking = Failure::while_doing("attach to the console");
    let Some(stream) = control::console(&context.state).map_err(asking)? else {
        let state = context.state.path().display();
        return Err(Failure::new(format!(
            "no server is running for state {state}; start one with `umbra up`"
        )));
    };
    if options.command.is_empty() {
        return attach(stream);
    }
    let (output, end) = control::run_command(stream, &options.command.join(" "))
        .map_err(Failure::while_doing("run a command on the console"))?;
    match context.format {
        Format::Text => print(output.as_bytes())?,
        Format::Json => context.format.report(json!({ "output": output }), String::new)?,
    }
    match end {
        CommandEnd::Done | CommandEnd::Closed => Ok(()),
        CommandEnd::Failed(why) => Err(Failure::new(why)),
    }
}
