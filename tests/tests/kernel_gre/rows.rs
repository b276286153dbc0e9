//! What is tried between xgre and the kernel, as data: which options, over which outer protocol,
//! with which inner one.

/// Options of a tunnel, and what each end is given.
pub struct Options {
    pub name: &'static str,
    /// R1's: words of `xgre tunnel add` and of `ip link add type gre`.
    pub near: &'static str,
    /// R2's, which is always the kernel.
    pub far: &'static str,
    pub near_ends: Ends,
    pub far_ends: Ends,
    /// Of both devices, where it is not to be the default.
    pub mtu: Option<u32>,
}

/// Which of its addresses a tunnel is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Both,
    /// `local any`: the source is what the route says.
    Remote,
    /// `remote any`: the destination is the route's next hop.
    Local,
    Neither,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    Gre,
    /// With the encapsulation limit that the kernel sends by default, at its end.
    Ip6gre,
    /// With `encaplimit none` at the kernel's end.
    Ip6greNoLimit,
    /// Ethernet frames.
    Gretap,
    /// Ethernet frames, with an encapsulation limit at the kernel's end.
    Ip6gretap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    Ipv4,
    Ipv6,
}

pub struct Combination {
    pub outer: Outer,
    pub inner: &'static [Inner],
    pub options: &'static [&'static Options],
}

/// What is tried.
pub const RUNS: &[Combination] = &[
    Combination {
        outer: Outer::Gre,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: &[
            &PLAIN,
            &KEY,
            &KEY_ALL_ONES,
            &KEY_ZERO,
            &FIXED,
            &INHERIT,
            &NO_PMTU_DISCOVERY,
            &NO_PMTU_DISCOVERY_INHERIT,
            &KEYS,
            &CSUM,
            &SEQ,
            &KEY_CSUM,
            &KEY_SEQ,
            &CSUM_SEQ,
            &KEY_CSUM_SEQ,
            &CSUM_OUT,
            &CSUM_IN,
            &SEQ_OUT,
            &SEQ_IN,
            &IGNORE_DF,
            &LOCAL_ANY,
            &FAR_LOCAL_ANY,
        ],
    },
    // Into a tunnel without a remote address the kernel sends no IPv6 over IPv4.
    Combination {
        outer: Outer::Gre,
        inner: &[Inner::Ipv4],
        options: &[&FAR_REMOTE_ANY, &FAR_ANY, &REMOTE_ANY, &ANY],
    },
    Combination {
        outer: Outer::Ip6gre,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: OPTIONS_OF_IP6GRE,
    },
    Combination {
        outer: Outer::Ip6greNoLimit,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: OPTIONS_OF_IP6GRE,
    },
    Combination {
        outer: Outer::Gretap,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: &[
            &PLAIN,
            &KEY,
            &KEY_ZERO,
            &FIXED,
            &INHERIT,
            &NO_PMTU_DISCOVERY,
            &KEYS,
            &CSUM,
            &SEQ,
            &KEY_CSUM_SEQ,
            &IGNORE_DF,
            &LOCAL_ANY,
            &FAR_LOCAL_ANY,
        ],
    },
    Combination {
        outer: Outer::Ip6gretap,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: &[&PLAIN_64, &KEY, &CSUM, &SEQ, &KEY_CSUM_SEQ, &FIXED, &TOS_INHERIT],
    },
];

/// What is tried of tunnels that are the kernel's at both ends, and adopted at one. Of what is numbered
/// nothing is forwarded by XDP. Without checksums on numbered ones: the kernel's own are wrong now and then.
pub const ADOPTED: &[Combination] = &[
    Combination {
        outer: Outer::Gre,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: &[
            &PLAIN,
            &KEY,
            &KEY_ZERO,
            &FIXED,
            &INHERIT,
            &NO_PMTU_DISCOVERY,
            &KEYS,
            &CSUM,
            &CSUM_IN,
            &SEQ,
            &IGNORE_DF,
            &LOCAL_ANY,
        ],
    },
    Combination { outer: Outer::Gre, inner: &[Inner::Ipv4], options: &[&REMOTE_ANY, &ANY] },
    Combination {
        outer: Outer::Ip6gre,
        inner: &[Inner::Ipv4, Inner::Ipv6],
        options: &[&PLAIN_64, &KEY, &CSUM, &SEQ_OUT, &FIXED, &TOS_INHERIT],
    },
    Combination { outer: Outer::Gretap, inner: &[Inner::Ipv4], options: &[&PLAIN, &KEY] },
];

