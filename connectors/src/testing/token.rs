//! The contract of a level-2 sink: the crash table of exactly-once delivery.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{EpochBatch, Rows, RowsBuilder, SinkErrorKind, Token, TokenSink};

use super::{Nonconformance, context, kill, wrong};

/// What the test does at a step of a connector; see [`Outside::connect_at`].
pub type AtStep = Arc<dyn Fn() + Send + Sync>;

/// An outside system as the test of a level-2 sink needs it: one target, at first empty.
pub trait Outside {
    /// Makes a new connector to the target, as after a restart.
    fn connect(&self) -> Box<dyn TokenSink>;

    /// Makes a connector that calls `act` at its `step`-th step, counted from 0 through `open` and `apply`, with no lock held that
    /// another instance needs, and goes on when it returns. A step is a place between two effects outside, such as a sync, a
    /// rename, a request. `act` may unwind, as if the process died there; the connector must not catch that. Nothing
    /// if the connector has no such steps: what it does outside is one call; then only whole calls are tested.
    fn connect_at(&self, step: usize, act: AtStep) -> Option<Box<dyn TokenSink>> {
        let _ = (step, act);
        None
    }

    /// Makes a connector that stops at its `step`-th step, as [`Outside::connect_at`] counts: it unwinds, as if the process
    /// died there, or returns an error, as if the operation failed there. Beyond its last step it must work. By default it
    /// unwinds.
    fn connect_failing(&self, step: usize) -> Option<Box<dyn TokenSink>> {
        // Without a message from the panic hook.
        self.connect_at(step, Arc::new(|| std::panic::resume_unwind(Box::new("stopped"))))
    }

    /// Reads what a reader of the target sees now: all rows in the order of (epoch, place).
    fn visible(&self) -> Vec<Vec<u8>>;
}

/// Tests a connector against its contract: it kills it before, in and after every `apply` and `open`, opens it again and again,
/// regroups epochs, lets an older instance work in the middle of a newer one's opening and wake up after it, and compares what
/// the outside shows with what was delivered. `fresh` makes a new, empty target for each case.
///
/// What it cannot see: a rare interleaving inside one step, and whether the outside system keeps what it has acknowledged.
///
/// # Errors
/// [`Nonconformance`], the first that is found.
pub fn token_sink_conformance<O: Outside>(fresh: impl Fn() -> O) -> Result<(), Nonconformance> {
    for calls in 0..=7 {
        survives_a_kill_between_calls(&fresh(), calls)?;
    }
    delivers_and_remembers(&fresh())?;
    groups_epochs_and_skips_numbers(&fresh())?;
    shuts_out_an_older_instance(&fresh())?;
    for step in 0..MOST_STEPS {
        if !opens_while_an_older_one_delivers(&fresh(), step)? {
            break;
        }
    }
    for again in [Again::Same, Again::Grouped] {
        for step in 0..MOST_STEPS {
            if !survives_a_stop(&fresh(), step, again)? {
                break;
            }
        }
    }
    Ok(())
}

/// Far more steps than a connector has; the first that is not reached ends a case.
const MOST_STEPS: usize = 1000;

/// How the batch comes after the stop: as before, or together with epochs that were committed meanwhile.
#[derive(Clone, Copy, Debug)]
enum Again {
    Same,
    Grouped,
}

fn delivers_and_remembers(outside: &impl Outside) -> Result<(), Nonconformance> {
    let case = "nothing was delivered yet";
    for _ in 0..3 {
        expect(case, "token", &open(case, outside.connect().as_mut())?, &Token::default())?;
    }
    for epoch in 1..4 {
        let case = "delivered, and stopped before it was recorded";
        let mut sink = outside.connect();
        let before = if epoch == 1 { Token::default() } else { Token { next: Epoch::new(epoch) } };
        expect(case, "token", &open(case, sink.as_mut())?, &before)?;
        apply(case, sink.as_mut(), &[epoch])?;
        kill(sink);
        expect(case, "token", &open(case, outside.connect().as_mut())?, &Token { next: Epoch::new(epoch + 1) })?;
        expect_rows(case, outside, 1..=epoch)?;
    }
    Ok(())
}

