//! Reads Prometheus text as strictly as its server does.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

type Labels = BTreeMap<String, String>;

/// The series of one scrape.
#[derive(Debug)]
pub(super) struct Scrape {
    /// By their own text.
    series: BTreeMap<String, (String, Labels, f64)>,
    counters: Vec<String>,
}

impl Scrape {
    /// Reads a text; every line of it must be right.
    pub(super) fn of(text: &str) -> Self {
        let mut read = Self { series: BTreeMap::new(), counters: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                if kind == "counter" {
                    read.counters.push(name.to_owned());
                }
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| {
                    (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("labels are not closed: {line}")))
                });
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let before = read.series.insert(series.to_owned(), (name.to_owned(), parse_labels(labels), value));
                assert!(before.is_none(), "a series is there twice: {line}");
            }
        }
        assert!(!read.series.is_empty(), "an empty text");
        read
    }

    fn matching<'a>(
        &'a self,
        family: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a (String, Labels, f64)> {
        let has =
            |series: &Labels| labels.iter().all(|(name, value)| series.get(*name).is_some_and(|found| found == value));
        self.series.values().filter(move |(name, found, _)| name == family && has(found))
    }

    /// Adds up the series of a family that have these labels; there must be one.
    #[track_caller]
    pub(super) fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.has(family, labels), "no {family} with {labels:?} in {:#?}", self.series.keys());
        self.matching(family, labels).map(|(.., value)| value).sum()
    }

    pub(super) fn has(&self, family: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(family, labels).next().is_some()
    }

    /// The values that a label of a family has.
    pub(super) fn values_of(&self, family: &str, label: &str) -> Vec<String> {
        self.matching(family, &[]).filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }

    /// The families that have a series of a pipeline.
    pub(super) fn families_of(&self, pipeline: &str) -> Vec<&str> {
        let of = |labels: &Labels| labels.get("pipeline").is_some_and(|name| name == pipeline);
        let mut families: Vec<_> =
            self.series.values().filter(|(_, labels, _)| of(labels)).map(|(name, ..)| name.as_str()).collect();
        families.dedup();
        families
    }

    /// All series that may only rise.
    pub(super) fn counters(&self) -> impl Iterator<Item = (String, f64)> {
        let rises = |name: &String| {
            let parts = ["_bucket", "_sum", "_count"];
            self.counters.contains(name) || parts.iter().any(|part| name.ends_with(part))
        };
        self.series
            .iter()
            .filter(move |(_, (name, ..))| rises(name))
            .map(|(series, (.., value))| (series.clone(), *value))
    }

    /// One series by its text.
    pub(super) fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).map(|(.., value)| *value)
    }
}

fn parse_labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        let name: String = rest.by_ref().take_while(|c| *c != '=').collect();
        assert_eq!(rest.next(), Some('"'), "{text}");
        let mut value = String::new();
        loop {
            match rest.next().unwrap_or_else(|| panic!("a value is not closed: {text}")) {
                '"' => break,
                '\\' => value.push(match rest.next() {
                    Some('n') => '\n',
                    Some(escaped @ ('\\' | '"')) => escaped,
                    other => panic!("{other:?} is escaped: {text}"),
                }),
                letter => value.push(letter),
            }
        }
        assert!(labels.insert(name, value).is_none(), "a label is there twice: {text}");
        assert!(matches!(rest.next(), None | Some(',')), "{text}");
    }
    labels
}

/// Has Prometheus' own checker read a text. Says so where there is none, unless `MILLSTREAM_PROMTOOL` says that there is one.
pub(super) fn promtool(text: &str) {
    let told = std::env::var_os("MILLSTREAM_PROMTOOL");
    let program = told.clone().unwrap_or_else(|| "promtool".into());
    let child = Command::new(&program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if told.is_none() => {
            return eprintln!("SKIPPED: promtool does not run here ({error}); .ci/run installs it");
        }
        Err(error) => panic!("cannot run {}: {error}", program.display()),
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
