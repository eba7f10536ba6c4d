//! The machine: start, stop, look.

use super::Context;
use super::media::{self, Media};
use crate::cli::{Cli, Command, Console, Up};
use crate::output::{Class, Failure, Format, Outcome, one_line, print, say};
use crate::terminal::attach;
use clap::Parser;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use umbra::build;
use umbra::launch::console::Console as SerialLine;
use umbra::launch::control::CommandEnd;
use umbra::launch::{Options, Reporter, Status, accel, control, detach, supervise};
use umbra::record::{self, End};

/// A build that takes longer is said to go on, where nobody sees its progress.
const BUILD_PATIENCE: Duration = Duration::from_secs(2);
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
    if let Some(warning) = accel::warning(options.accel) {
        say(&warning);
    }
    let launch = Options {
        state: state.path().to_path_buf(),
        nvdimm_size: options.nvdimm_size,
        extra_nvdimms: options.extra_nvdimm,
        memory: options.memory,
        accel: options.accel,
        qemu: options.qemu,
        format: options.format,
        guest_config: options.guest_config,
        icount: options.icount,
        prealloc: options.prealloc,
        access: options.sockets.access(),
        loader,
        kernel,
    };
    if options.detach {
        let status = detach::start(&launch)?;
        return context.format.report(status_json(context, Some(&status)), || {
            format!("{}; state {}\n", status.summary(), state.path().display())
        });
    }
    let mut foreground = Foreground { context, printer: None, input: None };
    let result = supervise(&launch, &mut foreground);
    // The guest's last words; QEMU is gone, so they have an end.
    if let Some(printer) = foreground.printer.take() {
        let _ = printer.join();
    }
    Ok(result?)
}

/// The two ELF files of the guest: those that were named, or built now.
pub(super) fn guest(
    loader: Option<PathBuf>,
    kernel: Option<PathBuf>,
) -> Outcome<(PathBuf, PathBuf)> {
    match (loader, kernel) {
        (Some(loader), Some(kernel)) => Ok((existing(&loader)?, existing(&kernel)?)),
        _ => {
            // Where nobody looks on, the output of cargo is part of the error, if there is one.
            let show_progress = io::stderr().is_terminal();
            let build =
                || build::build(&build::Request { show_progress, ..build::Request::default() });
            let images = if show_progress {
                build()
            } else {
                let text = "building the guest; the first time that takes a minute or more";
                saying_after(BUILD_PATIENCE, || say(text), build)
            };
            let images = images.map_err(|error| Failure::new(error.to_string()))?;
            Ok((images.loader, images.kernel))
        }
    }
}

/// Does some work; if it takes long, says so meanwhile.
fn saying_after<T>(patience: Duration, words: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                words();
            }
        });
        let result = work();
        drop(done);
        result
    })
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
    /// Where what is typed goes. A second start has a line of its own.
    input: Option<Arc<Mutex<SerialLine>>>,
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
        if let Some(input) = &self.input {
            *input.lock().unwrap_or_else(PoisonError::into_inner) = console.clone();
            return;
        }
        let input = self.input.insert(Arc::new(Mutex::new(console.clone()))).clone();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            let mut stdin = io::stdin().lock();
            while let Ok(count @ 1..) = stdin.read(&mut buffer) {
                let line = input.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A line that has ended takes nothing more; the next one may.
                let _ = line.write(&buffer[..count]);
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
        say(text);
    }
}

/// `umbra down`
pub fn down(context: &Context) -> Outcome {
    let state = &context.state;
    let asking = Failure::while_doing("ask the supervisor to stop");
    let Some(stopped) = control::stop(state).map_err(asking)? else {
        return Err(context.not_running());
    };
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    while state.is_locked() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if !stopped.clean {
        let why = stopped.message.unwrap_or_else(|| "for no known reason".into());
        let text = format!("the server did not stop cleanly: {why}");
        return Err(Failure::of(Class::Other, "unclean", text));
    }
    context.format.report(json!({ "stopped": true }), String::new)
}

/// `umbra status`
pub fn status(context: &Context) -> Outcome {
    let asking = Failure::while_doing("ask the supervisor");
    let status = control::status(&context.state).map_err(asking)?;
    let last_end = record::last_end(&context.state);
    let serves = status.as_ref().is_some_and(|it| it.ready && it.paused.is_none());
    let media = if serves { media::ask(&context.state) } else { None };
    let mut fields = status_json(context, status.as_ref());
    fields["last_end"] = json!(last_end);
    fields["media"] = media.as_ref().map_or(Value::Null, Media::fields);
    context.format.report(fields, || {
        let mut text = match &status {
            None => format!("not running; state {}\n", context.state.path().display()),
            Some(status) => running_text(context, status),
        };
        text.push_str(&media.as_ref().map_or(String::new(), Media::text));
        if let Some(end) = last_end {
            text.push_str(&last_end_text(&end));
        }
        text
    })
}

fn running_text(context: &Context, status: &Status) -> String {
    let paused = match status.paused.as_deref() {
        None => String::new(),
        Some("stopped-by-signal") => {
            format!(
                "stopped: QEMU is stopped by a signal; `kill -CONT {}` lets it go on\n",
                status.qemu_pid
            )
        }
        Some(why) => format!("stopped: the guest does not run; QEMU's monitor says: {why}\n"),
    };
    format!(
        "running: {}\n{paused}state:   {}\nQEMU:    process {}\nmemory:  {}\nNVDIMM:  {}\n\
         uptime:  {:.0} s\n",
        status.summary(),
        context.state.path().display(),
        status.qemu_pid,
        umbra::units::show_bytes(status.memory),
        umbra::units::show_bytes(status.nvdimm_size),
        status.uptime_s,
    )
}

/// How the last run ended. What the guest said is part of the message.
fn last_end_text(end: &End) -> String {
    let how = if end.clean { "cleanly" } else { "not cleanly" };
    let cause = json!(end.cause);
    let mut text = format!("ended:   {how}, {}", cause.as_str().unwrap_or("unknown"));
    if let Some(time) = &end.time {
        text.push_str(&format!(", {}{time}", if end.inferred { "noticed at " } else { "at " }));
    }
    if let Some(message) = &end.message {
        text.push_str(&format!(": {}", one_line(message)));
    }
    text.push('\n');
    text
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
        return Err(context.not_running());
    };
    if options.command.is_empty() {
        if context.format == Format::Json {
            return Err(Failure::usage("`umbra console --json` needs a command for the guest"));
        }
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
        CommandEnd::Failed(why) => Err(Failure::of(Class::Other, "command-failed", why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_work_that_takes_long_is_said_to_go_on() {
        for (patience, takes, said) in [(10_000, 0, false), (20, 500, true)] {
            let heard = AtomicBool::new(false);
            let words = || heard.store(true, Ordering::Relaxed);
            let work = || {
                thread::sleep(Duration::from_millis(takes));
                7
            };
            assert_eq!(saying_after(Duration::from_millis(patience), words, work), 7);
            assert_eq!(heard.load(Ordering::Relaxed), said);
        }
    }
}
