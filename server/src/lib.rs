//! The servers.
#![no_std]
#![forbid(unsafe_code)]
