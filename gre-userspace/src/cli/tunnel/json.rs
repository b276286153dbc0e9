//! Tunnels for programs: iproute2's keys first, then ours.

use serde::Serialize;

use super::iproute2::{Columns, Flag, flags, flow_info, is_over_ipv6, mode};
use crate::{
    cli::dsfield,
    model::FlowLabel,
    report::{Mismatch, PathMtu, Sequence, Stats, TunnelInfo},
};

/// As `ip -j tunnel show`, with keys of our own at the end of each object.
pub fn json<'a>(tunnels: &'a [TunnelInfo], stats: Option<&Stats>) -> impl Serialize + use<'a> {
    tunnels.iter().map(|tunnel| Json::of(tunnel, stats)).collect::<Vec<_>>()
}

#[derive(Serialize)]
struct Json<'a> {
    ifname: &'a str,
    mode: &'a str,
    remote: &'a str,
    local: &'a str,
    #[serde(flatten)]
    outer: JsonOuter<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ikey: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    okey: Option<u32>,
    flags: Vec<Flag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats64: Option<Columns>,
    #[serde(flatten)]
    own: Own<'a>,
}

/// What only xgre knows.
#[derive(Serialize)]
pub(in crate::cli) struct Own<'a> {
    ifindex: Option<u32>,
    up: bool,
    mtu: Option<u32>,
    underlay: Option<&'a str>,
    via: Option<&'a str>,
    accelerated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<&'a str>,
    /// Of a tunnel of the kernel's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    adopted: Option<bool>,
    ignore_df: bool,
    seq_mode: &'a str,
    mss: &'a str,
    netfilter: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<&'a Mismatch>,
    path_mtus: &'a [PathMtu],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<Sequence>,
}

/// What `ip tunnel` and `ip -6 tunnel` name differently. `Some(())` becomes null: keys that
/// iproute2 prints without a value.
#[derive(Serialize)]
#[serde(untagged)]
enum JsonOuter<'a> {
    Ip {
        #[serde(skip_serializing_if = "Option::is_none")]
        dev: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tos: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        nopmtudisc: Option<()>,
    },
    Ip6 {
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip6_tnl_f_ign_encap_limit: Option<()>,
        #[serde(skip_serializing_if = "Option::is_none")]
        encap_limit: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hoplimit: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip6_tnl_f_use_orig_tclass: Option<()>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tclass: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip6_tnl_f_use_orig_flowlabel: Option<()>,
        #[serde(skip_serializing_if = "Option::is_none")]
        flowlabel: Option<&'a str>,
        flowinfo: String,
    },
}

impl<'a> JsonOuter<'a> {
    fn of(tunnel: &'a TunnelInfo) -> Self {
        let dev = tunnel.dev.as_deref();
        let ttl = Some(tunnel.ttl).filter(|&ttl| ttl != 0);
        if !is_over_ipv6(tunnel) {
            return Self::Ip {
                dev,
                ttl,
                tos: match tunnel.tos {
                    0 => None,
                    1 => Some("inherit".into()),
                    // As a whole, where the text says `inherit/`.
                    tos => Some(dsfield::name(tos)),
                },
                nopmtudisc: (!tunnel.pmtudisc).then_some(()),
            };
        }
        let inherits_class = tunnel.tos & 1 != 0;
        let inherits_label = tunnel.flow_label == FlowLabel::Inherit.to_string();
        Self::Ip6 {
            link: dev,
            ip6_tnl_f_ign_encap_limit: tunnel.encap_limit.is_none().then_some(()),
            encap_limit: tunnel.encap_limit,
            hoplimit: ttl,
            ip6_tnl_f_use_orig_tclass: inherits_class.then_some(()),
            tclass: (!inherits_class).then(|| format!("{:#04x}", tunnel.tos)),
            ip6_tnl_f_use_orig_flowlabel: inherits_label.then_some(()),
            flowlabel: (!inherits_label).then_some(&tunnel.flow_label),
            flowinfo: flow_info(tunnel),
        }
    }
}

impl<'a> Json<'a> {
    fn of(tunnel: &'a TunnelInfo, stats: Option<&Stats>) -> Self {
        let of_one_direction = |key: Option<u32>| key.filter(|_| tunnel.key.is_none());
        Self {
            ifname: &tunnel.name,
            mode: mode(tunnel),
            remote: &tunnel.remote,
            local: &tunnel.local,
            outer: JsonOuter::of(tunnel),
            key: tunnel.key,
            ikey: of_one_direction(tunnel.ikey),
            okey: of_one_direction(tunnel.okey),
            flags: flags(tunnel),
            stats64: stats.map(|stats| Columns::of(&tunnel.name, stats)),
            own: Own::of(tunnel),
        }
    }
}

impl<'a> Own<'a> {
    pub(in crate::cli) fn of(tunnel: &'a TunnelInfo) -> Self {
        Self {
            ifindex: tunnel.ifindex,
            up: tunnel.up,
            mtu: tunnel.mtu,
            underlay: tunnel.underlay.as_deref(),
            via: tunnel.via.as_deref(),
            accelerated: tunnel.fast,
            why_not: tunnel.why_not.as_deref(),
            adopted: tunnel.adopted,
            ignore_df: tunnel.ignore_df,
            seq_mode: &tunnel.seq_mode,
            mss: &tunnel.mss,
            netfilter: &tunnel.netfilter,
            mismatch: tunnel.mismatch.as_ref(),
            path_mtus: &tunnel.path_mtus,
            payload_mtu: tunnel.payload_mtu,
            sequence: tunnel.sequence,
        }
    }
}
