//! What windows and duplicates come to, computed record by record from their definitions: no channels, no epochs, no state store. Windows
//! are found by trying every start, in numbers that cannot overflow; panes lie in a list that is searched.

use std::collections::BTreeMap;

/// Which windows a record is in. Microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Windows {
    Grid { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
}

/// Start and end of a window, in microseconds.
pub(crate) type Bounds = (i64, i64);

/// A key's window with what became of its values: how many there are, their sum, and the greatest.
pub(crate) type Row = (u64, Bounds, (u64, i64, Option<i64>));

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) late: u64,
    pub(crate) late_in_part: u64,
    pub(crate) in_no_window: u64,
    pub(crate) duplicates: u64,
}

#[derive(Clone, Debug)]
struct Pane {
    key: u64,
    bounds: Bounds,
    values: Vec<i64>,
}

impl Pane {
    fn row(&self) -> Row {
        let (count, sum, most) = (self.values.len() as u64, self.values.iter().sum(), self.values.iter().max());
        (self.key, self.bounds, (count, sum, most.copied()))
    }
}

/// An aggregation of windows.
#[derive(Clone, Debug)]
pub(crate) struct Aggregation {
    windows: Windows,
    lateness: i64,
    /// Whether windows are closed, and records late: not in complete.
    closes: bool,
    panes: Vec<Pane>,
    watermark: Option<i64>,
    pub(crate) dropped: Dropped,
}

fn cut(micros: i128) -> i64 {
    micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl Windows {
    /// The windows of a time, the earliest first.
    pub(crate) fn of(self, time: i64) -> Vec<Bounds> {
        match self {
            Self::Session { gap } => vec![(time, time.saturating_add(gap))],
            Self::Grid { size, slide, offset } => {
                let [time, size, slide, offset] = [time, size, slide, offset].map(i128::from);
                let near = (time - offset).div_euclid(slide);
                let starts = (near - size / slide - 2..=near + 2).map(|number| number * slide + offset);
                let holding = starts.filter(|start| *start <= time && time < start + size);
                holding.map(|start| (cut(start), cut(start + size))).collect()
            }
        }
    }
}

impl Aggregation {
    pub(crate) const fn new(windows: Windows, lateness: i64) -> Self {
        let dropped = Dropped { late: 0, late_in_part: 0, in_no_window: 0, duplicates: 0 };
        Self { windows, lateness, closes: true, panes: Vec::new(), watermark: None, dropped }
    }

    /// One that keeps all.
    pub(crate) fn complete(windows: Windows) -> Self {
        Self { closes: false, ..Self::new(windows, 0) }
    }

    /// When a window is closed: nothing that comes later counts.
    fn bound(&self, (_, end): Bounds) -> i64 {
        end.saturating_add(self.lateness)
    }

    fn is_late(&self, bounds: Bounds) -> bool {
        let bound = self.bound(bounds);
        self.closes && (bound <= 0 || self.watermark.is_some_and(|watermark| bound <= watermark))
    }

    /// Takes a record and returns what its windows have come to.
    pub(crate) fn record(&mut self, key: u64, time: Option<i64>, value: i64) -> Vec<Row> {
        let Some(time) = time else {
            self.dropped.in_no_window += 1;
            return Vec::new();
        };
        let all = self.windows.of(time);
        let (late, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|bounds| self.is_late(*bounds));
        match (late.len(), open.len()) {
            (_, 0) => self.dropped.late += 1,
            (0, _) => {}
            _ => self.dropped.late_in_part += 1,
        }
        open.into_iter().map(|bounds| self.add(key, bounds, value)).collect()
    }

    fn add(&mut self, key: u64, bounds: Bounds, value: i64) -> Row {
        let session = matches!(self.windows, Windows::Session { .. });
        let meets = |other: Bounds| match session {
            true => other.0 <= bounds.1 && bounds.0 <= other.1,
            false => other == bounds,
        };
        let mut pane = Pane { key, bounds, values: vec![value] };
        self.panes.retain(|other| {
            let joined = other.key == key && meets(other.bounds);
            if joined {
                pane.bounds = (pane.bounds.0.min(other.bounds.0), pane.bounds.1.max(other.bounds.1));
                pane.values.extend(&other.values);
            }
            !joined
        });
        let row = pane.row();
        self.panes.push(pane);
        row
    }

    /// Takes a watermark and returns the windows that it closes.
    pub(crate) fn watermark(&mut self, watermark: i64) -> Vec<Row> {
        let watermark = self.watermark.map_or(watermark, |before| before.max(watermark));
        self.watermark = Some(watermark);
        let (closed, open) = std::mem::take(&mut self.panes)
            .into_iter()
            .partition::<Vec<_>, _>(|pane| self.closes && self.bound(pane.bounds) <= watermark);
        self.panes = open;
        closed.iter().map(Pane::row).collect()
    }

    /// All windows that there are.
    pub(crate) fn table(&self) -> Vec<Row> {
        self.panes.iter().map(Pane::row).collect()
    }
}

/// The first record of each key within a delay of event time.
#[derive(Clone, Debug)]
pub(crate) struct Deduplication {
    delay: i64,
    /// When each key is forgotten.
    seen: BTreeMap<u64, i64>,
    watermark: Option<i64>,
    pub(crate) dropped: Dropped,
}

impl Deduplication {
    pub(crate) const fn new(delay: i64) -> Self {
        let dropped = Dropped { late: 0, late_in_part: 0, in_no_window: 0, duplicates: 0 };
        Self { delay, seen: BTreeMap::new(), watermark: None, dropped }
    }

    /// Says whether a record is sent on.
    pub(crate) fn record(&mut self, key: u64, time: Option<i64>) -> bool {
        if time.is_some_and(|time| self.watermark.is_some_and(|watermark| time <= watermark)) {
            self.dropped.late += 1;
            return false;
        }
        if self.seen.contains_key(&key) {
            self.dropped.duplicates += 1;
            return false;
        }
        self.seen.insert(key, time.map_or(i64::MAX, |time| time.saturating_add(self.delay)));
        true
    }

    pub(crate) fn watermark(&mut self, watermark: i64) {
        let watermark = self.watermark.map_or(watermark, |before| before.max(watermark));
        self.watermark = Some(watermark);
        self.seen.retain(|_, until| *until > watermark);
    }
}
