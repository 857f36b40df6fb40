//! One line per record.

use std::fmt::{self, Debug, Display, Write as _};
use std::io::{self, Write};
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{IntoSink, Sink, SinkSpec};

/// Prints each record as one line to standard output, **as processed**: before its epoch is committed. Delivery is
/// at-least-once: lines of the epochs that were open when an attempt failed come again.
///
/// Lines are written whole; those of several subtasks mix line by line. A terminal that stands still, or a pipe that
/// nobody reads, holds up the worker: this is no sink for production.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Console<F> {
    form: F,
}

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The program that read the output has ended, such as `head`. The attempt fails, and will again.
    #[error("cannot print: the reader of standard output is gone (broken pipe); write to a file to keep the output")]
    BrokenPipe,
    /// The operating system refused otherwise.
    #[error("cannot print to standard output")]
    Io {
        /// What the system said.
        source: io::Error,
    },
}

/// Marks the `Display` form.
#[derive(Clone, Copy, Debug)]
pub struct AsDisplay;

/// Marks the `Debug` form.
#[derive(Clone, Copy, Debug)]
pub struct AsDebug;

impl Console<AsDisplay> {
    /// Prints records by their `Display`. A text with line breaks in it becomes several lines.
    pub fn display() -> Self {
        Self { form: AsDisplay }
    }
}

impl Console<AsDebug> {
    /// Prints records by their `Debug`, each on one line.
    pub fn debug() -> Self {
        Self { form: AsDebug }
    }
}

impl<T: Display + 'static> IntoSink<T> for Console<AsDisplay> {
    fn into_sink(self) -> SinkSpec<T> {
        let Self { form: AsDisplay } = self;
        spec(|value, line| write!(line, "{value}"))
    }
}

impl<T: Debug + 'static> IntoSink<T> for Console<AsDebug> {
    fn into_sink(self) -> SinkSpec<T> {
        let Self { form: AsDebug } = self;
        spec(|value, line| write!(line, "{value:?}"))
    }
}

type Form<T> = fn(&T, &mut String) -> fmt::Result;

fn spec<T: 'static>(form: Form<T>) -> SinkSpec<T> {
    SinkSpec::Direct(Arc::new(move || Ok(Box::new(Printer { out: io::stdout(), form, line: String::new() }))))
}

struct Printer<T, W> {
    out: W,
    form: Form<T>,
    line: String,
}

impl<T: 'static, W: Write + 'static> Sink<T> for Printer<T, W> {
    fn write(&mut self, value: T) -> Result<(), BoxError> {
        self.line.clear();
        (self.form)(&value, &mut self.line)?;
        self.line.push('\n');
        // In one call, which holds standard output's lock: lines of several subtasks do not mix.
        Ok(self.out.write_all(self.line.as_bytes()).map_err(console_error)?)
    }

    fn flush(&mut self, _epoch: Epoch) -> Result<(), BoxError> {
        Ok(self.out.flush().map_err(console_error)?)
    }
}

fn console_error(source: io::Error) -> ConsoleError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => ConsoleError::BrokenPipe,
        _ => ConsoleError::Io { source },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Passes everything on, or fails.
    #[derive(Clone, Default)]
    struct Out {
        text: Arc<Mutex<Vec<Vec<u8>>>>,
        fails: Option<io::ErrorKind>,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.flush()?;
            self.text.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.fails.map_or(Ok(()), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn writes_each_record_as_a_whole_line() {
        let out = Out::default();
        let text = Arc::clone(&out.text);
        let mut printer = Printer { out, form: |value: &&str, line| write!(line, "{value:?}"), line: String::new() };
        printer.write("a\nb").unwrap();
        printer.write("c").unwrap();
        printer.flush(Epoch::new(1)).unwrap();
        assert_eq!(*text.lock().unwrap(), [b"\"a\\nb\"\n".to_vec(), b"\"c\"\n".to_vec()]);
    }

    #[test]
    fn says_clearly_that_the_reader_is_gone() {
        let out = Out { fails: Some(io::ErrorKind::BrokenPipe), ..Out::default() };
        let mut printer = Printer { out, form: |value: &u8, line| write!(line, "{value}"), line: String::new() };
        for error in [printer.write(1).unwrap_err(), printer.flush(Epoch::new(1)).unwrap_err()] {
            assert!(error.to_string().contains("the reader of standard output is gone"), "{error}");
        }
    }
}
