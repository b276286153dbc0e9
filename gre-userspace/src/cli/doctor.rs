//! `xgre doctor`: what is in the way of the traffic, and the command that mends it.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::{
    Failure, Output,
    output::{Paint, print},
    runtime,
};
use crate::{
    doctor::{self, Facts, Finding, Severity},
    instance::Instance,
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Tell also what is as it should be
    #[arg(short, long)]
    verbose: bool,
}

pub(super) const EXAMPLES: &str = "\
It looks at the machine, at the network namespace that it runs in, and, where the daemon runs, at its tunnels
and ports; it changes nothing. As root it sees everything.

Examples:
  xgre doctor
  xgre doctor -v                            what is fine, too
  ip netns exec R1 xgre doctor              another network namespace
  xgre -j -p doctor                         all findings as JSON

The status is 0 where there is nothing worse than notes, 1 where there are warnings (packets are slower than
they need be, or some are lost), and 2 where there are errors (packets do not get through).";

/// The least status that says warnings, and errors.
const WARNINGS: u8 = 1;
const ERRORS: u8 = 2;

impl Doctor {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        let instance = Instance::current()?;
        let gathered = runtime()?.block_on(doctor::gather::facts(&instance));
        let facts = gathered.map_err(|error| Failure::refused(error.to_string()))?;
        let findings = doctor::examine(&facts);
        let report = Report::new(&facts, &findings);
        let text = match output.json {
            true => output.json(&report)?,
            false => text(&findings, self.verbose, output.paint()),
        };
        print(&text)?;
        match findings.iter().map(|finding| finding.severity).max() {
            Some(Severity::Error) => Err(Failure::told_with(ERRORS)),
            Some(Severity::Warning) => Err(Failure::told_with(WARNINGS)),
            _ => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether the daemon answers; without it tunnels are not looked at.
    daemon: bool,
    /// What only root can see is left out otherwise.
    root: bool,
    findings: &'a [Finding],
    summary: Summary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Summary {
    errors: usize,
    warnings: usize,
    notes: usize,
    ok: usize,
}

impl<'a> Report<'a> {
    fn new(facts: &Facts, findings: &'a [Finding]) -> Self {
        let summary = Summary::of(findings);
        Self { daemon: facts.daemon.is_ok(), root: facts.is_root, findings, summary }
    }
}

impl Summary {
    fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            ok: count(Severity::Ok),
        }
    }
}

/// The worst first, each with why it matters and what to do; at the end a line that sums up.
pub fn text(findings: &[Finding], verbose: bool, paint: Paint) -> String {
    let mut text = String::new();
    for severity in [Severity::Error, Severity::Warning, Severity::Note, Severity::Ok] {
        if severity == Severity::Ok && !verbose {
            continue;
        }
        for finding in findings.iter().filter(|finding| finding.severity == severity) {
            describe(&mut text, finding, paint);
        }
    }
    let Summary { errors, warnings, notes, ok } = Summary::of(findings);
    let counted = |count: usize, word: &str| {
        let s = if count == 1 { "" } else { "s" };
        format!("{count} {word}{s}")
    };
    let summary = [counted(errors, "error"), counted(warnings, "warning"), counted(notes, "note")];
    let all = if verbose || ok == 0 { "" } else { " (-v tells them)" };
    _ = writeln!(text, "{}; {ok} fine{all}", paint.heading(&summary.join(", ")));
    text
}

fn describe(text: &mut String, finding: &Finding, paint: Paint) {
    let word = finding.severity.word();
    let painted = match finding.severity {
        Severity::Error | Severity::Warning => paint.bad(word),
        Severity::Note => paint.heading(word),
        Severity::Ok => paint.good(word),
    };
    let subject = match &finding.subject {
        Some(subject) => format!("{}: ", paint.name(subject)),
        None => String::new(),
    };
    _ = writeln!(text, "{painted}: {subject}{}", finding.found);
    if let Some(why) = &finding.why {
        _ = writeln!(text, "    {why}");
    }
    if let Some(fix) = &finding.fix {
        _ = writeln!(text, "    {} {fix}", paint.heading("do:"));
    }
}
