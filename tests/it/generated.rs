//! Parts of the documentation that are made of the code: here is how they are compared, or written anew.
//!
//! A part stands between two comments. With `MILLSTREAM_WRITE_DOCS` set (`make pages`) it is written; without it, one that is out of
//! date fails the test.

use std::fs;
use std::path::{Path, PathBuf};

use millstream::runtime::metrics::names::{FAMILIES, Kind};

/// A path in the workspace.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Holds a whole file against what it has to be, or writes it.
#[track_caller]
pub(crate) fn keep(file: &str, wanted: &str) {
    let path = path(file);
    let found = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("MILLSTREAM_WRITE_DOCS").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert!(found == wanted, "{file} is out of date; run `make pages`");
    }
}

/// Returns the file with `part` between `<!-- begin NAME -->` and `<!-- end NAME -->`.
#[track_caller]
pub(crate) fn with_part(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else { panic!("in the page the comments {begin:?} and {end:?} are missing") };
    format!("{before}{begin}{part}{end}{after}")
}

/// Documents, and the examples that stand in them as a whole.
const PAGES: &[(&str, &[&str])] = &[
    ("docs/extending.md", &["examples/custom_operator.rs", "examples/custom_source.rs", "examples/custom_sink.rs"]),
    ("docs/testing.md", &["examples/test_your_pipeline.rs"]),
];

#[test]
fn programs_in_the_documentation_are_examples_that_run() {
    for (page, examples) in PAGES {
        let mut text = fs::read_to_string(path(page)).unwrap();
        for example in *examples {
            let program = fs::read_to_string(path(example)).unwrap();
            text = with_part(&text, example, &format!("```rust\n{program}```\n"));
        }
        keep(page, &text);
    }
}

/// Every metric as the code declares it.
#[test]
fn the_page_of_metrics_has_every_family() {
    let page = "docs/metrics.md";
    let mut table = String::from("| metric | type | labels | level | meaning |\n|---|---|---|---|---|\n");
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter | Kind::Seconds => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
            other => panic!("the page has no word for {other:?}"),
        };
        let level = format!("{:?}", family.level).to_lowercase();
        let labels = family.labels.join(", ");
        table.push_str(&format!("| `{}` | {kind} | {labels} | {level} | {} |\n", family.name, family.help));
    }
    let text = fs::read_to_string(path(page)).unwrap();
    keep(page, &with_part(&text, "metrics", &table));
}

#[test]
#[should_panic(expected = "are missing")]
fn a_page_without_its_comments_fails() {
    with_part("# A page\n", "examples/none.rs", "");
}
