//! Teaches how a daemon embeds a pipeline: it feeds it, reads its results, and knows what is durable.
//!
//! ```sh
//! cargo run --example embed
//! ```
//! State is kept in memory here; with `.state_backend(RocksDb::at("state"))` it outlives the process.

use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;

/// What the daemon hears of.
#[derive(Debug)]
struct Order {
    customer: String,
    cents: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The pipeline: orders in, what each customer has spent so far out, as soon as it is committed.
    let (feed, orders) = feed::<Order>(1_000);
    let (totals, mut spent) = channel_sink::<(String, u64)>(1_000);
    let pipeline = Pipeline::new("spending").epoch_interval(Duration::from_millis(100));
    pipeline
        .source("orders", orders)
        .filter(|order: &Order| order.cents > 0)
        .key_by_ref(|order| order.customer.as_str())
        .sum("spent", |order| order.cents)
        .sink("totals", totals);
    let runtime = Runtime::builder().build()?;
    let job = runtime.start(pipeline)?;

    // One task of the daemon reads results ...
    let reader = tokio::spawn(async move {
        let mut results = 0;
        while let Some((customer, cents)) = spent.recv_async().await {
            println!("{customer} has spent {}.{:02}", cents / 100, cents % 100);
            results += 1;
        }
        results
    });

    // ... while others feed it. A receipt tells when a record is durable: it counts exactly once from then on.
    for (customer, cents) in [("ada", 1_250), ("bob", 399), ("ada", 0)] {
        feed.send_async(Order { customer: customer.to_owned(), cents }).await?;
    }
    let receipt = feed.send_durable_async(Order { customer: "ada".to_owned(), cents: 4_750 }).await?;
    receipt.await?;
    println!("the last order is durable");

    // The daemon ends: with the last feed the pipeline's input ends, and all that was fed is committed and delivered.
    drop(feed);
    let ended = job.wait().await?;
    let results = reader.await?;
    println!("finished with epoch {}, {results} results", ended.epoch());
    ensure!(results == 3, "3 orders were worth something, {results} results came");
    Ok(())
}
