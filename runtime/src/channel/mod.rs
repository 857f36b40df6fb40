//! The data plane: frames in bounded channels. The one door to flume.

mod bell;
mod frame;
mod gate;
mod link;
mod queue;
mod router;

pub use self::bell::Bell;
pub use self::frame::{FRAME_RECORDS, Frame, Grammar, IllegalFrame, Mark};
pub use self::gate::{Gate, GateError};
pub use self::link::{Closed, LinkProbe, LinkReceiver, LinkSender, SendError, Sent, link};
pub use self::queue::{
    QueueClosed, QueueReceiver, QueueRecvError, QueueSendError, QueueSender, WeakQueueSender, queue,
};
pub use self::router::{HashFrame, Router, Routing};
