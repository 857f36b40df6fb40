//! Reads the import graph and holds it against the order of the house: who may look at whom, and one door per library.
//!
//! A violation is mended in the code, or by changing the tables below together with ARCHITECTURE.md, never by an alias: the
//! tables are the rule.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::imports::{Import, child_modules, imports, module_of, test_modules};

/// The modules of `runtime/src`, in groups. A module imports only from its own group and those before it; within a group
/// there is no cycle.
const GROUPS: &[&[&str]] = &[
    &[
        "id",
        "time",
        "record",
        "codec",
        "error",
        "fault",
        "canary",
        "position",
        "rows",
        "guarantee",
        "limits",
        "trigger",
    ],
    &["watermark", "checkpoint", "timer", "mode", "metrics"],
    &["state"],
    &["channel"],
    &["source", "operator", "sink"],
    &["graph"],
    &["plan"],
    &["task"],
    &["job"],
    &["actor"],
    &["status", "http", "config", "handle", "runtime"],
    &["testing"],
];

/// One door per library: the crate, and the only place in the workspace that may name it. A folder ends with `/`.
const DOORS: &[(&str, &str)] = &[
    ("flume", "runtime/src/channel/"),
    ("actix", "runtime/src/actor/"),
    ("rocksdb", "runtime/src/state/store/rocksdb/"),
    ("rmp_serde", "runtime/src/codec.rs"),
    ("metrics", "runtime/src/metrics/exporter.rs"),
    ("metrics_exporter_prometheus", "runtime/src/metrics/exporter.rs"),
    ("hyper", "runtime/src/http/"),
    ("hyper_util", "runtime/src/http/"),
    ("http_body_util", "runtime/src/http/"),
    ("rustix", "runtime/src/actor/threads.rs"),
];

/// Doors of the load tester, which is a program of its own with threads of its own.
const DOORS_OF_THE_TESTER: &[(&str, &str)] = &[("rustix", "loadtest/src/pacing.rs")];

/// Sources, manifest, and the crates of this workspace that they must not name: operators -> runtime <- connectors.
const CRATES: &[(&str, &str, &[&str])] = &[
    (
        "runtime/src/",
        "runtime/Cargo.toml",
        &["millstream", "millstream_operators", "millstream_connectors", "millstream_loadtest"],
    ),
    (
        "operators/src/",
        "operators/Cargo.toml",
        &["millstream", "millstream_connectors", "millstream_loadtest", "actix", "flume", "rocksdb"],
    ),
    (
        "connectors/src/",
        "connectors/Cargo.toml",
        &["millstream", "millstream_operators", "millstream_loadtest", "actix", "flume", "rocksdb"],
    ),
    ("src/", "Cargo.toml", &["millstream_loadtest", "actix", "flume", "rocksdb"]),
    ("loadtest/src/", "loadtest/Cargo.toml", &["actix", "flume", "rocksdb"]),
];

/// What must not name `mode`.
const BLIND_TO_MODE: &[&str] =
    &["operators/src/", "runtime/src/operator/", "runtime/src/task/", "runtime/src/state/", "runtime/src/timer/"];

const RUNTIME: &str = "runtime/src/";

/// A file as the checker sees it: its path from the root of the workspace, with `/`, and its text.
type File = (String, String);

#[test]
fn every_import_keeps_the_order_of_the_house() {
    let files = workspace();
    let seen = files.iter().filter(|(path, _)| path.starts_with(RUNTIME)).flat_map(imports_of);
    let inner = seen.filter(|import| import.path[0] == "crate").count();
    assert!(inner >= 20, "only {inner} imports found in {RUNTIME}: the scanner is blind");

    let violations = check(&files);
    assert!(
        violations.is_empty(),
        "{} imports break the order of the house (rules: tests/it/architecture.rs):\n  {}",
        violations.len(),
        violations.join("\n  ")
    );
}

fn check(files: &[File]) -> Vec<String> {
    let files = &shipped(files);
    let mut violations = Vec::new();
    for file in files {
        if file.0.ends_with(".toml") {
            check_manifest(file, &mut violations);
        } else {
            check_doors(file, &mut violations);
        }
    }
    check_groups(files, &mut violations);
    check_blind(files, &mut violations);
    violations
}

/// The files without those that a `#[cfg(test)] mod name;` declares.
fn shipped(files: &[File]) -> Vec<File> {
    let mut tests = BTreeSet::new();
    for (path, text) in files {
        let (root, module) = place_of(path);
        tests.extend(test_modules(text, &module).into_iter().map(|module| (root, module)));
    }
    let is_test = |path: &str| {
        let (root, module) = place_of(path);
        (1..=module.len()).any(|length| tests.contains(&(root, module[..length].to_vec())))
    };
    files.iter().filter(|(path, _)| !is_test(path)).cloned().collect()
}

