//! The report: which tests prove each rule of tests/rules.toml, and whether they passed.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    results::{Outcome, Test},
    root,
};

#[derive(Debug, Deserialize)]
struct Rules {
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    text: String,
    /// SUITE::TEST, besides those whose name says it.
    #[serde(default)]
    tests: Vec<String>,
}

/// Whether the rules that lack a test that passed are only told, or an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacking {
    IsTold,
    IsAnError,
}

/// Writes target/rules.md, and prints what is lacking.
pub(crate) fn report(tests: &[Test], lacking: Lacking) -> Result<()> {
    let rules = read()?;
    let verdicts = judge(&rules, tests);
    let file = root().join("target/rules.md");
    fs::write(&file, table(&rules, &verdicts))
        .with_context(|| format!("writing {}", file.display()))?;
    let of = |state| verdicts.iter().filter(|verdict| verdict.state == state).count();
    eprintln!(
        "\n{} rules: {} proved, {} failed, {} not run, {} without a test ({})",
        rules.len(),
        of(State::Proved),
        of(State::Failed),
        of(State::NotRun),
        of(State::WithoutTest),
        file.display()
    );
    let bad: Vec<_> = rules
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| verdict.state != State::Proved)
        .map(|(rule, verdict)| format!("{:<30} {}: {}", rule.id, verdict.state.word(), rule.text))
        .collect();
    for line in &bad {
        eprintln!("  {line}");
    }
    // They have been renamed, or their suite did not run.
    let mut unknown: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.unknown).collect();
    unknown.sort();
    unknown.dedup();
    for listed in &unknown {
        eprintln!("  tests/rules.toml lists {listed}, which is no test that has run");
    }
    if lacking == Lacking::IsAnError && bad.len() + unknown.len() > 0 {
        bail!(
            "{} of {} rules are not proved, and {} tests that are listed did not run: see above",
            bad.len(),
            rules.len(),
            unknown.len()
        );
    }
    Ok(())
}

fn read() -> Result<Vec<Rule>> {
    let file: PathBuf = root().join("tests/rules.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
    Ok(rules.rule)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Proved,
    Failed,
    /// All its tests are ignored, or ran nowhere.
    NotRun,
    WithoutTest,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Failed => "FAILED",
            Self::NotRun => "not run",
            Self::WithoutTest => "no test",
        }
    }
}

#[derive(Debug)]
struct Verdict<'a> {
    state: State,
    tests: Vec<&'a Test>,
    /// Listed tests that are nowhere.
    unknown: Vec<&'a str>,
}

/// Of each rule.
fn judge<'a>(rules: &'a [Rule], tests: &'a [Test]) -> Vec<Verdict<'a>> {
    let mut verdicts = Vec::new();
    for (rule, by_name) in rules.iter().zip(by_names(rules, tests)) {
        let mut found = by_name;
        let mut unknown = Vec::new();
        for listed in &rule.tests {
            let before = found.len();
            found.extend(tests.iter().filter(|test| test.is(listed)));
            if found.len() == before {
                unknown.push(listed.as_str());
            }
        }
        let has = |outcome| found.iter().any(|test| test.outcome == outcome);
        let state = if found.is_empty() {
            State::WithoutTest
        } else if has(Outcome::Failed) {
            State::Failed
        } else if has(Outcome::Passed) {
            State::Proved
        } else {
            State::NotRun
        };
        verdicts.push(Verdict { state, tests: found, unknown });
    }
    verdicts
}

/// The tests whose names start with each rule's id.
fn by_names<'a>(rules: &[Rule], tests: &'a [Test]) -> Vec<Vec<&'a Test>> {
    let prefixes: Vec<_> = rules.iter().map(|rule| rule.id.replace('-', "_") + "_").collect();
    let mut found = vec![Vec::new(); rules.len()];
    for test in tests {
        let mut rest = test.function();
        // Longest first: mtu_gre_key_csum is not mtu_gre_key. More than one id may stand there.
        while let Some((index, prefix)) = prefixes
            .iter()
            .enumerate()
            .filter(|(_, prefix)| rest.starts_with(prefix.as_str()))
            .max_by_key(|(_, prefix)| prefix.len())
        {
            found[index].push(test);
            rest = &rest[prefix.len()..];
        }
    }
    found
}