fn groups_epochs_and_skips_numbers(outside: &impl Outside) -> Result<(), Nonconformance> {
    let case = "several epochs at once, with empty ones between them";
    let mut sink = outside.connect();
    open(case, sink.as_mut())?;
    apply(case, sink.as_mut(), &[2, 5, 9])?;
    apply(case, sink.as_mut(), &[10])?;
    apply(case, sink.as_mut(), &[400, 401])?;
    expect(case, "token", &open(case, outside.connect().as_mut())?, &Token { next: Epoch::new(402) })?;
    expect_rows(case, outside, [2, 5, 9, 10, 400, 401])
}

fn shuts_out_an_older_instance(outside: &impl Outside) -> Result<(), Nonconformance> {
    let case = "an older instance is still alive";
    let mut old = outside.connect();
    open(case, old.as_mut())?;
    apply(case, old.as_mut(), &[1])?;
    let mut new = outside.connect();
    expect(case, "token", &open(case, new.as_mut())?, &Token { next: Epoch::new(2) })?;
    let refused = old.apply(&batch_of(case, &rows_of([2]))?);
    expect(case, "the older one's apply", &refused.map_err(|error| error.kind), &Err(SinkErrorKind::Fenced))?;
    expect_rows(case, outside, [1])?;
    apply(case, new.as_mut(), &[2])?;
    let refused = old.apply(&batch_of(case, &rows_of([3]))?);
    expect(case, "the older one's second apply succeeds", &refused.is_ok(), &false)?;
    expect_rows(case, outside, [1, 2])
}

/// Delivers four epochs, and is killed and opened again after so many calls, once.
fn survives_a_kill_between_calls(outside: &impl Outside, calls: usize) -> Result<(), Nonconformance> {
    let case = format!("killed after {calls} calls");
    let case = case.as_str();
    let mut sink = outside.connect();
    let (mut next, mut made) = (1, 0);
    while next <= 4 || made <= calls {
        if made == calls {
            kill(std::mem::replace(&mut sink, outside.connect()));
        }
        // Opening twice in one attempt is as good as once, on a new instance.
        if made % 2 == 0 {
            kill(std::mem::replace(&mut sink, outside.connect()));
        }
        if made % 2 == 0 || made == calls {
            let token = if next == 1 { Token::default() } else { Token { next: Epoch::new(next) } };
            expect(case, "token", &open(case, sink.as_mut())?, &token)?;
        }
        if made % 2 == 1 && next <= 4 {
            apply(case, sink.as_mut(), &[next])?;
            next += 1;
        }
        expect_rows(case, outside, 1..next)?;
        made += 1;
    }
    Ok(())
}

/// An older instance delivers at one step of a newer one's `open`: what it could deliver, the newer one's token must say, and
/// what it could not must not be there. Returns whether there was such a step.
fn opens_while_an_older_one_delivers(outside: &impl Outside, step: usize) -> Result<bool, Nonconformance> {
    let case = format!("an older instance delivers at step {step} of an opening");
    let case = case.as_str();
    let mut old = outside.connect();
    open(case, old.as_mut())?;
    apply(case, old.as_mut(), &[1])?;
    let old = Arc::new(Mutex::new((old, None)));
    let acting = Arc::clone(&old);
    let act = move || {
        let mut old = acting.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows_of([2]);
        if old.1.is_none()
            && let Some(batch) = EpochBatch::new(&rows)
        {
            old.1 = Some(old.0.apply(&batch).is_ok());
        }
    };
    let Some(mut new) = outside.connect_at(step, Arc::new(act)) else { return Ok(false) };
    let token = open(case, new.as_mut())?;
    let Some(delivered) = old.lock().unwrap_or_else(PoisonError::into_inner).1 else { return Ok(false) };
    let next = if delivered { 3 } else { 2 };
    expect(case, "token", &token, &Token { next: Epoch::new(next) })?;
    expect_rows(case, outside, 1..next)?;
    if !delivered {
        apply(case, new.as_mut(), &[2])?;
    }
    apply(case, new.as_mut(), &[3])?;
    expect_rows(case, outside, 1..=3)?;
    Ok(true)
}

