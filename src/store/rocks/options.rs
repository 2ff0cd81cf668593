//! How RocksDB is set up, and why. Everything here was measured or is a bound; what is not named is RocksDB's default.

use rocksdb::{BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, DBRecoveryMode, LogLevel, Options};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How many memtables of a family may exist, the active one included: how far the disk may fall behind before a roll waits
/// for it. The same for both, since both are rolled together.
const WRITE_BUFFERS: usize = 6;
/// What who only looks may take for blocks, and the files it has open at once.
const READER_BYTES: usize = 64 * MIB;
const READER_FILES_MAX: i32 = 256;
/// Never reached: writers wait for memtables, not for levels, since the log's files only ever move.
const OUT_OF_REACH: i32 = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub struct RocksOptions {
    /// What memtables and block cache may take together, in bytes. Memory is taken as data comes, not when opening.
    pub memory_bytes: usize,
}

pub(super) struct Setup {
    pub(super) db: Options,
    pub(super) log: Options,
    pub(super) meta: Options,
    pub(super) buffers: Buffers,
}

/// Where RocksDB closes a memtable of a family by itself, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    pub(super) log: usize,
    pub(super) meta: usize,
}

impl Setup {
    pub(super) fn new(options: &RocksOptions) -> Result<Setup, rocksdb::Error> {
        // Of the memory, three quarters are for the log's memtables, a sixteenth each for the catalogue's and for blocks.
        let write_buffer_bytes = (options.memory_bytes / 8).clamp(MIB, 128 * MIB);
        let meta_buffer_bytes = (options.memory_bytes / 16 / WRITE_BUFFERS).clamp(256 * KIB, 16 * MIB);
        let cache = Cache::new_lru_cache((options.memory_bytes / 16).clamp(MIB, 256 * MIB));
        Ok(Setup {
            db: db_options(write_buffer_bytes)?,
            log: log_options(write_buffer_bytes, &cache),
            meta: meta_options(meta_buffer_bytes, &cache),
            buffers: Buffers { log: write_buffer_bytes, meta: meta_buffer_bytes },
        })
    }
}

impl Setup {
    /// For a look at a folder of any size: few files are open at once and few blocks kept.
    pub(super) fn to_read() -> Result<Setup, rocksdb::Error> {
        let mut setup = Setup::new(&RocksOptions { memory_bytes: READER_BYTES })?;
        setup.db.create_if_missing(false);
        setup.db.create_missing_column_families(false);
        setup.db.set_max_open_files(READER_FILES_MAX);
        Ok(setup)
    }
}

fn db_options(write_buffer_bytes: usize) -> Result<Options, rocksdb::Error> {
    // Each file of the write-ahead log says how its predecessor ended. After a power cut that took the end of one file but
    // left the next, recovery stops there, where it would otherwise make a hole. (No setter has this option.)
    let mut db = Options::default().get_options_from_string("track_and_verify_wals=true")?;
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    // One flush and one compaction at a time: flushes are sequential writes and compactions moves.
    db.set_max_background_jobs(2);
    db.set_max_file_opening_threads(2);
    db.set_max_open_files(-1);
    db.set_skip_stats_update_on_db_open(true);

    // Files are written through the page cache, where a reader who is a little behind finds them. Past it they would cost a
    // copy less, and that reader a read of the disk, which costs more. The disk is to begin early all the same.
    db.set_bytes_per_sync(4 * MIB as u64);
    // The system reads ahead, since most who read go on: told that reads are random it would not, and a cold scan took
    // nearly twice as long.
    db.set_advise_random_on_open(false);
    db.set_writable_file_max_buffer_size(MIB as u64);

    // A recycled file of the write-ahead log has its blocks already: no allocation in the path of an append. Recovery
    // stops at the first record that is not whole or not of this log's number.
    db.set_recycle_log_file_num(4);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A flush first syncs the write-ahead log behind it. Begun early and bit by bit, that takes a third less of its time.
    db.set_wal_bytes_per_sync(4 * MIB as u64);
    // Memtables are flushed one by one, both families' together: a file holds no more than its epoch even if the disk falls
    // behind, and no family's files are ever ahead of the other's.
    db.set_atomic_flush(true);
    // A family that was not rolled for long is flushed before it keeps this much of the write-ahead log alive.
    db.set_max_total_wal_size(((WRITE_BUFFERS + 1) * write_buffer_bytes) as u64);

    // One thread writes.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);

    db.set_log_level(LogLevel::Warn);
    db.set_max_log_file_size(MIB);
    db.set_keep_log_file_num(3);
    db.set_max_manifest_file_size(16 * MIB);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    Ok(db)
}

fn family_options(write_buffer_bytes: usize, table: &BlockBasedOptions) -> Options {
    let mut family = Options::default();
    family.set_compaction_style(DBCompactionStyle::Level);
    family.set_write_buffer_size(write_buffer_bytes);
    family.set_max_write_buffer_number(WRITE_BUFFERS as i32);
    family.set_level_zero_slowdown_writes_trigger(OUT_OF_REACH);
    family.set_level_zero_stop_writes_trigger(OUT_OF_REACH);
    // Zero means no bound: a backlog of moves must never slow an append.
    family.set_soft_pending_compaction_bytes_limit(0);
    family.set_hard_pending_compaction_bytes_limit(0);
    // Age alone is no reason to write a file again.
    family.set_ttl(0);
    family.set_periodic_compaction_seconds(0);
    family.set_block_based_table_factory(table);
    family
}

fn log_options(write_buffer_bytes: usize, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(64 * KIB);
    table.set_block_cache(cache);
    // Index entries share what their keys begin with: a quarter of the memory, and indexes stay in memory.
    table.set_index_block_restart_interval(16);

    let mut log = family_options(write_buffer_bytes, &table);
    // Batches carry their own.
    log.set_compression_type(DBCompressionType::None);
    // Files can be dropped as soon as they have left level 0, so each leaves it at once, and goes straight to the last
    // level, the only one in use.
    log.set_level_zero_file_num_compaction_trigger(1);
    log.set_level_compaction_dynamic_level_bytes(true);
    log.set_max_bytes_for_level_base(1 << 50);
    log.set_target_file_size_base(2 * write_buffer_bytes as u64);
    log
}

fn meta_options(write_buffer_bytes: usize, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(16 * KIB);
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);

    let mut meta = family_options(write_buffer_bytes, &table);
    meta.set_compression_type(DBCompressionType::None);
    meta.set_target_file_size_base(16 * MIB as u64);
    meta.set_max_bytes_for_level_base(64 * MIB as u64);
    meta
}
