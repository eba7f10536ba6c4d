//! Files in and out.

use super::{Context, destination, server_path, shown};
use crate::cli::{Get, Put};
use crate::output::{Failure, Outcome, say};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fd::AsFd;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use umbra::client::{Moment, Transferred, get as receive, put as send};
use umbra::units::show_bytes;

/// A bar that is drawn more often costs more than it tells.
const DRAWS_PER_SECOND: u8 = 10;

/// `umbra put`
pub fn put(context: &Context, options: Put) -> Outcome {
    let stdin = is_stream(&options.local);
    if stdin && options.path.as_bytes().ends_with(b"/") {
        return Err(Failure::new("standard input has no name: name the file to write"));
    }
    let path = destination(&options.path, options.local.as_os_str().as_bytes())?;
    let mut source = if stdin {
        let input =
            io::stdin().as_fd().try_clone_to_owned().map_err(Failure::while_doing("use stdin"))?;
        File::from(input)
    } else {
        let file = File::open(&options.local)
            .map_err(Failure::while_doing(format!("open {}", options.local.display())))?;
        let found = file.metadata().map_err(Failure::while_doing("look at the source"))?;
        if found.is_dir() {
            return Err(Failure::new(format!("{} is a directory", options.local.display())));
        }
        file
    };
    let mut client = context.connect()?;
    let meter = Meter::start(&shown(&path));
    let done = send(&mut client, &mut source, &path, &mut |at, size| meter.set(at, size))?;
    report(context, done, meter.finish())
}

/// `umbra get`
pub fn get(context: &Context, options: Get) -> Outcome {
    let path = server_path(&options.path);
    let mut client = context.connect()?;
    let stdout = is_stream(&options.local);
    let local = options.local.is_dir().then(|| {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        options.local.join(std::ffi::OsStr::from_bytes(name))
    });
    let local = local.as_deref().unwrap_or(&options.local);
    let meter = Meter::start(&shown(&path));
    let target = (!stdout).then_some(local);
    let done = receive(&mut client, &path, target, &mut io::stdout().lock(), &mut |at, size| {
        meter.set(at, size);
    })?;
    let elapsed = meter.finish();
    if done.moment == Moment::Several {
        say(&format!(
            "there was no room to keep {} as it was: what was written meanwhile may be in the \
             copy in part",
            shown(&path)
        ));
    }
    // A report would mix with the file.
    if stdout { Ok(()) } else { report(context, done, elapsed) }
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn report(context: &Context, done: Transferred, elapsed: Duration) -> Outcome {
    let seconds = elapsed.as_secs_f64();
    let rate = done.data as f64 / seconds.max(1e-9);
    let fields = json!({
        "size": done.size, "data": done.data, "elapsed_s": seconds,
        "bytes_per_second": rate.round() as u64, "one_moment": done.moment == Moment::One,
    });
    context.format.report(fields, || {
        format!(
            "{} ({} of data) in {seconds:.2} s, {}/s\n",
            show_bytes(done.size),
            show_bytes(done.data),
            show_bytes(rate as u64)
        )
    })
}

/// How far a transfer is, drawn where a terminal looks on.
pub(super) struct Meter {
    bar: ProgressBar,
    start: Instant,
}

impl Meter {
    pub(super) fn start(name: &str) -> Meter {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let template =
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        // The template is a constant; were it wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_string());
        Meter { bar, start: Instant::now() }
    }

    pub(super) fn set(&self, at: u64, size: Option<u64>) {
        if let Some(size) = size
            && self.bar.length() != Some(size)
        {
            self.bar.set_length(size);
        }
        self.bar.set_position(at);
    }

    pub(super) fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}
