//! Devices for programs: the keys of `ip -j link show` in its order, and what only xgre knows in one
//! object at the end.

use serde::Serialize;

use super::facts::{Device, quad};
use crate::{
    cli::{
        Output,
        tunnel::{Columns, Own},
    },
    model::FlowLabel,
    report::{Stats, TunnelInfo},
};

/// As `ip -j link show`, with `-d`, `-s`, `-s -s` and `-br`.
pub fn json<'a>(
    devices: &'a [Device<'a>],
    stats: Option<&Stats>,
    output: Output,
) -> impl Serialize + use<'a> {
    let of_device = |device| match output.brief {
        true => Json::Brief(Brief::of(device)),
        false => Json::Whole(Box::new(Whole::of(device, stats, output))),
    };
    devices.iter().map(of_device).collect::<Vec<_>>()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Json<'a> {
    Brief(Brief<'a>),
    Whole(Box<Whole<'a>>),
}

#[derive(Serialize)]
struct Brief<'a> {
    link: Option<&'a str>,
    ifname: &'a str,
    operstate: &'a str,
    address: &'a str,
    flags: Vec<&'static str>,
}

impl<'a> Brief<'a> {
    fn of(device: &'a Device<'a>) -> Self {
        Self {
            link: device.below(),
            ifname: &device.tunnel.name,
            operstate: device.state(),
            address: device.address(),
            flags: device.flags(),
        }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    ifindex: u32,
    link: Option<&'a str>,
    ifname: &'a str,
    flags: Vec<&'static str>,
    mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    qdisc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<&'a str>,
    operstate: &'a str,
    linkmode: &'a str,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    txqlen: Option<u32>,
    link_type: &'static str,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_pointtopoint: Option<bool>,
    broadcast: &'a str,
    #[serde(flatten)]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats64: Option<Counters>,
    xgre: Own<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    promiscuity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_mtu: Option<u32>,
    linkinfo: LinkInfo<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inet6_addr_gen_mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_tx_queues: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_rx_queues: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gso_max_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gso_max_segs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tso_max_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tso_max_segs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gro_max_size: Option<u32>,
}

#[derive(Serialize)]
struct LinkInfo<'a> {
    info_kind: &'a str,
    info_data: Options<'a>,
}

/// As gre_print_opt in ip/link_gre.c and ip/link_gre6.c.
#[derive(Serialize)]
struct Options<'a> {
    remote: &'a str,
    local: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    ttl: u8,
    #[serde(flatten)]
    outer: Outer<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ikey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    okey: Option<String>,
    #[serde(skip_serializing_if = "is_off")]
    iseq: bool,
    #[serde(skip_serializing_if = "is_off")]
    oseq: bool,
    #[serde(skip_serializing_if = "is_off")]
    icsum: bool,
    #[serde(skip_serializing_if = "is_off")]
    ocsum: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outer<'a> {
    Ipv4 {
        #[serde(skip_serializing_if = "Option::is_none")]
        tos: Option<String>,
        pmtudisc: bool,
        #[serde(skip_serializing_if = "is_off")]
        ignore_df: bool,
    },
    Ipv6 {
        #[serde(skip_serializing_if = "is_off")]
        ip6_tnl_f_ign_encap_limit: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        encap_limit: Option<u8>,
        #[serde(skip_serializing_if = "is_off")]
        ip6_tnl_f_use_orig_tclass: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        tclass: Option<String>,
        #[serde(skip_serializing_if = "is_off")]
        ip6_tnl_f_use_orig_flowlabel: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        flowlabel: Option<&'a str>,
    },
}

fn is_off(on: &bool) -> bool {
    !on
}

#[derive(Serialize)]
struct Counters {
    rx: Received,
    tx: Sent,
}

#[derive(Serialize)]
struct Received {
    bytes: u64,
    packets: u64,
    errors: u64,
    dropped: u64,
    over_errors: u64,
    multicast: u64,
    #[serde(flatten)]
    kinds: Option<ReceivedKinds>,
}

#[derive(Serialize)]
struct ReceivedKinds {
    length_errors: u64,
    crc_errors: u64,
    frame_errors: u64,
    fifo_errors: u64,
    missed_errors: u64,
}

#[derive(Serialize)]
struct Sent {
    bytes: u64,
    packets: u64,
    errors: u64,
    dropped: u64,
    carrier_errors: u64,
    collisions: u64,
    #[serde(flatten)]
    kinds: Option<SentKinds>,
}

#[derive(Serialize)]
struct SentKinds {
    aborted_errors: u64,
    fifo_errors: u64,
    window_errors: u64,
    heartbeat_errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier_changes: Option<u32>,
}

