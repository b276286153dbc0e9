//! The words of `ip tunnel` and `ip link`, as iproute2 takes them. What is refused is refused in
//! iproute2's words; a line of our own may follow.

mod device;
mod grammar;
mod options;
mod values;

pub use self::device::LinkWords;
use self::options::Words;
pub(super) use self::{
    device::{Shown, link_words, shown},
    grammar::{Grammar, shortens},
};
use super::{Failure, output::Family};
use crate::{
    model::{Mode, Tunnel},
    report::TunnelInfo,
};

/// The tunnel that the words of `tunnel add` describe.
pub fn tunnel(words: &[String]) -> Result<Tunnel, Failure> {
    tunnel_of_family(words, Family::Any)
}

/// The same with `-4` or `-6`.
pub(super) fn tunnel_of_family(words: &[String], family: Family) -> Result<Tunnel, Failure> {
    let words = Words::of_tunnel(words, family)?;
    let Some(mode) = words.mode.or(words.mode_of_name()) else {
        return Err(Failure::refused(
            "cannot determine tunnel mode (ipip, gre, vti or sit)\n\
             xgre does gre: add `mode gre`, or `mode ip6gre` for GRE over IPv6",
        ));
    };
    let Some(name) = &words.name else {
        return Err(Failure::refused(
            "the tunnel has no name\n\
             xgre tunnel add NAME mode gre remote ADDR local ADDR [ ttl TTL ] [ key KEY ]",
        ));
    };
    let tunnel = Tunnel::new(name, mode, mode.any(), mode.any());
    words.apply(tunnel, Grammar::Tunnel)
}

/// The tunnel that the words of `link add` describe.
pub fn link(words: &[String]) -> Result<Tunnel, Failure> {
    link_words(words)?.tunnel()
}

/// What the words of `tunnel change` make of a tunnel.
pub fn change(words: &[String], tunnel: &Tunnel) -> Result<Tunnel, Failure> {
    let words = Words::of_tunnel(words, Family::Any)?;
    if let Some(mode) = words.mode.filter(|mode| *mode != tunnel.mode) {
        return Err(other_mode(tunnel, mode, "mode"));
    }
    words.apply(tunnel.clone(), Grammar::Tunnel)
}

/// `word` introduces the mode.
fn other_mode(tunnel: &Tunnel, mode: Mode, word: &str) -> Failure {
    Failure::refused(format!(
        "Error: {} is {}, and a tunnel keeps its mode\n\
         delete it and add it again with `{word} {mode}`",
        tunnel.name, tunnel.mode
    ))
}

/// The name in `tunnel change NAME seq reset`, if those are the words.
pub(super) fn sequence_reset(words: &[String]) -> Result<Option<String>, Failure> {
    if !words.windows(2).any(|pair| pair == ["seq", "reset"]) {
        return Ok(None);
    }
    match words {
        [name, _, _] => Ok(Some(name.clone())),
        _ => Err(Failure::refused("`seq reset` stands alone: xgre tunnel change NAME seq reset")),
    }
}

/// The name in the words of `ip tunnel delete` and `change`, which may say more about the tunnel.
pub(super) fn name(words: &[String], family: Family) -> Result<Option<String>, Failure> {
    Words::of_tunnel(words, family).map(|words| words.name)
}

/// Which tunnels the words of `tunnel show` choose.
pub struct Filter(Words);

impl Filter {
    pub fn parse(words: &[String]) -> Result<Self, Failure> {
        Words::of_tunnel(words, Family::Any).map(Self)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Whether changing a tunnel by the words would leave it as it is. As in iproute2, `any` is
    /// every address here.
    pub fn chooses(&self, info: &TunnelInfo, tunnel: &Tunnel) -> bool {
        let mut words = self.0.clone();
        let named = words.name.take().is_none_or(|name| name == info.name);
        if !named || words.mode.is_some_and(|mode| mode != tunnel.mode) {
            return false;
        }
        for end in [&mut words.local, &mut words.remote] {
            *end = end.filter(|end| !end.address(tunnel.mode).is_unspecified());
        }
        words.apply(tunnel.clone(), Grammar::Link).as_ref() == Ok(tunnel)
    }
}
