//! Options: one table of all of them, generated from their documentation, and their form in a daemon's configuration file.

mod options;

use std::path::Path;
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::config::RuntimeOptions;
use serde::Deserialize;

use self::options::{OptionDoc, Options, read, sources};

const PAGE: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- generated: options -->\n";
const END: &str = "<!-- end of generated: options -->\n";
/// Set, the page is written anew instead of compared.
const WRITE: &str = "MILLSTREAM_WRITE_DOCS";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All options, in the order in which a reader meets them.
fn all() -> Vec<Options> {
    let mut found: Vec<Options> = Vec::new();
    for directory in [
        "runtime/src/runtime",
        "runtime/src/job",
        "runtime/src/state",
        "operators/src",
        "runtime/src/watermark",
        "connectors/src",
    ] {
        let sources = sources(&root().join(directory));
        let types = sources.iter().flat_map(|source| read(source));
        // What the host's code gets is set by the builder.
        found.extend(types.filter(|options| !["JobConfig"].contains(&options.of.as_str())));
    }
    found
}

fn table(options: &Options) -> String {
    let mut text = format!("### `{}`\n\n| option | default and range | meaning |\n|---|---|---|\n", options.of);
    for OptionDoc { name, default, meaning } in &options.options {
        let cell = |text: &str| text.replace('|', "\\|");
        let default = default.as_deref().unwrap_or_default();
        let default = default.trim_start_matches("Default").trim_start_matches([':', ' ']).trim_end_matches('.');
        text.push_str(&format!("| `{name}` | {} | {} |\n", cell(default), cell(meaning)));
    }
    text
}

#[test]
fn the_page_has_every_option_as_its_documentation_states_it() {
    let tables: Vec<String> = all().iter().map(table).collect();
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}\n", tables.join("\n"));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}{END}{tail}")).unwrap();
    } else {
        assert!(found == wanted, "{PAGE} is not what the options' documentation says; run `make pages`");
    }
}

#[test]
fn every_option_states_its_default() {
    let all = all();
    let silent = all.iter().flat_map(|options| options.options.iter().map(move |option| (&options.of, option)));
    let silent: Vec<_> = silent
        .filter(|(_, option)| option.default.is_none())
        .map(|(of, option)| format!("{of}::{}", option.name))
        .collect();
    // These set many others, or have no default to state.
    assert_eq!(silent, ["RuntimeBuilder::options"], "a sentence that begins with `Default` is missing");
    let count: usize = all.iter().map(|options| options.options.len()).sum();
    assert!(all.len() >= 8 && count >= 40, "the sources are read: {} types, {count} options", all.len());
}

#[test]
fn a_configuration_file_has_every_option_that_a_file_can_have() {
    let fields = std::fs::read_to_string(root().join("runtime/src/config.rs")).unwrap();
    let only_in_code = ["options", "state_backend", "clock", "faults"];
    for option in all().into_iter().find(|options| options.of == "RuntimeBuilder").unwrap().options {
        let is_there = fields.contains(&format!("crate::runtime::RuntimeBuilder::{})", option.name));
        assert_eq!(is_there, !only_in_code.contains(&option.name.as_str()), "{}", option.name);
    }
}

#[test]
fn reads_options_out_of_a_source() {
    let source = "
/// Text.
pub struct Thing { a: u8 }

macro_rules! more {
    () => {
        /// Rolls. Default 3 s.
        pub fn roll(mut self, time: Duration) -> Self {
        }
    };
}

impl<A: Into<B<C>>> Thing<A> {
    /// Not an option. Default 1.
    pub fn new(a: u8) -> Self {}

    /// Sets [`Other`](path) and
    /// more of [`It`]. Default 7, range 1 to 9. It costs.
    #[must_use]
    pub const fn size<T>(mut self, size: T) -> Self {
    }

    more!();

    /// Says nothing.
    pub fn silent(self, on: bool) -> Self {
    }
}

impl From<A> for Thing {
    /// Default 3.
    pub fn none(self, on: bool) -> Self {
    }
}
";
    let option = |name: &str, default: Option<&str>, meaning: &str| OptionDoc {
        name: name.to_owned(),
        default: default.map(str::to_owned),
        meaning: meaning.to_owned(),
    };
    let options = vec![
        option("size", Some("Default 7, range 1 to 9."), "Sets `Other` and more of `It`. It costs."),
        option("roll", Some("Default 3 s."), "Rolls."),
        option("silent", None, "Says nothing."),
    ];
    assert_eq!(read(source), [Options { of: "Thing".to_owned(), options }]);
}

/// A daemon's configuration: its own settings, and ours among them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Daemon {
    listen: String,
    millstream: RuntimeOptions,
}

/// The TOML block of the page.
fn example() -> String {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let (_, rest) = page.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_file_of_the_page_is_read_and_its_runtime_is_built() {
    let daemon: Daemon = toml::from_str(&example()).unwrap();
    assert_eq!(daemon.listen, "127.0.0.1:8080");
    assert_eq!(daemon.millstream.epoch_interval_ms, Some(50));
    let policy = RestartPolicy::from(daemon.millstream.restart.unwrap());
    assert_eq!((policy.restarts, policy.window), (5, Duration::from_secs(600)), "what is not given keeps its default");
    #[cfg(feature = "rocksdb")]
    assert!(Runtime::builder().options(daemon.millstream).build().is_ok());
    #[cfg(not(feature = "rocksdb"))]
    assert_eq!(
        Runtime::builder().options(daemon.millstream).build().unwrap_err().to_string(),
        "runtime option state_directory is state; it needs the feature rocksdb, which is not compiled in"
    );
}

#[test]
fn what_a_file_gets_wrong_is_named() {
    let refused = |text: &str| match toml::from_str::<RuntimeOptions>(text) {
        Err(error) => error.to_string(),
        Ok(options) => Runtime::builder().options(options).build().unwrap_err().to_string(),
    };
    for (text, said) in [
        ("epoch_intervall_ms = 50", "unknown field `epoch_intervall_ms`, expected one of `state_directory`, `workers`"),
        ("latency_policy = \"fast\"", "unknown variant `fast`, expected one of `park`, `adaptive`, `spin`"),
        ("workers = -1", "invalid value: integer `-1`, expected usize"),
        ("key_groups = 0", "expected a nonzero u16"),
        ("restart = { tries = 5 }", "unknown field `tries`"),
        (
            "log_limits = { fold_mb = 5 }",
            "unknown field `fold_mb`, expected one of `fold_bytes`, `fold_epochs`, `batch_bytes`",
        ),
        ("workers = 0", "runtime option workers is 0; it must be 1 to 960"),
        ("epoch_interval_ms = 0", "runtime option epoch_interval is 0ns; it must be at least 1 ms"),
        ("state_memory_bytes = 0", "runtime option state_memory is 0; it must be at least 1"),
        ("shutdown_timeout_ms = 0", "runtime option shutdown_timeout is 0ns; it must be above zero"),
    ] {
        let found = refused(text);
        assert!(found.contains(said), "{text}: {found}");
    }
}