/// Stops at one step of `open` or of the second `apply`. Returns whether there was such a step.
fn survives_a_stop(outside: &impl Outside, step: usize, again: Again) -> Result<bool, Nonconformance> {
    let case = format!("stopped at step {step}, delivered again as {again:?}");
    let case = case.as_str();
    let mut before = outside.connect();
    open(case, before.as_mut())?;
    apply(case, before.as_mut(), &[1])?;
    kill(before);

    let Some(mut failing) = outside.connect_failing(step) else { return Ok(false) };
    let batch = [2, 3];
    let passed = catch_unwind(AssertUnwindSafe(|| -> Result<bool, Nonconformance> {
        if failing.open(&context(8)).is_err() {
            return Ok(false);
        }
        let rows = rows_of(batch);
        let batch = batch_of(case, &rows)?;
        match failing.apply(&batch) {
            Ok(()) => Ok(true),
            // Nothing happened, says the sink: then the same connector must be able to do it now.
            Err(error) if error.kind == SinkErrorKind::Retry => {
                failing.apply(&batch).map_err(|error| wrong(case, format!("a second try failed: {error}")))?;
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }));
    kill(failing);
    let passed = match passed {
        Ok(passed) => passed?,
        Err(_stopped) => false,
    };

    // Recovery, which may die too: every opening must say the same.
    let mut sink = outside.connect();
    let token = open(case, sink.as_mut())?;
    for _ in 0..2 {
        sink = outside.connect();
        expect(case, "token at another opening", &open(case, sink.as_mut())?, &token)?;
    }
    match token.next.number() {
        2 => {
            expect_rows(case, outside, [1])?;
            match again {
                Again::Same => apply(case, sink.as_mut(), &batch)?,
                Again::Grouped => apply(case, sink.as_mut(), &[2, 3, 4])?,
            }
        }
        4 => {
            expect_rows(case, outside, [1, 2, 3])?;
            if let Again::Grouped = again {
                apply(case, sink.as_mut(), &[4])?;
            }
        }
        other => return Err(wrong(case, format!("token says epoch {other}, neither before nor after the batch"))),
    }
    match again {
        Again::Same => expect_rows(case, outside, 1..=3)?,
        Again::Grouped => expect_rows(case, outside, 1..=4)?,
    }
    apply(case, sink.as_mut(), &[7])?;
    Ok(!passed)
}

fn open(case: &str, sink: &mut dyn TokenSink) -> Result<Token, Nonconformance> {
    sink.open(&context(7)).map_err(|error| wrong(case, format!("open failed: {error}")))
}

fn apply(case: &str, sink: &mut dyn TokenSink, epochs: &[u64]) -> Result<(), Nonconformance> {
    let rows = rows_of(epochs.iter().copied());
    sink.apply(&batch_of(case, &rows)?).map_err(|error| wrong(case, format!("apply of {epochs:?} failed: {error}")))
}

/// The rows of an epoch: as many as its number modulo 3, and one. Each is one MessagePack string.
fn texts(epoch: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..=epoch % 3).map(move |seq| {
        let text = format!("epoch {epoch} row {seq}");
        let mut row = vec![0xa0 | u8::try_from(text.len()).unwrap_or(0x1f)];
        row.extend_from_slice(text.as_bytes());
        row
    })
}

fn rows_of(epochs: impl IntoIterator<Item = u64>) -> Vec<Rows> {
    let rows = |epoch| {
        let mut builder = RowsBuilder::default();
        for text in texts(epoch) {
            let written: Result<(), std::convert::Infallible> = builder.push(|out| {
                out.extend_from_slice(&text);
                Ok(())
            });
            written.unwrap_or_else(|never| match never {});
        }
        Rows::new(Epoch::new(epoch), builder.take().0)
    };
    epochs.into_iter().map(rows).collect()
}

fn batch_of<'a>(case: &str, rows: &'a [Rows]) -> Result<EpochBatch<'a>, Nonconformance> {
    EpochBatch::new(rows).ok_or_else(|| wrong(case, "the test made a batch without epochs".into()))
}

fn expect<T: PartialEq + fmt::Debug>(case: &str, what: &str, seen: &T, expected: &T) -> Result<(), Nonconformance> {
    if seen == expected { Ok(()) } else { Err(wrong(case, format!("{what}: saw {seen:?}, expected {expected:?}"))) }
}

fn expect_rows(
    case: &str,
    outside: &impl Outside,
    epochs: impl IntoIterator<Item = u64>,
) -> Result<(), Nonconformance> {
    let text = |rows: &[Vec<u8>]| -> Vec<String> {
        rows.iter().map(|row| String::from_utf8_lossy(row.get(1..).unwrap_or_default()).into_owned()).collect()
    };
    let (seen, expected) = (outside.visible(), epochs.into_iter().flat_map(texts).collect::<Vec<_>>());
    expect(case, "rows", &text(&seen), &text(&expected))?;
    // The first byte of each, which the text leaves out.
    expect(case, "bytes of the rows", &seen, &expected)
}
