//! What one shard takes and gives: token buckets, exact on the clock of whoever calls. Called by `broker::gauges`, which
//! keeps them with the stream, and by the Kinesis door for the rates of its control operations. Pure: time comes in as
//! an argument, in milliseconds of a clock that never goes back ([`crate::clock::Clock::tick_ms`]).
//!
//! Two styles of verdict on the same buckets. *Refuse*: what does not fit is not taken, and the answer says when it
//! would fit ([`Verdict`]); so do Kinesis clients expect it. *Debt*: it is taken all the same, the bucket goes below
//! nothing, and the answer says when it will have recovered; so are Kafka clients slowed down.
//!
//! Invariants:
//! - Integers only: a token is counted in thousandths, so that a rate a second is a whole number a millisecond, and
//!   nothing is lost to rounding however often the clock is read.
//! - Refusing: over any time, what was taken is at most the rate times that time and the burst.
//! - Who waits as told is not refused, unless another has taken meanwhile.
//!
//! Sources: Kinesis developer guide (quotas; large records), GetRecords' API reference, KIP-13 and KIP-124 for debt.

/// Records are measured by data and partition key, Kafka's batches as they are stored.
const WRITE_BYTES_PER_S: u64 = 1 << 20;
const WRITE_RECORDS_PER_S: u64 = 1_000;
const READ_BYTES_PER_S: u64 = 2 << 20;
const READ_CALLS_PER_S: u64 = 5;
/// GetRecords: "If there is insufficient provisioned throughput, calls made within the next 1 second" are refused ...
const READ_REFUSED_MS: i64 = 1_000;
/// ... and after an answer of the largest size, 10 MiB, those within the next 5 seconds.
const READ_REFUSED_AFTER_LARGEST_MS: i64 = 5_000;
/// The most that one answer of one shard has: five seconds' worth, so that a debt is seconds and not minutes.
pub const ANSWER_BYTES_MAX: usize = 10 << 20;
/// Debt is remembered up to this: as much as Kafka's quotas remember, whose window is ten seconds.
pub const DEBT_MS_MAX: i64 = 10_000;
/// Thousandths of a token in a token; milliseconds in a second.
const MILLI: i64 = 1_000;

/// How fast a bucket fills and what it holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_s: u64,
    pub burst: u64,
}

/// Whether something was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    /// It would have been granted after this time, if nobody else takes before.
    Refused {
        wait_ms: i64,
    },
}

/// Tokens that come at a [`Rate`]. Full at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Thousandths of tokens that have not come back yet; beyond the burst it is debt.
    spent: i64,
    /// When that was true.
    at_ms: i64,
}

impl Rate {
    /// One that may take a second's worth at once.
    pub const fn steady(per_s: u64) -> Rate {
        Rate { per_s, burst: per_s }
    }

    /// Milliseconds until `milli` tokens have come, rounded up.
    fn ms_for(self, milli: i64) -> i64 {
        if milli <= 0 {
            return 0;
        }
        let per_ms = whole(self.per_s).max(1);
        milli / per_ms + i64::from(milli % per_ms != 0)
    }
}

impl Verdict {
    pub fn is_granted(self) -> bool {
        self == Verdict::Granted
    }

    /// 0 when granted.
    pub fn wait_ms(self) -> i64 {
        match self {
            Verdict::Granted => 0,
            Verdict::Refused { wait_ms } => wait_ms,
        }
    }

    fn after(wait_ms: i64) -> Verdict {
        if wait_ms <= 0 { Verdict::Granted } else { Verdict::Refused { wait_ms } }
    }
}

impl Bucket {
    /// Takes `tokens` if they are there. More than a burst is taken from a full bucket, which then owes the rest.
    pub fn take(&mut self, rate: Rate, tokens: u64, now_ms: i64) -> Verdict {
        let verdict = self.check(rate, tokens, now_ms);
        if verdict.is_granted() {
            self.spend(tokens);
        }
        verdict
    }

    /// What [`Bucket::take`] would say.
    pub fn check(&mut self, rate: Rate, tokens: u64, now_ms: i64) -> Verdict {
        self.refill(rate, now_ms);
        let missing = self.spent.saturating_add(milli(tokens.min(rate.burst))) - milli(rate.burst);
        Verdict::after(rate.ms_for(missing))
    }

    /// Takes `tokens` whether they are there or not. Tells after how long nothing will be owed any more; what would be
    /// owed beyond [`DEBT_MS_MAX`] is forgiven.
    pub fn charge(&mut self, rate: Rate, tokens: u64, now_ms: i64) -> i64 {
        self.refill(rate, now_ms);
        self.spend(tokens);
        self.spent = self.spent.min(milli(rate.burst).saturating_add(whole(rate.per_s).saturating_mul(DEBT_MS_MAX)));
        self.debt_ms(rate, now_ms)
    }

    /// After how long nothing will be owed any more; 0 when nothing is.
    pub fn debt_ms(&mut self, rate: Rate, now_ms: i64) -> i64 {
        self.refill(rate, now_ms);
        rate.ms_for(self.spent - milli(rate.burst))
    }

    fn spend(&mut self, tokens: u64) {
        self.spent = self.spent.saturating_add(milli(tokens));
    }

