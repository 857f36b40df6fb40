//! Real input: the Online Retail data set, 305 files as messy as real data is, from `../shared/data/retail` where it is there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream::prelude::*;

fn data() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/retail");
    path.is_dir().then_some(path)
}

/// Customer and thousandths of a pound; nothing for headers.
fn parse(line: &str) -> Result<Option<(String, i64)>, BoxError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let Some(fields) = reader.records().next() else { return Err("an empty line".into()) };
    let fields = fields?;
    if fields.get(0) == Some("InvoiceNo") {
        return Ok(None);
    }
    let field = |index: usize| fields.get(index).ok_or_else(|| format!("no field {index} in {line:?}"));
    let quantity: i64 = field(3)?.parse()?;
    let price: f64 = field(5)?.parse()?;
    Ok(Some((field(6)?.to_owned(), quantity * (price * 1000.0).round() as i64)))
}

#[test]
fn spending_per_customer_of_a_real_shop_is_what_a_loop_over_the_files_gives() {
    let Some(directory) = data() else {
        println!("skipped: ../shared/data/retail is not there");
        return;
    };
    let mut wanted: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    for file in std::fs::read_dir(&directory).unwrap() {
        for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            if let Some((customer, amount)) = parse(line).unwrap() {
                let total = wanted.entry(customer).or_default();
                *total = (total.0 + 1, total.1 + amount);
            }
        }
    }

    let (sink, rows) = Collect::new();
    let pipeline = Pipeline::new("retail").parallelism(2);
    pipeline
        .source("sales", Lines::at(&directory).suffixes(["csv"]))
        .try_map(|line| parse(&line))
        .flat_map(|sale| sale)
        .key_by_ref(|(customer, _)| customer.as_str())
        .fold("spending", || (0u64, 0i64), |total, (_, amount)| *total = (total.0 + 1, total.1 + amount))
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
