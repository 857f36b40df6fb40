//! The options of every store, in one place.

use std::fmt;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteBufferManager,
    WriteOptions,
};

use crate::state::store::{Durability, Space};

const MIB: usize = 1 << 20;
/// Below this RocksDB reads the same indexes and writes the same small files over and over.
const LEAST_MEMORY: u64 = 16 << 20;

/// The options of one store: of the database and of each family in it.
pub(super) struct StoreOptions {
    database: Options,
    log: Options,
    cache: Cache,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreOptions")
    }
}

impl StoreOptions {
    /// Every option of a store that differs from RocksDB's defaults or that we rely on; a test pins them. Its caches and buffers take at
    /// most about `memory` bytes together.
    ///
    /// - WAL recovery `TolerateCorruptedTailRecords`: the default, point in time, opens after a flipped bit in the middle of
    ///   the WAL and silently forgets acknowledged writes; the absolute mode refuses every torn tail after a crash.
    /// - No recycled WAL files: their old content makes a torn tail look like damage, or damage like a tail.
    /// - Memtables, WAL and open files are bounded, so that neither memory nor the time of recovery grows with the state. Every open
    ///   reads the whole WAL, the part that was flushed long ago included: the manifest's few bytes an epoch keep it until its bound.
    /// - One cache for everything: blocks, indexes, filters, and memtables, which are charged to it and may take a quarter of it.
    /// - Indexes and filters are cut into small blocks, of which only the topmost stay in memory. A whole one of a table of 64 MB has
    ///   hundreds of kilobytes: a look-up after a start would wait for all of it, and once they do not fit into the block cache any
    ///   more, every look-up would. Filling 400 MB slowed from 400,000 keys a second to 20,000 by that.
    /// - No table is opened for its statistics when the store is: that takes longer the more there are.
    /// - The log bypasses the cache: it is read once, by a fold or a start.
    /// - Few big runs are ingested and few epochs are folded at a time, so L0 keeps RocksDB's modest triggers.
    /// - What is written is handed to the disk megabyte by megabyte, and a compaction asks for 256 KiB of each table ahead, not for 2 MiB
    ///   of up to twenty. Where a container leaves little memory for the page cache, more would wait there for the disk, or be thrown out
    ///   before it was read.
    /// - Two background threads: the workers own the cores.
    pub(super) fn new(memory: u64) -> Self {
        let memory = usize::try_from(memory.max(LEAST_MEMORY)).unwrap_or(usize::MAX);
        let mut options = Options::default();
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_recycle_log_file_num(0);
        options.set_manual_wal_flush(false);
        options.set_paranoid_checks(true);
        options.set_max_total_wal_size(64 * MIB as u64);
        let cache = Cache::new_lru_cache(memory);
        options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
            memory / 4,
            false,
            cache.clone(),
        ));
        options.set_write_buffer_size((memory / 8).min(32 * MIB));
        options.set_max_write_buffer_number(3);
        options.set_max_open_files(512);
        options.set_level_zero_file_num_compaction_trigger(4);
        options.set_level_zero_slowdown_writes_trigger(20);
        options.set_level_zero_stop_writes_trigger(36);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bytes_per_sync(MIB as u64);
        options.set_wal_bytes_per_sync(MIB as u64);
        options.set_compaction_readahead_size(256 << 10);
        options.set_max_background_jobs(2);
        options.set_max_subcompactions(1);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 * MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);

        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 << 10);
        table.set_pin_top_level_index_and_filter(true);
        // Most look-ups of a key that is not in memory are for a key that does not exist.
        table.set_bloom_filter(10.0, false);

        let mut log = options.clone();
        // Deltas are deleted by the next fold: compressing them takes longer than they live.
        log.set_compression_type(DBCompressionType::None);
        let mut uncached = BlockBasedOptions::default();
        uncached.disable_cache();
        log.set_block_based_table_factory(&uncached);
        options.set_block_based_table_factory(&table);
        Self { database: options, log, cache }
    }

    /// What is in the cache, memtables included.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.cache.get_usage() as u64
    }

    /// The options of the database.
    pub(super) const fn database(&self) -> &Options {
        &self.database
    }

    /// The options of the family with this name, and of runs that are written for it.
    pub(super) fn family(&self, name: &str) -> Options {
        if name == Space::Log.name() { self.log.clone() } else { self.database.clone() }
    }

    pub(super) fn create(&mut self, database: bool, families: bool) {
        self.database.create_if_missing(database);
        self.database.create_missing_column_families(families);
    }
}

pub(super) fn write_options(durability: Durability) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(durability == Durability::Synced);
    options.disable_wal(false);
    options
}
