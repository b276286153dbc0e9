//! What is in the package, and whether it is right.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::{machine, namespace::Namespace, process::run};

const WITHIN: Duration = Duration::from_secs(60);

/// The package unpacked, in the scratch directory of a namespace.
struct Unpacked {
    root: PathBuf,
    _namespace: Namespace,
}

impl Unpacked {
    fn new() -> Result<Self> {
        let namespace = Namespace::new("unpacked")?;
        let root = namespace.scratch().join("root");
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--extract").arg(machine::package()?).arg(&root);
        run(extract, WITHIN)?;
        Ok(Self { root, _namespace: namespace })
    }

    fn text(&self, path: &str) -> Result<String> {
        let file = self.root.join(path);
        fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Runs the package's own xgre.
    fn xgre(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.root.join("usr/bin/xgre"));
        command.args(words);
        run(command, WITHIN)
    }
}

/// Files below a directory, by their paths from there.
fn files(directory: &Path) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let below = self::files(&entry.path())?;
            files.extend(below.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            files.insert(name);
        }
    }
    Ok(files)
}

/// Of the files; man pages aside, which [`every_command_has_a_man_page_without_a_mistake`] looks at.
const FILES: [&str; 10] = [
    "etc/xgre/xgre.toml",
    "usr/bin/xgre",
    "usr/lib/systemd/system/xgre.service",
    "usr/share/bash-completion/completions/xgre",
    "usr/share/doc/xgre/README.md",
    "usr/share/doc/xgre/changelog.Debian.gz",
    "usr/share/doc/xgre/copyright",
    "usr/share/fish/vendor_completions.d/xgre.fish",
    "usr/share/xgre/xgre.schema.json",
    "usr/share/zsh/vendor-completions/_xgre",
];

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn every_file_is_where_debian_has_such_and_for_everybody_to_read() -> Result<()> {
    let package = Unpacked::new()?;
    let mut found = files(&package.root)?;
    found.retain(|file| !file.starts_with("usr/share/man/man8/xgre"));
    assert_eq!(found, FILES.map(String::from).into());
    for file in found {
        let metadata = package.root.join(&file).metadata()?;
        let expected = if file == "usr/bin/xgre" { 0o755 } else { 0o644 };
        assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{file}");
    }
    Ok(())
}

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn the_package_says_what_it_needs_and_which_file_is_the_users() -> Result<()> {
    let about = |arguments: &[&str]| {
        let mut command = Command::new("dpkg-deb");
        command.arg(arguments[0]).arg(machine::package()?).args(&arguments[1..]);
        run(command, WITHIN)
    };
    assert_eq!(about(&["--info", "conffiles"])?, "/etc/xgre/xgre.toml\n");
    let control = about(&["--field"])?;
    let field = |name: &str| {
        let lines = control.lines().filter_map(|line| line.split_once(": "));
        lines.clone().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    assert_eq!(field("Package").as_deref(), Some("xgre"));
    assert_eq!(field("Section").as_deref(), Some("net"));
    let depends = field("Depends").unwrap_or_default();
    ensure!(depends.contains("libc6 (>= "), "{control}");
    Ok(())
}

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn every_command_has_a_man_page_without_a_mistake() -> Result<()> {
    let package = Unpacked::new()?;
    let directory = package.root.join("usr/share/man/man8");
    let pages = files(&directory)?;
    for command in ["", "-apply", "-check", "-run", "-stats", "-tunnel", "-tunnel-add"] {
        ensure!(pages.contains(&format!("xgre{command}.8.gz")), "xgre{command}: {pages:?}");
    }
    ensure!(!pages.iter().any(|page| page.contains("generate")), "{pages:?}");
    for page in pages {
        let script = "zcat \"$1\" | groff -man -ww -Tutf8 -P-cbou 2>&1 >\"$2\"";
        let rendered = package.root.join("rendered");
        let mut groff = Command::new("sh");
        groff.args(["-c", script, "sh"]).arg(directory.join(&page)).arg(&rendered);
        assert_eq!(run(groff, WITHIN)?, "", "what groff says of {page}");
        let text = fs::read_to_string(&rendered)?;
        ensure!(text.contains("NAME") && text.contains("SYNOPSIS"), "{page}: {text}");
    }
    Ok(())
}

#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn bash_completes_the_verbs() -> Result<()> {
    let package = Unpacked::new()?;
    let script = "source \"$1\"; COMP_WORDS=(xgre tunnel ''); COMP_CWORD=2; \
                  _xgre xgre '' tunnel; echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]);
    bash.arg(package.root.join("usr/share/bash-completion/completions/xgre"));
    let offered = run(bash, WITHIN)?;
    for verb in ["add", "change", "delete", "show", "probe"] {
        ensure!(offered.split_whitespace().any(|word| word == verb), "{verb}: {offered}");
    }
    Ok(())
}

/// Nothing is in force until the user takes a `#` away, and then it is right.
#[test]
#[ignore = "for a package: cargo xtask package --test"]
fn the_config_is_all_comments_and_right_without_them() -> Result<()> {
    let package = Unpacked::new()?;
    let text = package.text("etc/xgre/xgre.toml")?;
    ensure!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    let check = |file: &Path| -> Result<serde_json::Value> {
        let file = file.to_str().context("the file's name is not UTF-8")?;
        Ok(serde_json::from_str(&package.xgre(&["check", "-j", file])?)?)
    };
    let as_it_is = check(&package.root.join("etc/xgre/xgre.toml"))?;
    assert_eq!((&as_it_is["tunnels"], &as_it_is["ports"]), (&0.into(), &0.into()));

    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    let uncommented: Vec<_> = text.lines().map(in_force).collect();
    let file = package.root.join("uncommented.toml");
    fs::write(&file, uncommented.join("\n"))?;
    let uncommented = check(&file)?;
    assert_eq!((&uncommented["tunnels"], &uncommented["ports"]), (&3.into(), &2.into()));
    Ok(())
}
