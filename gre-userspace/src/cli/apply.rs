//! `xgre apply`: from a config file to what runs.

use std::path::PathBuf;

use clap::Args;

use super::{
    Failure, Output,
    output::{Paint, print},
    with_daemon,
};
use crate::{
    config::{self, DEFAULT_PATH},
    report::{ADD, DELETE, PlanStep},
};

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The config file
    #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
    file: PathBuf,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre apply --dry-run
  xgre apply
  xgre apply ./xgre.toml
  xgre -j apply -n

What is as the file says stays as it is, and so do tunnels that `xgre tunnel add` made and the file does
not name. Where one step is refused, those before it are undone. `systemctl reload xgre` applies
/etc/xgre/xgre.toml too.";

impl Apply {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        let name = self.file.display().to_string();
        let text = config::text(&self.file).map_err(Failure::config)?;
        // Here the terminal is known, and how wide it is.
        let desired = config::parse(&name, &text).map_err(Failure::config)?;
        for warning in config::warnings(&desired) {
            eprintln!("warning: {warning}");
        }
        let steps =
            with_daemon(async |daemon| Ok(daemon.apply(&name, &text, self.dry_run).await?))?;
        let text = if output.json {
            output.json(&steps)?
        } else {
            told(&steps, self.dry_run, output.paint())
        };
        print(&text)?;
        Ok(())
    }
}

fn told(steps: &[PlanStep], dry_run: bool, paint: Paint) -> String {
    let mut text = String::new();
    for step in steps {
        let line = step.to_string();
        let line = match step.action.as_str() {
            ADD => paint.good(&line),
            DELETE => paint.bad(&line),
            _ => line,
        };
        text.push_str(&line);
        text.push('\n');
    }
    let count = |action| steps.iter().filter(|step| step.action == action).count();
    let (added, deleted) = (count(ADD), count(DELETE));
    let changed = steps.len() - added - deleted;
    text.push_str(&match (steps.is_empty(), dry_run) {
        (true, _) => "nothing to do: all is as the file says\n".to_owned(),
        (_, true) => format!(
            "would add {added}, change {changed} and delete {deleted}; `xgre apply` does it\n"
        ),
        (_, false) => format!("added {added}, changed {changed}, deleted {deleted}\n"),
    });
    text
}
