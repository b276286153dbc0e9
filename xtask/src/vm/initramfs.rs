//! The guest's file system: what the tests need, and nothing that a distribution would add.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Suite, kernel::Kernel};
use crate::{packages, progress::step};

/// What the tests make the kernel do; modules that these need come along.
const MODULES: [&str; 12] = [
    "virtio_pci",
    "virtio_blk",
    "veth",
    "ip_gre",
    "ip6_gre",
    "bridge",
    "8021q",
    "bonding",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "act_gact",
];

/// What the tests run, with its libraries.
const PROGRAMS: [&str; 11] = [
    "busybox", "ip", "tc", "bridge", "ethtool", "ping", "iperf3", "sysctl", "nsenter", "setpriv",
    "tcpdump",
];

const INIT: &str = include_str!("init.sh");

/// Makes it, beside the kernel; returns the file.
pub(super) fn make(kernel: &Kernel, xgre: &Path, suites: &[Suite]) -> Result<PathBuf> {
    let root = kernel.directory.join("initramfs");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    for directory in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tests", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in PROGRAMS {
        let program = packages::find(name).with_context(|| format!("{name} is not installed"))?;
        add(&root, &program, &Path::new("bin").join(name))?;
    }
    add(&root, xgre, Path::new("bin/xgre"))?;
    let mut list = String::new();
    for suite in suites {
        add(&root, &suite.binary, &Path::new("tests").join(&suite.name))?;
        list.push_str(&format!("{} {}\n", suite.name, suite.arguments.join(" ")));
    }
    fs::write(root.join("suites"), list)?;
    // tcpdump wants to know who root is.
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    add_names(&root)?;
    add_modules(&root, kernel)?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;

    let mut cpio = Command::new("sh");
    cpio.args(["-c", "find . | cpio --quiet -o -H newc -R +0:+0 > ../initramfs.cpio"])
        .current_dir(&root);
    step(&format!("making the guest of {}", kernel.release), cpio)?;
    Ok(kernel.directory.join("initramfs.cpio"))
}

/// Adds a program without its debugging information, and the libraries that it is linked to.
fn add(root: &Path, program: &Path, name: &Path) -> Result<()> {
    let target = root.join(name);
    let stripped = Command::new("strip").arg("-o").arg(&target).arg(program).output()?;
    if !stripped.status.success() {
        bail!("strip {}: {}", program.display(), String::from_utf8_lossy(&stripped.stderr));
    }
    let ldd = Command::new("ldd").arg(program).stderr(Stdio::null()).output()?;
    // Of a static program ldd says nothing that starts with a slash.
    for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace() {
        let Some(relative) = word.strip_prefix('/') else { continue };
        let target = root.join(relative);
        if !target.exists() {
            fs::create_dir_all(target.parent().context("a library has a directory")?)?;
            fs::copy(word, &target).with_context(|| format!("copying {word}"))?;
        }
    }
    Ok(())
}

/// Those that `ip` gives to TOS bytes and others, which lie where its version looks for them.
fn add_names(root: &Path) -> Result<()> {
    for directory in ["etc/iproute2", "usr/share/iproute2"] {
        let names = Path::new("/").join(directory).join("rt_dsfield");
        if names.is_file() {
            fs::create_dir_all(root.join(directory))?;
            fs::copy(&names, root.join(directory).join("rt_dsfield"))
                .with_context(|| format!("copying {}", names.display()))?;
        }
    }
    Ok(())
}

/// As they are loaded: without compression, of which busybox's insmod knows nothing.
fn add_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let mut order = String::new();
    for file in kernel.modules(&MODULES)? {
        let name = file.file_name().and_then(|name| name.to_str()).context("a module's name")?;
        let plain = name.trim_end_matches(".xz");
        let target = root.join("modules").join(plain);
        if plain == name {
            fs::copy(&file, &target)?;
        } else {
            let mut xz = Command::new("xz");
            xz.args(["-d", "-c"]).arg(&file).stdout(File::create(&target)?);
            if !xz.status().context("running xz")?.success() {
                bail!("xz could not decompress {}", file.display());
            }
        }
        order.push_str(plain);
        order.push('\n');
    }
    fs::write(root.join("modules/order"), order)?;
    Ok(())
}
