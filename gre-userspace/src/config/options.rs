//! A tunnel as a config file says it.

use std::net::IpAddr;

use toml_edit::{Array, Value};

use super::values::Ttl;
use crate::model::{FlowLabel, Mss, Netfilter, SeqMode, Tunnel};

/// Keys and values of the tunnel's table, in the order of the example. What is as by default is left
/// out.
pub fn options(tunnel: &Tunnel) -> Vec<(&'static str, Value)> {
    let mut options: Vec<(&'static str, Value)> = vec![
        ("name", tunnel.name.as_str().into()),
        ("mode", tunnel.mode.name().into()),
        ("local", end(tunnel.local)),
        ("remote", end(tunnel.remote)),
    ];
    let mut add = |key, value: Option<Value>| options.extend(value.map(|value| (key, value)));
    add("dev", tunnel.dev.as_deref().map(Value::from));
    add("ttl", ttl(tunnel.ttl));
    add("tos", tos(tunnel.tos));
    let number = |key: Option<u32>| key.map(|key| Value::from(i64::from(key)));
    if tunnel.ikey == tunnel.okey {
        add("key", number(tunnel.ikey));
    } else {
        add("ikey", number(tunnel.ikey));
        add("okey", number(tunnel.okey));
    }
    let flags = [
        (["csum", "icsum", "ocsum"], [tunnel.icsum, tunnel.ocsum]),
        (["seq", "iseq", "oseq"], [tunnel.iseq, tunnel.oseq]),
    ];
    for ([both, input, output], set) in flags {
        match set {
            [true, true] => add(both, Some(true.into())),
            [received, sent] => {
                add(input, received.then_some(true.into()));
                add(output, sent.then_some(true.into()));
            }
        }
    }
    let named = |is_default: bool, text: String| (!is_default).then(|| Value::from(text));
    add("seq-mode", named(tunnel.seq_mode == SeqMode::Linux, tunnel.seq_mode.to_string()));
    add("pmtudisc", (!tunnel.pmtudisc).then_some(false.into()));
    add("ignore-df", tunnel.ignore_df.then_some(true.into()));
    add("encaplimit", tunnel.encap_limit.map(|limit| i64::from(limit).into()));
    add("flowlabel", flow_label(tunnel.flow_label));
    add("mss", mss(tunnel.mss));
    let respects = tunnel.netfilter == Netfilter::Respect;
    add("netfilter", named(respects, tunnel.netfilter.to_string()));
    add("mtu", number(tunnel.mtu));
    add("addresses", texts(tunnel.addresses.iter()));
    add("routes", texts(tunnel.routes.iter()));
    options
}

fn end(address: IpAddr) -> Value {
    if address.is_unspecified() { "any".into() } else { address.to_string().into() }
}

fn ttl(ttl: u8) -> Option<Value> {
    match ttl {
        0 => Some("inherit".into()),
        ttl if ttl == Ttl::default().0 => None,
        ttl => Some(i64::from(ttl).into()),
    }
}

/// Bit 0 inherits. Bits of ECN that a command set have no effect, and no place in a config.
fn tos(tos: u8) -> Option<Value> {
    match tos {
        tos if tos & 1 == 1 => Some("inherit".into()),
        tos if tos & !3 == 0 => None,
        tos => Some(i64::from(tos & !3).into()),
    }
}

fn flow_label(label: FlowLabel) -> Option<Value> {
    match label {
        FlowLabel::Fixed(0) => None,
        FlowLabel::Fixed(label) => Some(i64::from(label).into()),
        FlowLabel::Inherit => Some("inherit".into()),
    }
}

fn mss(mss: Mss) -> Option<Value> {
    match mss {
        Mss::Off => None,
        Mss::Auto => Some("auto".into()),
        Mss::Fixed(bytes) => Some(i64::from(bytes).into()),
    }
}

fn texts<T: ToString>(items: impl Iterator<Item = T>) -> Option<Value> {
    let array: Array = items.map(|item| item.to_string()).collect();
    (!array.is_empty()).then_some(array.into())
}
