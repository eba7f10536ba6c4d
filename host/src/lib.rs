//! Everything about Umbra that runs on the host: building the guest, running it, talking to it.
//!
//! | module        | what                                                      |
//! |---------------|-----------------------------------------------------------|
//! | [`mod@bench`] | benchmarks: rounds in the server, medians here             |
//! | [`build`]     | the loader and the kernel, from this source tree          |
//! | [`client`]    | the client library, usable on its own                     |
//! | [`launch`]    | the virtual machine: start, supervise, shut down          |
//! | [`plot`]      | figures as SVG                                            |
//! | `socket`      | sockets between clients and the guest                     |
//! | [`state`]     | the state directory                                       |
//! | [`toolchain`] | a toolchain for the bare machine                          |
//! | [`units`]     | sizes as people write and read them                       |
//! | [`vsock`]     | the vsock device of hosts whose kernel has none           |
//!
//! The program `umbra` is a thin layer of commands over these.

pub mod bench;
pub mod build;
pub mod client;
pub mod launch;
pub mod plot;
mod socket;
pub mod state;
pub mod toolchain;
pub mod units;
pub mod vsock;
