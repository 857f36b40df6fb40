//! What a row of the suite is, and how far it is.

/// How a row stands in one of the two modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The test of this name shows it. Relative to the group's module, or of another theme.
    Passes(&'static str),
    /// It says nothing of this mode, or of an API with types. The reason.
    NotApplicable(&'static str),
    /// Nothing shows it yet. The reason.
    Open(&'static str),
}

/// One row: a sentence of the specification that a test can decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: &'static str,
    /// What it checks.
    pub(super) checks: &'static str,
    /// In continuous mode.
    pub(super) continuous: Standing,
    /// In micro-batches.
    pub(super) batches: Standing,
}

/// The rows of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// `MODE` of S-MODE-01.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The module that has its tests.
    pub(super) module: &'static str,
    pub(super) rows: &'static [Row],
}

/// Begins a row that nothing shows yet.
pub(super) const fn row(id: &'static str, checks: &'static str) -> Row {
    let open = Standing::Open("not tested yet");
    Row { id, checks, continuous: open, batches: open }
}

const MICRO_BATCHES_ONLY: Standing = Standing::NotApplicable("a rule of micro-batches");
const CONTINUOUS_ONLY: Standing = Standing::NotApplicable("a rule of continuous mode");

impl Row {
    /// One test shows it in both modes.
    pub(super) const fn passes(self, test: &'static str) -> Self {
        self.both(Standing::Passes(test))
    }

    pub(super) const fn open(self, reason: &'static str) -> Self {
        self.both(Standing::Open(reason))
    }

    pub(super) const fn not_applicable(self, reason: &'static str) -> Self {
        self.both(Standing::NotApplicable(reason))
    }

    const fn both(self, standing: Standing) -> Self {
        Self { continuous: standing, batches: standing, ..self }
    }

    /// How it stands in continuous mode.
    pub(super) const fn c(self, continuous: Standing) -> Self {
        Self { continuous, ..self }
    }

    /// How it stands in micro-batches.
    pub(super) const fn m(self, batches: Standing) -> Self {
        Self { batches, ..self }
    }

    /// A row of continuous mode only.
    pub(super) const fn only_c(self) -> Self {
        self.m(CONTINUOUS_ONLY)
    }

    /// A row of micro-batches only.
    pub(super) const fn only_m(self) -> Self {
        self.c(MICRO_BATCHES_ONLY)
    }
}