/// Without wildcards: given no local address, the kernel's ip6gre sends from none.
const OPTIONS_OF_IP6GRE: &[&Options] = &[
    &PLAIN_64,
    &KEY,
    &KEYS,
    &CSUM,
    &SEQ,
    &KEY_CSUM,
    &KEY_SEQ,
    &CSUM_SEQ,
    &KEY_CSUM_SEQ,
    &CSUM_OUT,
    &CSUM_IN,
    &SEQ_OUT,
    &SEQ_IN,
    &FIXED,
    &TOS_INHERIT,
];

const PLAIN: Options = both("plain", "");
const PLAIN_64: Options = both("plain", "ttl 64");
const KEY: Options = both("key", "ttl 64 key 42");
const KEY_ALL_ONES: Options = both("key ffffffff", "ttl inherit key 0xffffffff");
const KEY_ZERO: Options = both("key 0", "nopmtudisc tos inherit key 0");
const KEYS: Options =
    different("ikey, okey", "ttl 64 ikey 7 okey 0.0.1.2", "ttl 64 ikey 0.0.1.2 okey 7");
const CSUM: Options = both("csum", "ttl 64 csum");
const SEQ: Options = both("seq", "ttl 64 seq");
const KEY_CSUM: Options = both("key csum", "ttl 64 key 42 csum");
const KEY_SEQ: Options = both("key seq", "ttl 64 key 42 seq");
const CSUM_SEQ: Options = both("csum seq", "ttl 64 csum seq");
const KEY_CSUM_SEQ: Options = both("key csum seq", "ttl 64 key 42 csum seq");
const CSUM_OUT: Options = different("csum out", "ttl 64 ocsum", "ttl 64 icsum");
const CSUM_IN: Options = different("csum in", "ttl 64 icsum", "ttl 64 ocsum");
const SEQ_OUT: Options = different("seq out", "ttl 64 oseq", "ttl 64 iseq");
const SEQ_IN: Options = different("seq in", "ttl 64 iseq", "ttl 64 oseq");
const FIXED: Options = both("ttl, tos", "ttl 245 tos 0xb8");
const TOS_INHERIT: Options = both("tos inherit", "ttl 64 tos inherit");
const INHERIT: Options = both("ttl, tos inherit", "ttl inherit tos inherit");
const NO_PMTU_DISCOVERY: Options = both("nopmtudisc", "nopmtudisc");
const NO_PMTU_DISCOVERY_INHERIT: Options = both("nopmtudisc, tos", "nopmtudisc tos inherit");
const IGNORE_DF: Options = Options { mtu: Some(1500), ..both("ignore-df", "nopmtudisc ignore-df") };
const LOCAL_ANY: Options = Options { near_ends: Ends::Remote, ..both("local any", "ttl 64") };
const REMOTE_ANY: Options = Options { near_ends: Ends::Local, ..both("remote any", "ttl 64") };
const ANY: Options = Options { near_ends: Ends::Neither, ..both("any, key", "ttl 64 key 4711") };
const FAR_LOCAL_ANY: Options =
    Options { far_ends: Ends::Remote, ..both("far: local any", "ttl 64") };
const FAR_REMOTE_ANY: Options =
    Options { far_ends: Ends::Local, ..both("far: remote any", "ttl 64") };
const FAR_ANY: Options =
    Options { far_ends: Ends::Neither, ..both("far: any, key", "ttl 64 key 4712") };

const fn both(name: &'static str, words: &'static str) -> Options {
    different(name, words, words)
}

const fn different(name: &'static str, near: &'static str, far: &'static str) -> Options {
    Options { name, near, far, near_ends: Ends::Both, far_ends: Ends::Both, mtu: None }
}

/// A tunnel of the laboratory: a combination's options and its place among the others.
#[derive(Clone, Copy)]
pub struct Row {
    /// From 1; part of its addresses and of its device's name.
    pub number: u8,
    pub outer: Outer,
    pub inner: &'static [Inner],
    pub options: &'static Options,
}

/// One row for each of the combinations' options.
pub fn rows(combinations: &'static [Combination]) -> Vec<Row> {
    let each = |combination: &'static Combination| {
        let Combination { outer, inner, options } = combination;
        options.iter().map(|options| (*outer, *inner, *options))
    };
    let numbered = |((outer, inner, options), number)| Row { number, outer, inner, options };
    combinations.iter().flat_map(each).zip(1..).map(numbered).collect()
}

impl Outer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::Ip6gre => "ip6gre",
            Self::Ip6greNoLimit => "ip6gre nolimit",
            Self::Gretap => "gretap",
            Self::Ip6gretap => "ip6gretap",
        }
    }

    pub fn mode(self) -> &'static str {
        match self {
            Self::Gre => "gre",
            Self::Ip6gre | Self::Ip6greNoLimit => "ip6gre",
            Self::Gretap => "gretap",
            Self::Ip6gretap => "ip6gretap",
        }
    }

    fn is_ipv4(self) -> bool {
        matches!(self, Self::Gre | Self::Gretap)
    }

    pub fn is_ethernet(self) -> bool {
        matches!(self, Self::Gretap | Self::Ip6gretap)
    }

    /// The kernel's words besides those of the options.
    fn words(self) -> &'static str {
        match self {
            Self::Gre | Self::Ip6gre | Self::Gretap | Self::Ip6gretap => "",
            Self::Ip6greNoLimit => "encaplimit none",
        }
    }
}

