//! Durable numbers of operators and states, by name: what a pipeline may change between two lives and what not.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::OperatorId;

/// What an operator keeps in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OperatorKind {
    /// Positions.
    Source,
    /// State and timers.
    Stateful,
    /// Output that waits for its delivery.
    Sink,
}

impl std::fmt::Display for OperatorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "a source",
            Self::Stateful => "a stateful operator",
            Self::Sink => "a sink",
        })
    }
}

/// An operator as the pipeline declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorDecl {
    /// Its name, unique in the pipeline.
    pub name: String,
    /// What it keeps.
    pub kind: OperatorKind,
    /// Its states.
    pub states: Vec<StateDecl>,
}

/// The shape of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StateKind {
    /// One value per key.
    #[default]
    Value,
    /// A list per key.
    List,
    /// A map per key.
    Map,
}

impl StateKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_value(&self) -> bool {
        *self == Self::Value
    }
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Value => "a value",
            Self::List => "a list",
            Self::Map => "a map",
        })
    }
}

/// A state as an operator declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDecl {
    /// Its name, unique in the operator.
    pub name: String,
    /// The version of its type.
    pub version: u32,
    /// Its shape.
    pub kind: StateKind,
    /// Whether it reads what older versions wrote.
    pub migrates: bool,
    /// The operator gives the state up, if it has it: its rows are removed.
    pub removed: bool,
}

impl StateDecl {
    /// Declares one value per key, which reads only its own version.
    pub fn value(name: impl Into<String>, version: u32) -> Self {
        Self { name: name.into(), version, kind: StateKind::Value, migrates: false, removed: false }
    }

    /// Declares that the operator gives a state up, if it has it.
    pub fn removed(name: impl Into<String>) -> Self {
        Self { removed: true, ..Self::value(name, 1) }
    }
}

/// A state as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// Its number within the operator; stands in entry keys.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// The newest version that wrote it. Elements that were not changed since may be of an older one; they say so themselves.
    pub version: u32,
    /// Its shape. Absent in older stores, which had only values.
    #[serde(default, skip_serializing_if = "StateKind::is_value")]
    pub kind: StateKind,
    /// It was given up. Its number is not given to another one, nor to a later one of its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// Numbers from here on are given to no name: timers and the like.
pub const FIRST_RESERVED_STATE: u16 = 0xFFE0;

/// An operator as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorEntry {
    /// Its number; never given to another name.
    pub id: OperatorId,
    /// Its name.
    pub name: String,
    /// What it keeps.
    pub kind: OperatorKind,
    /// Its states, by number.
    pub states: Vec<StateEntry>,
}

impl OperatorEntry {
    /// Returns the number of a state.
    pub fn state(&self, name: &str) -> Option<u16> {
        self.present().find(|state| state.name == name).map(|state| state.number)
    }

    /// Returns the states that were not given up.
    pub fn present(&self) -> impl Iterator<Item = &StateEntry> {
        self.states.iter().filter(|state| !state.removed)
    }

    fn adopt(&mut self, declared: &OperatorDecl) -> Result<(), NameError> {
        self.kind = declared.kind;
        for StateDecl { name, version, kind, removed, .. } in &declared.states {
            let known = self.states.iter_mut().find(|state| state.name == *name && !state.removed);
            match known {
                Some(state) if *removed => state.removed = true,
                Some(state) => (state.version, state.kind) = (*version, *kind),
                None => {}
            }
            if *removed || self.state(name).is_some() {
                continue;
            }
            let number = u16::try_from(self.states.len()).ok().filter(|number| *number < FIRST_RESERVED_STATE);
            let number = number.ok_or(NameError::TooMany)?;
            let (name, version, kind) = (name.clone(), *version, *kind);
            self.states.push(StateEntry { number, name, version, kind, removed: false });
        }
        Ok(())
    }

    /// Checks the declaration of an operator that has data.
    fn accepts(&self, declared: &OperatorDecl) -> Result<(), NameError> {
        let operator = || self.name.clone();
        if self.kind != declared.kind {
            return Err(NameError::Kind { operator: operator(), stored: self.kind, declared: declared.kind });
        }
        for state in self.present() {
            let Some(now) = declared.states.iter().find(|declared| declared.name == state.name) else {
                let declared = listed(declared.states.iter().map(|state| &state.name));
                return Err(NameError::StateMissing { operator: operator(), state: state.name.clone(), declared });
            };
            if now.removed {
                continue;
            }
            if now.kind != state.kind {
                let (state, stored) = (state.name.clone(), state.kind);
                return Err(NameError::StateKind { operator: operator(), state, stored, declared: now.kind });
            }
            if now.version < state.version || (now.version > state.version && !now.migrates) {
                let (state, stored) = (state.name.clone(), state.version);
                return Err(NameError::Version { operator: operator(), state, stored, declared: now.version });
            }
        }
        Ok(())
    }
}

/// All operators that a store has ever numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameTable {
    operators: Vec<OperatorEntry>,
}

/// What [`NameTable::register`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The table with new operators and states.
    pub(crate) table: NameTable,
    /// Numbers of the declared operators, in their order.
    pub(crate) ids: Vec<OperatorId>,
    /// Those of them that are new.
    pub(crate) new: Vec<OperatorId>,
}

