//! What a check found.

use crate::memory::{format, push};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One line per finding: the first 100 at most, and fewer if there was no memory for more.
    pub issues: Vec<String>,
    /// All findings, those without a line included.
    pub issues_total: u64,
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Inodes that were looked at.
    pub inodes: u64,
    /// Blocks and inodes that were not judged, since they changed meanwhile.
    pub changed: u64,
}

impl CheckReport {
    /// Adds a finding.
    pub(crate) fn add(&mut self, issue: fmt::Arguments<'_>) {
        self.issues_total += 1;
        if self.issues.len() < 100 {
            // Without memory for its line it is only counted.
            let _ = format(issue).and_then(|line| push(&mut self.issues, line));
        }
    }
}
