//! Says what a peer sends that its tunnel does not take, and how to mend it: the two ends of a GRE
//! tunnel must agree on key, checksum and sequence numbers, and nothing on the wire tells them so.

use gre_ebpf_common::outcome::Outcome;

use crate::{
    model::{SeqMode, Tunnel},
    report::Mismatch,
};

// Flags of the GRE header, its first two bytes in host order (RFC 2784, RFC 2890).
const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;

/// Packets between a tunnel's addresses that were dropped for their GRE header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfits {
    /// Of the last of them, as the rest.
    pub outcome: Outcome,
    /// The first two bytes of the GRE header, in host order.
    pub gre_flags: u16,
    /// In host order; where the flags say that there is one.
    pub key: u32,
    /// When the first came, in Unix seconds.
    pub since: u64,
    /// When the last came, in Unix seconds.
    pub last: u64,
    pub packets: u64,
}

/// What the peer sends and the tunnel does not take; none where the header would fit, since the
/// tunnel has been changed.
pub fn explain(tunnel: &Tunnel, misfits: &Misfits) -> Option<Mismatch> {
    let has = |flag| misfits.gre_flags & flag != 0;
    let differences = [
        key(tunnel, has(KEY).then_some(misfits.key)),
        checksum(tunnel, has(CHECKSUM)),
        sequence(tunnel, has(SEQUENCE)),
    ];
    let differences: Vec<_> = differences.into_iter().flatten().collect();
    if differences.is_empty() {
        return None;
    }
    let list = |what: fn(&Difference) -> &str, separator| {
        differences.iter().map(what).collect::<Vec<_>>().join(separator)
    };
    Some(Mismatch {
        reason: misfits.outcome.label().to_owned(),
        sends: list(|difference| &difference.sends, ", "),
        expects: list(|difference| &difference.expects, ", "),
        since: misfits.since,
        last: misfits.last,
        packets: misfits.packets,
        fix: format!(
            "xgre tunnel change {} {}",
            tunnel.name,
            list(|difference| &difference.fix, " ")
        ),
    })
}

struct Difference {
    sends: String,
    expects: String,
    /// Words of `xgre tunnel change`. An option that is the same in both directions stays so: the
    /// peer most likely expects what it sends.
    fix: String,
}

fn key(tunnel: &Tunnel, sent: Option<u32>) -> Option<Difference> {
    let name = |key: Option<u32>| match key {
        Some(key) => format!("key {key}"),
        None => "no key".to_owned(),
    };
    let direction = if tunnel.ikey == tunnel.okey { "" } else { "i" };
    (sent != tunnel.ikey).then(|| Difference {
        sends: name(sent),
        expects: name(tunnel.ikey),
        fix: match sent {
            Some(key) => format!("{direction}key {key}"),
            None => format!("no{direction}key"),
        },
    })
}

fn checksum(tunnel: &Tunnel, sent: bool) -> Option<Difference> {
    let name = |present| if present { "checksums" } else { "no checksum" };
    let direction = if tunnel.icsum == tunnel.ocsum { "" } else { "i" };
    (sent != tunnel.icsum).then(|| Difference {
        sends: name(sent).to_owned(),
        expects: name(tunnel.icsum).to_owned(),
        fix: format!("{}{direction}csum", if sent { "" } else { "no" }),
    })
}

