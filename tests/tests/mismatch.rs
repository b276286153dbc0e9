//! S9: the ends of a tunnel do not agree. The end that refuses says what it gets, what it expects,
//! since when and how often; and the command that it names makes the tunnel work.
//!
//! ```text
//!  PC1 ------- R1 ======== router ======== R2 ------- PC2
//!              sends what R2 refuses       says so, and is mended
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    process::wait_until,
    topology::PC2,
    traffic::ping_none,
    xgre::{tunnel, xgre},
};

in_each_xdp_mode!(
    another_key_is_told_and_mended,
    no_key_is_told_and_mended,
    a_key_that_is_not_expected_is_told_and_mended,
    a_checksum_that_is_not_expected_is_told_and_mended,
    a_missing_checksum_is_told_and_mended,
    missing_sequence_numbers_are_told_and_mended,
    all_at_once_are_told_and_mended_by_one_command,
);

fn another_key_is_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &["key = 42"], &["key = 7"], "key 42", "key 7", "key 42")
}

fn no_key_is_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &[], &["key = 7"], "no key", "key 7", "nokey")
}

fn a_key_that_is_not_expected_is_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &["key = 42"], &[], "key 42", "no key", "key 42")
}

fn a_checksum_that_is_not_expected_is_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &["csum = true"], &[], "checksums", "no checksum", "csum")
}

fn a_missing_checksum_is_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &[], &["csum = true"], "no checksum", "checksums", "nocsum")
}

fn missing_sequence_numbers_are_told_and_mended(xdp: Xdp) -> Result<()> {
    check(xdp, &[], &["seq = true"], "no sequence numbers", "sequence numbers", "noseq")
}

fn all_at_once_are_told_and_mended_by_one_command(xdp: Xdp) -> Result<()> {
    check(
        xdp,
        &["key = 42", "csum = true"],
        &["seq = true"],
        "key 42, checksums, no sequence numbers",
        "no key, no checksum, sequence numbers",
        "key 42 csum noseq",
    )
}

/// Options of R1 and of R2; what R2 is sent, what it expects, and the words that change that.
fn check(
    xdp: Xdp,
    peer: &[&str],
    own: &[&str],
    sends: &str,
    expects: &str,
    words: &str,
) -> Result<()> {
    let [r1, r2] = Gateway::both();
    let gateways = Gateways::start(xdp, [r1.options(peer), r2.options(own)])?;
    let Gateways { lab, .. } = &gateways;
    let start = now()?;
    let counted = wait_until("R2 refuses what R1 sends", SOON, || {
        ping_none(&lab.pc1, PC2)?;
        let shown = tunnel(&lab.r2, "tunnel0")?.context("no tunnel0")?;
        let packets = shown["mismatch"]["packets"].as_u64();
        packets.with_context(|| format!("no mismatch in {shown}"))
    })?;
    ping_none(&lab.pc1, PC2)?;
    let end = now()?;

    let shown = tunnel(&lab.r2, "tunnel0")?.context("no tunnel0")?;
    let mismatch = &shown["mismatch"];
    let fix = format!("xgre tunnel change tunnel0 {words}");
    assert_eq!(mismatch["sends"], sends);
    assert_eq!(mismatch["expects"], expects);
    assert_eq!(mismatch["fix"], fix);
    assert_eq!(mismatch["packets"], counted + 3, "three pings more");
    // The clock of the host and that of the programs are read apart.
    let [since, last] = ["since", "last"].map(|key| mismatch[key].as_u64().unwrap_or(0));
    ensure!(start - 1 <= since && since <= last && last <= end + 1, "{mismatch}");

    // What a person sees, wherever they look first.
    let said = format!(
        "peer sends {sends}; this tunnel expects {expects} ({} packets, since ",
        counted + 3
    );
    for command in ["tunnel show tunnel0", "tunnel show", "stats"] {
        let text = xgre(&lab.r2, command)?;
        ensure!(text.contains(&said), "no \"{said}\" in\n{text}");
        ensure!(text.contains(&format!("mend it here: {fix}\n")), "no \"{fix}\" in\n{text}");
    }
    // The end that is not at fault has nothing to say.
    let text = xgre(&lab.r1, "tunnel show tunnel0")?;
    ensure!(!text.contains("peer sends"), "{text}");

    // That very command, and no other.
    xgre(&lab.r2, fix.strip_prefix("xgre ").context("another program")?)?;
    gateways.settle()?;
    for command in ["tunnel show tunnel0", "stats"] {
        let text = xgre(&lab.r2, command)?;
        ensure!(!text.contains("mend it here"), "still told:\n{text}");
    }
    Ok(())
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
