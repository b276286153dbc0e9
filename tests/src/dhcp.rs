//! DHCP by real programs: dnsmasq gives addresses out, udhcpc takes one.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    namespace::{Namespace, Resident},
    process::wait_until,
};

const WITHIN: Duration = Duration::from_secs(20);

/// Offers this one address, and an MTU, on a host's eth0.
pub fn serve(host: &Namespace, address: &str, mtu: u32) -> Result<Resident> {
    let leases = host.scratch().join("leases");
    let lines = [
        // Only what is said here, and no name service.
        "--conf-file=/dev/null".to_owned(),
        "--port=0".to_owned(),
        "--keep-in-foreground".to_owned(),
        "--log-facility=-".to_owned(),
        "--log-dhcp".to_owned(),
        "--user=root".to_owned(),
        "--pid-file".to_owned(),
        format!("--dhcp-leasefile={}", leases.display()),
        "--interface=eth0".to_owned(),
        "--bind-interfaces".to_owned(),
        "--no-ping".to_owned(),
        format!("--dhcp-range={address},{address},255.255.255.0,1h"),
        format!("--dhcp-option=option:mtu,{mtu}"),
    ];
    let arguments: Vec<_> = lines.iter().map(String::as_str).collect();
    let mut dnsmasq = host.spawn("dnsmasq", &arguments)?;
    wait_until("dnsmasq serves", WITHIN, || {
        dnsmasq.process.still_runs()?;
        let output = dnsmasq.process.output();
        if !output.stderr.contains("IP range") {
            bail!("it says:\n{output}");
        }
        Ok(())
    })?;
    Ok(dnsmasq)
}

/// Gives a host's eth0 the address that is offered there.
pub fn ask(host: &Namespace) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dhcp/bound.sh");
    let script = script.to_str().context("the script's name is not UTF-8")?;
    let pid = host.scratch().join("udhcpc.pid");
    let pid = pid.to_str().context("the scratch directory's name is not UTF-8")?;
    let arguments = [
        "-i", "eth0", "-f", "-n", "-q", "-t", "15", "-T", "1", "-O", "mtu", "-s", script, "-p", pid,
    ];
    host.spawn("udhcpc", &arguments)?.process.finish(WITHIN)?.success().map(drop)
}
