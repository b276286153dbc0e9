//! The data plane outlives the daemon: no packet is lost when it is killed, and none when a
//! successor takes over.
//!
//! ```text
//!  PC1 ------- R1 ====== router ====== R2 ------- PC2
//!              ^ its daemon is killed and started again under traffic
//! ```

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use gre_userspace::loader::Build;
use tests::{
    config::{Gateway, Xdp},
    counters::Packets,
    gateways::{Gateways, SOON},
    in_each_xdp_mode,
    namespace::Namespace,
    steady::{Received, Steady},
    topology::{Lab, PC1, PC2, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{ping_all, ping_until_answered},
    xgre::{Daemon, nothing_is_left, stats, tunnel, xgre},
};

in_each_xdp_mode!(
    no_packet_is_lost_while_a_daemon_is_killed_and_another_takes_over,
    no_packet_of_50_000_a_second_is_lost_by_a_kill_a_restart_or_an_upgrade,
);

fn no_packet_is_lost_while_a_daemon_is_killed_and_another_takes_over(xdp: Xdp) -> Result<()> {
    let mut gateways = Gateways::forwarding(xdp)?;
    let before = gateways.r1.packets("tunnel0")?;

    // 5 s, long enough for a daemon to be killed and another to take over twice.
    let arguments = ["-n", "-q", "-c", "2500", "-i", "0.002", "-W", "1", PC2];
    let pings = gateways.lab.pc1.spawn("ping", &arguments)?;
    let [config, _] = Gateway::both();
    for _ in 0..2 {
        gateways.r1.kill()?;
        ping_all(&gateways.lab.pc1, PC2, 10).context("without a daemon")?;
        gateways.r1 = Daemon::start(&gateways.lab.r1, &config.clone().xdp(xdp))?;
    }
    // A machine that is busy sends them more slowly.
    let summary = pings.process.finish(3 * SOON)?.success()?;
    ensure!(summary.contains("2500 received"), "{summary}");

    let after = gateways.r1.packets("tunnel0")?;
    assert_eq!((after - before).tx(), 2500 + 2 * 10, "counters go on, and every packet is in them");
    assert_eq!((after - before).drops, 0);
    Ok(())
}

/// To another build, whose programs and maps are others, and back.
fn no_packet_of_50_000_a_second_is_lost_by_a_kill_a_restart_or_an_upgrade(xdp: Xdp) -> Result<()> {
    let Gateways { lab, r1, r2, .. } = Gateways::forwarding(xdp)?;
    let (file, before) = (r1.config(), r1.packets("tunnel0")?);
    let go_on = || ping_all(&lab.r1, R2_TUNNEL, 20);
    let kill = |daemon: Daemon| daemon.kill().and_then(|()| go_on()).context("without a daemon");
    let under_traffic = |what| UnderTraffic::start(&lab, format!("{xdp:?}, {what}"));

    let traffic = under_traffic("kill -9");
    kill(r1)?;
    let mut sent = traffic?.finish()?;

    let traffic = under_traffic("start");
    let r1 = Daemon::start_from(&lab.r1, &file)?;
    add(&mut sent, traffic?.finish()?);

    kill(r1)?;
    let earlier = forwards_by(&lab.r1)?;
    let traffic = under_traffic("upgrade");
    let r1 = Daemon::start_other_build(&lab.r1, &file)?;
    go_on()?;
    let (maps, tags) = forwards_by(&lab.r1)?;
    assert_eq!(
        maps,
        [Build { layout: Build::THIS.layout + 1, ..Build::THIS }.maps(&lab.r1.pins())]
    );
    ensure!(xdp == Xdp::Off || tags != earlier.1, "the same programs run: {tags:?}");
    add(&mut sent, traffic?.finish()?);
    let counted = r1.packets("tunnel0")? - before;
    assert_eq!([counted.tx(), counted.rx()], sent.map(|sent| sent + 3 * 20), "counters go on");
    assert_eq!(counted.drops, 0);

    kill(r1)?;
    let traffic = under_traffic("downgrade");
    let r1 = Daemon::start_from(&lab.r1, &file)?;
    go_on()?;
    traffic?.finish()?;
    assert_eq!(forwards_by(&lab.r1)?, earlier);
    r1.stop()?;
    r2.stop()?;
    nothing_is_left(&lab.r1)
}

/// The programs of a mode that nobody asks for any more go, and those of the other come; TC forwards meanwhile.
#[test]
fn the_next_daemon_runs_xdp_in_the_mode_that_it_is_told() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    let [config, _] = Gateway::both();
    for (xdp, links, programs) in [
        (Xdp::Generic, Some("xdp-generic"), 3),
        (Xdp::Off, None, 0),
        (Xdp::Generic, Some("xdp-generic"), 3),
        (Xdp::Native, Some("xdp"), 3),
    ] {
        let pings = ["-n", "-q", "-c", "1000", "-i", "0.005", "-W", "1", PC2];
        let pings = gateways.lab.pc1.spawn("ping", &pings)?;
        gateways.r1.kill()?;
        gateways.r1 = Daemon::start(&r1, &config.clone().xdp(xdp))?;
        let summary = pings.process.finish(3 * SOON)?.success()?;
        ensure!(summary.contains("1000 received"), "{xdp:?}: {summary}");

        let pinned = fs::read_dir(r1.pins().join("links"))?;
        let mut pinned: Vec<_> = pinned
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        pinned.retain(|name| name.contains("xdp"));
        let hooks: Vec<_> =
            pinned.iter().filter_map(|name| Some(name.split_once('-')?.1)).collect();
        assert_eq!(hooks, links.map_or(vec![], |hook| vec![hook; 2]), "{xdp:?}");
        assert_eq!(gateways.r1.xdp_programs()?, programs, "{xdp:?}");

        let before = gateways.r1.packets("tunnel0")?;
        ping_all(&gateways.lab.pc1, PC2, 20)?;
        let found = gateways.r1.packets("tunnel0")? - before;
        assert_eq!(found, Packets::pings(xdp, 20), "{xdp:?}");
    }
    Ok(())
}

