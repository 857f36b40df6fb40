//! Epochs: who has reported, and what an epoch is made of.

mod part;

pub use self::part::{Closing, Delivered, Delta, EpochBundle, OutboxPart, Part, SplitPosition};
