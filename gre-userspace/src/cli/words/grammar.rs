//! Which words iproute2 has, and how far it lets each be shortened: the order and the rule of each
//! word are those of ip/iptunnel.c, ip/ip6tunnel.c, ip/link_gre.c, ip/link_gre6.c and ip/iplink.c.

use crate::config::nearest;

/// Whose rules hold where `ip tunnel` and `ip link` differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Grammar {
    Tunnel,
    Link,
}

/// Of several words that a shortened one begins, the first is meant.
#[derive(Clone, Copy)]
enum Word {
    /// May be shortened, down to a letter.
    Any(&'static str),
    /// Stands in full.
    Full(&'static str),
}

use Word::{Any, Full};

const TUNNEL: &[Word] = &[
    Full("mode"),
    Full("key"),
    Full("ikey"),
    Full("okey"),
    Full("seq"),
    Full("iseq"),
    Full("oseq"),
    Full("csum"),
    Full("icsum"),
    Full("ocsum"),
    Full("nopmtudisc"),
    Full("pmtudisc"),
    Full("remote"),
    Full("local"),
    Full("dev"),
    Full("ttl"),
    Full("hoplimit"),
    Full("hlim"),
    Full("tos"),
    Full("tclass"),
    Full("tc"),
    Full("encaplimit"),
    Full("flowlabel"),
    Full("fl"),
    Full("dscp"),
    Full("allow-localremote"),
    Full("noallow-localremote"),
    Full("name"),
    // Of `ip link`, and ours.
    Full("nokey"),
    Full("noikey"),
    Full("nookey"),
    Full("noseq"),
    Full("noiseq"),
    Full("nooseq"),
    Full("nocsum"),
    Full("noicsum"),
    Full("noocsum"),
    Full("ignore-df"),
    Full("noignore-df"),
    Full("seq-mode"),
    Full("mss"),
    Full("netfilter"),
    Full("mtu"),
    Full("fwmark"),
    Full("external"),
    Full("encap"),
    Full("noencap"),
    // Of the other modes.
    Full("6rd-prefix"),
    Full("prl-default"),
    Full("prl-nodefault"),
    Any("dsfield"),
    Any("help"),
];

/// Behind `type TYPE`.
const LINK: &[Word] = &[
    Any("key"),
    Any("nokey"),
    Any("ikey"),
    Any("noikey"),
    Any("okey"),
    Any("nookey"),
    Any("seq"),
    Any("noseq"),
    Any("iseq"),
    Any("noiseq"),
    Any("oseq"),
    Any("nooseq"),
    Any("csum"),
    Any("nocsum"),
    Any("icsum"),
    Any("noicsum"),
    Any("ocsum"),
    Any("noocsum"),
    Any("nopmtudisc"),
    Any("pmtudisc"),
    Any("remote"),
    Any("local"),
    Any("dev"),
    Any("ttl"),
    Any("hoplimit"),
    Any("hlim"),
    Any("tos"),
    Any("tclass"),
    Any("dsfield"),
    Full("flowlabel"),
    Full("fl"),
    Full("dscp"),
    Full("noencap"),
    Full("encap"),
    Full("encap-sport"),
    Full("encap-dport"),
    Full("encap-csum"),
    Full("noencap-csum"),
    Full("encap-udp6-csum"),
    Full("noencap-udp6-csum"),
    Full("encap-remcsum"),
    Full("noencap-remcsum"),
    Full("external"),
    Full("ignore-df"),
    Full("noignore-df"),
    Full("fwmark"),
    Full("allow-localremote"),
    Full("noallow-localremote"),
    Full("encaplimit"),
    Full("erspan"),
    Full("erspan_ver"),
    Full("erspan_dir"),
    Full("erspan_hwid"),
    // Ours.
    Full("seq-mode"),
    Full("mss"),
    Full("netfilter"),
    Full("mtu"),
    Any("help"),
];

/// Before `type TYPE`: of every device.
const DEVICE: &[Word] = &[
    Full("up"),
    Full("down"),
    Full("name"),
    Full("index"),
    Any("link"),
    Any("address"),
    Any("broadcast"),
    Full("brd"),
    Any("txqueuelen"),
    Full("qlen"),
    Any("txqlen"),
    Full("mtu"),
    Full("xdpgeneric"),
    Full("xdpdrv"),
    Full("xdpoffload"),
    Full("xdp"),
    Full("netns"),
    Full("multicast"),
    Full("allmulticast"),
    Full("promisc"),
    Full("trailers"),
    Full("arp"),
    Full("carrier"),
    Full("vf"),
    Any("master"),
    Full("vrf"),
    Any("nomaster"),
    Any("dynamic"),
    Any("type"),
    Any("alias"),
    Full("group"),
    Full("mode"),
    Full("state"),
    Any("numtxqueues"),
    Any("numrxqueues"),
    Any("addrgenmode"),
    Any("link-netns"),
    Any("link-netnsid"),
    Full("protodown"),
    Full("protodown_reason"),
    Full("gso_max_size"),
    Full("gso_max_segs"),
    Full("gro_max_size"),
    Full("parentdev"),
    Any("help"),
    Full("dev"),
];

/// iproute2's `matches()`.
pub(in crate::cli) fn shortens(word: &str, whole: &str) -> bool {
    !word.is_empty() && whole.starts_with(word)
}

impl Grammar {
    /// The option that a word stands for, in full.
    pub(super) fn option(self, word: &str) -> Option<&'static str> {
        find(self.options(), word)
    }

    /// The option that was probably meant.
    pub(super) fn near(self, word: &str) -> Option<&'static str> {
        let options: Vec<_> = self.options().iter().map(|word| word.whole()).collect();
        nearest(word, &options).and_then(|near| options.into_iter().find(|option| *option == near))
    }

