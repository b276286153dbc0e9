//! Mounts and limits: where the pins are, and how many files the daemon may open.

use super::{Facts, Finding};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![daemon(facts), bpffs(facts)];
    findings.extend(open_files(facts));
    findings.push(Finding::ok(
        "memlock",
        "RLIMIT_MEMLOCK does not matter: BPF memory is not counted against it since Linux 5.11",
    ));
    findings
}

fn daemon(facts: &Facts) -> Finding {
    const CHECK: &str = "daemon";
    let Err(reason) = &facts.daemon else {
        return Finding::ok(CHECK, "the daemon answers");
    };
    if facts.pinned {
        return Finding::warning(CHECK, reason)
            .why(
                "the programs go on forwarding by what was known when it ended: routes, neighbours and \
                 filters that change are not followed",
            )
            .fix("systemctl start xgre");
    }
    Finding::note(CHECK, reason)
        .why("only the machine was looked at: no tunnels, and as ports what would be ports without a config")
        .fix("systemctl start xgre")
}

fn bpffs(facts: &Facts) -> Finding {
    const CHECK: &str = "bpffs";
    let path = &facts.bpffs.path;
    if !facts.bpffs.mounted {
        return Finding::warning(CHECK, format!("no BPF file system is mounted at {path}"))
            .why("the daemon mounts it, unless it runs in a mount namespace of its own: then it does not start")
            .fix(format!("mount -t bpf bpf {path}"));
    }
    if !facts.bpffs.writable {
        return Finding::error(
            CHECK,
            format!("the BPF file system at {path} is mounted read-only"),
        )
        .why("nothing can be pinned there: the daemon does not start")
        .fix(format!("mount -o remount,rw {path}"));
    }
    Finding::ok(CHECK, format!("a BPF file system is mounted at {path}"))
}

/// Maps, programs and sockets of the daemon.
const FILES: u64 = 96;
/// Links and programs of a port.
const FILES_OF_PORT: u64 = 4;

fn open_files(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "nofile";
    let limit = facts.files.limit?;
    let ports = facts.ports().len() as u64;
    // Each CPU has a buffer of events.
    let needed = FILES + u64::from(facts.kernel.cpus) + FILES_OF_PORT * ports;
    let (whose, used) = match (facts.files.is_daemons, facts.files.open) {
        (true, Some(open)) => ("the daemon", format!("has {open} files open of {limit}")),
        (true, None) => ("the daemon", format!("may open {limit} files")),
        (false, _) => ("a daemon started from here", format!("may open {limit} files")),
    };
    let needed = needed.max(facts.files.open.unwrap_or(0) + FILES_OF_PORT);
    if limit < needed {
        return Some(
            Finding::warning(CHECK, format!("{whose} {used}, and needs some {needed}"))
                .why("it cannot attach to more ports, or answer more clients")
                .fix("systemctl edit xgre   # [Service] LimitNOFILE=65536"),
        );
    }
    Some(Finding::ok(CHECK, format!("{whose} {used}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Severity,
        testing::{facts, severities},
    };

    #[test]
    fn a_daemon_that_answers_from_a_mounted_file_system_is_fine() {
        let fine = ["daemon", "bpffs", "nofile", "memlock"];
        assert_eq!(severities(check(&facts())), fine.map(|check| (check, Severity::Ok)));
    }

    #[test]
    fn without_a_daemon_it_is_said_and_programs_that_nobody_follows_are_a_warning() {
        let mut facts = facts();
        facts.daemon = Err("it does not run".into());
        assert_eq!(daemon(&facts).severity, Severity::Note);
        facts.pinned = true;
        assert_eq!(daemon(&facts).severity, Severity::Warning);
    }

    #[test]
    fn a_file_system_that_is_missing_or_read_only_is_told_with_its_mount() {
        let mut facts = facts();
        facts.bpffs.writable = false;
        assert_eq!(bpffs(&facts).severity, Severity::Error);
        assert_eq!(bpffs(&facts).fix.unwrap(), "mount -o remount,rw /sys/fs/bpf");
        facts.bpffs.mounted = false;
        assert_eq!(bpffs(&facts).severity, Severity::Warning);
        assert_eq!(bpffs(&facts).fix.unwrap(), "mount -t bpf bpf /sys/fs/bpf");
    }

    /// Four CPUs and two ports: 96 + 4 + 8.
    #[test]
    fn the_limit_of_open_files_is_compared_with_what_is_needed() {
        let mut facts = facts();
        facts.files.limit = Some(108);
        assert_eq!(open_files(&facts).unwrap().severity, Severity::Ok);
        facts.files.limit = Some(107);
        assert_eq!(open_files(&facts).unwrap().severity, Severity::Warning);
        facts.files.limit = Some(200);
        facts.files.open = Some(198);
        assert_eq!(open_files(&facts).unwrap().severity, Severity::Warning);
        facts.files.limit = None;
        assert_eq!(open_files(&facts), None);
    }
}
