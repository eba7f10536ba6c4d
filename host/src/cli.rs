//! The command line: what `umbra --help` says. No behaviour.

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;
use umbra::access::{Access, parse_group, parse_mode};
use umbra::launch::accel::Choice;
use umbra::launch::{DEFAULT_QEMU, ExtraNvdimm};
use umbra::units::{parse_byte, parse_bytes, parse_hex};

/// A block and file server on an emulated NVDIMM: clones of any size in constant time.
///
/// Without a command: `umbra up`, in the foreground, with the guest's console.
#[derive(Debug, Parser)]
#[command(
    name = "umbra",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  umbra up --detach                      start a server with a new 1 GiB NVDIMM
  umbra put disk.img /golden.img         copy a disk image in
  umbra clone /golden.img /a.img         a writable copy, in constant time
  umbra poke /a.img 4096 --text hello    store into it through a mapping
  umbra get /a.img a.img                 copy it out
  umbra down                             shut down cleanly

Exit status: 0 done; 1 failed; 2 wrong usage; 3 not found; 4 exists already; 5 no space left;
6 busy; 7 no server is running, or it is not ready. One line on stderr says why; with --json it
is a JSON object with the error's code (see docs/command-line.md).
Sizes and offsets: bytes, 0x hexadecimal, or K, M, G, T (powers of 1024)."
)]
pub struct Cli {
    /// State directory [default: $XDG_STATE_HOME/umbra, else ~/.local/state/umbra]
    #[arg(long, global = true, env = "UMBRA_STATE", value_name = "DIR",
        value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,

    /// Report as one JSON object, with the number of its format in `version`; failures too, on
    /// stderr
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do; `up` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server
    Up(Up),
    /// Shut the server down cleanly
    Down,
    /// Say whether a server runs, and how it was started
    Status,
    /// Attach to the guest's console, or run one command on it
    Console(Console),
    /// Copy a local file in; holes stay holes, and zeros of a pipe become some
    Put(Put),
    /// Copy a file out, as it is at this moment; holes stay holes
    Get(Get),
    /// List a directory
    Ls(Ls),
    /// Show the attributes of a file or directory
    Stat(OnePath),
    /// Remove files, and with -r directories
    Rm(Rm),
    /// Rename; an existing file at the destination is replaced atomically
    Mv(Mv),
    /// Give a file a further name, or with -s make a symbolic link
    Ln(Ln),
    /// Print the target of a symbolic link
    Readlink(OneLink),
    /// Make a directory
    Mkdir(Mkdir),
    /// Set the size of a file
    Truncate(Truncate),
    /// Show the space of the volume
    Df,
    /// Clone a file in constant time, or share a range of it
    Clone(Clone),
    /// Share what is equal in two files, if all of it is
    Dedupe(Dedupe),
    /// Measure operations in the guest
    Bench(Bench),
    /// Store into a file through a mapping
    Poke(Poke),
    /// Load from a file through a mapping
    Peek(Peek),
    /// Show masters, shadows and fault counts, of the volume or of one file
    Pages(Pages),
    /// Verify the volume and the invariants of its mappings
    Check,
    /// Serve files as disks, over NBD
    #[command(subcommand)]
    Export(Export),
    /// Offer a port of the guest as a plain UNIX socket
    Relay(Relay),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write man pages into a folder
    Man(Man),
    /// Executes a program that dies with this process's parent.
    #[command(name = "__leash", hide = true, disable_help_flag = true)]
    Leash(Leash),
    /// Runs a detached supervisor.
    #[command(name = "__supervise", hide = true)]
    Supervise {
        /// The options, as JSON.
        options: String,
    },
}

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
Examples:
  umbra put disk.img /images/disk.img
  umbra put disk.img /images/            keeps the name
  tar c . | umbra put - /backup.tar")]
