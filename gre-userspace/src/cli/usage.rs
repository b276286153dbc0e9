//! The answers to iproute2's word `help`, on standard error and with its exit code, and to words that
//! it does not know.

use super::Failure;

const TUNNEL: &str = "\
Usage: xgre tunnel { add | change | del | show | probe } [ NAME ]
        [ mode { gre | ip6gre | gretap | ip6gretap } ]
        [ remote ADDR ] [ local ADDR ]
        [ [no][i|o]seq ] [ [i|o]key KEY | no[i|o]key ] [ [no][i|o]csum ]
        [ ttl TTL ] [ tos TOS ] [ [no]pmtudisc ] [ [no]ignore-df ] [ dev PHYS_DEV ]
        [ seq-mode { linux | rfc2890 } ] [ mss { off | auto | BYTES } ] [ netfilter { respect | bypass } ]

Where: NAME := STRING
       ADDR := { IP_ADDRESS | any }
       TOS  := { STRING | 00..ff | inherit | inherit/STRING | inherit/00..ff }
       TTL  := { 1..255 | inherit }
       KEY  := { DOTTED_QUAD | NUMBER }";

const TUNNEL6: &str = "\
Usage: xgre -6 tunnel { add | change | del | show | probe } [ NAME ]
          [ mode { ip6gre | ip6gretap } ]
          [ remote ADDR local ADDR ] [ dev PHYS_DEV ]
          [ encaplimit ELIM ]
          [ hoplimit TTL ] [ tclass TCLASS ] [ flowlabel FLOWLABEL ]
          [ [no][i|o]seq ] [ [i|o]key KEY | no[i|o]key ] [ [no][i|o]csum ]
          [ seq-mode { linux | rfc2890 } ] [ mss { off | auto | BYTES } ] [ netfilter { respect | bypass } ]

Where: NAME      := STRING
       ADDR      := IPV6_ADDRESS
       ELIM      := { none | 0..255 }(default=none)
       TTL       := 0..255 (default=64)
       TCLASS    := { 0x0..0xff | inherit }
       FLOWLABEL := { 0x0..0xfffff | inherit }
       KEY       := { DOTTED_QUAD | NUMBER }";

const LINK: &str = "\
Usage: xgre link add [ name ] NAME [ mtu MTU ] [ address LLADDR ] [ up | down ]
                type TYPE [ ARGS ]

       xgre link { set | change } [ dev ] DEVICE [ mtu MTU ] [ address LLADDR ] [ up | down ]
                [ type TYPE ARGS ]

       xgre link replace [ name ] NAME type TYPE [ ARGS ]

       xgre link delete [ dev ] DEVICE [ type TYPE ]

       xgre link show [ [ dev ] DEVICE ] [ up ] [ master DEVICE ] [ type TYPE ]

       TYPE := { gre | ip6gre | gretap | ip6gretap }";

const OPTIONS: &str = "\
Usage: ... TYPE [ remote ADDR ]
                [ local ADDR ]
                [ [no][i|o]seq ]
                [ [i|o]key KEY | no[i|o]key ]
                [ [no][i|o]csum ]
                [ ttl TTL ]
                [ tos TOS ]
                [ dev PHYS_DEV ]
                [ seq-mode { linux | rfc2890 } ]
                [ mss { off | auto | BYTES } ] [ netfilter { respect | bypass } ]
      gre, gretap:
                [ [no]pmtudisc ]
                [ [no]ignore-df ]
      ip6gre, ip6gretap:
                [ encaplimit { none | 0..255 } ]
                [ flowlabel { 0x0..0xfffff | inherit } ]

Where:  ADDR := { IP_ADDRESS | any }
        TOS  := { NUMBER | inherit }
        TTL  := { 1..255 | inherit }
        KEY  := { DOTTED_QUAD | NUMBER }";

pub(super) fn tunnel(over_ipv6: bool) -> Failure {
    Failure::senseless(if over_ipv6 { TUNNEL6 } else { TUNNEL })
}

pub(super) fn link() -> Failure {
    Failure::senseless(LINK)
}

/// `help` behind `type TYPE`.
pub(super) fn options() -> Failure {
    Failure::refused(OPTIONS)
}

/// A word behind `type TYPE` that is no option of it.
pub(super) fn of_type(word: &str, near: Option<&str>) -> Failure {
    let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
    Failure::refused(format!("\"{word}\" is no option of this type{near}\n{OPTIONS}"))
}

/// The word in place of an object; iproute2's words.
pub(super) fn object(word: &str, near: Option<&str>) -> Failure {
    Failure::refused(format!("Object \"{word}\" is unknown, try \"xgre help\".{}", meant(near)))
}

/// The word in place of a verb of `object`.
pub(super) fn verb(object: &str, word: &str, near: Option<&str>) -> Failure {
    let stop = if object == "link" { "." } else { "" };
    Failure::senseless(format!(
        "Command \"{word}\" is unknown, try \"xgre {object} help\"{stop}{}",
        meant(near)
    ))
}

pub(super) fn option(word: &str) -> Failure {
    Failure::senseless(format!("Option \"{word}\" is unknown, try \"xgre -help\"."))
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!("\ndid you mean \"{near}\"?")).unwrap_or_default()
}
