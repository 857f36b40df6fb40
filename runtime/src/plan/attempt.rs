//! Makes the pieces of one attempt: channels first, then a seed per subtask that grows into a machine on its worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::channel::LinkProbe;
use crate::checkpoint::PlannedSplit;
use crate::error::BoxError;
use crate::graph::{AnySend, Exchange, Vertex, VertexId, VertexKind};
use crate::guarantee::Guarantee;
use crate::id::{Attempt, ExecutionMode, OperatorId, ShardId, SubtaskId};
use crate::metrics::MetricsLevel;
use crate::operator::{
    AnyNode, BatchTime, Head, OpenContext, Origin, Origins, Quarantined, SourceControl, Splits, TaskClock, TaskContext,
    TaskControl, TaskError,
};
use crate::plan::{Plan, TaskPlan, fuse};
use crate::position::SplitId;
use crate::source::{Fetching, Idleness, SplitStart, idleness};
use crate::state::MemoryBudget;
use crate::state::key_group::KeyGroups;
use crate::state::log::Restored;
use crate::state::store::StoreShare;
use crate::time::SharedClock;

/// What an attempt is made from.
#[derive(Clone, Debug)]
pub struct AttemptSpec {
    /// Its number.
    pub attempt: Attempt,
    /// This copy of the daemon.
    pub shard: ShardId,
    /// The durable numbers of [`Plan::declarations`].
    pub operators: Vec<OperatorId>,
    /// What it starts from.
    pub restored: Arc<Restored>,
    /// Records that user code is not given.
    pub quarantined: Arc<[Quarantined]>,
    /// Frames of records that fit into a channel. Default 64.
    pub channel_frames: usize,
    /// Batches that a reader may be ahead of its task. Default 8.
    pub read_ahead: usize,
    /// How the first epoch runs. The plan of a micro-batch that had begun is in `restored`.
    pub mode: ExecutionMode,
    /// Time between barriers.
    pub epoch_interval: Duration,
    /// Key groups of the pipeline.
    pub key_groups: KeyGroups,
    /// The way to the rows.
    pub share: StoreShare,
    /// The memory that its states may take.
    pub memory: MemoryBudget,
    /// How much its subtasks count of themselves.
    pub metrics: MetricsLevel,
    /// Where the readers take their time from; the tasks get it when they are built.
    pub clock: SharedClock,
}

/// All pieces of an attempt.
#[derive(Debug)]
pub struct AttemptSeed {
    /// One per subtask, ordered by task and index.
    pub tasks: Vec<TaskSeed>,
    /// One per channel, ordered by edge.
    pub channels: Vec<ChannelProbe>,
}

/// Sees how full one channel is.
#[derive(Clone, Debug)]
pub struct ChannelProbe {
    /// The name that all channels of an edge have.
    pub channel: Arc<str>,
    /// The operator at its end.
    pub receiver: Arc<str>,
    /// The receiving subtask.
    pub subtask: u16,
    /// Of the channel.
    pub probe: LinkProbe,
}

/// The readers of a source subtask.
pub struct SourceSeed {
    /// How the job commands it.
    pub control: SourceControl,
    /// Drives the readers; may block.
    pub fetching: Box<dyn Fetching>,
}

/// One subtask that is not built yet: may go to another thread.
pub struct TaskSeed {
    /// Which one.
    pub subtask: SubtaskId,
    /// How the job commands it.
    pub control: TaskControl,
    /// Its readers, if it is a source; take them before it is built.
    pub source: Option<SourceSeed>,
    /// Where its records come from, if it is none.
    pub origins: Origins,
    plan: Plan,
    spec: Arc<AttemptSpec>,
    /// The processing time of micro-batches; one for all subtasks.
    batch: BatchTime,
    source_control: Option<(SourceControl, (Vec<SplitStart>, Idleness), AnySend)>,
    /// Incoming channels by edge, ordered by upstream subtask.
    inputs: BTreeMap<usize, Vec<AnySend>>,
    /// Outgoing channels by edge, ordered by downstream subtask.
    outputs: HashMap<usize, Vec<AnySend>>,
}