impl<'a> Whole<'a> {
    fn of(device: &'a Device<'a>, stats: Option<&Stats>, output: Output) -> Self {
        let Device { tunnel, link } = device;
        Self {
            ifindex: link.ifindex,
            link: device.below(),
            ifname: &tunnel.name,
            flags: device.flags(),
            mtu: link.mtu,
            qdisc: link.qdisc.as_deref(),
            master: link.master.as_deref(),
            operstate: device.state(),
            linkmode: &link.linkmode,
            group: device.group(),
            txqlen: Some(link.txqlen).filter(|length| *length != 0),
            link_type: device.link_type(),
            address: device.address(),
            link_pointtopoint: device.is_point_to_point().then_some(true),
            broadcast: device.broadcast(),
            details: (output.details > 0).then(|| Details::of(device)),
            stats64: stats.map(|stats| Counters::of(device, stats, output.statistics > 1)),
            xgre: Own::of(tunnel),
        }
    }
}

impl<'a> Details<'a> {
    fn of(Device { tunnel, link }: &'a Device<'a>) -> Self {
        Self {
            promiscuity: link.promiscuity,
            allmulti: link.allmulti,
            min_mtu: link.min_mtu,
            max_mtu: link.max_mtu,
            linkinfo: LinkInfo { info_kind: &tunnel.mode, info_data: Options::of(tunnel) },
            inet6_addr_gen_mode: link.addrgenmode.as_deref(),
            num_tx_queues: link.num_tx_queues,
            num_rx_queues: link.num_rx_queues,
            gso_max_size: link.gso_max_size,
            gso_max_segs: link.gso_max_segs,
            tso_max_size: link.tso_max_size,
            tso_max_segs: link.tso_max_segs,
            gro_max_size: link.gro_max_size,
        }
    }
}

impl<'a> Options<'a> {
    fn of(tunnel: &'a TunnelInfo) -> Self {
        let any = |address: &'a str| match address {
            "0.0.0.0" | "::" => "any",
            address => address,
        };
        Self {
            remote: any(&tunnel.remote),
            local: any(&tunnel.local),
            link: tunnel.dev.as_deref(),
            ttl: tunnel.ttl,
            outer: Outer::of(tunnel),
            ikey: tunnel.ikey.map(quad),
            okey: tunnel.okey.map(quad),
            iseq: tunnel.iseq,
            oseq: tunnel.oseq,
            icsum: tunnel.icsum,
            ocsum: tunnel.ocsum,
        }
    }
}

impl<'a> Outer<'a> {
    fn of(tunnel: &'a TunnelInfo) -> Self {
        if matches!(tunnel.mode.as_str(), "gre" | "gretap") {
            return Self::Ipv4 {
                tos: Some(tunnel.tos).filter(|tos| *tos != 0).map(|tos| format!("{tos:#x}")),
                pmtudisc: tunnel.pmtudisc,
                ignore_df: tunnel.ignore_df,
            };
        }
        let inherits_class = tunnel.tos & 1 != 0;
        let inherits_label = tunnel.flow_label == FlowLabel::Inherit.to_string();
        Self::Ipv6 {
            ip6_tnl_f_ign_encap_limit: tunnel.encap_limit.is_none(),
            encap_limit: tunnel.encap_limit,
            ip6_tnl_f_use_orig_tclass: inherits_class,
            tclass: (!inherits_class).then(|| format!("{:#04x}", tunnel.tos)),
            ip6_tnl_f_use_orig_flowlabel: inherits_label,
            flowlabel: (!inherits_label).then_some(&tunnel.flow_label),
        }
    }
}

impl Counters {
    fn of(device: &Device<'_>, stats: &Stats, by_kind: bool) -> Self {
        let Columns { rx, tx } = Columns::of(&device.tunnel.name, stats);
        Self {
            rx: Received {
                bytes: rx.bytes,
                packets: rx.packets,
                errors: rx.errors,
                dropped: 0,
                over_errors: 0,
                multicast: rx.multicast,
                kinds: by_kind.then_some(ReceivedKinds {
                    length_errors: 0,
                    crc_errors: rx.csum_errors,
                    frame_errors: 0,
                    fifo_errors: rx.out_of_sequence,
                    missed_errors: 0,
                }),
            },
            tx: Sent {
                bytes: tx.bytes,
                packets: tx.packets,
                errors: tx.errors,
                dropped: tx.no_buffers,
                carrier_errors: tx.no_route,
                collisions: tx.dead_loop,
                kinds: by_kind.then_some(SentKinds {
                    aborted_errors: 0,
                    fifo_errors: 0,
                    window_errors: 0,
                    heartbeat_errors: 0,
                    carrier_changes: device.link.carrier_changes,
                }),
            },
        }
    }
}
