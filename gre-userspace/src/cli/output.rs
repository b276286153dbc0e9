//! How output looks, whatever it is about.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
};

use clap::{
    ArgAction, Args, ValueEnum,
    builder::styling::{AnsiColor, Style},
};
use serde::Serialize;

use super::words::shortens;

/// iproute2's global options, accepted before the object and after.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,
    /// Indent the JSON
    #[arg(short, long, global = true)]
    pub pretty: bool,
    /// Show counters too; twice: errors by kind
    #[arg(short, long, visible_alias = "stats", global = true, action = ArgAction::Count)]
    pub statistics: u8,
    /// Show a device's details too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub details: u8,
    /// Show a device in one short line [-br]
    #[arg(long, global = true)]
    pub brief: bool,
    /// Show a tunnel or device in one line, with `\` where a line would end
    #[arg(short, long, global = true)]
    pub oneline: bool,
    /// Colour: on terminals, unless NO_COLOR is set
    #[arg(
        long, global = true, value_name = "WHEN", require_equals = true, num_args = 0..=1,
        default_missing_value = "always"
    )]
    pub color: Option<Colour>,
    /// Only tunnels over IPv4 [-4] or IPv6 [-6]
    #[arg(
        long,
        global = true,
        value_name = "FAMILY",
        default_value = "any",
        hide_default_value = true
    )]
    pub family: Family,
}

/// The outer packets' IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Family {
    #[default]
    #[value(hide = true)]
    Any,
    Inet,
    Inet6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Always,
    Auto,
    Never,
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

    /// What is said of one tunnel, in as many lines as are wanted.
    pub(super) fn lines(self, text: String) -> String {
        if !self.oneline {
            return text;
        }
        text.trim_end_matches('\n').replace('\n', "\\") + "\n"
    }

    /// Whether to colour: as asked, else on a terminal only, and not where the user asks otherwise
    /// (<https://no-color.org>).
    pub(super) fn paint(self) -> Paint {
        let refused = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(match self.color {
            Some(Colour::Always) => !self.json,
            Some(Colour::Never) => false,
            Some(Colour::Auto) => io::stdout().is_terminal(),
            None => io::stdout().is_terminal() && !refused(),
        })
    }
}

/// iproute2's options are words behind one dash, and may be shortened; as long options clap
/// understands them. Of several that a word begins the first is meant, as in ip/ip.c; of those that
/// are letters clap has its own.
const OPTIONS: [(&str, &str); 12] = [
    ("family", "--family"),
    ("4", "--family=inet"),
    ("6", "--family=inet6"),
    ("stats", "--statistics"),
    ("statistics", "--statistics"),
    ("details", "--details"),
    ("oneline", "--oneline"),
    ("Version", "--version"),
    ("brief", "--brief"),
    ("json", "--json"),
    ("pretty", "--pretty"),
    ("help", "--help"),
];

/// The command line with iproute2's options as clap takes them.
pub(super) fn iproute2_options(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut before_object = true;
    let mut program = true;
    arguments
        .map(|argument| {
            let text = argument.to_str().unwrap_or_default();
            let is_option = text.starts_with('-');
            before_object &= std::mem::take(&mut program) || is_option;
            // Elsewhere `-c` is an option of the object's.
            match option(text, before_object) {
                Some(long) if is_option => long.into(),
                _ => argument,
            }
        })
        .collect()
}

fn option(text: &str, before_object: bool) -> Option<String> {
    let word = text.strip_prefix('-').filter(|word| !word.starts_with('-'))?;
    let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    if shortens(name, "color") && (before_object || name.len() > 1) {
        return Some(format!("--color={}", value.unwrap_or("always")));
    }
    let is_letter = word.len() == 1 && !word.starts_with(|c: char| c.is_ascii_digit());
    if is_letter {
        return (word == "f" && before_object).then(|| "--family".to_owned());
    }
    let found = OPTIONS.iter().find(|(whole, _)| shortens(word, whole));
    found.map(|(_, long)| (*long).to_owned())
}

/// Writes to standard output. A reader that has gone away, as `head` does, is not an error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
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