/// A source does not say which splits it has, so nothing can be read.
#[derive(Debug, thiserror::Error)]
#[error("source {name} cannot list its splits")]
struct UnlistedSplits {
    name: String,
    source: BoxError,
}

impl std::fmt::Debug for TaskSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskSeed").field("subtask", &self.subtask).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SourceSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceSeed").finish_non_exhaustive()
    }
}

impl Plan {
    /// Makes channels and seeds of an attempt.
    ///
    /// # Errors
    /// What a source says when it lists its splits, or that a split with a saved position is gone.
    pub fn seed(&self, spec: AttemptSpec) -> Result<AttemptSeed, BoxError> {
        let spec = Arc::new(spec);
        let batch = BatchTime::default();
        let mut seeds: BTreeMap<SubtaskId, TaskSeed> = BTreeMap::new();
        let mut origins: BTreeMap<VertexId, Vec<Origin>> = BTreeMap::new();
        for task in &*self.tasks {
            for index in 0..self.parallelism {
                let subtask = SubtaskId { task: task.id, index };
                let seed = TaskSeed {
                    subtask,
                    control: TaskControl::counting(spec.metrics),
                    source: None,
                    origins: Origins::default(),
                    plan: self.clone(),
                    spec: Arc::clone(&spec),
                    batch: batch.clone(),
                    source_control: None,
                    inputs: BTreeMap::new(),
                    outputs: HashMap::new(),
                };
                seeds.insert(subtask, seed);
            }
            origins.insert(task.head, self.seed_source(task, &spec, &mut seeds)?);
        }
        for task in &*self.tasks {
            let upstream = self.graph.upstream(task.head).into_iter().filter_map(|vertex| origins.get(&vertex));
            let origins: Origins = upstream.flatten().cloned().collect();
            seeds.iter_mut().filter(|(subtask, _)| subtask.task == task.id).for_each(|(_, seed)| {
                seed.origins = origins.clone();
            });
        }
        let mut channels = Vec::new();
        for edge in 0..self.graph.edges.len() {
            if !fuse::is_fused(&self.graph, edge) {
                self.seed_edge(edge, &spec, &mut seeds, &mut channels);
            }
        }
        Ok(AttemptSeed { tasks: seeds.into_values().collect(), channels })
    }

    fn task_of(&self, vertex: VertexId) -> Option<&TaskPlan> {
        self.tasks.iter().find(|task| task.vertices.contains(&vertex))
    }

    fn operator(&self, spec: &AttemptSpec, vertex: VertexId) -> OperatorId {
        let found = self.durable.iter().zip(&spec.operators).find(|(id, _)| **id == vertex);
        found.map_or_else(OperatorId::default, |(_, operator)| *operator)
    }

