//! The kernel: whether it is new enough, and whether it compiles BPF programs.

use super::{Facts, Finding, KernelFacts};

/// The oldest kernel that the programs are tested on.
const OLDEST: (u32, u32) = (6, 1);
/// Since when the kernel says what XDP can do on a device, and redirects out of bonds.
const TELLS_FEATURES: (u32, u32) = (6, 3);
/// Since when TC programs are attached by links, which outlive the daemon without gaps.
const HAS_TCX: (u32, u32) = (6, 6);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let mut findings = vec![version(kernel), btf(kernel)];
    findings.extend(jit(kernel));
    findings.extend(jit_harden(kernel));
    findings
}

fn version(kernel: &KernelFacts) -> Finding {
    const CHECK: &str = "kernel-version";
    let release = &kernel.release;
    let version = (kernel.version.0, kernel.version.1);
    if version < OLDEST {
        return Finding::error(CHECK, format!("the kernel is {release}, older than 6.1"))
            .why("the daemon does not start on it")
            .fix("apt-get install linux-image-amd64 && reboot");
    }
    let lacks = if version < TELLS_FEATURES {
        "it does not say what XDP can do on a device, so that ports on veth are generic, and nothing is \
         sent natively out of bonds (Linux 6.3); TC programs are attached by filters (Linux 6.6)"
    } else if version < HAS_TCX {
        "TC programs are attached by filters and not by links, which Linux 6.6 has"
    } else {
        return Finding::ok(CHECK, format!("the kernel is {release}: it has all that xgre uses"));
    };
    Finding::note(CHECK, format!("the kernel is {release}")).why(lacks)
}

fn btf(kernel: &KernelFacts) -> Finding {
    const CHECK: &str = "btf";
    if kernel.btf {
        return Finding::ok(CHECK, "the kernel describes its types (/sys/kernel/btf/vmlinux)");
    }
    Finding::note(CHECK, "there is no /sys/kernel/btf/vmlinux")
        .why("xgre does without; bpftool, bpftrace and xdpdump show less of its programs")
        .fix("boot a kernel built with CONFIG_DEBUG_INFO_BTF, or mount -t sysfs sysfs /sys")
}

fn jit(kernel: &KernelFacts) -> Option<Finding> {
    const CHECK: &str = "bpf-jit";
    match (kernel.jit, kernel.compiled) {
        (_, Some(false)) | (Some(0), None) => Some(
            Finding::error(CHECK, "BPF programs are interpreted")
                .why("each packet costs several times as much")
                .fix("sysctl -w net.core.bpf_jit_enable=1 && systemctl restart xgre"),
        ),
        (Some(0), Some(true)) => Some(
            Finding::warning(CHECK, "programs that are loaded from now on are interpreted")
                .why("after the next start of the daemon each packet costs several times as much")
                .fix("sysctl -w net.core.bpf_jit_enable=1"),
        ),
        (Some(_), _) | (None, Some(true)) => {
            Some(Finding::ok(CHECK, "BPF programs are compiled to machine code"))
        }
        // Only the initial network namespace shows the setting.
        (None, None) => None,
    }
}

fn jit_harden(kernel: &KernelFacts) -> Option<Finding> {
    const CHECK: &str = "bpf-jit-harden";
    match kernel.jit_harden? {
        2.. => Some(
            Finding::warning(CHECK, "net.core.bpf_jit_harden is 2")
                .why("constants in root's programs are blinded too, which makes them longer and slower")
                .fix("sysctl -w net.core.bpf_jit_harden=1 && systemctl restart xgre"),
        ),
        _ => Some(Finding::ok(CHECK, "root's BPF programs are compiled without blinding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Severity, testing::facts};

    fn severities(change: impl FnOnce(&mut KernelFacts)) -> Vec<(&'static str, Severity)> {
        let mut facts = facts();
        change(&mut facts.kernel);
        check(&facts).into_iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_new_kernel_that_compiles_is_fine() {
        let fine = ["kernel-version", "btf", "bpf-jit", "bpf-jit-harden"];
        assert_eq!(severities(|_| {}), fine.map(|check| (check, Severity::Ok)));
    }

    #[test]
    fn what_an_old_kernel_lacks_is_said_and_one_that_is_too_old_is_an_error() {
        for (version, expected) in [
            ((5, 15, 0), Severity::Error),
            ((6, 0, 9), Severity::Error),
            ((6, 1, 0), Severity::Note),
            ((6, 5, 0), Severity::Note),
            ((6, 6, 0), Severity::Ok),
            ((7, 0, 0), Severity::Ok),
        ] {
            let found = severities(|kernel| kernel.version = version);
            assert_eq!(found[0], ("kernel-version", expected), "{version:?}");
        }
    }

    #[test]
    fn a_kernel_without_btf_is_only_noted() {
        assert_eq!(severities(|kernel| kernel.btf = false)[1], ("btf", Severity::Note));
    }

    #[test]
    fn what_the_loaded_programs_are_counts_more_than_the_setting() {
        for (jit, compiled, expected) in [
            (Some(0), None, Some(Severity::Error)),
            (Some(0), Some(true), Some(Severity::Warning)),
            (Some(1), Some(false), Some(Severity::Error)),
            (None, Some(false), Some(Severity::Error)),
            (None, Some(true), Some(Severity::Ok)),
            (None, None, None),
        ] {
            let found = severities(|kernel| (kernel.jit, kernel.compiled) = (jit, compiled));
            let found = found.into_iter().find(|(check, _)| *check == "bpf-jit");
            assert_eq!(found.map(|(_, severity)| severity), expected, "{jit:?} {compiled:?}");
        }
    }

    #[test]
    fn hardening_of_root_too_is_a_warning() {
        for (harden, expected) in [(0, Severity::Ok), (1, Severity::Ok), (2, Severity::Warning)] {
            let found = severities(|kernel| kernel.jit_harden = Some(harden));
            assert_eq!(found[3], ("bpf-jit-harden", expected));
        }
    }
}