/// Numbers that nobody asked for are ignored, so only missing ones are a difference.
fn sequence(tunnel: &Tunnel, sent: bool) -> Option<Difference> {
    let direction = if tunnel.oseq { "" } else { "i" };
    (!sent && tunnel.iseq && tunnel.seq_mode == SeqMode::Linux).then(|| Difference {
        sends: "no sequence numbers".to_owned(),
        expects: "sequence numbers".to_owned(),
        fix: format!("no{direction}seq"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli, testing::tunnel};

    fn misfits(gre_flags: u16, key: u32) -> Misfits {
        let outcome = Outcome::KeyMismatch;
        Misfits { outcome, gre_flags, key, since: 100, last: 200, packets: 3 }
    }

    /// What a tunnel takes, by the rules of the kernel in so many words (ip_tunnel_key_match,
    /// ip_tunnel_rcv).
    fn takes(tunnel: &Tunnel, gre_flags: u16, key: u32) -> bool {
        let keys = match (gre_flags & 0x2000 != 0, tunnel.ikey) {
            (false, None) => true,
            (true, Some(ikey)) => ikey == key,
            (false, Some(_)) | (true, None) => false,
        };
        let checksums = (gre_flags & 0x8000 != 0) == tunnel.icsum;
        let lenient = tunnel.seq_mode == SeqMode::Rfc2890;
        keys && checksums && (!tunnel.iseq || lenient || gre_flags & 0x1000 != 0)
    }

    #[test]
    fn the_command_makes_any_tunnel_take_what_any_peer_sends() {
        let bits = |n: u32| [n & 1 != 0, n & 2 != 0, n & 4 != 0, n & 8 != 0, n & 16 != 0];
        let keys = [None, Some(0), Some(7), Some(42)];
        let mut explained = 0;
        for (ikey, okey) in keys.iter().flat_map(|i| keys.iter().map(move |o| (*i, *o))) {
            for [icsum, ocsum, iseq, oseq, rfc2890] in (0..32).map(bits) {
                let seq_mode = if rfc2890 { SeqMode::Rfc2890 } else { SeqMode::Linux };
                let tunnel = Tunnel {
                    ikey,
                    okey,
                    icsum,
                    ocsum,
                    iseq,
                    oseq,
                    seq_mode,
                    // Which `ip tunnel` would not take, and the config does.
                    pmtudisc: false,
                    ..tunnel("tunnel0")
                };
                for flags in (0..8).map(|n: u16| (n & 1) << 15 | (n & 2) << 12 | (n & 4) << 10) {
                    for key in [0, 42] {
                        let fits = takes(&tunnel, flags, key);
                        let mismatch = explain(&tunnel, &misfits(flags, key));
                        assert_eq!(mismatch.is_none(), fits, "{flags:#x} {key} {tunnel:?}");
                        let Some(Mismatch { fix, .. }) = mismatch else { continue };
                        let words = fix.strip_prefix("xgre tunnel change ").unwrap();
                        let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
                        let mended = cli::change_of_words(&words, &tunnel).unwrap();
                        assert!(takes(&mended, flags, key), "{fix}: {mended:?}");
                        explained += 1;
                    }
                }
            }
        }
        assert!(explained > 1000, "{explained}");
    }

    #[test]
    fn what_is_sent_expected_and_to_be_done_is_said_of_what_differs() {
        let plain = tunnel("tunnel0");
        let full = Tunnel {
            ikey: Some(7),
            okey: Some(7),
            icsum: true,
            ocsum: true,
            iseq: true,
            oseq: true,
            ..plain.clone()
        };
        let receiving = Tunnel { okey: None, ocsum: false, oseq: false, ..full.clone() };
        const S: u16 = SEQUENCE;
        for (tunnel, flags, sends, expects, fix) in [
            (&plain, KEY, "key 42", "no key", "key 42"),
            (&plain, KEY | CHECKSUM | S, "key 42, checksums", "no key, no checksum", "key 42 csum"),
            (&full, KEY | CHECKSUM | S, "key 42", "key 7", "key 42"),
            (
                &full,
                0,
                "no key, no checksum, no sequence numbers",
                "key 7, checksums, sequence numbers",
                "nokey nocsum noseq",
            ),
            (
                &receiving,
                KEY,
                "key 42, no checksum, no sequence numbers",
                "key 7, checksums, sequence numbers",
                "ikey 42 noicsum noiseq",
            ),
        ] {
            let expected = Mismatch {
                reason: "key-mismatch".into(),
                sends: sends.into(),
                expects: expects.into(),
                since: 100,
                last: 200,
                packets: 3,
                fix: format!("xgre tunnel change tunnel0 {fix}"),
            };
            assert_eq!(explain(tunnel, &misfits(flags, 42)), Some(expected));
        }
    }
}