    fn seed_source(
        &self,
        task: &TaskPlan,
        spec: &AttemptSpec,
        seeds: &mut BTreeMap<SubtaskId, TaskSeed>,
    ) -> Result<Vec<Origin>, BoxError> {
        let Some(vertex) = self.graph.vertex(task.head) else { return Ok(Vec::new()) };
        let VertexKind::Source(source) = &vertex.kind else { return Ok(Vec::new()) };
        let name: Arc<str> = vertex.name.as_str().into();
        let operator = self.operator(spec, task.head);
        let saved = spec.restored.positions.iter().filter(|position| position.operator == operator);
        let mut saved: BTreeMap<_, _> = saved.map(|position| (&position.split, position)).collect();
        let unlisted = |source| UnlistedSplits { name: vertex.name.clone(), source };
        let mut splits = source.splits().map_err(unlisted)?;
        splits.sort();
        splits.dedup();
        let mut shares: Vec<Vec<SplitStart>> = (0..self.parallelism).map(|_| Vec::new()).collect();
        let mut planned = planned_splits(spec, operator, source.declaration().guarantee);
        for (index, split) in splits.into_iter().enumerate() {
            let position = saved.remove(&split);
            let plan = planned.remove(&split);
            let start = SplitStart {
                split,
                from: position.map(|position| position.position.clone()),
                ended: position.is_some_and(|position| position.ended),
                planned: plan.map(|planned| (planned.records, planned.end.clone())),
                watermarks: position.map(|position| position.watermarks.clone()).unwrap_or_default(),
            };
            if let Some(share) = shares.get_mut(index % usize::from(self.parallelism)) {
                share.push(start);
            }
        }
        // A split that ended may go: log files are rotated away. One that was being read may not.
        if let Some((split, position)) = saved.into_iter().find(|(_, position)| !position.ended) {
            let name = &vertex.name;
            let text = format!(
                "split {split} of source {name} is gone, and position {} in it is saved; bring it back, or start on \
                 another store",
                position.position
            );
            return Err(text.into());
        }
        if let Some((split, planned)) = planned.into_iter().next() {
            let (name, records) = (&vertex.name, planned.records);
            let text = format!(
                "split {split} of source {name} is gone, and the micro-batch that had begun takes {records} records of it; bring it \
                 back, or start on another store"
            );
            return Err(text.into());
        }
        let declared = task.vertices.iter().filter_map(|vertex| self.graph.event_time(*vertex)?.idle_after);
        let limits: Vec<Duration> = declared.collect();
        let open = shares.iter().flatten().filter(|start| !start.ended).map(|start| Origin {
            source: Arc::clone(&name),
            split: start.split.clone(),
            after: start.from.clone(),
            until: None,
        });
        let open = open.collect();
        let per_epoch = source.epoch_limits();
        let all = shares.iter().map(Vec::len).sum::<usize>();
        for (index, splits) in (0..self.parallelism).zip(shares) {
            let Some(seed) = seeds.get_mut(&SubtaskId { task: task.id, index }) else { continue };
            let per_epoch = per_epoch.share(splits.len(), all);
            let control = SourceControl::within(spec.memory.clone(), per_epoch).replaying(spec.restored.plan.is_some());
            // A drained pipeline reads nothing more unless the job says so.
            control.hold(spec.restored.closing.is_some());
            let (watch, idleness) = idleness(Arc::clone(&spec.clock), splits.len(), &limits);
            let queue = (spec.read_ahead, usize::try_from(per_epoch.records).unwrap_or(usize::MAX));
            let (fetching, fetched) = source.fetcher((splits.clone(), watch), queue, &seed.control);
            seed.source = Some(SourceSeed { control: control.clone(), fetching });
            seed.source_control = Some((control, (splits, idleness), fetched));
        }
        Ok(open)
    }

    fn seed_edge(
        &self,
        index: usize,
        spec: &AttemptSpec,
        seeds: &mut BTreeMap<SubtaskId, TaskSeed>,
        channels: &mut Vec<ChannelProbe>,
    ) {
        let channel = self.channel_name(index);
        let Some(edge) = self.graph.edges.get(index) else { return };
        let (Some(from), Some(to)) = (self.task_of(edge.from), self.task_of(edge.to)) else { return };
        let operator: Arc<str> = self.graph.vertex(edge.to).map_or("", |vertex| &vertex.name).into();
        for upstream in 0..self.parallelism {
            let targets = if edge.exchange == Exchange::Forward { upstream..upstream + 1 } else { 0..self.parallelism };
            for downstream in targets {
                let sender_id = SubtaskId { task: from.id, index: upstream };
                let receiver_id = SubtaskId { task: to.id, index: downstream };
                let bells = seeds.get(&sender_id).zip(seeds.get(&receiver_id));
                let Some((sender, receiver)) = bells else { continue };
                let (sender, receiver, probe) =
                    edge.wire.link(spec.channel_frames, &sender.control.bell, &receiver.control.bell);
                let (channel, receiver_name) = (Arc::clone(&channel), Arc::clone(&operator));
                channels.push(ChannelProbe { channel, receiver: receiver_name, subtask: downstream, probe });
                if let Some(seed) = seeds.get_mut(&sender_id) {
                    seed.outputs.entry(index).or_default().push(sender);
                }
                if let Some(seed) = seeds.get_mut(&receiver_id) {
                    seed.inputs.entry(index).or_default().push(receiver);
                }
            }
        }
    }
}

