//! What tc has on a device: its filters (RTM_GETTFILTER), BPF programs attached the old way among them, and
//! the queue that somebody has put there (RTM_GETQDISC).

use std::collections::BTreeMap;

use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};

use super::{
    NetlinkError,
    socket::{Dump, split, text, word},
};

// linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_CLSACT_INGRESS: u32 = 0xffff_fff2;
const TC_H_CLSACT_EGRESS: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// A filter on the ingress or egress of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) egress: bool,
    /// "bpf", "flower"...
    pub(crate) kind: String,
    /// Of a BPF program: its name, and its number.
    pub(crate) name: Option<String>,
    pub(crate) program: Option<u32>,
}

/// Those of a device; a filter with several handles is told once for each.
pub(crate) async fn filters(ifindex: u32) -> Result<Vec<Filter>, NetlinkError> {
    let mut filters = Vec::new();
    for (egress, parent) in [(false, TC_H_CLSACT_INGRESS), (true, TC_H_CLSACT_EGRESS)] {
        // `struct tcmsg`: family, interface, handle, parent, info.
        let mut dump = Dump::route("filters of tc", RTM_GETTFILTER, 0, 20);
        dump.body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        dump.body[12..16].copy_from_slice(&parent.to_ne_bytes());
        filters.extend(dump.read(|payload| filter(payload, egress)).await?);
    }
    Ok(filters)
}

/// An RTM_NEWTFILTER: `struct tcmsg` and attributes. None where it stands for a whole chain of them.
fn filter(payload: &[u8], egress: bool) -> Result<Option<Filter>, DecodeError> {
    let (header, attributes) = split::<20>(payload)?;
    let mut filter = Filter { egress, kind: String::new(), name: None, program: None };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            TCA_KIND => filter.kind = text(attribute.value()),
            TCA_OPTIONS if filter.kind == "bpf" => {
                for option in NlasIterator::new(attribute.value()) {
                    let option = option?;
                    match option.kind() {
                        TCA_BPF_NAME => filter.name = Some(text(option.value())),
                        TCA_BPF_ID => filter.program = Some(parse_u32(option.value())?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let handle = word(header, 8);
    Ok((handle != 0).then_some(filter))
}

/// The queues at the roots of devices, by interface index: those that somebody has chosen, and not those that
/// the kernel gives to every device.
pub(super) async fn queues() -> Result<BTreeMap<u32, String>, NetlinkError> {
    let dump = Dump::route("queues of tc", RTM_GETQDISC, 0, 20);
    Ok(dump.read(queue).await?.into_iter().collect())
}

/// An RTM_NEWQDISC: `struct tcmsg` and attributes. The kernel's own choice has no handle.
fn queue(payload: &[u8]) -> Result<Option<(u32, String)>, DecodeError> {
    let (header, attributes) = split::<20>(payload)?;
    let (ifindex, handle, parent) = (word(header, 4), word(header, 8), word(header, 12));
    let mut kind = String::new();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if attribute.kind() == TCA_KIND {
            kind = text(attribute.value());
        }
    }
    Ok((parent == TC_H_ROOT && handle != 0).then_some((ifindex, kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::socket::attribute;

    fn message(handle: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[8..12].copy_from_slice(&handle.to_ne_bytes());
        [header, attributes.concat()].concat()
    }

    #[test]
    fn a_bpf_program_is_told_by_its_name_and_number() {
        let name = attribute(TCA_BPF_NAME, b"other_prog\0");
        let options =
            attribute(TCA_OPTIONS, &[name, attribute(TCA_BPF_ID, &7u32.to_ne_bytes())].concat());
        let attributes = [attribute(TCA_KIND, b"bpf\0"), options];
        let expected = Filter {
            egress: true,
            kind: "bpf".into(),
            name: Some("other_prog".into()),
            program: Some(7),
        };
        assert_eq!(filter(&message(1, &attributes), true).unwrap(), Some(expected));
        assert_eq!(
            filter(&message(0, &attributes), true).unwrap(),
            None,
            "it stands for its chain"
        );
    }

    #[test]
    fn a_queue_is_told_that_somebody_has_put_at_the_root() {
        let of = |handle: u32, parent: u32| {
            let mut message = message(handle, &[attribute(TCA_KIND, b"tbf\0")]);
            message[4..8].copy_from_slice(&7u32.to_ne_bytes());
            message[12..16].copy_from_slice(&parent.to_ne_bytes());
            queue(&message).unwrap()
        };
        assert_eq!(of(0x8001_0000, TC_H_ROOT), Some((7, "tbf".to_owned())));
        assert_eq!(of(0, TC_H_ROOT), None, "the kernel's own");
        assert_eq!(of(0x8002_0000, 0x8001_0001), None, "below another");
    }
}
