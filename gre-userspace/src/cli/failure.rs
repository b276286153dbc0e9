//! What a command says when it fails, and the code that it exits with.

use std::{fmt, io, process::ExitCode};

use crate::{config::ConfigError, control::client::ClientError, instance::InstanceError};

/// iproute2's code for what the kernel or the daemon refused.
const REFUSED: u8 = 1;
/// iproute2's code for what the kernel refused over netlink.
const OF_KERNEL: u8 = 2;
/// iproute2's code for an argument that it cannot make sense of: `exit(-1)`.
const SENSELESS: u8 = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: REFUSED }
    }

    /// Of `ip link`, what the kernel refuses.
    pub(super) fn kernels(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: OF_KERNEL }
    }

    pub(super) fn senseless(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: SENSELESS }
    }

    /// A config file that cannot be used, with the place underlined.
    pub(super) fn config(error: ConfigError) -> Self {
        Self::refused(format!("{:?}", miette::Report::new(error)))
    }

    /// What was to be said is in what was printed.
    pub(super) fn told() -> Self {
        Self::told_with(REFUSED)
    }

    /// The same with a status of its own.
    pub(super) fn told_with(code: u8) -> Self {
        Self { text: String::new(), code }
    }

    pub fn is_told(&self) -> bool {
        self.text.is_empty()
    }

    pub fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<InstanceError> for Failure {
    fn from(error: InstanceError) -> Self {
        Self::refused(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::refused(error.to_string())
    }
}
