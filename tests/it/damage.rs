//! Harms every file of a store in every way and looks whether anybody notices: detected, harmless, or silent. Silent must not
//! happen.
//!
//! *Harmless* means that the store opens and holds exactly what it held: epoch, attempt, positions, state, rows, output; and
//! that it goes on from there. `make damage FLIPS=1000` sets `MILLSTREAM_FLIPS`: so many bits of each large file, and every byte of
//! the small ones and of the MANIFEST; `MILLSTREAM_DAMAGE_SEED` draws other ones, `MILLSTREAM_DAMAGE_FILE=MANIFEST` harms only the
//! files whose names begin so.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use millstream::runtime::state::log::{RecoveryError, StartFrom};
use millstream::runtime::state::store::StoreErrorKind;
use millstream::runtime::time::{Clock, SystemClock};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::stored::{self, Everything, chain};

/// Every byte of files up to this size, and of the MANIFEST, when all is asked for.
const SMALL: usize = 1_024;
/// From so many flips on all is asked for.
const ALL: usize = 1_000;
/// Longest that a case may take; an open alone has a watchdog of its own.
const PATIENCE: Duration = Duration::from_secs(90);
const WORKERS: usize = 2;

/// What is done to a file.
#[derive(Clone, Debug)]
enum Harm {
    /// Flips a bit of a byte.
    Flip(usize, u8),
    /// Cuts the file off behind so many bytes.
    Truncate(usize),
    Delete,
    /// Exchanges it with another file of the directory.
    Swap(String),
    /// Puts something else in its place: the file of this name from an earlier time, or from another store.
    Replace(&'static str, Vec<u8>),
}

impl Harm {
    fn name(&self) -> &'static str {
        match self {
            Self::Flip(..) => "flip",
            Self::Truncate(_) => "truncate",
            Self::Delete => "delete",
            Self::Swap(_) => "swap",
            Self::Replace(whose, _) => whose,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Replace(whose, bytes) => format!("{whose} file of {} bytes", bytes.len()),
            harm => format!("{harm:?}"),
        }
    }

    fn apply(&self, path: &Path) {
        match self {
            Self::Flip(at, bit) => {
                let mut bytes = fs::read(path).unwrap();
                bytes[*at] ^= 1 << bit;
                fs::write(path, bytes).unwrap();
            }
            Self::Truncate(to) => fs::write(path, &fs::read(path).unwrap()[..*to]).unwrap(),
            Self::Delete => fs::remove_file(path).unwrap(),
            Self::Swap(other) => {
                let (other, between) = (path.with_file_name(other), path.with_file_name("between"));
                fs::rename(path, &between).unwrap();
                fs::rename(&other, path).unwrap();
                fs::rename(between, other).unwrap();
            }
            Self::Replace(_, bytes) => fs::write(path, bytes).unwrap(),
        }
    }
}

const HARMS: [&str; 6] = ["flip", "truncate", "delete", "swap", "older", "foreign"];

#[derive(Clone, Debug)]
struct Case {
    file: String,
    harm: Harm,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Detected(String),
    /// The open had to be given up by its watchdog.
    Stuck,
    Harmless,
    Silent(String),
    Hung,
}

/// What a file is to the store.
fn kind(file: &str) -> &'static str {
    let ends = |end| file.strip_suffix(end).is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    match file {
        "CURRENT" => "CURRENT",
        "IDENTITY" => "IDENTITY",
        "LOCK" => "LOCK",
        "LOCK.millstream" => "LOCK.millstream",
        "WRITTEN.millstream" => "WRITTEN.millstream",
        "EPOCH.millstream" => "EPOCH.millstream",
        _ if file.starts_with("MANIFEST-") => "MANIFEST-*",
        _ if file.starts_with("OPTIONS-") => "OPTIONS-*",
        _ if file.starts_with("LOG") => "LOG (messages)",
        _ if ends(".log") => "*.log (WAL)",
        _ if ends(".sst") => "*.sst",
        _ => panic!("what is {file}?"),
    }
}