impl NameTable {
    /// Returns an operator by its number.
    pub fn get(&self, id: OperatorId) -> Option<&OperatorEntry> {
        self.operators.iter().find(|operator| operator.id == id)
    }

    /// Returns an operator by its name.
    pub fn named(&self, name: &str) -> Option<&OperatorEntry> {
        self.operators.iter().find(|operator| operator.name == name)
    }

    /// Says whether a state was given up.
    pub(crate) fn is_removed(&self, operator: OperatorId, state: u16) -> bool {
        let known = self.get(operator).and_then(|known| known.states.iter().find(|known| known.number == state));
        known.is_some_and(|known| known.removed)
    }

    /// All operators, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &OperatorEntry> {
        self.operators.iter()
    }

    /// Gives numbers to the operators of a pipeline. `used` are those that have something in the store.
    pub(crate) fn register(
        &self,
        declared: &[OperatorDecl],
        used: &BTreeSet<OperatorId>,
    ) -> Result<Registration, NameError> {
        let names: BTreeSet<&str> = declared.iter().map(|operator| operator.name.as_str()).collect();
        if names.len() < declared.len() {
            return Err(NameError::Duplicate { declared: listed(declared.iter().map(|operator| &operator.name)) });
        }
        let missing = self.iter().filter(|known| used.contains(&known.id) && !names.contains(known.name.as_str()));
        let missing: Vec<&String> = missing.map(|known| &known.name).collect();
        if !missing.is_empty() {
            return Err(NameError::OperatorMissing {
                missing: listed(missing),
                stored: listed(self.iter().filter(|known| used.contains(&known.id)).map(|known| &known.name)),
                declared: listed(declared.iter().map(|operator| &operator.name)),
            });
        }
        let mut found = Registration { table: self.clone(), ids: Vec::new(), new: Vec::new() };
        for operator in declared {
            let id = found.table.enter(operator, used)?;
            if self.get(id).is_none() {
                found.new.push(id);
            }
            found.ids.push(id);
        }
        Ok(found)
    }

    fn enter(&mut self, declared: &OperatorDecl, used: &BTreeSet<OperatorId>) -> Result<OperatorId, NameError> {
        if let Some(known) = self.operators.iter_mut().find(|known| known.name == declared.name) {
            if used.contains(&known.id) {
                known.accepts(declared)?;
            }
            known.adopt(declared)?;
            return Ok(known.id);
        }
        // Entries are never removed, so the count is the next free number. The last number stays free: keys of index
        // records stand behind those of all operators.
        let id = u32::try_from(self.operators.len()).ok().filter(|id| *id < u32::MAX).ok_or(NameError::TooMany)?;
        let id = OperatorId::new(id);
        let mut entry = OperatorEntry { id, name: declared.name.clone(), kind: declared.kind, states: Vec::new() };
        entry.adopt(declared)?;
        self.operators.push(entry);
        Ok(id)
    }
}

fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The pipeline does not fit what the store holds. Nothing was changed; no record is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The store holds something of operators that the pipeline lacks: they were removed or renamed.
    #[error(
        "the store holds state, positions or output of operators that the pipeline lacks: {missing} (the store has: \
         {stored}; the pipeline has: {declared}); give them their names back, or start with an empty store"
    )]
    OperatorMissing {
        /// Those that are missing.
        missing: String,
        /// All that have something in the store.
        stored: String,
        /// All of the pipeline.
        declared: String,
    },
    /// A name means another kind of operator now.
    #[error("operator {operator} was {stored} and is {declared} now; give the new operator a name of its own")]
    Kind {
        /// The operator.
        operator: String,
        /// What the store knows.
        stored: OperatorKind,
        /// What the pipeline says.
        declared: OperatorKind,
    },
    /// An operator lacks a state that it had.
    #[error(
        "operator {operator} had a state {state} that it lacks now (it declares: {declared}); declare it again, or give \
         the operator a new name to start it empty"
    )]
    StateMissing {
        /// The operator.
        operator: String,
        /// The state.
        state: String,
        /// All that it declares.
        declared: String,
    },
    /// A state has another shape now.
    #[error(
        "state {state} of operator {operator} was {stored} and is {declared} now; give the new state a name of its own"
    )]
    StateKind {
        /// The operator.
        operator: String,
        /// The state.
        state: String,
        /// What the store knows.
        stored: StateKind,
        /// What the pipeline says.
        declared: StateKind,
    },
    /// A state was written by a newer version of its type, or by an older one that the pipeline does not migrate.
    #[error(
        "state {state} of operator {operator} was written by version {stored}, the pipeline declares {declared}; go back \
         to version {stored}, migrate an older one, or give the state's operator a new name to start it empty"
    )]
    Version {
        /// The operator.
        operator: String,
        /// The state.
        state: String,
        /// What the store holds.
        stored: u32,
        /// What the pipeline says.
        declared: u32,
    },
    /// Two operators have one name.
    #[error("two operators have one name; the pipeline has: {declared}")]
    Duplicate {
        /// All of the pipeline.
        declared: String,
    },
    /// The store has run out of numbers.
    #[error("the store has no number left for a new operator or state; start with an empty store")]
    TooMany,
}

#[cfg(test)]
mod tests;
