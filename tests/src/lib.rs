//! A harness for tests that boot the real thing, and what they share.
//!
//! A test launches a machine on a state directory of its own, waits until it serves, acts, and
//! asserts. A failed one keeps that directory and says where the logs are.
//!
//! | module      | what                                                          |
//! |-------------|---------------------------------------------------------------|
//! | [`vm`]      | the machine: launch, restart, kill, and `umbra` run against it |
//! | [`programs`]| the `umbra` program and the guest's images, built once        |
//! | [`qemus`]   | the QEMU that is installed, and another version beside it     |
//! | [`image`]   | disk images with a real filesystem, and their hashes          |
//! | [`edits`]   | stores as the host computes them                              |
//! | [`linux`]   | Linux guests: Debian's kernel and an initial RAM disk           |
//! | [`nbd`]     | a client of NBD that speaks all of it                         |
//! | [`kills`]   | QEMU killed under writers that log what was made durable      |
//! | [`soft`]    | the servers without a machine, over a volume in memory        |
//! | [`crowd`]   | many clients at once, all of them idle                        |
//! | [`torture`] | kills at random moments, and what has to be there after them     |
//! | [`ping`]    | a client that pings while another does every operation there is   |
//! | [`random`]  | numbers that are the same in every run                        |
//!
//! The tests themselves are in `tests/tests/`, one file for each thing that is shown. They
//! assert contents, counts and ratios within one run, never absolute times: those are printed by
//! `cargo acceptance`.

pub mod crowd;
pub mod edits;
pub mod image;
pub mod kills;
pub mod linux;
pub mod nbd;
pub mod ping;
pub mod programs;
pub mod qemus;
pub mod random;
pub mod soft;
pub mod torture;
pub mod vm;

pub use vm::{Machine, Vm};