    const fn options(self) -> &'static [Word] {
        match self {
            Self::Tunnel => TUNNEL,
            Self::Link => LINK,
        }
    }
}

/// The same of a device's settings.
pub(super) fn setting(word: &str) -> Option<&'static str> {
    find(DEVICE, word)
}

fn find(words: &[Word], word: &str) -> Option<&'static str> {
    let found = words.iter().find(|known| match known {
        Any(whole) => shortens(word, whole),
        Full(whole) => word == *whole,
    });
    found.map(|word| word.whole())
}

impl Word {
    const fn whole(self) -> &'static str {
        match self {
            Any(whole) | Full(whole) => whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ip/link_gre.c and ip/iptunnel.c read them.
    #[test]
    fn a_shortened_word_is_the_first_that_it_begins() {
        for (word, whole) in [
            ("k", "key"),
            ("n", "nokey"),
            ("noi", "noikey"),
            ("o", "okey"),
            ("c", "csum"),
            ("p", "pmtudisc"),
            ("r", "remote"),
            ("l", "local"),
            ("d", "dev"),
            ("t", "ttl"),
            ("h", "hoplimit"),
            ("hl", "hlim"),
            ("to", "tos"),
            ("tc", "tclass"),
            ("he", "help"),
        ] {
            assert_eq!(Grammar::Link.option(word), Some(whole), "{word}");
        }
        for word in ["", "encaplim", "fwm", "ignore", "keys", "x"] {
            assert_eq!(Grammar::Link.option(word), None, "{word}");
        }
        for (word, whole) in [("d", "dsfield"), ("h", "help"), ("tc", "tc"), ("dev", "dev")] {
            assert_eq!(Grammar::Tunnel.option(word), Some(whole), "{word}");
        }
        for word in ["remot", "t", "k", "csu"] {
            assert_eq!(Grammar::Tunnel.option(word), None, "{word}");
        }
        for (word, whole) in [("l", "link"), ("a", "address"), ("t", "txqueuelen"), ("ty", "type")]
        {
            assert_eq!(setting(word), Some(whole), "{word}");
        }
    }
}
