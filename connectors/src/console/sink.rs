//! One line per record.

use std::fmt::{Debug, Display};
use std::io::{self, Write};
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{IntoSink, Sink, SinkDeclaration, SinkSpec};
use serde::Serialize;

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
    /// A record has no JSON form. The attempt fails, and will again.
    #[error("cannot print a record as JSON; keys of maps must be strings or numbers")]
    Json {
        /// What the serializer said.
        source: serde_json::Error,
    },
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

/// Marks the JSON form.
#[derive(Clone, Copy, Debug)]
pub struct AsJson;

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

impl Console<AsJson> {
    /// Prints records as JSON Lines: each record is one JSON value by its `Serialize`, on one line whatever is in it. A value
    /// that JSON cannot express, such as a map whose keys are no strings or numbers, fails the attempt; NaN and infinities
    /// become `null`.
    pub fn json() -> Self {
        Self { form: AsJson }
    }
}

impl<T: Display + 'static> IntoSink<T> for Console<AsDisplay> {
    fn declaration(&self) -> SinkDeclaration {
        declaration("text lines (Display)")
    }

    fn into_sink(self) -> SinkSpec<T> {
        let Self { form: AsDisplay } = self;
        spec(|value, line| Ok(write!(line, "{value}")?))
    }
}

impl<T: Debug + 'static> IntoSink<T> for Console<AsDebug> {
    fn declaration(&self) -> SinkDeclaration {
        declaration("text lines (Debug)")
    }

    fn into_sink(self) -> SinkSpec<T> {
        let Self { form: AsDebug } = self;
        spec(|value, line| Ok(write!(line, "{value:?}")?))
    }
}

impl<T: Serialize + 'static> IntoSink<T> for Console<AsJson> {
    fn declaration(&self) -> SinkDeclaration {
        declaration("JSON lines (Serialize)")
    }

    fn into_sink(self) -> SinkSpec<T> {
        let Self { form: AsJson } = self;
        spec(to_json)
    }
}

fn to_json<T: Serialize>(value: &T, line: &mut Vec<u8>) -> Result<(), BoxError> {
    serde_json::to_writer(line, value).map_err(|source| Box::new(ConsoleError::Json { source }) as BoxError)
}

fn declaration(form: &'static str) -> SinkDeclaration {
    SinkDeclaration::new("Console").form(form).after_restart("lines of the epochs that were open come again")
}

type Form<T> = fn(&T, &mut Vec<u8>) -> Result<(), BoxError>;

fn spec<T: 'static>(form: Form<T>) -> SinkSpec<T> {
    SinkSpec::Direct(Arc::new(move || Ok(Box::new(Printer { out: io::stdout(), form, line: Vec::new() }))))
}

struct Printer<T, W> {
    out: W,
    form: Form<T>,
    line: Vec<u8>,
}

impl<T: 'static, W: Write + 'static> Sink<T> for Printer<T, W> {
    fn write(&mut self, value: T) -> Result<(), BoxError> {
        self.line.clear();
        (self.form)(&value, &mut self.line)?;
        self.line.push(b'\n');
        // In one call, which holds standard output's lock: lines of several subtasks do not mix.
        Ok(self.out.write_all(&self.line).map_err(console_error)?)
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
    use crate::testing::{DirectOutside, sink_conformance};

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
        let mut printer = Printer { out, form: |value: &&str, line| Ok(write!(line, "{value:?}")?), line: Vec::new() };
        printer.write("a\nb").unwrap();
        printer.write("c").unwrap();
        printer.flush(Epoch::new(1)).unwrap();
        assert_eq!(*text.lock().unwrap(), [b"\"a\\nb\"\n".to_vec(), b"\"c\"\n".to_vec()]);
    }

    /// Standard output that keeps what it was given.
    struct Terminal(Out);

    impl DirectOutside for Terminal {
        fn connect(&self) -> Box<dyn Sink<String>> {
            Box::new(Printer { out: self.0.clone(), form: to_json, line: Vec::new() })
        }

        fn visible(&self) -> Vec<String> {
            let text = self.0.text.lock().unwrap().concat();
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[test]
    fn keeps_the_contract_of_a_level_1_sink() {
        sink_conformance(|| Terminal(Out::default())).unwrap();
    }

    #[test]
    fn writes_each_record_as_one_line_of_json_or_says_why_not() {
        #[derive(Serialize)]
        struct Reading {
            name: &'static str,
            value: f64,
        }
        let out = Out::default();
        let text = Arc::clone(&out.text);
        let mut printer = Printer { out, form: to_json, line: Vec::new() };
        printer.write(Reading { name: "a \"b\"\n\u{1}ü", value: 1.5 }).unwrap();
        printer.write(Reading { name: "", value: f64::NAN }).unwrap();
        let lines =
            text.lock().unwrap().iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect::<Vec<_>>();
        let expected = ["{\"name\":\"a \\\"b\\\"\\n\\u0001ü\",\"value\":1.5}\n", "{\"name\":\"\",\"value\":null}\n"];
        assert_eq!(lines, expected);
        let mut printer = Printer { out: Out::default(), form: to_json, line: Vec::new() };
        let error = printer.write(std::collections::BTreeMap::from([((1, 2), 3)])).unwrap_err();
        assert_eq!(error.to_string(), "cannot print a record as JSON; keys of maps must be strings or numbers");
    }

    #[test]
    fn says_clearly_that_the_reader_is_gone() {
        let out = Out { fails: Some(io::ErrorKind::BrokenPipe), ..Out::default() };
        let mut printer = Printer { out, form: |value: &u8, line| Ok(write!(line, "{value}")?), line: Vec::new() };
        for error in [printer.write(1).unwrap_err(), printer.flush(Epoch::new(1)).unwrap_err()] {
            assert!(error.to_string().contains("the reader of standard output is gone"), "{error}");
        }
    }
}