impl Inner {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl Row {
    /// How a table calls it.
    pub fn cell(&self, inner: Inner) -> [&'static str; 3] {
        [self.outer.name(), self.options.name, inner.name()]
    }

    pub fn device(&self) -> String {
        format!("t{}", self.number)
    }

    /// R1's outer address.
    pub fn near(&self) -> String {
        self.outer_address("10.58.0.", "fd58::")
    }

    /// R2's outer address.
    pub fn far(&self) -> String {
        self.outer_address("10.57.0.", "fd57::")
    }

    fn outer_address(&self, v4: &str, v6: &str) -> String {
        format!("{}{}", if self.outer.is_ipv4() { v4 } else { v6 }, self.number)
    }

    /// Of R1's device, where it has one: the same whoever's it is.
    pub fn near_mac(&self) -> String {
        format!("02:58:00:00:00:{:02x}", self.number)
    }

    /// Of R2's device.
    pub fn far_mac(&self) -> String {
        format!("02:57:00:00:00:{:02x}", self.number)
    }

    /// PC1's inner address.
    pub fn host(&self, inner: Inner) -> String {
        match inner {
            Inner::Ipv4 => format!("10.150.0.{}", self.number),
            Inner::Ipv6 => format!("fd15::{}", self.number),
        }
    }

    /// R2's inner address.
    pub fn target(&self, inner: Inner) -> String {
        match inner {
            Inner::Ipv4 => format!("10.110.0.{}", self.number),
            Inner::Ipv6 => format!("fd11::{}", self.number),
        }
    }

    /// What `xgre tunnel add` is given.
    pub fn xgre_words(&self) -> String {
        let ends = ends(self.options.near_ends, &self.near(), &self.far());
        format!("{} mode {} {ends} {}", self.device(), self.outer.mode(), self.options.near)
    }

    /// What `ip link add` is given at R1, for a tunnel that sends what xgre is to send: over IPv6
    /// without an encapsulation limit, which xgre does not send unless asked.
    pub fn near_words(&self) -> String {
        let ends = ends(self.options.near_ends, &self.near(), &self.far());
        let limit = if self.outer.is_ipv4() { "" } else { "encaplimit none" };
        let mode = self.outer.mode();
        format!("name {} type {mode} {ends} {} {limit}", self.device(), self.options.near)
    }

    /// What `ip link add` is given at R2.
    pub fn far_words(&self) -> String {
        let ends = ends(self.options.far_ends, &self.far(), &self.near());
        let (mode, more) = (self.outer.mode(), self.outer.words());
        format!("name {} type {mode} {ends} {} {more}", self.device(), self.options.far)
    }

    /// Whether packets have sequence numbers, in either direction.
    pub fn is_numbered(&self) -> bool {
        self.options.near.contains("seq")
    }

    /// Whether packets as long as the tunnel's MTU are too long for the underlay.
    pub fn sends_fragments(&self) -> bool {
        self.options.mtu.is_some()
    }

    /// What R1's device passes: the underlay's 1500 less the headers that R1 sends.
    pub fn near_mtu(&self) -> u32 {
        self.mtu(self.options.near, 0)
    }

    /// What R2's device passes.
    pub fn far_mtu(&self) -> u32 {
        // The option that carries the encapsulation limit.
        let limited = matches!(self.outer, Outer::Ip6gre | Outer::Ip6gretap);
        self.mtu(self.options.far, if limited { 8 } else { 0 })
    }

    fn mtu(&self, words: &str, more: u32) -> u32 {
        let optional: u32 = [["key", "okey"], ["csum", "ocsum"], ["seq", "oseq"]]
            .iter()
            .map(|names| if words.split(' ').any(|word| names.contains(&word)) { 4 } else { 0 })
            .sum();
        let outer = if self.outer.is_ipv4() { 20 } else { 40 };
        let ethernet = if self.outer.is_ethernet() { 14 } else { 0 };
        self.options.mtu.unwrap_or(1500 - outer - 4 - optional - more - ethernet)
    }
}

fn ends(ends: Ends, local: &str, remote: &str) -> String {
    match ends {
        Ends::Both => format!("local {local} remote {remote}"),
        Ends::Remote => format!("remote {remote}"),
        Ends::Local => format!("local {local}"),
        Ends::Neither => String::new(),
    }
}