/// The `src/` that a file is in, and its module there.
fn place_of(path: &str) -> (&'static str, Vec<String>) {
    let root = CRATES.iter().map(|(sources, ..)| *sources).find(|sources| path.starts_with(sources)).unwrap_or("");
    (root, module_of(&path[root.len()..]))
}

fn imports_of(file: &File) -> Vec<Import> {
    let (path, text) = file;
    imports(text, &place_of(path).1)
}

/// The libraries' doors, and the arrows between our crates.
fn check_doors(file: &File, violations: &mut Vec<String>) {
    let (path, _) = file;
    let forbidden = CRATES.iter().find(|(sources, ..)| path.starts_with(sources)).map_or(&[][..], |rule| rule.2);
    let mut told = BTreeSet::new();
    for import in imports_of(file) {
        let name = import.path[0].as_str();
        if !told.insert((name.to_owned(), import.line)) {
            continue;
        }
        if let Some((_, door)) = DOORS.iter().find(|(library, _)| *library == name) {
            let inside = if door.ends_with('/') { path.starts_with(door) } else { path == door };
            if !inside && !DOORS_OF_THE_TESTER.contains(&(name, path)) {
                violations.push(format!("{path}:{}: names {name}, whose one door is {door}", import.line));
            }
        } else if forbidden.contains(&name) {
            let text = "names {name}; the arrows are operators -> runtime <- connectors";
            violations.push(format!("{path}:{}: {}", import.line, text.replace("{name}", name)));
        }
    }
}

/// Dependencies of our crates; what only tests and doc examples need is their own affair.
fn check_manifest(file: &File, violations: &mut Vec<String>) {
    let (path, text) = file;
    let Some((_, _, forbidden)) = CRATES.iter().find(|(_, manifest, _)| path == manifest) else { return };
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let name = if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            section.rsplit_once("dependencies.").map(|(_, name)| name)
        } else if section.ends_with("dependencies") {
            line.split(['=', '.', ' ']).next()
        } else {
            None
        };
        // The workspace's own table only fixes versions.
        if section.starts_with("workspace") || section.contains("dev-dependencies") {
            continue;
        }
        let name = name.unwrap_or("").trim_matches('"').replace('-', "_");
        if forbidden.contains(&name.as_str()) {
            violations.push(format!("{path}:{}: depends on {name}; it must not know it", at + 1));
        }
    }
}

/// No operator knows which mode it runs in: what it is made of cannot name what decides that.
fn check_blind(files: &[File], violations: &mut Vec<String>) {
    for file in files.iter().filter(|(path, _)| BLIND_TO_MODE.iter().any(|place| path.starts_with(place))) {
        for import in imports_of(file) {
            let names = matches!(import.path[0].as_str(), "crate" | "millstream_runtime");
            if names && import.path.get(1).is_some_and(|module| module == "mode") {
                violations
                    .push(format!("{}:{}: names mode; no operator knows which one it runs in", file.0, import.line));
            }
        }
    }
}

/// The order of the runtime's modules.
fn check_groups(files: &[File], violations: &mut Vec<String>) {
    let group_of = |module: &str| GROUPS.iter().position(|group| group.contains(&module));
    let sources = || files.iter().filter(|(path, _)| path.starts_with(RUNTIME));
    let mut homeless = BTreeSet::new();
    // From module to module of one group: where it was first seen.
    let mut within: BTreeMap<(String, String), String> = BTreeMap::new();

    let at_root: BTreeSet<String> =
        sources().filter(|(path, _)| path == "runtime/src/lib.rs").flat_map(|(_, text)| child_modules(text)).collect();
    for (path, text) in sources() {
        let module = module_of(&path[RUNTIME.len()..]);
        // lib.rs declares and re-exports all of them.
        let Some(from) = module.first() else { continue };
        let Some(from_group) = group_of(from) else {
            if homeless.insert(from.clone()) {
                violations.push(format!("{path}:1: module {from} stands in no group of the rule table"));
            }
            continue;
        };
        let mut told = BTreeSet::new();
        for import in imports(text, &module) {
            let [root, to, ..] = import.path.as_slice() else { continue };
            if root != "crate" || to == from || to == "self" || !told.insert((import.line, to.clone())) {
                continue;
            }
            let place = format!("{path}:{}", import.line);
            match group_of(to) {
                None if at_root.contains(to) => {
                    violations.push(format!("{place}: {from} -> {to}, which stands in no group of the rule table"));
                }
                None => violations.push(format!(
                    "{place}: {from} imports {to} from the crate's root; name the module that defines it, or its place in \
                     the order is hidden"
                )),
                Some(group) if group > from_group => violations.push(format!(
                    "{place}: {from} -> {to} points back: `{}` comes before `{}`",
                    GROUPS[from_group].join(" "),
                    GROUPS[group].join(" ")
                )),
                Some(group) if group == from_group => {
                    within.entry((from.clone(), to.clone())).or_insert(place);
                }
                Some(_) => {}
            }
        }
    }
    for ((from, to), place) in &within {
        if reaches(&within, to, from) {
            violations.push(format!("{place}: {from} -> {to} closes a cycle within the group: {to} also needs {from}"));
        }
    }
}

