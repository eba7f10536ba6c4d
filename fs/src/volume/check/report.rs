//! What a check found.

use alloc::string::String;
use alloc::vec::Vec;

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One line per finding (at most 100 are kept).
    pub issues: Vec<String>,
    /// All findings, those beyond the first 100 included.
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
    pub(crate) fn add(&mut self, issue: String) {
        self.issues_total += 1;
        if self.issues.len() < 100 {
            self.issues.push(issue);
        }
    }
}
