//! Teaches `flat_map_groups_with_state` without timeouts: the mean of every 500 values of a device.
//!
//! ```sh
//! cargo run --example mean_of_500
//! ```

use anyhow::ensure;
use millstream::prelude::*;
use serde::{Deserialize, Serialize};

/// A device and what it measured.
type Reading = (String, f64);

/// What a device has measured since its last mean.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct DeviceState {
    sum: f64,
    count: u32,
}

const EVERY: u32 = 500;

/// 1,200 readings of one device and 499 of another, which is one too few.
fn readings() -> impl Iterator<Item = Reading> + Clone {
    let of = |device: &'static str, count: u32| (1..=count).map(move |value| (device.to_owned(), f64::from(value)));
    of("boiler", 1_200).chain(of("pump", EVERY - 1))
}

fn main() -> anyhow::Result<()> {
    let (sink, means) = Collect::new();
    let pipeline = Pipeline::new("mean-of-500");
    pipeline
        .source("readings", IterSource::new(readings().collect::<Vec<_>>()))
        .key_by_ref(|(device, _): &Reading| device.as_str())
        .flat_map_groups_with_state(
            "means",
            OutputMode::Append,
            GroupTimeout::None,
            |device, rows, state: &mut GroupState<DeviceState>, out| {
                let mut so_far = state.get_option().map_or_else(DeviceState::default, |state| state.clone());
                for (_, value) in rows {
                    so_far.sum += value;
                    so_far.count += 1;
                    if so_far.count == EVERY {
                        out.emit((device.clone(), so_far.sum / f64::from(EVERY)));
                        so_far = DeviceState::default();
                    }
                }
                // What was fetched is a copy: without this call the rows were lost.
                state.update(so_far)?;
                Ok(())
            },
        )
        .sink("out", sink);
    Runtime::builder().build()?.start(pipeline)?.join()?;

    let means: Vec<(String, f64)> = means.take();
    for (device, mean) in &means {
        println!("{device}: {mean} on average of {EVERY} values");
    }
    ensure!(means == [("boiler".to_owned(), 250.5), ("boiler".to_owned(), 750.5)], "{means:?}");
    Ok(())
}
