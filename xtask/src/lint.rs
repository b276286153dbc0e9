//! Checks that run nothing of xgre: format, clippy, and invariants of the tree that a search of
//! the source can show.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build::cargo, progress::step, root, setup, test::Timings};

/// A rule about which files may contain what.
struct Invariant {
    /// What holds, as the error says it.
    rule: &'static str,
    /// Directory or file, from the workspace's root.
    within: &'static str,
    /// The files in there of which the rule does not speak.
    except: &'static [&'static str],
    forbidden: &'static [&'static str],
    /// Lines with this are fine.
    unless: Option<&'static str>,
}

const INVARIANTS: [Invariant; 7] = [
    Invariant {
        rule: "only gre-ebpf/src/verdict.rs names XDP and TC actions",
        within: "gre-ebpf/src",
        except: &["verdict.rs"],
        forbidden: &[
            "XDP_ABORTED",
            "XDP_DROP",
            "XDP_PASS",
            "XDP_TX",
            "XDP_REDIRECT",
            "TC_ACT_",
            "xdp_action::",
        ],
        unless: None,
    },
    Invariant {
        rule: "only gre-ebpf/src/packet.rs dereferences packet memory",
        within: "gre-ebpf/src",
        except: &["packet.rs"],
        forbidden: &[
            "read_unaligned",
            "write_unaligned",
            "unsafe { *",
            "unsafe { &*",
            "unsafe { &mut *",
        ],
        // The program's context, which the verifier knows, and not packet memory.
        unless: Some("ctx.skb.skb"),
    },
    Invariant {
        rule: "gre-ebpf-common has no unsafe code outside pod.rs",
        within: "gre-ebpf-common/src",
        except: &["pod.rs"],
        forbidden: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"],
        unless: None,
    },
    Invariant {
        rule: "reconcile.rs does no input or output",
        within: "gre-userspace/src/reconcile.rs",
        except: &[],
        forbidden: IO,
        unless: None,
    },
    Invariant {
        rule: "dataplane does no input or output",
        within: "gre-userspace/src/dataplane",
        except: &[],
        forbidden: IO,
        unless: None,
    },
    Invariant {
        rule: "the doctor's checks do no input or output, but for doctor/gather",
        within: "gre-userspace/src/doctor",
        except: &["gather.rs", "gather/ethtool.rs", "gather/machine.rs", "gather/programs.rs"],
        forbidden: IO,
        unless: None,
    },
    Invariant {
        rule: "slowpath/handle does no input or output",
        within: "gre-userspace/src/slowpath/handle",
        except: &[],
        forbidden: IO,
        unless: None,
    },
];

const IO: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::io",
    "tokio::",
    "aya::",
    "nix::",
    "rtnetlink",
    "netlink_sys",
    ".await",
    "async fn",
];

/// `cargo xtask lint`.
pub(crate) fn everything() -> Result<()> {
    setup::ensure()?;
    let mut timings = Timings::default();
    let result = checks(&mut timings);
    timings.print();
    result
}

pub(crate) fn checks(timings: &mut Timings) -> Result<()> {
    timings.measure("format", format)?;
    timings.measure("invariants", || invariants(root()))?;
    timings.measure("clippy", clippy)
}

fn format() -> Result<()> {
    component("rustfmt", "cargo-fmt")?;
    let mut command = cargo();
    command.args(["fmt", "--all", "--check"]);
    step("cargo fmt --all --check", command)
        .context("the format differs; `cargo fmt --all` puts it right")
        .map(drop)
}

fn clippy() -> Result<()> {
    component("clippy", "cargo-clippy")?;
    let mut command = cargo();
    command.args(["clippy", "--all-targets", "--", "--deny", "warnings"]);
    step("cargo clippy --all-targets", command).map(drop)
}

/// A minimal rustup profile has neither component.
fn component(name: &str, program: &str) -> Result<()> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output();
    let sysroot = String::from_utf8(sysroot.context("running rustc")?.stdout)?;
    if Path::new(sysroot.trim()).join("bin").join(program).exists() {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    command.args(["component", "add", name]).current_dir(root());
    step(&format!("rustup component add {name}"), command).map(drop)
}

/// Reports every violation, not only the first.
fn invariants(root: &Path) -> Result<()> {
    let mut violations = Vec::new();
    for invariant in &INVARIANTS {
        violations.extend(invariant.violations(root)?);
    }
    if !violations.is_empty() {
        bail!("an invariant of the design is broken:\n{}", violations.join("\n"));
    }
    Ok(())
}

impl Invariant {
    fn violations(&self, root: &Path) -> Result<Vec<String>> {
        let mut violations = Vec::new();
        let files = sources(&root.join(self.within))?;
        if files.is_empty() {
            // A file that has moved must not take its rule with it.
            violations.push(format!("{}: there is no {}", self.rule, self.within));
        }
        for file in files {
            if self.except.iter().any(|name| file.ends_with(name)) {
                continue;
            }
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            for (index, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if self.unless.is_some_and(|word| code.contains(word)) {
                    continue;
                }
                if self.forbidden.iter().any(|word| code.contains(word)) {
                    let name = file.strip_prefix(root).unwrap_or(&file).display();
                    violations.push(format!(
                        "{name}:{}: {}: {}",
                        index + 1,
                        self.rule,
                        line.trim()
                    ));
                }
            }
        }
        Ok(violations)
    }
}

/// The Rust files below a directory; or the one file, or its module's directory.
fn sources(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let directory = path.with_extension("");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a directory of its own, with one source file.
    fn tree(name: &str, file: &str, text: &str) -> PathBuf {
        let root = crate::root().join("target/tmp/lint").join(name);
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        root
    }

    #[test]
    fn an_action_named_outside_verdict_is_reported_with_its_line() {
        let root = tree("action", "gre-ebpf/src/decap.rs", "// XDP_PASS\nreturn XDP_PASS;\n");
        let violations = INVARIANTS[0].violations(&root).unwrap();
        assert_eq!(violations.len(), 1);
        assert!(violations[0].starts_with("gre-ebpf/src/decap.rs:2: only"), "{violations:?}");
    }

    #[test]
    fn an_action_in_verdict_and_in_comments_is_fine() {
        let root = tree("verdict", "gre-ebpf/src/verdict.rs", "return XDP_PASS;\n");
        assert!(INVARIANTS[0].violations(&root).unwrap().is_empty());
    }

    #[test]
    fn a_rule_about_a_file_that_is_gone_is_broken() {
        let root = tree("gone", "gre-userspace/src/other.rs", "");
        assert_eq!(INVARIANTS[3].violations(&root).unwrap().len(), 1);
    }
}
