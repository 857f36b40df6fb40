//! A function as a sink of level 1.

use std::fmt;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::sink::{IntoSink, Sink, SinkDeclaration, SinkSpec};

/// Calls a function with each record, **as processed**: at once, before its epoch is committed. Delivery is
/// at-least-once: records of the epochs that were open when an attempt failed come again, and what was shown may
/// never be committed.
///
/// The function runs on the pipeline's worker, from several at once if the sink has several subtasks. It must not
/// block: while it does, everything on that worker stands still. To hand records to code that may be slow, use
/// [`channel_sink`](super::channel_sink()), which delivers as committed, from a thread of its own.
pub fn for_each<T, F>(call: F) -> ForEach<impl Fn(T) -> Result<(), BoxError> + Send + Sync + 'static>
where
    F: Fn(T) + Send + Sync + 'static,
{
    try_for_each(move |value| {
        call(value);
        Ok(())
    })
}

/// Calls a function that may fail with each record; otherwise as [`for_each`]. Its error fails the attempt.
pub fn try_for_each<T, F>(call: F) -> ForEach<F>
where
    F: Fn(T) -> Result<(), BoxError> + Send + Sync + 'static,
{
    ForEach { call: Arc::new(call) }
}

/// What [`for_each`] and [`try_for_each`] make.
#[must_use]
pub struct ForEach<F> {
    call: Arc<F>,
}

impl<T, F> IntoSink<T> for ForEach<F>
where
    F: Fn(T) -> Result<(), BoxError> + Send + Sync + 'static,
{
    fn declaration(&self) -> SinkDeclaration {
        SinkDeclaration::new("for_each")
            .form("the value itself, to a function")
            .after_restart("records of the epochs that were open come again")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(ForEach { call: Arc::clone(&self.call) }))))
    }
}

impl<T, F> Sink<T> for ForEach<F>
where
    F: Fn(T) -> Result<(), BoxError> + 'static,
{
    fn write(&mut self, value: T) -> Result<(), BoxError> {
        (self.call)(value)
    }
}

impl<F> fmt::Debug for ForEach<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForEach(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn calls_the_function_with_each_record_and_passes_its_error_on() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let SinkSpec::Direct(factory) = for_each(move |value: u32| into.lock().unwrap().push(value)).into_sink() else {
            panic!("not a level-1 sink")
        };
        let (mut first, mut second) = (factory().unwrap(), factory().unwrap());
        first.write(1).unwrap();
        second.write(2).unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
        let SinkSpec::Direct(factory) = try_for_each(|_: u32| Err("no".into())).into_sink() else {
            panic!("not a level-1 sink")
        };
        assert_eq!(factory().unwrap().write(3).unwrap_err().to_string(), "no");
    }
}
