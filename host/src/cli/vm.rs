//! The machine.

use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use umbra::access::{Access, parse_group, parse_mode};
use umbra::launch::accel::Choice;
use umbra::launch::{DEFAULT_QEMU, ExtraNvdimm};
use umbra::units::parse_bytes;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra up                               in the foreground; Ctrl-C shuts down cleanly
  umbra up --detach --nvdimm-size 64G    in the background, once the guest is ready
  umbra up --state /tmp/u --format       start over with an empty volume
  umbra up --extra-nvdimm scratch.img:4G another NVDIMM, for `nbd+unix:///nvdimm%3A1?socket=...`")]
pub struct Up {
    /// Size of a new NVDIMM image; an existing one must have it [default: 1G, or what is there]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub nvdimm_size: Option<u64>,

    /// Another NVDIMM, which holds no volume but is served whole (as nvdimm:N); a SIZE makes the
    /// file. Repeatable
    #[arg(long, value_name = "PATH[:SIZE]")]
    pub extra_nvdimm: Vec<ExtraNvdimm>,

    /// Memory of the guest, 12M at least; 64M are enough for 1,024 connections
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_bytes)]
    pub memory: u64,

    /// Accelerator
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    pub accel: Choice,

    /// The QEMU to run: a path, or a name in $PATH. It brings its own firmware
    #[arg(long, value_name = "PROGRAM", default_value = DEFAULT_QEMU, env = "UMBRA_QEMU",
        value_hint = ValueHint::ExecutablePath)]
    pub qemu: PathBuf,

    /// Format the NVDIMM, whatever it holds
    #[arg(long)]
    pub format: bool,

    /// Return once the server is ready; it goes on in the background
    #[arg(long)]
    pub detach: bool,

    /// Have the host give all memory of the NVDIMM at the start: for measuring
    #[arg(long)]
    pub prealloc: bool,

    /// Who may use the sockets
    #[command(flatten)]
    pub sockets: Sockets,

    /// Count instructions instead of time: the guest's clock goes on by a nanosecond with each
    #[arg(long, hide = true)]
    pub icount: bool,

    /// Use this loader instead of building one
    #[arg(long, value_name = "ELF", requires = "kernel", env = "UMBRA_LOADER", hide = true)]
    pub loader: Option<PathBuf>,

    /// Use this kernel instead of building one
    #[arg(long, value_name = "ELF", requires = "loader", env = "UMBRA_KERNEL", hide = true)]
    pub kernel: Option<PathBuf>,

    /// A line for the guest's configuration
    #[arg(long, value_name = "KEY=VALUE", hide = true)]
    pub guest_config: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra console                          interactive; Ctrl-D detaches
  umbra console pages                    one command, its output, and out")]
pub struct Console {
    /// A command for the guest; without one the terminal is attached (Ctrl-D detaches)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  umbra relay 10809 /tmp/nbd.sock        until Ctrl-C

`umbra up` has made one already: nbd.sock in the state directory.")]
pub struct Relay {
    /// Port of the guest
    pub port: u32,
    /// Socket to make
    #[arg(value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
    /// Who may use it, if not those who may use the sockets of `umbra up`
    #[command(flatten)]
    pub sockets: Sockets,
}

/// Who may use sockets for clients.
#[derive(Debug, Args)]
pub struct Sockets {
    /// Open the sockets for clients to this group too [default: to their owner alone]
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub socket_group: Option<u32>,

    /// Mode of the sockets for clients, whatever the umask [default: 660 with a group, else 600]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,
}

impl Sockets {
    /// What was said, or that it is for the owner alone.
    pub fn access(&self) -> Access {
        Access { group: self.socket_group, mode: self.socket_mode }
    }

    /// What was said, if anything was.
    pub fn given(&self) -> Option<Access> {
        Some(self.access()).filter(|access| *access != Access::OWNER)
    }
}

#[derive(Debug, Args)]
pub struct Leash {
    /// Process id of the parent.
    pub parent: u32,
    /// Program.
    pub program: OsString,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra bench                            medians of 5 rounds, beside what the machine itself costs
  umbra bench --plot operations.svg
  umbra bench --icount                   instructions instead of time: the same on every machine

Measures inside the guest, on files of its own (about 200 MiB), which it removes. Everybody else
waits meanwhile. For times that mean something: an idle machine, the state directory on tmpfs,
and `umbra up --prealloc`. With --icount a machine of its own is booted.")]
pub struct Bench {
    /// Rounds, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,

    /// Draw the figures
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath)]
    pub plot: Option<PathBuf>,

    /// Boot a machine of its own whose clock counts instructions
    #[arg(long)]
    pub icount: bool,

    /// Another part than the operations: clone-size, clone-fragments, fault-clones, fault-shadows,
    /// fault-size, directory
    #[arg(long, value_name = "NAME", default_value = "operations")]
    pub part: String,

    /// What the part makes of it: bytes, extents, clones, names
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub parameter: Option<u64>,

    /// Use this loader instead of building one
    #[arg(long, value_name = "ELF", requires = "kernel", env = "UMBRA_LOADER", hide = true)]
    pub loader: Option<PathBuf>,

    /// Use this kernel instead of building one
    #[arg(long, value_name = "ELF", requires = "loader", env = "UMBRA_KERNEL", hide = true)]
    pub kernel: Option<PathBuf>,
}