    /// Tokens a second are thousandths of a token a millisecond. A reading older than the last one, of a thread that was
    /// held up, brings nothing.
    fn refill(&mut self, rate: Rate, now_ms: i64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms).max(0);
        self.spent = self.spent.saturating_sub(whole(rate.per_s).saturating_mul(elapsed_ms)).max(0);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

/// What a shard takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    pub bytes: Rate,
    pub records: Rate,
}

impl WriteLimits {
    /// Of a stream whose records may have `record_kib_max` KiB: larger records than a second's worth come in bursts of
    /// their size, around the same average.
    pub fn new(record_kib_max: u32) -> WriteLimits {
        let burst = (u64::from(record_kib_max) << 10).max(WRITE_BYTES_PER_S);
        WriteLimits { bytes: Rate { per_s: WRITE_BYTES_PER_S, burst }, records: Rate::steady(WRITE_RECORDS_PER_S) }
    }
}

/// What was written to one shard lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteGauge {
    bytes: Bucket,
    records: Bucket,
}

impl WriteGauge {
    /// All of it or nothing.
    pub fn take(&mut self, limits: &WriteLimits, records: u64, bytes: u64, now_ms: i64) -> Verdict {
        let verdicts =
            [self.bytes.check(limits.bytes, bytes, now_ms), self.records.check(limits.records, records, now_ms)];
        let wait_ms = verdicts.into_iter().map(Verdict::wait_ms).max().unwrap_or(0);
        if wait_ms == 0 {
            self.bytes.spend(bytes);
            self.records.spend(records);
        }
        Verdict::after(wait_ms)
    }

    /// Takes it in any case and tells for how long the writer is to pause.
    pub fn charge(&mut self, limits: &WriteLimits, records: u64, bytes: u64, now_ms: i64) -> i64 {
        let for_bytes = self.bytes.charge(limits.bytes, bytes, now_ms);
        for_bytes.max(self.records.charge(limits.records, records, now_ms))
    }

    /// For how long a writer that was told to pause still has to.
    pub fn debt_ms(&mut self, limits: &WriteLimits, now_ms: i64) -> i64 {
        self.bytes.debt_ms(limits.bytes, now_ms).max(self.records.debt_ms(limits.records, now_ms))
    }
}

/// The 2 MiB a second of a reader or of those who share them. How much an answer takes shows only when it has been read,
/// so whoever comes while nothing is owed gets one, and the next waits until it is paid.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pipe {
    bytes: Bucket,
    /// Readers that were told to wait since the last one had something.
    turned_away: i64,
}

impl Pipe {
    const RATE: Rate = Rate::steady(READ_BYTES_PER_S);

    /// How long to wait before more is read; 0 when there is room.
    pub fn wait_ms(&mut self, now_ms: i64) -> i64 {
        self.bytes.debt_ms(Self::RATE, now_ms)
    }

    /// `bytes` were read. Tells how long to wait before more is.
    pub fn charge(&mut self, bytes: u64, now_ms: i64) -> i64 {
        self.bytes.charge(Self::RATE, bytes, now_ms)
    }

    /// A reader was told to wait.
    pub fn turn_away(&mut self) {
        self.turned_away = self.turned_away.saturating_add(1);
    }

    /// [`Pipe::charge`] for one of several readers that wait as they are told: it is told to wait for a turn of each that
    /// was turned away as well. Else whoever is quickest once nothing is owed would have all of it.
    pub fn charge_in_turn(&mut self, bytes: u64, now_ms: i64) -> i64 {
        let turns = std::mem::take(&mut self.turned_away).saturating_add(1);
        self.charge(bytes, now_ms).saturating_mul(turns)
    }
}

/// What was read from one shard lately by those who share its pipe.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadGauge {
    pub pipe: Pipe,
    calls: Bucket,
    /// Calls before this are refused.
    closed_until_ms: i64,
}

impl ReadGauge {
    /// Of GetRecords, and of GetShardIterator apart from those.
    pub const CALLS: Rate = Rate::steady(READ_CALLS_PER_S);

    /// A call of GetRecords is to begin. A refused one counts for nothing.
    pub fn begin_call(&mut self, now_ms: i64) -> Verdict {
        if now_ms < self.closed_until_ms {
            return Verdict::Refused { wait_ms: self.closed_until_ms - now_ms };
        }
        let owed_ms = self.pipe.wait_ms(now_ms);
        if owed_ms > 0 {
            self.close(owed_ms.max(READ_REFUSED_MS), now_ms);
            return Verdict::Refused { wait_ms: self.closed_until_ms - now_ms };
        }
        self.calls.take(Self::CALLS, 1, now_ms)
    }

    /// The call gave `bytes`; `largest` when it would have given more but for the 10 MiB that an answer may have.
    pub fn end_call(&mut self, bytes: u64, largest: bool, now_ms: i64) {
        let owed_ms = self.pipe.charge(bytes, now_ms);
        if largest {
            self.close(owed_ms.max(READ_REFUSED_AFTER_LARGEST_MS), now_ms);
        } else if owed_ms > 0 {
            self.close(owed_ms.max(READ_REFUSED_MS), now_ms);
        }
    }

    fn close(&mut self, ms: i64, now_ms: i64) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(ms));
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn milli(tokens: u64) -> i64 {
    whole(tokens).saturating_mul(MILLI)
}

#[cfg(test)]
mod tests;
