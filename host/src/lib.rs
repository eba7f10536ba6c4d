//! Everything about Umbra that runs on the host: building the guest, running it, talking to it.
//!
//! | module           | what                                                    |
//! |------------------|---------------------------------------------------------|
//! | [`access`]       | who may use sockets and files                           |
//! | [`mod@bench`]    | benchmarks: rounds in the server, medians here          |
//! | [`build`]        | the loader and the kernel, from this source tree        |
//! | [`client`]       | the client library, usable on its own                   |
//! | [`guest_events`] | what happened to the guest's memory, over all runs      |
//! | [`launch`]       | the virtual machine: start, supervise, shut down        |
//! | [`log`]          | logs that do not grow for ever                          |
//! | [`plot`]         | figures as SVG                                          |
//! | [`record`]       | what happened to a server, over all runs                |
//! | `socket`         | sockets between clients and the guest                   |
//! | [`state`]        | the state directory                                     |
//! | [`this_process`] | its umask, and what it does before a signal ends it     |
//! | [`toolchain`]    | a toolchain for the bare machine                        |
//! | [`units`]        | sizes as people write and read them                     |
//! | [`vsock`]        | the vsock device of hosts whose kernel has none         |
//!
//! The program `umbra` is a thin layer of commands over these.

pub mod access;
pub mod bench;
pub mod build;
pub mod client;
pub mod guest_events;
pub mod launch;
pub mod log;
pub mod plot;
pub mod record;
mod socket;
pub mod state;
pub mod this_process;
pub mod toolchain;
pub mod units;
pub mod vsock;
