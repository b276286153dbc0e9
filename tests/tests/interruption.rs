//! Ctrl-C, in a test binary of its own because it is the whole process that is interrupted.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, raise};
use tests::{interrupt, namespace::Namespace, process::wait_until};

#[test]
fn an_interruption_ends_a_wait_and_does_not_keep_namespaces_from_being_removed() -> Result<()> {
    interrupt::install()?;
    let namespace = Namespace::new("interrupted")?;
    let file = Path::new("/run/netns").join(namespace.name());
    let sleeper = namespace.spawn("sleep", &["600"])?;
    let process = Path::new("/proc").join(sleeper.process.id().to_string());

    raise(Signal::SIGINT)?;
    let wait: Result<()> = wait_until("nothing", Duration::from_secs(600), || bail!("not yet"));
    assert_eq!(wait.unwrap_err().to_string(), "interrupted");
    drop(sleeper);
    drop(namespace);
    assert!(!file.exists() && !process.exists());
    Ok(())
}
