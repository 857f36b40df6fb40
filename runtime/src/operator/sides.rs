//! Side outputs: more than one kind of result from one operator, each under a tag of its own type.
//!
//! Only an operator that declares side outputs sends [`Emitted`]; a [`Splitter`] behind it parts the records and hands each kind
//! to its readers. What goes to a side that nobody reads is dropped and counted.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::channel::{Frame, Mark};
use crate::operator::{AnyNode, DropCounter, DropReason, Flow, Node, TaskContext, TaskControl, TaskError};
use crate::record::Record;

/// The name of a side output and the type of its records. Clones name the same output.
pub struct OutputTag<T> {
    name: Arc<str>,
    record: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// Makes a tag; its name is unique among the side outputs of one operator.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), record: PhantomData }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), record: PhantomData }
    }
}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OutputTag").field(&self.name).finish()
    }
}

/// A side output as its operator declares it.
#[derive(Clone)]
pub struct SideDecl {
    name: Arc<str>,
    record: TypeId,
    read_by: fn(AnyNode) -> Option<Box<dyn SideNode>>,
}

impl SideDecl {
    /// Declares the output of a tag.
    pub fn new<T: 'static>(tag: &OutputTag<T>) -> Self {
        Self { name: Arc::clone(&tag.name), record: TypeId::of::<T>(), read_by: SideOf::<T>::new }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says whether both are the same output.
    pub fn is_same(&self, other: &Self) -> bool {
        self.record == other.record && self.name == other.name
    }

    /// Says whether the tag is this output's.
    pub fn is<T: 'static>(&self, tag: &OutputTag<T>) -> bool {
        self.record == TypeId::of::<T>() && self.name == tag.name
    }
}

impl fmt::Debug for SideDecl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SideDecl").field(&self.name).finish()
    }
}

/// A result of an operator with side outputs.
pub enum Emitted<T> {
    /// For the main output.
    Main(T),
    /// For a side output, by its number.
    Side(u16, Box<dyn Any + Send>),
}

impl<T> fmt::Debug for Emitted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main(_) => f.write_str("Main"),
            Self::Side(side, _) => f.debug_tuple("Side").field(side).finish(),
        }
    }
}

/// The readers of one side output.
trait SideNode {
    /// Takes a record into the frame that is being put together.
    fn collect(&mut self, record: Record<Box<dyn Any + Send>>);

    /// Passes the frame on, if there is anything in it.
    fn send(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError>;

    fn pass(&mut self, mark: Mark, context: &mut TaskContext) -> Result<Flow, TaskError>;

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError>;

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError>;

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError>;
}

struct SideOf<T> {
    frame: Vec<Record<T>>,
    next: Box<dyn Node<T>>,
}

impl<T: 'static> SideOf<T> {
    #[expect(clippy::new_ret_no_self, reason = "the type is known here for the last time")]
    fn new(next: AnyNode) -> Option<Box<dyn SideNode>> {
        let next = *next.downcast::<Box<dyn Node<T>>>().ok()?;
        Some(Box::new(Self { frame: Vec::new(), next }))
    }
}

impl<T: 'static> SideNode for SideOf<T> {
    fn collect(&mut self, Record { value, time, hash }: Record<Box<dyn Any + Send>>) {
        let value = value.downcast::<T>();
        debug_assert!(value.is_ok(), "a side output was given a record of another type");
        if let Ok(value) = value {
            self.frame.push(Record { value: *value, time, hash });
        }
    }

    fn send(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        if self.frame.is_empty() {
            return Ok(Flow::Ready);
        }
        self.next.offer(Frame::Records(std::mem::take(&mut self.frame)), context)
    }

    fn pass(&mut self, mark: Mark, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.offer(mark.frame(), context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.resume(context)
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.next.encode_slice(entries, context)
    }
}

struct Side {
    node: Box<dyn SideNode>,
    blocked: bool,
}

/// Parts the results of an operator; marks go to all of them, behind everything that was sent before.
pub struct Splitter<T> {
    main: Box<dyn Node<T>>,
    main_blocked: bool,
    /// By number; nothing where nobody reads.
    sides: Vec<Option<Side>>,
    unread: DropCounter,
}

impl<T> fmt::Debug for Splitter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitter").field("sides", &self.sides.len()).finish_non_exhaustive()
    }
}

impl<T: 'static> Splitter<T> {
    /// Joins the readers of an operator's outputs; nothing if one of them carries another type.
    pub fn join(
        main: AnyNode,
        mut sides: BTreeMap<u16, AnyNode>,
        declared: &[SideDecl],
        (operator, control): (&str, &TaskControl),
    ) -> Option<AnyNode> {
        let main = *main.downcast::<Box<dyn Node<T>>>().ok()?;
        let sides = (0..).zip(declared).map(|(number, side)| match sides.remove(&number) {
            Some(node) => Some(Some(Side { node: (side.read_by)(node)?, blocked: false })),
            None => Some(None),
        });
        let sides = sides.collect::<Option<Vec<_>>>()?;
        let unread = control.drop_counter(operator, DropReason::UnreadSide);
        let node: Box<dyn Node<Emitted<T>>> = Box::new(Self { main, main_blocked: false, sides, unread });
        Some(Box::new(node))
    }

    fn flow(&self) -> Flow {
        let blocked = self.main_blocked || self.sides.iter().flatten().any(|side| side.blocked);
        if blocked { Flow::Blocked } else { Flow::Ready }
    }

    fn part(&mut self, records: Vec<Record<Emitted<T>>>, context: &mut TaskContext) -> Result<(), TaskError> {
        let mut main = Vec::with_capacity(records.len());
        for Record { value, time, hash } in records {
            match value {
                Emitted::Main(value) => main.push(Record { value, time, hash }),
                Emitted::Side(number, value) => match self.sides.get_mut(usize::from(number)) {
                    Some(Some(side)) => side.node.collect(Record { value, time, hash }),
                    _ => self.unread.count(1),
                },
            }
        }
        // A frame is only offered when all are ready, so each takes its share now.
        if !main.is_empty() {
            self.main_blocked = self.main.offer(Frame::Records(main), context)? == Flow::Blocked;
        }
        for side in self.sides.iter_mut().flatten() {
            side.blocked = side.node.send(context)? == Flow::Blocked;
        }
        Ok(())
    }
}

impl<T: 'static> Node<Emitted<T>> for Splitter<T> {
    fn offer(&mut self, frame: Frame<Emitted<T>>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => self.part(records, context)?,
            Err(mark) => {
                self.main_blocked = self.main.offer(mark.frame(), context)? == Flow::Blocked;
                for side in self.sides.iter_mut().flatten() {
                    side.blocked = side.node.pass(mark, context)? == Flow::Blocked;
                }
            }
        }
        Ok(self.flow())
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        if self.main_blocked {
            self.main_blocked = self.main.resume(context)? == Flow::Blocked;
        }
        for side in self.sides.iter_mut().flatten().filter(|side| side.blocked) {
            side.blocked = side.node.resume(context)? == Flow::Blocked;
        }
        Ok(self.flow())
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.main_blocked = self.main.flush(context)? == Flow::Blocked;
        for side in self.sides.iter_mut().flatten() {
            side.blocked = side.node.flush(context)? == Flow::Blocked;
        }
        Ok(self.flow())
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        let mut left = self.main.encode_slice(entries, context)?;
        for side in self.sides.iter_mut().flatten() {
            left += side.node.encode_slice(entries, context)?;
        }
        Ok(left)
    }
}
