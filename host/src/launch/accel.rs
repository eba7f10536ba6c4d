//! KVM or emulation.
//!
//! A `/dev/kvm` that opens is no proof: some nested and paravirtual hosts offer one on which
//! real kernels hang. So KVM also needs a processor that says it has `vmx` or `svm`.

use super::LaunchError;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, OpenOptions};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// KVM where it works, else emulation
    #[default]
    Auto,
    /// Emulation
    Tcg,
    /// KVM, or an error
    Kvm,
}

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Emulation.
    Tcg,
    /// The hardware.
    Kvm,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        })
    }
}

/// What the host offers.
#[derive(Clone, Debug)]
struct Host {
    /// Whether the processor has `vmx` or `svm`.
    virtualisation: bool,
    /// Whether `/dev/kvm` opens, or why not.
    kvm: Result<(), String>,
}

impl Host {
    fn probe() -> Host {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        Host {
            virtualisation: has_virtualisation(&cpuinfo),
            kvm: kvm.map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Why KVM cannot be used, if so.
    fn objection(&self) -> Option<String> {
        if !self.virtualisation {
            return Some("the processor has neither vmx nor svm".into());
        }
        self.kvm.as_ref().err().map(|error| format!("/dev/kvm does not open: {error}"))
    }
}

/// Whether a processor's flags in the text of `/proc/cpuinfo` hold `vmx` or `svm`.
fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// Chooses, and says why.
pub(super) fn choose(choice: Choice) -> Result<(Accel, String), LaunchError> {
    decide(choice, &Host::probe())
}

fn decide(choice: Choice, host: &Host) -> Result<(Accel, String), LaunchError> {
    match (choice, host.objection()) {
        (Choice::Tcg, _) => Ok((Accel::Tcg, "asked for".into())),
        (Choice::Kvm, None) => Ok((Accel::Kvm, "asked for".into())),
        (Choice::Kvm, Some(why)) => {
            Err(LaunchError::Unusable(format!("--accel kvm is not possible here: {why}")))
        }
        (Choice::Auto, None) => Ok((Accel::Kvm, "the processor and /dev/kvm allow it".into())),
        (Choice::Auto, Some(why)) => Ok((Accel::Tcg, why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_capable_processor_is_not_enough() {
        let host = Host { virtualisation: false, kvm: Ok(()) };
        assert_eq!(decide(Choice::Auto, &host).unwrap().0, Accel::Tcg);
        assert!(decide(Choice::Kvm, &host).unwrap_err().to_string().contains("neither vmx nor svm"));
    }

    #[test]
    fn both_are_needed_and_suffice() {
        let host = Host { virtualisation: true, kvm: Ok(()) };
        assert_eq!(decide(Choice::Auto, &host).unwrap().0, Accel::Kvm);
        assert_eq!(decide(Choice::Tcg, &host).unwrap().0, Accel::Tcg);
        let host = Host { virtualisation: true, kvm: Err("Permission denied".into()) };
        assert_eq!(decide(Choice::Auto, &host).unwrap().0, Accel::Tcg);
        assert!(decide(Choice::Kvm, &host).is_err());
    }

    #[test]
    fn flags_are_whole_words() {
        assert!(has_virtualisation("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags\t: svm"));
        assert!(!has_virtualisation("flags\t: vmx_extra fpu\nvmx flags\t: vnmi\n"));
        assert!(!has_virtualisation(""));
    }
}