fn table(rules: &[Rule], verdicts: &[Verdict<'_>]) -> String {
    let mut text = "# Rules of GRE, and what proves them\n\n| rule | what it says | | tests |\n\
                    |---|---|---|---|\n"
        .to_owned();
    for (rule, verdict) in rules.iter().zip(verdicts) {
        let mut tests: Vec<_> = verdict
            .tests
            .iter()
            .map(|test| match test.outcome {
                Outcome::Passed => format!("`{}`", test.name()),
                Outcome::Failed => format!("`{}` FAILED", test.name()),
                Outcome::Ignored => format!("`{}` (not run here)", test.name()),
            })
            .collect();
        tests.sort();
        tests.dedup();
        let says = rule.text.replace('|', "\\|");
        _ = writeln!(
            text,
            "| {} | {says} | {} | {} |",
            rule.id,
            verdict.state.word(),
            tests.join("<br>")
        );
    }
    text
}

#[cfg(test)]
mod tests_of_rules {
    use super::*;

    fn rule(id: &str, tests: &[&str]) -> Rule {
        let tests = tests.iter().map(ToString::to_string).collect();
        Rule { id: id.into(), text: format!("text of {id}"), tests }
    }

    fn test(suite: &str, path: &str, outcome: Outcome) -> Test {
        Test { suite: suite.into(), path: path.into(), outcome }
    }

    #[test]
    fn a_test_proves_every_rule_that_its_name_starts_with() {
        let rules = [
            rule("p2", &[]),
            rule("p3", &[]),
            rule("mtu-gre-key", &[]),
            rule("mtu-gre-key-csum", &[]),
            rule("rfc2784-1", &[]),
        ];
        let tests = [
            test("program", "gre_header::p2_p3_every_combination", Outcome::Passed),
            test("mtu", "native::mtu_gre_key_csum_is_1468", Outcome::Passed),
            test("lib", "wire::rfc2784_1_each_bit", Outcome::Failed),
            test("lib", "p22_is_no_rule", Outcome::Passed),
        ];
        let states: Vec<_> = judge(&rules, &tests).iter().map(|verdict| verdict.state).collect();
        use State::*;
        assert_eq!(states, [Proved, Proved, WithoutTest, Proved, Failed]);
    }

    #[test]
    fn a_listed_test_counts_in_each_mode_and_is_missed() {
        let rules = [rule("d1", &["mtu::fits"]), rule("d2", &["guest::runs"])];
        let tests = [
            test("mtu", "native::fits", Outcome::Passed),
            test("mtu", "off::fits", Outcome::Failed),
            test("other", "native::fits", Outcome::Passed),
            test("guest", "runs", Outcome::Ignored),
        ];
        let verdicts = judge(&rules, &tests);
        assert_eq!((verdicts[0].state, verdicts[0].tests.len()), (State::Failed, 2));
        assert_eq!(verdicts[1].state, State::NotRun);
        let rules = [rule("d1", &["mtu::gone"])];
        let verdicts = judge(&rules, &tests);
        assert_eq!(
            (verdicts[0].state, &verdicts[0].unknown[..]),
            (State::WithoutTest, &["mtu::gone"][..])
        );
    }

    #[test]
    fn the_committed_rules_can_be_read_and_their_ids_differ() {
        let rules = read().unwrap();
        let mut ids: Vec<_> = rules.iter().map(|rule| rule.id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), rules.len());
        assert!(rules.iter().all(|rule| !rule.text.is_empty()));
    }
}
