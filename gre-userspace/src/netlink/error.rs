//! What can go wrong between the daemon and the kernel, told so that a reader knows what to do.

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{
    DecodeError, ErrorMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED, NetlinkHeader, NlasIterator,
};
use nix::libc;
use thiserror::Error;

use super::socket::text;

#[derive(Debug, Error)]
pub enum NetlinkError {
    #[error(
        "cannot open a netlink socket ({purpose}): {source}; xgre needs AF_NETLINK sockets and \
         CAP_NET_ADMIN"
    )]
    Socket { purpose: &'static str, source: io::Error },
    /// The kernel answered a change with an error.
    #[error("cannot {attempt}: {}{}{}", .errno, in_brackets(.detail), advice(.errno))]
    Refused {
        attempt: String,
        #[source]
        errno: io::Error,
        /// The kernel's own words (NLMSGERR_ATTR_MSG), where it has any.
        detail: Option<String>,
    },
    /// Adding a route failed because the table has one for the same prefix that leads elsewhere.
    #[error(
        "cannot add the route {prefix} dev {device}: File exists, and it leads elsewhere; see \
         `ip route show {prefix}` and delete one of the two"
    )]
    RouteLeadsElsewhere { prefix: IpNet, device: String },
    #[error("cannot {attempt}: the netlink connection is closed; restart the daemon")]
    Closed { attempt: String },
    #[error(
        "cannot read the kernel's {what}: {attempts} attempts failed, the last because {fault}; \
         what is known stays in use"
    )]
    Dump { what: &'static str, attempts: u32, fault: DumpFault },
    #[error("cannot find the generic netlink family \"{family}\": {reason}; {needed}")]
    Family { family: &'static str, reason: String, needed: &'static str },
}

impl NetlinkError {
    /// The errno of a refusal, as in `nix::libc`.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => errno.raw_os_error(),
            Self::RouteLeadsElsewhere { .. } => Some(libc::EEXIST),
            Self::Dump { fault: DumpFault::Refused(errno) | DumpFault::Socket(errno), .. } => {
                errno.raw_os_error()
            }
            Self::Socket { source, .. } => source.raw_os_error(),
            Self::Dump { .. } | Self::Closed { .. } | Self::Family { .. } => None,
        }
    }

    /// `error` is an `NLMSG_ERROR` that came with the header flags `flags`.
    pub(super) fn refused(attempt: String, error: &ErrorMessage, flags: u16) -> Self {
        Self::Refused { attempt, errno: error.to_io(), detail: kernels_words(error, flags) }
    }
}

/// Why a dump is worth nothing. A dump is never used in part.
#[derive(Debug, Error)]
pub enum DumpFault {
    #[error("the table changed while it was read")]
    Interrupted,
    #[error("the kernel answered {0}")]
    Refused(io::Error),
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("a message cannot be decoded: {0}")]
    Undecodable(#[from] DecodeError),
}

impl DumpFault {
    /// The kernel has no such table, or not for us, and will not the next time.
    pub(super) fn is_lasting(&self) -> bool {
        let (Self::Refused(errno) | Self::Socket(errno)) = self else { return false };
        let lasting = [
            libc::EOPNOTSUPP,
            libc::EAFNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::EINVAL,
            libc::EPERM,
        ];
        errno.raw_os_error().is_some_and(|errno| lasting.contains(&errno))
    }
}

/// NLMSGERR_ATTR_MSG of an extended acknowledgement. It follows the request's header: the sockets
/// ask for capped acknowledgements, so that the request's body is not repeated in between.
fn kernels_words(error: &ErrorMessage, flags: u16) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 || flags & NLM_F_CAPPED == 0 {
        return None;
    }
    let attributes = error.header.get(size_of::<NetlinkHeader>()..)?;
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| text(attribute.value()))
}

fn in_brackets(detail: &Option<String>) -> String {
    detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default()
}

fn advice(errno: &io::Error) -> &'static str {
    match errno.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; run as root, or give the daemon CAP_NET_ADMIN",
        Some(libc::ENODEV) => "; `ip link show` lists the devices there are",
        Some(libc::EEXIST) => "; choose another name, or delete what has it",
        Some(libc::ENETDOWN) => "; `ip link set` the device `up` first",
        Some(libc::ESRCH) => "; `ip route show` lists the routes there are",
        Some(libc::EADDRNOTAVAIL) => "; `ip addr show` lists the addresses there are",
        Some(libc::EOPNOTSUPP) => "; this kernel, or this kind of device, cannot do it",
        Some(libc::ENOMEM | libc::ENOBUFS) => "; the kernel is short of memory",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable};

    use super::*;

    #[test]
    fn a_refusal_says_what_was_attempted_why_it_failed_and_what_to_do() {
        let words = DefaultNla::new(1, b"Nexthop has invalid gateway\0".to_vec());
        let mut header = vec![0; size_of::<NetlinkHeader>() + words.buffer_len()];
        words.emit(&mut header[size_of::<NetlinkHeader>()..]);
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-libc::ENETDOWN);
        error.header = header;

        let refused = NetlinkError::refused(
            "add the route 10.0.0.0/8 dev tunnel0".into(),
            &error,
            NLM_F_ACK_TLVS | NLM_F_CAPPED,
        );

        assert_eq!(
            refused.to_string(),
            "cannot add the route 10.0.0.0/8 dev tunnel0: Network is down (os error 100) (Nexthop \
             has invalid gateway); `ip link set` the device `up` first"
        );
    }
}