/// The files of a directory, by name.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// Every harm to every file; of large ones, or if not all is asked for, a draw.
fn cases(flips: usize, [image, older, foreign]: [&BTreeMap<String, Vec<u8>>; 3], rng: &mut ChaCha8Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for (file, bytes) in image {
        let mut add = |harm| cases.push(Case { file: file.clone(), harm });
        let small = bytes.len() <= SMALL || kind(file) == "MANIFEST-*";
        // What the database tells about itself is read by nobody.
        let flips = if kind(file) == "LOG (messages)" { flips.div_ceil(10) } else { flips };
        let drawn = |rng: &mut ChaCha8Rng, count: usize| -> Vec<usize> {
            let below = bytes.len();
            if count >= below { (0..below).collect() } else { (0..count).map(|_| rng.random_range(0..below)).collect() }
        };
        for at in drawn(rng, if small && flips >= ALL { usize::MAX } else { flips }) {
            add(Harm::Flip(at, rng.random_range(0..8)));
        }
        for to in drawn(rng, flips.div_ceil(4)) {
            add(Harm::Truncate(to));
        }
        add(Harm::Delete);
        for other in image.keys().filter(|other| *other > file) {
            add(Harm::Swap(other.clone()));
        }
        for (whose, others) in [("older", older), ("foreign", foreign)] {
            if let Some(other) = others.get(file).filter(|other| *other != bytes) {
                add(Harm::Replace(whose, other.clone()));
            }
        }
    }
    cases
}

/// Where stores are harmed: in memory if there is such a place, for the sake of speed.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Opens a harmed store and reads everything; then goes on with it.
fn judge(root: &Path, original: &Everything) -> Verdict {
    let found = match stored::read(root) {
        Ok(found) => found,
        Err(RecoveryError::Store(error)) if error.kind == StoreErrorKind::Stuck => return Verdict::Stuck,
        Err(error) => return Verdict::Detected(chain(&error)),
    };
    if found != *original {
        return Verdict::Silent(difference(&found, original));
    }
    // An epoch may be refused as well as an open: a compaction behind it can be the first to meet the harm.
    let go_on = || -> Result<u64, Box<dyn Error>> {
        let (mut log, _) = stored::open(root, StartFrom::Resume)?;
        let attempt = log.raise_attempt()?;
        let operators = log.register(&stored::declared())?;
        let next = log.epoch().number() + 1;
        log.commit(vec![stored::bundle(1, attempt, next, &operators)], &[])?;
        drop(log);
        Ok(stored::open(root, StartFrom::Resume)?.0.epoch().number())
    };
    match go_on() {
        Ok(epoch) if epoch == original.epoch.number() + 1 => Verdict::Harmless,
        Ok(epoch) => Verdict::Silent(format!("went on to epoch {epoch}")),
        Err(error) => Verdict::Detected(chain(&*error)),
    }
}

fn difference(found: &Everything, original: &Everything) -> String {
    let rows = original.rows.iter().filter(|(key, value)| found.rows.get(*key) != Some(value)).count();
    format!("epoch {} instead of {}, {rows} of {} rows differ", found.epoch, original.epoch, original.rows.len())
}

/// As [`judge`], on a thread of its own that is left behind if it hangs.
fn judge_in_time(root: PathBuf, original: &Everything) -> Verdict {
    let (tell, told) = sync_channel(1);
    let original = original.clone();
    std::thread::spawn(move || tell.send(judge(&root, &original)));
    match told.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => Verdict::Hung,
        Err(RecvTimeoutError::Disconnected) => Verdict::Silent("it panicked".to_owned()),
    }
}

/// Runs all cases on copies of the image.
fn run(image: &Path, cases: &[Case], original: &Everything) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![Verdict::Hung; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(case) = cases.get(number)
                {
                    let root = scratch();
                    stored::copy(image, root.path());
                    case.harm.apply(&stored::directory(root.path()).join(&case.file));
                    let mut verdict = judge_in_time(root.path().to_owned(), original);
                    if let Verdict::Detected(text) = &mut verdict {
                        *text = text.replace(root.path().to_str().unwrap(), "ROOT");
                    }
                    verdicts.lock().unwrap()[number] = verdict;
                }
            });
        }
    });
    verdicts.into_inner().unwrap()
}

/// Detected, by the watchdog, harmless, silent or hung: by kind of file and of harm.
#[derive(Clone, Copy, Default)]
struct Counts([usize; 4]);