pub struct Put {
    /// File to read; '-' is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub local: PathBuf,
    /// File to write; one that exists, also a symbolic link, is replaced once all is there, and not
    /// at all if the transfer is interrupted. With a '/' at its end: the directory to write into
    pub path: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra get /images/disk.img disk.img
  umbra get /backup.tar - | tar t")]
pub struct Get {
    /// File to read; a symbolic link is not followed
    pub path: OsString,
    /// File to write; '-' is standard output. A regular file is replaced once all is there, with
    /// its permissions; until then it stays as it is, and the disk has to have room for both
    #[arg(value_hint = ValueHint::FilePath)]
    pub local: PathBuf,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Show mode, names, size and time too, and where links lead
    #[arg(short)]
    pub long: bool,
    /// Directory, or file
    #[arg(default_value = "/")]
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct OnePath {
    /// File, directory or symbolic link (which is not followed)
    pub path: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each argument is tried. If any could not be removed, the last line and the exit status say so.")]
pub struct Rm {
    /// Say nothing of what does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Remove directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// What to remove
    #[arg(required_unless_present = "force")]
    pub paths: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Mv {
    /// Present path
    pub from: OsString,
    /// New path; with a '/' at its end: the directory to move into
    pub to: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra ln /images/a.img /images/b.img   two names of one file
  umbra ln -s a.img /images/current      a link that says 'a.img'

The server follows no symbolic link: what a link says is for those who mount the volume. Where
they would follow it, its target is relative to the directory that holds the link.")]
pub struct Ln {
    /// Make a symbolic link
    #[arg(short, long)]
    pub symbolic: bool,
    /// The file; with -s what the link says, which is not looked at
    pub target: OsString,
    /// The new name, which must not exist; with a '/' at its end: the directory to put it into
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct OneLink {
    /// Symbolic link
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct Mkdir {
    /// Make missing parents too, and accept what exists
    #[arg(short, long)]
    pub parents: bool,
    /// Directories to make
    #[arg(required = true)]
    pub paths: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Truncate {
    /// File; created where missing
    pub path: OsString,
    /// New size; what is beyond the old one reads as zeros
    #[arg(value_parser = parse_bytes)]
    pub size: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra clone /golden.img /vm1.img
  umbra clone /a /b --src-offset 1M --dst-offset 0 --length 64K

A whole clone creates DST. A range is shared into DST, which is created where missing; offsets
are multiples of 4096, and so is the length unless the range ends with both files.")]
pub struct Clone {
    /// File to clone
    pub from: OsString,
    /// The clone; with a '/' at its end: the directory to put it into
    pub to: OsString,
    /// Where the range starts in the source
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "length")]
    pub src_offset: Option<u64>,
    /// Where the range starts in the destination
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "length")]
    pub dst_offset: Option<u64>,
    /// Share this many bytes instead of the whole file
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub length: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra dedupe /golden.img /copy.img
  umbra dedupe /a /b --src-offset 1M --dst-offset 0 --length 64K

Compares what the files contain; holes are zeros. If anything differs nothing is shared, and the
exit status is 1. Offsets are multiples of 4096, and so is the length unless the range ends with
both files. Without --length the range goes to the end of SRC.")]
pub struct Dedupe {
    /// File whose blocks are kept
    #[arg(value_name = "SRC")]
    pub from: OsString,
    /// File that shares them instead of its own
    #[arg(value_name = "DST")]
    pub to: OsString,
    /// Where the range starts in SRC
    #[arg(long, value_name = "N", value_parser = parse_bytes, default_value = "0",
        hide_default_value = true)]
    pub src_offset: u64,
    /// Where the range starts in DST
    #[arg(long, value_name = "N", value_parser = parse_bytes, default_value = "0",
        hide_default_value = true)]
    pub dst_offset: u64,
    /// How many bytes
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub length: Option<u64>,
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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra poke /a.img 4096 --hex 'de ad be ef'
  umbra poke /a.img 0 --fill 0 --length 2M

At return the bytes are durable (msync), unless --no-sync. One that fails midway says how many
bytes it stored; they stay.")]
pub struct Poke {
    /// File
    pub path: OsString,
    /// Where in the file
    #[arg(value_parser = parse_bytes)]
    pub offset: u64,
    /// What to store
    #[command(flatten)]
    pub what: PokeWhat,
    /// How many bytes to fill
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "fill",
        conflicts_with_all = ["hex", "text"])]
    pub length: Option<u64>,
    /// Return before the bytes are durable
    #[arg(long)]
    pub no_sync: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PokeWhat {
    /// Bytes as hexadecimal digits
    #[arg(long, value_name = "H", value_parser = hex)]
    pub hex: Option<Bytes>,
    /// Bytes as text
    #[arg(long, value_name = "T")]
    pub text: Option<OsString>,
    /// One byte, --length times
    #[arg(long, value_name = "BYTE", value_parser = parse_byte, requires = "length")]
    pub fill: Option<u8>,
}

/// Bytes of one argument. (Of a plain `Vec<u8>`, clap would make a list of arguments.)
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

fn hex(text: &str) -> Result<Bytes, String> {
    parse_hex(text).map(Bytes)
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra peek /a.img 4096 5
  umbra peek /a.img 0 512 --hex")]
pub struct Peek {
    /// File
    pub path: OsString,
    /// Where in the file
    #[arg(value_parser = parse_bytes)]
    pub offset: u64,
    /// How many bytes
    #[arg(value_parser = parse_bytes)]
    pub length: u64,
    /// Show hexadecimal digits and characters instead of the bytes
    #[arg(long)]
    pub hex: bool,
}

#[derive(Debug, Args)]
pub struct Pages {
    /// One file
    pub path: Option<OsString>,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  umbra export add /golden.img --read-only        prints the URI
  umbra export add /a.img disk --size 10G         as `disk`, with 10 GiB whatever the file has
  nbdinfo \"$(umbra export add /a.img a)\"
  umbra export list --json
  umbra export remove disk
  umbra export remove disk --force                also where clients use it, or hang

Clients can name any file by its path, without an export: nbd+unix:///a.img?socket=STATE/nbd.sock")]
pub enum Export {
    /// Give a file a name for NBD, and print the URI; it stays over restarts
    Add(ExportAdd),
    /// Remove an export; the file stays
    Remove {
        /// Name of the export, or with --force the path of a file that clients use by its path
        name: String,
        /// End the connections of all clients that came by this name, also of those that hang
        #[arg(long)]
        force: bool,
    },
    /// List exports, and who uses them: since when, by which vsock address and, where the vsock
    /// device is Umbra's own, from which process
    List,
}

#[derive(Debug, Args)]
pub struct ExportAdd {
    /// File on the server
    pub path: OsString,
    /// Name for clients [default: the path, without the first `/`]
    pub name: Option<String>,
    /// Let nobody write
    #[arg(long)]
    pub read_only: bool,
    /// Size that clients see; a shorter file is made longer
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub size: Option<u64>,
    /// Replace an export of this name
    #[arg(long)]
    pub replace: bool,
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
#[command(after_help = "\
Example:
  umbra completions bash > ~/.local/share/bash-completion/completions/umbra")]
pub struct Completions {
    /// Shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// Folder for umbra.1, umbra-up.1, ...
    #[arg(value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn poke_takes_exactly_one_source_of_bytes() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("umbra poke /f 0 --hex 00").is_ok());
        assert!(parse("umbra poke /f 0 --fill 0x7f --length 2M").is_ok());
        assert!(parse("umbra poke /f 0").is_err());
        assert!(parse("umbra poke /f 0 --fill 1").is_err());
        assert!(parse("umbra poke /f 0 --text a --hex 00").is_err());
        assert!(parse("umbra poke /f 0 --text a --length 4").is_err());
    }

    #[test]
    fn a_leash_passes_every_argument_on() {
        let line = ["umbra", "__leash", "12", "prog", "-display", "none", "--json", "-h"];
        let cli = Cli::try_parse_from(line).unwrap();
        let Some(Command::Leash(leash)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(leash.parent, 12);
        assert_eq!(leash.arguments, ["-display", "none", "--json", "-h"]);
        assert!(!cli.json);
    }
}
