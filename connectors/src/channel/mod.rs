//! In-process ends: a feed to send records into a pipeline, and sinks that hand them back.

mod collect;
mod feed;
mod for_each;
mod receipt;
mod sink;
mod source;

pub use self::collect::{Collect, Collected, CollectedEnded};
pub(crate) use self::collect::{decode_rows, in_process, replaced};
pub use self::feed::{Feed, FeedError, TryFeedError, feed};
pub use self::for_each::{ForEach, for_each, try_for_each};
pub use self::receipt::{NotDurable, Receipt};
pub use self::sink::{ChannelEmpty, ChannelReceiver, ChannelSink, channel_sink};
pub use self::source::FeedSource;
