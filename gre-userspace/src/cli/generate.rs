//! `xgre generate`: man pages and shell completions from the command line's own definition, for a package.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::{Shell, generate_to};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{Cli, Failure};

/// Commands for the administrator, as ip(8).
const SECTION: &str = "8";
const MANUAL: &str = "xgre";
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// Gets `man/` and `completions/`
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl Generate {
    pub(super) fn execute(self) -> Result<(), Failure> {
        self.write().map_err(|error| {
            Failure::refused(format!("writing into {}: {error}", self.directory.display()))
        })
    }

    fn write(&self) -> io::Result<()> {
        let [man, completions] = ["man", "completions"].map(|name| self.directory.join(name));
        fs::create_dir_all(&man)?;
        fs::create_dir_all(&completions)?;
        let mut command = Cli::command().disable_help_subcommand(true);
        for shell in SHELLS {
            generate_to(shell, &mut command, "xgre", &completions)?;
        }
        command.build();
        pages(&command, &man)
    }
}

/// A page for a command, and one for each below it.
fn pages(command: &Command, directory: &Path) -> io::Result<()> {
    let below: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    for command in &below {
        pages(command, directory)?;
    }
    let source = format!("xgre {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).section(SECTION).source(source).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if !below.is_empty() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(text) = command.get_after_help() {
        examples(&text.to_string()).to_writer(&mut page)?;
    }
    fs::write(directory.join(man.get_filename()), page)
}

/// What the help ends with: headings, indented lines under them, and paragraphs. `Man` itself would run
/// all lines into one.
fn examples(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_indented = false;
    for line in text.lines() {
        if line.starts_with(' ') != is_indented && !line.is_empty() {
            is_indented = !is_indented;
            roff.control(if is_indented { "EX" } else { "EE" }, []);
        }
        match line.strip_suffix(':') {
            _ if line.is_empty() => roff.control("PP", []),
            Some(heading) if !is_indented => roff.control("SH", [&*heading.to_uppercase()]),
            _ => roff.text([roman(line)]),
        };
    }
    if is_indented {
        roff.control("EE", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_indented_keeps_its_lines_and_headings_are_sections() {
        let page =
            examples("Where:\n  KEY is a number\n  TTL too\n\nExamples:\n  xgre run\n\nOne.\nTwo.");
        let expected = ".SH WHERE\n.EX\n  KEY is a number\n  TTL too\n.PP\n.EE\n.SH EXAMPLES\n.EX\n  xgre run\n.PP\n.EE\nOne.\nTwo.\n";
        assert!(page.to_roff().ends_with(expected), "{}", page.to_roff());
    }
}
