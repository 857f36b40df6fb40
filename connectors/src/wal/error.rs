//! What can go wrong between a source and its log.

use millstream_runtime::codec::CodecError;
use millstream_runtime::state::store::StoreError;

/// A write-ahead log cannot be used, or does not fit the pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// The store of the log failed. What was taken from the source and is not in the log is kept and written again when
    /// the next attempt opens it, as long as the process lives.
    #[error("cannot use the write-ahead log {name} at {place}")]
    Store {
        /// The log.
        name: String,
        /// Where its store is.
        place: String,
        /// What the store said.
        source: StoreError,
    },
    /// The pipeline goes on before the first record that is still in the log: its state is older than what was removed, or
    /// is gone.
    #[error(
        "cannot go on with record {wanted} of split {split}: the write-ahead log {name} begins with record {first}; \
         what was committed before is removed from it. Start from the newest state of this pipeline, or give the log \
         another name to do without those records"
    )]
    Removed {
        /// The log.
        name: String,
        /// The split.
        split: String,
        /// The record that the pipeline wants.
        wanted: u64,
        /// The first one in the log.
        first: u64,
    },
    /// The pipeline goes on behind the last record of the log: the log is another one, or has lost records.
    #[error(
        "cannot go on with record {wanted} of split {split}: the write-ahead log {name} ends before record {next}; is \
         this the log that the pipeline had? bring it back, or give log and source new names to begin anew"
    )]
    Behind {
        /// The log.
        name: String,
        /// The split.
        split: String,
        /// The record that the pipeline wants.
        wanted: u64,
        /// The next one of the log.
        next: u64,
    },
    /// The saved position is none of a log: the source had none before.
    #[error(
        "cannot go on in split {split} at {position}: it is no position of a write-ahead log; was the source without \
         one before? give it a new name"
    )]
    Foreign {
        /// The split.
        split: String,
        /// The position.
        position: String,
    },
    /// The log was written by a newer version of this library.
    #[error(
        "the write-ahead log {name} at {place} has format {format}, this version of millstream reads formats up to {known}; \
         go on with the version that wrote it, or a later one"
    )]
    Format {
        /// The log.
        name: String,
        /// Where its store is.
        place: String,
        /// Its format.
        format: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// The log's content is damaged, or was not written by this library.
    #[error("the write-ahead log {name} is damaged{}: {what}", of_split(split.as_deref()))]
    Damaged {
        /// The log.
        name: String,
        /// The split, unless it is what all have in common.
        split: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// A batch of records cannot be written or read back.
    #[error("cannot keep records of split {split} in the write-ahead log {name}")]
    Codec {
        /// The log.
        name: String,
        /// The split.
        split: String,
        /// What the codec said.
        source: CodecError,
    },
    /// The bound of the log is zero.
    #[error("no record fits into max_bytes(0); give the write-ahead log at least 1 byte")]
    NoRoom,
}

fn of_split(split: Option<&str>) -> String {
    split.map(|split| format!(" in split {split}")).unwrap_or_default()
}
