//! BPF_PROG_TEST_RUN with a context, in a network namespace with interfaces.

use std::{
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
};

use aya::programs::{ProgramError, TestRunOptions, TestRunResult};
use nix::sched::{CloneFlags, unshare};

/// What a program answers and leaves of `data`, which may grow by `room` bytes.
pub fn test_run(
    context: &[u32],
    data: &[u8],
    room: usize,
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Result<(u32, Vec<u8>), ProgramError> {
    let context: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut bytes = vec![0; data.len() + room];
    let result = run(TestRunOptions {
        data_in: Some(data),
        data_out: Some(&mut bytes),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    })?;
    bytes.truncate(result.data_size_out as usize);
    Ok((result.return_value, bytes))
}

/// A network namespace with the interfaces that these commands for `ip -batch` make. It lasts as long
/// as the file is open; the calling thread is in it.
pub fn namespace(interfaces: &str) -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starting `ip`, of iproute2");
    let mut commands = ip.stdin.take().expect("it is a pipe");
    commands.write_all(interfaces.as_bytes()).expect("writing to `ip -batch`");
    drop(commands);
    assert!(ip.wait().expect("waiting for `ip`").success(), "`ip -batch` failed");
    File::open("/proc/thread-self/ns/net").expect("opening the namespace")
}
