//! The items of an iterator, by their index.

use std::fmt;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};

use crate::only_split::OnlySplit;

const SPLIT: OnlySplit = OnlySplit("iter");

type Items<T> = Box<dyn Iterator<Item = T> + Send>;

/// Hands out the items of an iterator: of a `Vec`, a range, or whatever a function returns.
///
/// One split. The **position** is the index of the next item. After a restart the iterator is made again and the items
/// before the position are passed over, so the source is replayable and each item counts exactly once, also after a
/// restart of the process, **if the iterator made again has the same items in the same order**. That of a `HashMap` has
/// not. One that has fewer items than were read is an error.
///
/// `next` is called on the reader's thread and should not wait for something outside: while it waits, no other split
/// of that thread is read. What can be iterated only once, or waits, goes through a [`feed`](crate::channel::feed()) or a
/// [`StreamSource`](crate::stream::StreamSource).
///
/// # Examples
/// ```
/// use millstream_connectors::iter::IterSource;
///
/// let words = IterSource::new(vec!["to", "be", "or", "not"]);
/// let squares = IterSource::from_fn(|| (0u64..).map(|number| number * number));
/// # let _ = (words, squares);
/// ```
#[must_use]
pub struct IterSource<T> {
    make: Arc<dyn Fn() -> Items<T> + Send + Sync>,
}

/// An iterator cannot be read from where it stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IterSourceError {
    /// The iterator that was made again ends before the saved position: its items are others.
    #[error(
        "cannot go on with item {next}: the iterator ends before it now; it has to have the same items in the same \
         order at every start"
    )]
    Shorter {
        /// The saved position.
        next: u64,
    },
    /// The saved split or position was made by another kind of source under the same name.
    #[error(
        "cannot go on in split {split} at {position}: it is no iterator's; was this source of another kind? give it a \
         new name"
    )]
    Foreign {
        /// The split.
        split: String,
        /// The position.
        position: String,
    },
}

impl<T: 'static> IterSource<T> {
    /// Hands out the items of `items`. A clone of it is made at every start of the job.
    pub fn new<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T, IntoIter: Send + 'static> + Clone + Send + Sync + 'static,
    {
        Self::from_fn(move || items.clone())
    }

    /// Hands out the items of what `make` returns. It is called at every start of the job, on the reader's thread.
    pub fn from_fn<I>(make: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = T, IntoIter: Send + 'static>,
    {
        Self { make: Arc::new(move || Box::new(make().into_iter())) }
    }
}

impl<T> fmt::Debug for IterSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IterSource").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Source for IterSource<T> {
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(SPLIT.list())
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("IterSource")
            .records("the items of an iterator")
            .position("index of the next item")
            .guarantee(Guarantee::ExactlyOnce, "if the iterator made again has the same items in the same order")
            .after_restart("the iterator is made again and goes on with the first item of the epoch that was open")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let next = SPLIT.start(split, from).ok_or_else(|| IterSourceError::Foreign {
            split: split.to_string(),
            position: from.map_or_else(String::new, Position::to_string),
        })?;
        let mut items = (self.make)();
        pass_over(&mut items, next)?;
        Ok(Box::new(IterReader { items, next }))
    }
}

fn pass_over<T>(items: &mut Items<T>, count: u64) -> Result<(), IterSourceError> {
    let mut left = count;
    while left > 0 {
        // `nth` takes one more than it is told, and is a jump where the iterator knows how.
        let step = usize::try_from(left).unwrap_or(usize::MAX);
        items.nth(step - 1).ok_or(IterSourceError::Shorter { next: count })?;
        left -= step as u64;
    }
    Ok(())
}

struct IterReader<T> {
    items: Items<T>,
    next: u64,
}

impl<T: Send> Reader<T> for IterReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let mut count = 0;
        // Not `extend` and a look at the count: an iterator must not be asked again after it has ended.
        let polled = loop {
            if count == limit {
                break Polled::More;
            }
            let Some(item) = self.items.next() else { break Polled::End };
            batch.records.push(Record::new(item));
            count += 1;
        };
        self.next += count as u64;
        batch.end = Position::from_u64(self.next);
        Ok(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open<T: Send + 'static>(source: &IterSource<T>, from: Option<u64>) -> Result<Box<dyn Reader<T>>, BoxError> {
        source.reader(&source.splits().unwrap()[0], from.map(Position::from_u64).as_ref())
    }

    fn rest<T: Send + 'static>(source: &IterSource<T>, from: u64) -> Vec<T> {
        let mut reader = open(source, Some(from)).unwrap();
        let mut batch = Batch::default();
        while reader.poll(&mut batch, 2).unwrap() != Polled::End {}
        batch.records.into_iter().map(|record| record.value).collect()
    }

    #[test]
    fn goes_on_at_every_position_it_gave() {
        let source = IterSource::new(vec!["a", "b", "c", "d", "e"]);
        let all = rest(&source, 0);
        assert_eq!(all, ["a", "b", "c", "d", "e"]);
        let mut reader = open(&source, None).unwrap();
        for taken in 1..=5 {
            let mut batch = Batch::default();
            assert_eq!(reader.poll(&mut batch, 1).unwrap(), Polled::More);
            assert_eq!(batch.end.as_u64(), Some(taken));
            assert_eq!(rest(&source, taken), all[taken as usize..]);
        }
        let mut batch = Batch::default();
        assert_eq!((reader.poll(&mut batch, 1).unwrap(), batch.end.as_u64()), (Polled::End, Some(5)));
    }

    #[test]
    fn makes_the_iterator_of_a_function_anew() {
        let source = IterSource::from_fn(|| (0u64..5).map(|number| number * number));
        assert_eq!(rest(&source, 0), [0, 1, 4, 9, 16]);
        assert_eq!(rest(&source, 3), [9, 16]);
        assert!(rest(&IterSource::new(Vec::<u8>::new()), 0).is_empty());
    }

    #[test]
    fn an_endless_iterator_is_read_as_far_as_it_is_asked() {
        let mut reader = open(&IterSource::new(7u64..), Some(1 << 40)).unwrap();
        let mut batch = Batch::default();
        assert_eq!(reader.poll(&mut batch, 3).unwrap(), Polled::More);
        let values: Vec<u64> = batch.records.into_iter().map(|record| record.value).collect();
        assert_eq!(values, [(1 << 40) + 7, (1 << 40) + 8, (1 << 40) + 9]);
    }

    #[test]
    fn refuses_an_iterator_that_lost_items_and_positions_of_others() {
        let source = IterSource::new(vec![1, 2, 3]);
        assert!(rest(&source, 3).is_empty());
        let error = open(&source, Some(4)).err().unwrap().to_string();
        assert!(error.contains("item 4") && error.contains("same items in the same order"), "{error}");
        let position = Position::from_bytes(vec![1]).unwrap();
        assert!(source.reader(&SplitId::new("iter"), Some(&position)).is_err());
        assert!(source.reader(&SplitId::new("feed"), None).is_err());
    }
}