impl TaskSeed {
    /// Time between barriers.
    pub fn epoch_interval(&self) -> Duration {
        self.spec.epoch_interval
    }

    /// Builds the subtask's chain, on the worker that will run it.
    ///
    /// # Errors
    /// [`TaskError`] when an operator cannot be opened or its state not restored.
    pub fn grow(mut self, clock: SharedClock) -> Result<(Box<dyn Head>, TaskContext), TaskError> {
        let plan = self.plan.clone();
        let spec = Arc::clone(&self.spec);
        let broken = || TaskError::Build { operator: format!("task {}", self.subtask) };
        let head_vertex = plan.tasks.iter().find(|task| task.id == self.subtask.task).ok_or_else(broken)?.head;
        let kind = plan.graph.vertex(head_vertex).ok_or_else(broken)?.kind.clone();
        let control = self.control.clone();
        let bell = control.bell.clone();
        let task_clock = Arc::new(TaskClock::new(Arc::clone(&clock), self.batch.clone()));
        let context = TaskContext::new(spec.attempt, self.subtask, spec.restored.epoch, Arc::clone(&clock), bell);
        let mut context = context.controlled_by(control.clone()).running(spec.mode, Arc::clone(&task_clock));
        let clock = task_clock;
        let head: Box<dyn Head> = match kind {
            VertexKind::Source(source) => {
                let chain = self.outputs_of(head_vertex, &clock)?;
                let open = self.open_context(head_vertex, &clock);
                let (source_control, splits, fetched) = self.source_control.take().ok_or_else(|| self.broken())?;
                let starts = splits.0.iter().map(|start| (start.ended, start.watermarks.clone()));
                context = context.reading(Splits::new(starts));
                source.head(&open, splits, fetched, chain, (control.clone(), source_control))?
            }
            _ => {
                let chain = self.chain(head_vertex, &clock)?;
                let inputs = std::mem::take(&mut self.inputs);
                let wire = inputs.keys().next().and_then(|edge| plan.graph.edges.get(*edge)).map(|edge| &edge.wire);
                let wire = wire.ok_or_else(|| self.broken())?;
                let links = inputs.into_iter().flat_map(|(edge, links)| {
                    let timed = plan.graph.edges.get(edge).is_some_and(|edge| plan.graph.is_timed(edge.from));
                    links.into_iter().map(move |link| (link, timed))
                });
                let links = links.collect();
                wire.input(links, chain, control.clone(), spec.memory.clone()).ok_or_else(|| self.broken())?
            }
        };
        Ok((head, context.ending_in(control.sinks())))
    }

    fn broken(&self) -> TaskError {
        TaskError::Build { operator: format!("task {}", self.subtask) }
    }

    fn open_context(&self, vertex: VertexId, clock: &Arc<TaskClock>) -> OpenContext {
        let spec = &self.spec;
        let operator = self.plan.operator(spec, vertex);
        OpenContext {
            pipeline: self.plan.graph.name.clone(),
            shard: spec.shard,
            name: self.plan.graph.vertex(vertex).map_or_else(String::new, |vertex| vertex.name.clone()),
            operator,
            subtask: self.subtask,
            parallelism: self.plan.parallelism,
            event_time: self.event_times_before(vertex),
            attempt: spec.attempt,
            output_mode: self.plan.graph.output_mode,
            restored: spec.restored.epoch,
            groups: spec.key_groups.range(self.subtask.index, self.plan.parallelism),
            key_groups: spec.key_groups,
            state: spec.restored.state.get(&operator).cloned(),
            states: spec.restored.states.get(&operator).cloned().unwrap_or_default(),
            // What user code sees.
            clock: Arc::clone(clock) as SharedClock,
            batch: Arc::clone(clock),
            quarantined: Arc::clone(&spec.quarantined),
            control: self.control.clone(),
            share: spec.share.clone(),
            folded: spec.restored.folded.iter().filter(|(of, _)| *of == operator).map(|(_, state)| *state).collect(),
            memory: spec.memory.clone(),
        }
    }

