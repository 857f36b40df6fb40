//! Real input: the Online Retail data set, 305 files as messy as real data is, from `../shared/data/retail` where it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use millstream::prelude::*;

fn data() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/retail");
    path.is_dir().then_some(path)
}

/// Customer, seconds since 1970, and thousandths of a pound.
type Sale = (String, u64, i64);

const DAY: u64 = 86_400;

/// A line's sale; nothing for headers.
fn parse(line: &str) -> Result<Option<Sale>, BoxError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let Some(fields) = reader.records().next() else { return Err("an empty line".into()) };
    let fields = fields?;
    if fields.get(0) == Some("InvoiceNo") {
        return Ok(None);
    }
    let field = |index: usize| fields.get(index).ok_or_else(|| format!("no field {index} in {line:?}"));
    let quantity: i64 = field(3)?.parse()?;
    let price: f64 = field(5)?.parse()?;
    let time = humantime::parse_rfc3339_weak(field(4)?)?.duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Some((field(6)?.to_owned(), time, quantity * (price * 1000.0).round() as i64)))
}

/// How many sales there are of each, and their sum, without any stream.
fn plainly<K: Ord>(directory: &Path, key: impl Fn(Sale) -> K) -> BTreeMap<K, (u64, i64)> {
    let mut all: BTreeMap<K, (u64, i64)> = BTreeMap::new();
    for file in std::fs::read_dir(directory).unwrap() {
        for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            if let Some(sale) = parse(line).unwrap() {
                let amount = sale.2;
                let total = all.entry(key(sale)).or_default();
                *total = (total.0 + 1, total.1 + amount);
            }
        }
    }
    all
}

#[test]
fn spending_per_customer_of_a_real_shop_is_what_a_loop_over_the_files_gives() {
    let Some(directory) = data() else {
        println!("skipped: ../shared/data/retail is not there");
        return;
    };
    let wanted = plainly(&directory, |(customer, ..)| customer);

    let (sink, rows) = Collect::new();
    let pipeline = Pipeline::new("retail").parallelism(2);
    pipeline
        .source("sales", Lines::at(&directory).suffixes(["csv"]))
        .try_map(|line| parse(&line))
        .flat_map(|sale| sale)
        .key_by_ref(|(customer, ..)| customer.as_str())
        .fold("spending", || (0u64, 0i64), |total, (.., amount)| *total = (total.0 + 1, total.1 + amount))
        .sink("totals", sink);
    Runtime::builder().workers(2).build().unwrap().start(pipeline).unwrap().join().unwrap();

    let mut found: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    let rows: Vec<(String, (u64, i64))> = rows.take();
    for (customer, (count, total)) in rows {
        let last = found.entry(customer).or_default();
        assert_eq!(count, last.0 + 1, "running totals come in order, each once");
        *last = (count, total);
    }
    assert_eq!(found.len(), wanted.len());
    assert!(found == wanted, "totals differ");
    println!("{} sales of {} customers", wanted.values().map(|total| total.0).sum::<u64>(), wanted.len());
}

#[test]
fn spending_per_customer_and_day_is_the_same_in_both_modes() {
    let Some(directory) = data() else {
        println!("skipped: ../shared/data/retail is not there");
        return;
    };
    let wanted = plainly(&directory, |(customer, time, _)| (customer, time / DAY));
    for trigger in [None, Some(Trigger::ProcessingTime(Duration::ZERO))] {
        let (sink, rows) = Collect::new();
        let pipeline = Pipeline::new("retail-days").parallelism(2);
        let pipeline = match trigger {
            None => pipeline,
            Some(trigger) => pipeline.trigger(trigger),
        };
        pipeline
            .source("sales", Lines::at(&directory).suffixes(["csv"]).max_files_per_epoch(20))
            .try_map(|line: String| parse(&line))
            .flat_map(|sale| sale)
            // A file is a split, read in the order of the days: what is late is so by hours of its own file.
            .event_time(|(_, time, _): &Sale| Timestamp::from_millis(*time as i64 * 1_000), Duration::from_secs(DAY))
            .key_by_ref(|(customer, ..)| customer.as_str())
            .window(Tumbling::of(Duration::from_secs(DAY)))
            .aggregate("days", (Count, Sum::of(|(.., amount): &Sale| *amount)))
            .sink("out", sink);
        Runtime::builder().workers(2).build().unwrap().start(pipeline).unwrap().join().unwrap();
        let rows: Vec<Windowed<String, (u64, i64)>> = rows.take();
        let day = |row: &Windowed<String, (u64, i64)>| row.window.start.as_micros() as u64 / 1_000_000 / DAY;
        assert_eq!(rows.len(), wanted.len(), "each day of a customer once, in {trigger:?}");
        let found: BTreeMap<_, _> = rows.into_iter().map(|row| ((row.key.clone(), day(&row)), row.value)).collect();
        assert!(found == wanted, "days differ in {trigger:?}");
    }
    println!("{} days of customers", wanted.len());
}
