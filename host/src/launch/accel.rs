//! KVM or emulation.
//!
//! A `/dev/kvm` that opens is no proof: some nested and paravirtual hosts offer one on which
//! real kernels hang. So KVM is chosen only if the processor also says that it has `vmx` or
//! `svm`, and if the guest then does not get ready, the supervisor starts it again under
//! emulation. Whoever asks for KVM gets it tried wherever `/dev/kvm` opens.

use super::LaunchError;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::{env, fmt};

/// If it is set, the host is taken to allow KVM, whatever it says: so tests see what happens
/// where KVM is chosen and does not work.
const ASSUME_KVM: &str = "UMBRA_ASSUME_KVM";

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// KVM where the processor and /dev/kvm allow it and the guest gets ready, else emulation
    #[default]
    Auto,
    /// Emulation
    Tcg,
    /// KVM; an error where it does not work
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
        if env::var_os(ASSUME_KVM).is_some() {
            return Host { virtualisation: true, kvm: Ok(()) };
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        Host {
            virtualisation: has_virtualisation(&cpuinfo),
            kvm: kvm.map(drop).map_err(|error| format!("/dev/kvm does not open: {error}")),
        }
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

/// What is used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) accel: Accel,
    pub(super) reason: String,
}

impl Chosen {
    /// Emulation, because the guest did not get ready under KVM.
    pub(super) fn instead_of_kvm(why: &str) -> Chosen {
        Chosen {
            accel: Accel::Tcg,
            reason: format!("the guest did not get ready under KVM: {why}"),
        }
    }
}

/// Chooses, and says why.
pub(super) fn choose(choice: Choice) -> Result<Chosen, LaunchError> {
    decide(choice, &Host::probe())
}

fn decide(choice: Choice, host: &Host) -> Result<Chosen, LaunchError> {
    let chosen = |accel, reason: &str| Ok(Chosen { accel, reason: reason.into() });
    match (choice, &host.kvm) {
        (Choice::Tcg, _) => chosen(Accel::Tcg, "asked for"),
        (Choice::Kvm, Ok(())) => chosen(Accel::Kvm, "asked for"),
        (Choice::Kvm, Err(why)) => {
            Err(LaunchError::Unusable(format!("--accel kvm is not possible here: {why}")))
        }
        (Choice::Auto, _) if !host.virtualisation => chosen(Accel::Tcg, NO_SIGN),
        (Choice::Auto, Err(why)) => chosen(Accel::Tcg, why),
        (Choice::Auto, Ok(())) => chosen(Accel::Kvm, "the processor and /dev/kvm allow it"),
    }
}

const NO_SIGN: &str = "the processor has neither vmx nor svm";

/// What is to be said before a choice is tried, if anything is.
pub fn warning(choice: Choice) -> Option<String> {
    warning_on(choice, &Host::probe())
}

fn warning_on(choice: Choice, host: &Host) -> Option<String> {
    let doubtful = choice == Choice::Kvm && host.kvm.is_ok() && !host.virtualisation;
    doubtful.then(|| format!("{NO_SIGN}: the guest may hang under KVM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_a_capable_processor_is_tried_only_if_asked_for() {
        let host = Host { virtualisation: false, kvm: Ok(()) };
        assert_eq!(decide(Choice::Auto, &host).unwrap().accel, Accel::Tcg);
        assert_eq!(decide(Choice::Kvm, &host).unwrap().accel, Accel::Kvm);
        assert!(warning_on(Choice::Kvm, &host).unwrap().contains("neither vmx nor svm"));
        assert_eq!(warning_on(Choice::Auto, &host), None);
    }

    #[test]
    fn both_are_needed_and_suffice() {
        let host = Host { virtualisation: true, kvm: Ok(()) };
        assert_eq!(decide(Choice::Auto, &host).unwrap().accel, Accel::Kvm);
        assert_eq!(decide(Choice::Tcg, &host).unwrap().accel, Accel::Tcg);
        assert_eq!(warning_on(Choice::Kvm, &host), None);
    }

    #[test]
    fn a_device_that_does_not_open_is_an_error_if_asked_for() {
        for virtualisation in [true, false] {
            let host = Host { virtualisation, kvm: Err("Permission denied".into()) };
            assert_eq!(decide(Choice::Auto, &host).unwrap().accel, Accel::Tcg);
            let error = decide(Choice::Kvm, &host).unwrap_err().to_string();
            assert!(error.contains("Permission denied"), "{error}");
            assert_eq!(warning_on(Choice::Kvm, &host), None);
        }
    }

    #[test]
    fn flags_are_whole_words() {
        assert!(has_virtualisation("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags\t: svm"));
        assert!(!has_virtualisation("flags\t: vmx_extra fpu\nvmx flags\t: vnmi\n"));
        assert!(!has_virtualisation(""));
    }
}
