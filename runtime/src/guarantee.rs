//! What a source or a sink says about itself: the README's table and `explain` are made of it.

use std::borrow::Cow;
use std::fmt;

/// How often the effect of a record counts, failures and restarts included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guarantee {
    /// Once: it may be read or delivered again, and the end result is as if it had been once.
    ExactlyOnce,
    /// Once or more often.
    AtLeastOnce,
    /// Once or not at all.
    AtMostOnce,
    /// Nobody said.
    Undeclared,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
            Self::Undeclared => "no guarantee declared",
        })
    }
}

/// What a source says about itself; see [`Source::declaration`](crate::source::Source::declaration).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceDeclaration {
    /// What kind of connector it is: its type's name.
    pub connector: Cow<'static, str>,
    /// What its records are.
    pub records: Cow<'static, str>,
    /// What its positions count.
    pub position: Cow<'static, str>,
    /// How often a record counts in the state of the pipeline.
    pub guarantee: Guarantee,
    /// What the guarantee depends on, as the end of the phrase; empty if on nothing.
    pub condition: Cow<'static, str>,
    /// Where it goes on after a restart.
    pub after_restart: Cow<'static, str>,
}

impl SourceDeclaration {
    /// Begins a declaration in which nothing is said but the connector's name.
    pub fn new(connector: impl Into<Cow<'static, str>>) -> Self {
        Self {
            connector: connector.into(),
            records: Cow::Borrowed(""),
            position: Cow::Borrowed(""),
            guarantee: Guarantee::Undeclared,
            condition: Cow::Borrowed(""),
            after_restart: Cow::Borrowed(""),
        }
    }

    /// Begins a declaration under the name of a type.
    pub fn of<S: ?Sized>() -> Self {
        Self::new(short_name::<S>())
    }

    /// Says what its records are: `lines of a file`.
    #[must_use]
    pub fn records(mut self, records: impl Into<Cow<'static, str>>) -> Self {
        self.records = records.into();
        self
    }

    /// Says what its positions count: `byte offset after the line, per file`.
    #[must_use]
    pub fn position(mut self, position: impl Into<Cow<'static, str>>) -> Self {
        self.position = position.into();
        self
    }

    /// Says how often a record counts, and under which condition, as the end of the phrase: `for the open epoch`; empty if
    /// there is none. A source that returns the same records from a position again is exactly-once.
    #[must_use]
    pub fn guarantee(mut self, guarantee: Guarantee, condition: impl Into<Cow<'static, str>>) -> Self {
        self.guarantee = guarantee;
        self.condition = condition.into();
        self
    }

    /// Says where it goes on after a restart.
    #[must_use]
    pub fn after_restart(mut self, after_restart: impl Into<Cow<'static, str>>) -> Self {
        self.after_restart = after_restart.into();
        self
    }
}

/// What a sink says about itself; see [`IntoSink::declaration`](crate::sink::IntoSink::declaration).
///
/// Its level, and with it the guarantee and whether a record is out as processed or as committed, is not declared: it
/// follows from the traits that the sink implements ([`SinkSpec::level`](crate::sink::SinkSpec::level)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkDeclaration {
    /// What kind of connector it is: its type's name.
    pub connector: Cow<'static, str>,
    /// The form in which records leave.
    pub form: Cow<'static, str>,
    /// What the guarantee depends on, as the end of the phrase; empty if on nothing.
    pub condition: Cow<'static, str>,
    /// What else a record waits for before it is out; empty if for nothing.
    pub waits: Cow<'static, str>,
    /// What becomes of the output of the epochs that were open, or not delivered, after a restart.
    pub after_restart: Cow<'static, str>,
}

impl SinkDeclaration {
    /// Begins a declaration in which nothing is said but the connector's name.
    pub fn new(connector: impl Into<Cow<'static, str>>) -> Self {
        Self {
            connector: connector.into(),
            form: Cow::Borrowed(""),
            condition: Cow::Borrowed(""),
            waits: Cow::Borrowed(""),
            after_restart: Cow::Borrowed(""),
        }
    }

    /// Begins a declaration under the name of a type.
    pub fn of<S: ?Sized>() -> Self {
        Self::new(short_name::<S>())
    }

    /// Says in which form records leave: `text lines (Display)`.
    #[must_use]
    pub fn form(mut self, form: impl Into<Cow<'static, str>>) -> Self {
        self.form = form.into();
        self
    }

    /// Says under which condition the guarantee holds, as the end of the phrase: `for readers of its log`.
    #[must_use]
    pub fn condition(mut self, condition: impl Into<Cow<'static, str>>) -> Self {
        self.condition = condition.into();
        self
    }

    /// Says what else a record waits for before it is out: `when a file is full or 10 s old`.
    #[must_use]
    pub fn waits(mut self, waits: impl Into<Cow<'static, str>>) -> Self {
        self.waits = waits.into();
        self
    }

    /// Says what becomes of output that was not committed, or not delivered, after a restart.
    #[must_use]
    pub fn after_restart(mut self, after_restart: impl Into<Cow<'static, str>>) -> Self {
        self.after_restart = after_restart.into();
        self
    }
}

/// The last part of a type's path, without its parameters.
fn short_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split_once('<').map_or(name, |(name, _)| name);
    name.rsplit_once("::").map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connector_without_a_declaration_is_called_by_its_type_and_promises_nothing() {
        let declared = SourceDeclaration::of::<Option<std::collections::BTreeMap<u8, u8>>>();
        assert_eq!((&*declared.connector, declared.guarantee), ("Option", Guarantee::Undeclared));
        assert_eq!(SinkDeclaration::of::<str>().connector, "str");
    }
}