/// The directories of a gateway's maps, and the tags of the XDP programs on its ports.
fn forwards_by(gateway: &Namespace) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let pins = fs::read_dir(gateway.pins())?.map(|entry| Ok(entry?.path()));
    let maps =
        pins.collect::<Result<Vec<_>>>()?.into_iter().filter(|path| !path.ends_with("links"));
    let ports = gateway.ip("-d link show")?;
    let programs = ports.lines().filter(|line| line.contains("prog/xdp"));
    let tag = |line: &str| line.split_once(" tag ").map(|(_, tag)| tag[..16].to_owned());
    Ok((maps.collect(), programs.filter_map(tag).collect()))
}

fn add(total: &mut [u64; 2], counts: [u64; 2]) {
    total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
}

/// Two streams, one each way.
struct UnderTraffic {
    what: String,
    streams: [Steady; 2],
}

impl UnderTraffic {
    fn start(lab: &Lab, what: String) -> Result<Self> {
        let rate = 25_000;
        let streams = [
            Steady::start(&lab.pc1, &lab.pc2, PC2, rate)?,
            Steady::start(&lab.pc2, &lab.pc1, PC1, rate)?,
        ];
        Ok(Self { what, streams })
    }

    /// How many were sent each way, of which none may be lost.
    fn finish(self) -> Result<[u64; 2]> {
        let mut counts = [0; 2];
        for (stream, count) in self.streams.into_iter().zip(&mut counts) {
            let Received { sent, lost, rate } = stream.finish()?;
            println!("{}: {} of {sent} packets lost, at {rate:.0} a second", self.what, lost.len());
            ensure!(
                lost.is_empty(),
                "{}: lost {} from {:?} on",
                self.what,
                lost.len(),
                lost.first()
            );
            *count = sent;
        }
        Ok(counts)
    }
}

#[test]
fn a_tunnel_made_by_a_command_is_known_to_the_next_daemon() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    xgre(&r1, "tunnel add extra mode gre remote 192.0.2.9 local 10.56.88.66 ttl 33 key 1.2.3.4")?;
    let before = definition(&r1)?;

    gateways.r1.kill()?;
    let [config, _] = Gateway::both();
    gateways.r1 = Daemon::start(&r1, &config)?;
    assert_eq!(definition(&r1)?, before);
    let ports: serde_json::Value = serde_json::from_str(&xgre(&r1, "port show -j")?)?;
    let names: Vec<_> = ports.as_array().context("no array")?.iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["lan", "wan"], "devices of tunnels are no ports");
    Ok(())
}

fn definition(namespace: &Namespace) -> Result<Vec<serde_json::Value>> {
    let extra = tunnel(namespace, "extra")?.context("there is no tunnel extra")?;
    Ok(["mode", "remote", "local", "ttl", "key", "mtu"].map(|key| extra[key].clone()).to_vec())
}

/// Tunnels of the config file go when the file does not name them any more.
#[test]
fn a_tunnel_that_the_config_does_not_name_any_more_goes() -> Result<()> {
    let mut gateways = Gateways::forwarding(Xdp::Native)?;
    let r1 = gateways.lab.r1.clone();
    gateways.r1.kill()?;
    let other = Gateway::new(R1_WAN, R2_WAN).name("tunnel1").address(R1_TUNNEL, "172.16.168.1");
    gateways.r1 = Daemon::start(&r1, &other)?;
    ensure!(r1.attempt("ip link show tunnel0")?.status.code() == Some(1), "tunnel0 is still there");
    ping_until_answered(&r1, "172.16.168.1", SOON)
}

#[test]
fn a_second_daemon_says_so_and_leaves_the_first_alone() -> Result<()> {
    let gateways = Gateways::forwarding(Xdp::Native)?;
    let words = tests::xgre::refused_run(&gateways.lab.r1, "")?;
    assert!(words.contains("another"), "{words}");
    stats(&gateways.lab.r1)?;
    ping_all(&gateways.lab.pc1, PC2, 10)
}