fn table(cases: &[Case], verdicts: &[Verdict]) -> String {
    let mut counts: BTreeMap<&str, BTreeMap<&str, Counts>> = BTreeMap::new();
    for (case, verdict) in cases.iter().zip(verdicts) {
        let counts = counts.entry(kind(&case.file)).or_default().entry(case.harm.name()).or_default();
        counts.0[match verdict {
            Verdict::Detected(_) => 0,
            Verdict::Stuck => 1,
            Verdict::Harmless => 2,
            Verdict::Silent(_) | Verdict::Hung => 3,
        }] += 1;
    }
    let mut table = format!("  {:20}", "file");
    HARMS.iter().for_each(|harm| write!(table, "{harm:>16}").unwrap());
    let mut total = Counts::default();
    for (kind, counts) in &counts {
        write!(table, "\n  {kind:20}").unwrap();
        for harm in HARMS {
            let Counts(counts) = counts.get(harm).copied().unwrap_or_default();
            (0..4).for_each(|column| total.0[column] += counts[column]);
            let [detected, stuck, harmless, silent] = counts;
            let cell = if detected + stuck + harmless + silent == 0 {
                "-".to_owned()
            } else {
                let silent = if silent > 0 { format!(" SILENT {silent}") } else { String::new() };
                format!("{} / {harmless}{silent}", detected + stuck)
            };
            write!(table, "{cell:>16}").unwrap();
        }
    }
    let [detected, stuck, harmless, silent] = total.0;
    write!(
        table,
        "\n  detected / harmless of {} harms: {} detected ({stuck} by the watchdog), {harmless} harmless, {silent} SILENT",
        cases.len(),
        detected + stuck
    )
    .unwrap();
    table
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_harm_to_any_file_of_a_store_goes_unnoticed() {
    let flips = variable("MILLSTREAM_FLIPS").unwrap_or(16) as usize;
    let seed = variable("MILLSTREAM_DAMAGE_SEED").unwrap_or(7);
    let clock = SystemClock::new();
    let began = clock.now();
    let (image, older, foreign) = (scratch(), scratch(), scratch());
    stored::make(older.path(), seed);
    stored::copy(older.path(), image.path());
    let older_files = files(&stored::directory(older.path()));
    stored::live(image.path(), seed, 3, true, None);
    stored::live(image.path(), seed, 2, false, None);
    stored::make(foreign.path(), seed + 1);
    stored::live(foreign.path(), seed + 1, 3, true, None);
    stored::live(foreign.path(), seed + 1, 2, false, None);
    let directory = stored::directory(image.path());
    // Reading opens the store, which changes its files: from a copy.
    let copied = scratch();
    stored::copy(image.path(), copied.path());
    let original = stored::read(copied.path()).unwrap();

    let image_files = files(&directory);
    let foreign_files = files(&stored::directory(foreign.path()));
    let kinds: std::collections::BTreeSet<_> = image_files.keys().map(|file| kind(file)).collect();
    assert!(kinds.len() >= 10, "{kinds:?}");
    let ssts = image_files.keys().filter(|file| kind(file) == "*.sst").count();
    assert!(ssts >= 3 && original.rows.len() > 100, "{ssts} files, {} rows", original.rows.len());

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cases = cases(flips, [&image_files, &older_files, &foreign_files], &mut rng);
    let only = std::env::var("MILLSTREAM_DAMAGE_FILE").ok();
    cases.retain(|case| only.as_ref().is_none_or(|only| case.file.starts_with(only)));
    let verdicts = run(image.path(), &cases, &original);
    let took = clock.now().saturating_since(began);
    println!("damage: seed {seed}, {:.0} s\n{}", took.as_secs_f64(), table(&cases, &verdicts));
    let mut texts: BTreeMap<String, usize> = BTreeMap::new();
    let mut bad = Vec::new();
    for (case, verdict) in cases.iter().zip(&verdicts) {
        match verdict {
            Verdict::Detected(text) => {
                // What, where, what to do.
                let advised =
                    ["restore ", "remove that file", "look after the disk"].iter().any(|word| text.contains(word));
                if !text.starts_with("cannot ") && !text.starts_with("the store of ")
                    || !text.contains("ROOT/stored/0")
                    || !advised
                {
                    bad.push(format!("{} {}: says too little: {text}", case.file, case.harm.text()));
                }
                let text: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
                *texts.entry(text).or_default() += 1;
            }
            Verdict::Silent(_) | Verdict::Hung => bad.push(format!("{} {}: {verdict:?}", case.file, case.harm.text())),
            Verdict::Stuck => println!("  given up by the watchdog: {} {}", case.file, case.harm.text()),
            Verdict::Harmless => {}
        }
    }
    if variable("MILLSTREAM_DAMAGE_TEXTS").is_some() {
        texts.iter().for_each(|(text, count)| println!("{count:6} {text}"));
    }
    assert!(bad.is_empty(), "{} of {} cases:\n{}", bad.len(), cases.len(), bad.join("\n"));
    let answers = verdicts.contains(&Verdict::Harmless) && texts.len() > 5;
    assert!(answers || only.is_some(), "the judge knows only one answer");
}
