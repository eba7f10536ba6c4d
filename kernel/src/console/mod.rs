//! The serial console: log lines out, a small command line in.
//!
//! The text that is typed is not trusted: lines are bounded, and a command that fails says why.
//! Each command's output ends with a line `ok` or `error: ...`, so that a program can drive it.
//! Without the option `echo=yes` nothing is echoed: a host's terminal does that.
//!
//! Left out: quoting (names with spaces), history, editing beyond backspace.
//!
//! | file | what it holds |
//! |---|---|
//! | `line.rs` | lines from bytes |
//! | `args.rs` | words, numbers, payloads |
//! | `log_lines.rs` | the logger |
//! | `shell.rs` | reading lines, finding commands |
//! | `command.rs` | what a command is: arguments, failures, tasks of more than one turn |
//! | `tasks.rs` | tasks on files |
//! | `files.rs` | commands on files |
//! | `windows.rs` | commands on windows |
//! | `system.rs` | commands on the machine |
//! | `lost.rs` | a command of test builds: loads of lost memory |
//! | `breakage.rs` | commands of test builds that do what must be caught |

#[forbid(unsafe_code)]
pub(crate) mod args;
#[forbid(unsafe_code)]
pub(crate) mod line;

#[cfg(all(target_os = "none", feature = "test-commands"))]
mod breakage;
#[cfg(target_os = "none")]
mod command;
#[cfg(target_os = "none")]
mod files;
#[cfg(target_os = "none")]
pub(crate) mod log_lines;
#[cfg(all(target_os = "none", feature = "test-commands"))]
mod lost;
#[cfg(target_os = "none")]
mod shell;
#[cfg(target_os = "none")]
mod system;
#[cfg(target_os = "none")]
mod tasks;
#[cfg(target_os = "none")]
mod windows;

#[cfg(target_os = "none")]
pub(crate) use shell::Console;
