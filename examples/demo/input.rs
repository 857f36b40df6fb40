//! The text, and a count of its words that does without the runtime.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// What is read of the project: its documents and sources.
const ROOTS: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs",
    "src",
    "runtime/src",
    "operators/src",
    "connectors/src",
    "loadtest/src",
    "examples",
    "tests/it",
];
/// Endings of text files.
pub(crate) const SUFFIXES: [&str; 2] = ["md", "rs"];

/// The input as plain code sees it.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) files: u64,
    pub(crate) lines: u64,
    /// How often each word occurs.
    pub(crate) words: BTreeMap<String, u64>,
    pub(crate) records: u64,
}

/// Splits a line into lower-case words. The pipeline uses it too: what a word is is not what is judged.
pub(crate) fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Copies the project's text to `to`, so that it does not change while it is read, and counts its words.
pub(crate) fn prepare(to: &Path) -> anyhow::Result<Text> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = Text::default();
    for root in ROOTS {
        copy(&project.join(root), &to.join(root), &mut text)?;
    }
    ensure!(text.lines > 1_000, "found only {} lines of text below {}", text.lines, project.display());
    Ok(text)
}

fn copy(from: &Path, to: &Path, text: &mut Text) -> anyhow::Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
            let entry = entry?;
            // The pipeline's source leaves these out.
            if !entry.file_name().to_string_lossy().starts_with(['.', '_']) {
                copy(&entry.path(), &to.join(entry.file_name()), text)?;
            }
        }
    } else if from.extension().is_some_and(|ending| SUFFIXES.iter().any(|suffix| ending == *suffix)) {
        let content = fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        fs::write(to, &content).with_context(|| format!("cannot write {}", to.display()))?;
        text.files += 1;
        for line in content.lines() {
            text.lines += 1;
            for word in words(line) {
                text.records += 1;
                *text.words.entry(word).or_default() += 1;
            }
        }
    }
    Ok(())
}
