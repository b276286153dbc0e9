//! What cargo and libtest print about tests, read.

/// A test and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// The test program: a package's library or binary by the crate's name, a suite by its own.
    pub(crate) suite: String,
    /// Modules and function.
    pub(crate) path: String,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

impl Test {
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.suite, self.path)
    }

    pub(crate) fn function(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or_default()
    }

    /// Whether SUITE::TEST is this, whose modules may be left out.
    pub(crate) fn is(&self, listed: &str) -> bool {
        let Some((suite, path)) = listed.split_once("::") else { return false };
        let before = self.path.strip_suffix(path);
        suite == self.suite
            && before.is_some_and(|before| before.is_empty() || before.ends_with("::"))
    }
}

/// All tests of an output, in which cargo says which program comes next: "Running ...
/// (.../deps/NAME-HASH)", "Doc-tests NAME", or a guest's "suite NAME".
pub(crate) fn read(output: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    let mut suite = String::new();
    // Of a test whose result is not yet there: with one thread libtest prints the name first, and
    // what the test itself prints may come between.
    let mut begun: Option<String> = None;
    for line in output.lines() {
        let line = line.trim();
        let finished = begun.clone().zip(outcome(line));
        if let Some((path, outcome)) = finished {
            tests.push(Test { suite: suite.clone(), path, outcome });
            begun = None;
        } else if let Some(next) = program(line) {
            suite = next;
            begun = None;
        } else if let Some((path, rest)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        {
            let path = path.trim_end_matches(" - should panic").to_owned();
            match outcome(rest.trim()) {
                Some(outcome) => {
                    tests.push(Test { suite: suite.clone(), path, outcome });
                    begun = None;
                }
                None => begun = Some(path),
            }
        } else if let Some(path) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ..."))
        {
            begun = Some(path.trim_end_matches(" - should panic").to_owned());
        }
    }
    tests
}

/// A line that is nothing but a result.
fn outcome(text: &str) -> Option<Outcome> {
    match text {
        "ok" => Some(Outcome::Passed),
        "FAILED" => Some(Outcome::Failed),
        _ if text == "ignored" || text.starts_with("ignored, ") => Some(Outcome::Ignored),
        _ => None,
    }
}

fn program(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("suite ").or_else(|| line.strip_prefix("Doc-tests ")) {
        return Some(name.to_owned());
    }
    let file = line.strip_prefix("Running ")?.rsplit_once('(')?.1.strip_suffix(')')?;
    let name = file.rsplit('/').next()?;
    Some(name.rsplit_once('-')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_whatever_is_printed_between() {
        let output = "\
   Compiling tests v0.1.0 (/xgre/tests)
     Running unittests src/lib.rs (target/debug/deps/gre_ebpf_common-0123456789abcdef)

running 3 tests
test wire::gre::p2_only_version_zero_is_ours ... ok
test wire::panics - should panic ... ok
test broken ... FAILED

test result: FAILED. 2 passed; 1 failed; 0 ignored
     Running tests/program/main.rs (target/debug/deps/program-fedcba9876543210)
test native::needs_a_guest ... ignored, for a kernel with ip_gre: cargo xtask test --vm
test slow ... something that the test has printed
ok
test lonely ...
FAILED
   Doc-tests gre_userspace
test gre-userspace/src/lib.rs - example (line 3) ... ok
suite kernel_gre
test native::outer_headers_are_the_kernels ... ok
";
        let found: Vec<_> =
            read(output).into_iter().map(|test| (test.name(), test.outcome)).collect();
        use Outcome::*;
        let expected = [
            ("gre_ebpf_common::wire::gre::p2_only_version_zero_is_ours", Passed),
            ("gre_ebpf_common::wire::panics", Passed),
            ("gre_ebpf_common::broken", Failed),
            ("program::native::needs_a_guest", Ignored),
            ("program::slow", Passed),
            ("program::lonely", Failed),
            ("gre_userspace::gre-userspace/src/lib.rs - example (line 3)", Passed),
            ("kernel_gre::native::outer_headers_are_the_kernels", Passed),
        ];
        assert_eq!(found, expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    }

    #[test]
    fn modules_may_be_left_out_but_words_may_not() {
        let path = "native::deep::fits".to_owned();
        let test = Test { suite: "mtu".into(), path, outcome: Outcome::Passed };
        assert_eq!(test.function(), "fits");
        for listed in ["mtu::fits", "mtu::deep::fits", "mtu::native::deep::fits"] {
            assert!(test.is(listed), "{listed}");
        }
        for listed in ["mtu::its", "wire::fits", "fits"] {
            assert!(!test.is(listed), "{listed}");
        }
    }
}
