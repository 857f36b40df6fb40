//! Edges: how records get from one vertex to the next.

use std::fmt;
use std::sync::Arc;

use crate::channel::{Bell, Gate, LinkProbe, LinkReceiver, LinkSender, Router, Routing, link};
use crate::graph::AnySend;
use crate::metrics::OutputMeter;
use crate::operator::{AnyNode, Head, InputHead, Node, Output, TaskControl};
use crate::record::Record;
use crate::state::MemoryBudget;
use crate::state::key_group::KeyGroups;

/// How an edge distributes records over the subtasks of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exchange {
    /// Subtask *i* feeds subtask *i*; such neighbours are fused into one task where they can.
    Forward,
    /// Subtasks take turns.
    Rebalance,
    /// Every subtask gets every record.
    Broadcast,
    /// By the key's group.
    Hash,
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Rebalance => "rebalance",
            Self::Broadcast => "broadcast",
            Self::Hash => "hash",
        })
    }
}

/// An edge of a graph.
#[derive(Clone)]
pub struct Edge {
    pub(crate) from: super::VertexId,
    /// Which side output it reads; nothing for the main output.
    pub(crate) side: Option<u16>,
    pub(crate) to: super::VertexId,
    pub(crate) exchange: Exchange,
    pub(crate) wire: Arc<dyn Wire>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -{}-> {:?}", self.from, self.exchange, self.to)
    }
}

/// Makes the typed pieces of an edge. A `None` means that neighbours carry another type: a bug in this library.
pub trait Wire: Send + Sync {
    /// Makes one channel: its upstream end, its downstream end, and what sees how full it is.
    fn link(&self, capacity: usize, sender: &Bell, receiver: &Bell) -> (AnySend, AnySend, LinkProbe);

    /// Makes the upstream end of the edge in one subtask from its channels, ordered by target subtask.
    fn output(&self, forward: bool, links: Vec<AnySend>, key_groups: KeyGroups, meter: OutputMeter) -> Option<AnyNode>;

    /// Makes the head of a task from its channels, each with whether it carries event time, and its chain. `memory` is what the
    /// records' state will take.
    fn input(
        &self,
        links: Vec<(AnySend, bool)>,
        chain: AnyNode,
        control: TaskControl,
        memory: MemoryBudget,
    ) -> Option<Box<dyn Head>>;
}

type MakeRouting<T> = Box<dyn Fn(KeyGroups) -> Routing<T> + Send + Sync>;

/// The wire for records of type `T`.
pub struct WireOf<T> {
    routing: MakeRouting<T>,
}

impl<T> fmt::Debug for WireOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireOf")
    }
}

impl<T: Send + 'static> WireOf<T> {
    /// Makes a wire; `routing` is what each upstream subtask uses where the edge is not forward, given the pipeline's key groups.
    pub fn new(routing: impl Fn(KeyGroups) -> Routing<T> + Send + Sync + 'static) -> Self {
        Self { routing: Box::new(routing) }
    }

    /// Makes a wire that gives every target every record.
    pub fn broadcast() -> Self
    where
        T: Clone,
    {
        Self::new(|_| Routing::Broadcast { copy: Record::clone })
    }

    /// Makes a wire that takes turns where it is not forward.
    pub fn plain() -> Self {
        Self::new(|_| Routing::Rebalance)
    }
}

impl<T: Send + 'static> Wire for WireOf<T> {
    fn link(&self, capacity: usize, sender: &Bell, receiver: &Bell) -> (AnySend, AnySend, LinkProbe) {
        let (sender, receiver) = link::<T>(capacity, sender, receiver);
        let probe = receiver.probe();
        (Box::new(sender), Box::new(receiver), probe)
    }

    fn output(&self, forward: bool, links: Vec<AnySend>, key_groups: KeyGroups, meter: OutputMeter) -> Option<AnyNode> {
        let links = links.into_iter().map(|link| link.downcast::<LinkSender<T>>().ok().map(|link| *link));
        let routing = if forward { Routing::Forward } else { (self.routing)(key_groups) };
        let node: Box<dyn Node<T>> = Box::new(Output::new(Router::new(routing, links.collect::<Option<_>>()?), meter));
        Some(Box::new(node))
    }

    fn input(
        &self,
        links: Vec<(AnySend, bool)>,
        chain: AnyNode,
        control: TaskControl,
        memory: MemoryBudget,
    ) -> Option<Box<dyn Head>> {
        let links = links.into_iter().map(|(link, timed)| Some((*link.downcast::<LinkReceiver<T>>().ok()?, timed)));
        let chain = chain.downcast::<Box<dyn Node<T>>>().ok()?;
        let gate = Gate::of(links.collect::<Option<Vec<_>>>()?).within(memory);
        Some(Box::new(InputHead::new(gate, *chain, control)))
    }
}
