//! What is made from the definition of the command line.

use super::report_of;
use crate::cli::{Cli, Completions, Man};
use crate::output::{Failure, Format, Outcome};
use clap::CommandFactory;
use serde_json::json;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// `umbra completions`
pub fn completions(format: Format, options: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "umbra", &mut script);
    let fields =
        json!({ "shell": options.shell.to_string(), "script": String::from_utf8_lossy(&script) });
    format.report(fields, || &script)
}

/// `umbra man`
pub fn man(format: Format, options: &Man) -> Outcome {
    let failed =
        || Failure::while_doing(format!("write man pages into {}", options.folder.display()));
    fs::create_dir_all(&options.folder).map_err(failed())?;
    clap_mangen::generate_to(Cli::command(), &options.folder).map_err(failed())?;
    let folder = report_of(&[("folder", options.folder.as_os_str().as_bytes())], json!({}));
    format.report(folder, String::new)
}
