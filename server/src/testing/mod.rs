//! What tests of servers run on: a connection without a network, and a machine without hardware.

pub mod fuzz;
pub mod nbd;
mod platform;
mod wire;

pub use platform::{Keeper, SoftPlatform, poll};
pub use wire::{Ring, Wire};
