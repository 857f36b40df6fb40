//! Operators, and how a chain of them is driven frame by frame.
//!
//! An [`Operator`] *pulls* records out of its input, one result at a time, so that a huge expansion of one record never needs
//! unbounded room: it goes on when its successor has room again. A [`Driver`] runs one operator and hands frames of at
//! most 256 records to the next [`Node`]; a call per frame, not per record.

mod batch_time;
mod context;
mod control;
mod diverted;
mod driver;
mod event_time;
mod head;
mod hold;
mod input;
mod node;
mod output;
mod output_mode;
mod poison;
mod read;
mod sides;
mod splits;
mod tee;

pub use self::batch_time::BatchTime;
pub(crate) use self::batch_time::TaskClock;
pub use self::context::{Effect, OpenContext, TaskContext};
pub use self::control::{Amount, Ends, SourceCommand, SourceControl, TaskControl};
pub use self::diverted::{DeadLetterCounter, DeadLetterKind, DeadLetters, DropCounter, DropReason, Dropped};
pub use self::driver::{Driver, Fired, FrameInput, Operator, Prepared};
pub use self::event_time::EventTime;
pub use self::head::{Head, Polled};
pub use self::hold::{Bunch, Coalescer, GroupBuffer};
pub use self::input::InputHead;
pub use self::node::{AnyNode, Flow, Node, TaskError};
pub use self::output::Output;
pub use self::output_mode::{OutputMode, UnknownOutputMode};
pub use self::poison::{Origin, Origins, Poison, Poisoned, Quarantined};
pub(crate) use self::read::Waiting;
pub use self::read::{ReadOrder, Urgency};
pub use self::sides::{Emitted, OutputTag, SideDecl, Splitter};
pub use self::splits::{SplitStatus, Splits};
pub use self::tee::Tee;
