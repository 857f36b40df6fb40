//! When may the next epoch begin, and which records does it get? Pure: times and answers in, decisions out.
//!
//! **Continuous**: records pass at once and barriers are cut by time; nothing of this is asked. **Micro-batch**: sources keep what
//! their readers hand over, the job asks them what there is, has that written ahead as a plan, lets it through and closes it with a
//! barrier. No operator knows which of the two it is in.

mod batches;

pub use self::batches::{Batches, Next, Wishes};
