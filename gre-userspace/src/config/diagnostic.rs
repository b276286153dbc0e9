//! Errors that point into the config file.

use std::{ops::Range, path::PathBuf};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use thiserror::Error;

/// Why a config file cannot be used. Rendered by [`miette::Report`] it shows the file, line, column
/// and the offending text.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the config file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{reason}")]
    Wrong {
        reason: String,
        file: Box<NamedSource<String>>,
        /// What to underline, with what to say there.
        places: Vec<LabeledSpan>,
    },
}

impl Diagnostic for ConfigError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Read { .. } => None,
            Self::Wrong { file, .. } => Some(&**file),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match self {
            Self::Read { .. } => None,
            Self::Wrong { places, .. } => Some(Box::new(places.iter().cloned())),
        }
    }
}

/// The text of a config file, to make errors about.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// The line, from 1, in which a span begins.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.text[..span.start].matches('\n').count() + 1
    }

    pub(super) fn error(&self, at: Range<usize>, reason: String) -> ConfigError {
        self.wrong(vec![LabeledSpan::new_primary_with_span(None, at)], reason)
    }

    /// An error about a value at odds with an earlier one.
    pub(super) fn clash(
        &self,
        at: Range<usize>,
        first: Range<usize>,
        reason: String,
    ) -> ConfigError {
        self.wrong(
            vec![
                LabeledSpan::new_primary_with_span(Some("and again here".into()), at),
                LabeledSpan::new_with_span(Some("first here".into()), first),
            ],
            reason,
        )
    }

    /// What the TOML reader found, with serde's list of known words cut down to the nearest.
    pub(super) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        // Errors without a place are about the file as a whole.
        let at = error.span().unwrap_or(0..0);
        let reason = did_you_mean(error.message()).unwrap_or_else(|| error.message().to_owned());
        self.error(at, reason)
    }

    fn wrong(&self, places: Vec<LabeledSpan>, reason: String) -> ConfigError {
        let file = NamedSource::new(self.name, self.text.to_owned());
        ConfigError::Wrong { reason, file: Box::new(file), places }
    }
}

/// Rewords serde's "unknown field `x`, expected one of `a`, `b`" and its like for variants.
fn did_you_mean(message: &str) -> Option<String> {
    let (what, rest) = match message.strip_prefix("unknown field ") {
        Some(rest) => ("key", rest),
        None => ("value", message.strip_prefix("unknown variant ")?),
    };
    let mut words = rest.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    let known: Vec<&str> = words.collect();
    Some(match nearest(unknown, &known) {
        Some(near) => format!("unknown {what} `{unknown}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{unknown}`; known here: `{}`", known.join("`, `")),
    })
}

/// The known word most like `word`, unless none is much like it.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    /// Of Jaro-Winkler similarity: 1 is equal, 0 has nothing in common.
    const ALIKE: f64 = 0.8;
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
