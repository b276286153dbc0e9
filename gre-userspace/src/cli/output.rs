//! How output looks, whatever it is about.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
};

use clap::{
    ArgAction, Args,
    builder::styling::{AnsiColor, Style},
};
use serde::Serialize;

/// iproute2's global options, accepted before the object and after.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,
    /// Indent the JSON
    #[arg(short, long, global = true)]
    pub pretty: bool,
    /// Show counters too
    #[arg(short, long, visible_alias = "stats", global = true, action = ArgAction::Count)]
    pub statistics: u8,
}

impl Output {
    /// One line, or indented as iproute2 does.
    pub fn json(self, value: &impl Serialize) -> io::Result<String> {
        let mut text = Vec::new();
        if self.pretty {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
        } else {
            serde_json::to_writer(&mut text, value)?;
        }
        text.push(b'\n');
        String::from_utf8(text).map_err(io::Error::other)
    }
}

/// iproute2's options are words behind one dash, and may be shortened; as a long option clap
/// understands them.
pub(super) fn iproute2_option(argument: OsString) -> OsString {
    let long = argument.to_str().and_then(|text| match text.strip_prefix('-')? {
        word if word.len() < 2 => None,
        word if "json".starts_with(word) => Some("--json"),
        word if "pretty".starts_with(word) => Some("--pretty"),
        word if "statistics".starts_with(word) || word == "stats" => Some("--statistics"),
        _ => None,
    });
    long.map_or(argument, OsString::from)
}

/// Writes to standard output. A reader that has gone away, as `head` does, is not an error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Whether to colour: only on a terminal, and not where the user asks otherwise
/// (<https://no-color.org>).
pub(super) fn colour() -> Paint {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Paint(io::stdout().is_terminal() && !refused)
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Paint(pub bool);

impl Paint {
    /// iproute2's colour for an interface.
    pub(super) fn name(self, text: &str) -> String {
        self.paint(AnsiColor::Cyan.on_default(), text)
    }

    pub(super) fn heading(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    fn paint(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