    fn event_times_before(&self, vertex: VertexId) -> usize {
        let Some(task) = self.plan.task_of(vertex) else { return 0 };
        let before = task.vertices.iter().take_while(|before| **before != vertex);
        before.filter(|before| self.plan.graph.event_time(**before).is_some()).count()
    }

    /// Builds a vertex with everything behind it.
    fn chain(&mut self, vertex: VertexId, clock: &Arc<TaskClock>) -> Result<AnyNode, TaskError> {
        let kind = self.plan.graph.vertex(vertex).ok_or_else(|| self.broken())?.kind.clone();
        match kind {
            VertexKind::Sink(sink) => sink.build(&self.open_context(vertex, clock)),
            VertexKind::Operator(operator) => {
                let next = self.outputs_of(vertex, clock)?;
                operator.build(&self.open_context(vertex, clock), next)
            }
            VertexKind::Source(_) => Err(self.broken()),
        }
    }

    /// Builds everything that reads a vertex, side outputs included.
    fn outputs_of(&mut self, vertex: VertexId, clock: &Arc<TaskClock>) -> Result<AnyNode, TaskError> {
        let graph = Arc::clone(&self.plan.graph);
        let mut branches: BTreeMap<Option<u16>, Vec<AnyNode>> = BTreeMap::new();
        for (index, edge) in graph.outputs(vertex) {
            let branch = if fuse::is_fused(&graph, index) {
                self.chain(edge.to, clock)?
            } else {
                let links = self.outputs.remove(&index).unwrap_or_default();
                let forward = edge.exchange == Exchange::Forward;
                let meter = self.control.output_meter(self.plan.channel_name(index));
                edge.wire.output(forward, links, self.spec.key_groups, meter).ok_or_else(|| self.broken())?
            };
            branches.entry(edge.side).or_default().push(branch);
        }
        let vertex = graph.vertex(vertex).ok_or_else(|| self.broken())?;
        let main = branches.remove(&None).unwrap_or_default();
        let main = join(vertex, None, main).ok_or_else(|| self.broken())?;
        let VertexKind::Operator(operator) = &vertex.kind else { return Ok(main) };
        if operator.sides().is_empty() {
            return Ok(main);
        }
        let sides = branches.into_iter().filter_map(|(side, branches)| Some((side?, branches)));
        let sides = sides.map(|(side, branches)| Some((side, join(vertex, Some(side), branches)?)));
        let sides = sides.collect::<Option<BTreeMap<_, _>>>().ok_or_else(|| self.broken())?;
        operator.split(main, sides, (&vertex.name, &self.control)).ok_or_else(|| self.broken())
    }
}

/// What a micro-batch that had begun takes of a source; nothing of one that cannot give a record again.
fn planned_splits(spec: &AttemptSpec, operator: OperatorId, guarantee: Guarantee) -> BTreeMap<&SplitId, &PlannedSplit> {
    let plan = spec.restored.plan.iter().filter(|_| guarantee != Guarantee::AtMostOnce);
    let splits = plan.flat_map(|plan| &plan.splits).filter(|planned| planned.operator == operator);
    splits.map(|planned| (&planned.split, planned)).collect()
}

/// Joins all that read one output of a vertex.
fn join(vertex: &Vertex, side: Option<u16>, mut branches: Vec<AnyNode>) -> Option<AnyNode> {
    if branches.len() == 1 {
        return branches.pop();
    }
    vertex.tees.get(&side)?(branches)
}
