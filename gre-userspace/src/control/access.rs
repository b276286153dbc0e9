//! Who may call what. Everybody may look; root and the members of one group may change.
//!
//! Who a caller is, the kernel says when it connects (SO_PEERCRED, SO_PEERGROUPS), and in terms of the
//! daemon's own user namespace: root of another one is whoever it is outside, or nobody. Capabilities
//! and network namespaces are not asked for: a caller gets what its user may have, wherever it is.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    sync::{Arc, PoisonError, RwLock},
};

use nix::{
    libc::{self, gid_t, socklen_t, uid_t},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Group,
};

/// The group that may change what runs, besides root; it may be another one at any time.
#[derive(Debug, Clone, Default)]
pub struct Access(Arc<RwLock<Option<Members>>>);

/// A group as the config names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    name: String,
    gid: gid_t,
}

impl Members {
    /// The group of this name on this machine.
    ///
    /// # Errors
    /// When there is none, or it is the one that stands for groups of other user namespaces.
    pub fn named(name: &str) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("[control] group = \"{name}\": {why}"));
        match Group::from_name(name) {
            Ok(Some(group)) if group.gid.as_raw() == overflow_gid() => {
                refused("this is whoever has no group here, and so anybody: choose another")
            }
            Ok(Some(group)) => Ok(Self { name: name.to_owned(), gid: group.gid.as_raw() }),
            Ok(None) => refused(&format!(
                "there is no such group on this machine: `groupadd --system {name}`"
            )),
            Err(error) => refused(&format!("looking for it: {error}")),
        }
    }
}

/// The group whose number those that this user namespace does not know are shown with
/// (Documentation/admin-guide/sysctl/kernel.rst).
fn overflow_gid() -> gid_t {
    const DEFAULT: gid_t = 65_534;
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowgid");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT)
}

impl Access {
    pub fn set(&self, members: Option<Members>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// # Errors
    /// When the caller may only look; the reason says who may change, and what to do.
    pub fn may_change(&self, caller: &Caller) -> Result<(), String> {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if caller.is_root() {
            return Ok(());
        }
        match &*members {
            Some(members) if caller.groups.contains(&members.gid) => Ok(()),
            Some(Members { name, .. }) => Err(format!(
                "only root and the group \"{name}\" may change what runs: use `sudo`, or \
                 `usermod --append --groups {name} USER` and log in anew"
            )),
            None => Err("only root may change what runs: use `sudo`, or let a group do it by \
                         `group` in the config's [control]"
                .to_owned()),
        }
    }
}

/// Who has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    uid: uid_t,
    groups: Vec<gid_t>,
}

impl Caller {
    /// At the other end of a socket, as it was when it connected.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let peer = getsockopt(socket, PeerCredentials)?;
        let mut groups = peer_groups(socket)?;
        groups.push(peer.gid());
        Ok(Self { uid: peer.uid(), groups })
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// SO_PEERGROUPS: the supplementary groups, of which the kernel first says how many they are.
fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<gid_t>> {
    let mut groups: Vec<gid_t> = Vec::new();
    loop {
        let mut length = (groups.len() * size_of::<gid_t>()) as socklen_t;
        // SAFETY: the kernel writes `length` bytes at most, which is the size of `groups`, and the
        // file descriptor is open.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        };
        let count = length as usize / size_of::<gid_t>();
        if status == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ERANGE) => groups = vec![0; count],
            error => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn caller(uid: uid_t, groups: &[gid_t]) -> Caller {
        Caller { uid, groups: groups.to_vec() }
    }

    #[test]
    fn root_and_the_group_may_change_and_nobody_else() {
        let access = Access::default();
        assert_eq!(access.may_change(&caller(0, &[])), Ok(()));
        let refusal = access.may_change(&caller(1000, &[0, 50])).unwrap_err();
        assert!(refusal.starts_with("only root may change what runs: use `sudo`"), "{refusal}");

        access.set(Some(Members { name: "net".into(), gid: 50 }));
        assert_eq!(access.may_change(&caller(0, &[])), Ok(()));
        assert_eq!(access.may_change(&caller(1000, &[7, 50])), Ok(()));
        let refusal = access.may_change(&caller(1000, &[0, 7])).unwrap_err();
        assert!(refusal.contains("usermod --append --groups net USER"), "{refusal}");

        access.set(None);
        assert!(access.may_change(&caller(1000, &[7, 50])).is_err());
    }

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (own, _other) = UnixStream::pair().unwrap();
        let found = Caller::of(&own).unwrap();
        assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
        assert!(found.groups.contains(&nix::unistd::getegid().as_raw()));
        for group in nix::unistd::getgroups().unwrap() {
            assert!(found.groups.contains(&group.as_raw()), "{group}");
        }
    }

    #[test]
    fn a_group_that_is_nobodys_or_is_not_there_is_refused() {
        assert!(Members::named("root").is_ok());
        let refusal = Members::named("no-such-group").unwrap_err();
        assert!(refusal.contains("`groupadd --system no-such-group`"), "{refusal}");
        if let Ok(Some(group)) = Group::from_gid(overflow_gid().into()) {
            let refusal = Members::named(&group.name).unwrap_err();
            assert!(refusal.ends_with("choose another"), "{refusal}");
        }
    }
}