fn reaches(edges: &BTreeMap<(String, String), String>, start: &str, goal: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(module) = open.pop() {
        if module == goal {
            return true;
        }
        if seen.insert(module) {
            open.extend(edges.keys().filter(|(from, _)| from == module).map(|(_, to)| to.as_str()));
        }
    }
    false
}

fn workspace() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for (sources, manifest, _) in CRATES {
        files.push(((*manifest).to_owned(), fs::read_to_string(root.join(manifest)).unwrap()));
        read_sources(root, &root.join(sources), &mut files);
    }
    files
}

fn read_sources(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

mod planted {
    //! The checker must be able to say no, and only then.

    use super::*;

    /// What the checker says to one file besides a `lib.rs`.
    fn verdict(path: &str, text: &str) -> Vec<String> {
        let root = "pub mod id; pub mod record; pub mod state; pub mod task; mod stray;".to_owned();
        check(&[("runtime/src/lib.rs".into(), root), (path.into(), text.into())])
    }

    #[test]
    fn arrows_that_point_back_are_found_with_their_line() {
        let table = "runtime/src/state/table.rs";
        let folder = "runtime/src/state/mod.rs";
        for (path, text) in [
            (table, "\nuse crate::task::Run;"),
            (table, "\nuse crate::{id::Epoch, task::{Run, Lifecycle}};"),
            (table, "\nuse crate::{\n    id::{Epoch, JobId}, task};"),
            (table, "\nfn f(run: &crate::task::Run) {}"),
            (table, "\nmacro_rules! m { () => { $crate::task::run() } }"),
            (table, "\n#[cfg(feature = \"test-util\")] use crate::task::Run;"),
            (table, "\nconst C: char = '\"'; use crate::task::Run; const D: char = '\"';"),
            (table, "\nfn f<'a>(x: &'a u8) -> crate::task::Run { run() }"),
            (table, "\n#[cfg(test)]\nmod tests { fn f() { g(\"}\"); } }\nuse crate::task::Run;"),
            (table, "\npub(crate) use super::super::task::*;"),
            (folder, "\npub(crate) use super::task::*;"),
            (folder, "\nmod inner { use super::super::task::Run; }"),
        ] {
            let said = verdict(path, text);
            let line = 1 + text[..text.find("task").unwrap()].matches('\n').count();
            assert_eq!(said.len(), 1, "{text}: {said:?}");
            assert!(said[0].starts_with(&format!("{path}:{line}: state -> task points back")), "{text}: {said:?}");
        }
        // In state/table.rs `super` is state itself.
        assert_eq!(verdict(table, "use super::task::Run;"), [""; 0]);
    }

    #[test]
    fn what_operators_are_made_of_cannot_name_the_mode() {
        for path in ["runtime/src/operator/head.rs", "runtime/src/task/run.rs", "operators/src/keyed/engine.rs"] {
            let krate = if path.starts_with("runtime") { "crate" } else { "millstream_runtime" };
            let mut said = verdict(path, &format!("\nuse {krate}::mode::Batches;"));
            said.retain(|text| text.starts_with(&format!("{path}:2: names mode; ")));
            assert_eq!(said.len(), 1, "{path}");
        }
    }

    #[test]
    fn what_is_no_import_is_no_violation() {
        for text in [
            "// use crate::task::Run;",
            "/* /* nested */ use crate::task::Run; */",
            "/// See [`crate::task::Run`].\nstruct S;",
            "const S: &str = \"use crate::task::Run;\";",
            "const S: &str = r#\"a \" use crate::task::Run;\"#;",
            "const S: &[u8] = b\"flume::bounded\\\" crate::task\";",
            "#[cfg(test)]\nmod tests {\n    use crate::task::Run;\n    fn f() { if true { flume::bounded(1); } }\n}",
            "#[cfg(all(test, feature = \"x\"))]\n#[allow(unused)]\nfn f() { crate::task::run() }",
            "#[cfg(test)] use crate::task::Run;",
            "use crate::{id::Epoch, record::{self, Record}, state::table};",
            "fn f(x: &X) { x.flume(); metrics(); }",
            "fn f() -> impl Iterator + use<'static> { crate::id::all() }",
        ] {
            let said = verdict("runtime/src/state/table.rs", text);
            assert!(said.is_empty(), "{text}: {said:?}");
        }
    }

    #[test]
    fn a_file_that_only_tests_declare_may_look_anywhere() {
        let file = |path: &str, text: &str| (format!("runtime/src/{path}"), text.to_owned());
        let conformance = file("state/conformance.rs", "use crate::testing::Harness;");
        let declared = file("state/mod.rs", "#[cfg(all(test, feature = \"test-util\"))]\nmod conformance;");
        assert_eq!(check(&[declared, conformance.clone()]), [""; 0]);
        assert_eq!(check(&[file("state/mod.rs", "mod conformance;"), conformance]).len(), 1);
    }

    #[test]
    fn libraries_are_named_behind_their_door_only() {
        for (library, text) in [
            ("flume", "use flume::Sender;"),
            ("flume", "use {std::fmt, flume as pipes};"),
            ("actix", "#[actix::main] async fn f() {}"),
            ("actix", "extern crate actix;"),
            ("rmp_serde", "fn f() { ::rmp_serde::from_slice(b) }"),
            ("rocksdb", "use rocksdb::{DB, Options};"),
            ("metrics", "fn f() { metrics::counter!(\"n\").increment(1) }"),
        ] {
            let door = DOORS.iter().find(|(name, _)| *name == library).unwrap().1;
            let inside = if door.ends_with('/') { format!("{door}deep/file.rs") } else { door.to_owned() };
            let said = verdict(&inside, text);
            assert!(!said.iter().any(|said| said.contains("door")), "{text} in {inside}: {said:?}");
            for outside in
                ["runtime/src/task/run.rs", "operators/src/keyed/reduce.rs", "connectors/src/lib.rs", "src/lib.rs"]
            {
                let said = verdict(outside, text);
                assert_eq!(said.len(), 1, "{text} in {outside}: {said:?}");
                assert!(
                    said[0].contains(&format!("{outside}:1: names {library}, whose one door is {door}")),
                    "{said:?}"
                );
            }
        }
        let said = verdict("runtime/src/state/store/mod.rs", "mod rocksdb;\npub use rocksdb::RocksDb;");
        assert!(said.is_empty(), "a module of that name is not the library: {said:?}");
    }

    #[test]
    fn crates_know_only_the_runtime() {
        assert_eq!(verdict("operators/src/stream.rs", "use millstream_runtime::id::Epoch;"), [""; 0]);
        assert_eq!(verdict("operators/src/stream.rs", "use millstream_connectors::file;").len(), 1);
        assert_eq!(verdict("connectors/src/lib.rs", "use millstream_operators::prelude::*;").len(), 1);
        assert_eq!(verdict("runtime/src/task/run.rs", "use millstream_operators::Stream;").len(), 1);
        let manifest = "[dependencies]\nserde.workspace = true\nmillstream-connectors = { path = \"x\" }\n\n\
                        [dev-dependencies]\nmillstream-connectors.workspace = true\n[dependencies.flume]\nversion = \"1\"\n";
        let said = verdict("operators/Cargo.toml", manifest);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("operators/Cargo.toml:3: depends on millstream_connectors"), "{said:?}");
        assert!(said[1].starts_with("operators/Cargo.toml:7: depends on flume"), "{said:?}");
    }

    #[test]
    fn a_cycle_within_a_group_is_found() {
        let file = |path: &str, text: &str| (format!("runtime/src/{path}"), text.to_owned());
        let record = file("record.rs", "use crate::time::Timestamp;");
        let time = file("time.rs", "use crate::id::Epoch;");
        assert_eq!(check(&[record.clone(), time.clone()]), [""; 0]);
        let said = check(&[record, time, file("id.rs", "\nuse crate::record::Record;")]);
        assert_eq!(said.len(), 3, "every edge of the cycle: {said:?}");
        assert!(said[0].starts_with("runtime/src/id.rs:2: id -> record closes a cycle"), "{said:?}");
    }

    #[test]
    fn nothing_hides_behind_the_root_or_outside_the_table() {
        assert!(verdict("runtime/src/state/mod.rs", "use crate::Run;")[0].contains("from the crate's root"));
        assert!(verdict("runtime/src/state/mod.rs", "use crate::stray::X;")[0].contains("in no group"));
        assert!(verdict("runtime/src/stray.rs", "")[0].contains("in no group"));
    }
}
