//! What the setting `memory` is divided into. Called by `server` and by the doors, which hold what they keep within their
//! shares.
//!
//! Invariant: from the default of 512 MiB on, everything that is named here fits into the setting and leaves a tenth of it
//! to the allocators, who keep some of what is freed and round up what is asked for. With less, that much is left of what is
//! divided, but the process itself and what the doors need at least may be more than the setting.

use super::Config;

const MIB: usize = 1 << 20;
/// Code that was run, tables, threads: what the process takes without a record.
const PROCESS_BYTES: usize = 32 * MIB;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Memtables, blocks and buffers.
    pub store: usize,
    /// Recent batches, for readers at the end.
    pub tail: usize,
    /// Requests of Kafka clients. What they bring for the log is copied on its way there, so this is half of what they
    /// take.
    pub kafka_requests: usize,
    /// Records of answers to Kafka clients.
    pub kafka_answers: usize,
    /// Bodies of HTTP requests, and as much for those of answers; the doors need `http::BODY_BYTES_LEAST`.
    pub http_bodies: usize,
    /// Events that several subscriptions of SubscribeToShard are sent.
    pub fanout: usize,
}

impl MemoryShares {
    /// Of `memory` bytes.
    pub fn of(memory: usize) -> MemoryShares {
        let rest = memory - PROCESS_BYTES.min(memory / 2);
        let sixteenths = |count: usize| rest / 16 * count;
        MemoryShares {
            store: sixteenths(6),
            tail: sixteenths(2),
            kafka_requests: sixteenths(5) / 4,
            kafka_answers: sixteenths(3) / 2,
            http_bodies: sixteenths(1),
            fanout: sixteenths(1) / 8,
        }
    }
}

impl Config {
    pub fn memory_shares(&self) -> MemoryShares {
        MemoryShares::of(self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the HTTP doors have it.
    const HTTP_BYTES_LEAST: usize = 32 * MIB;

    #[test]
    fn the_shares_leave_a_tenth_to_the_allocators() {
        for mib in [512, 513, 700, 1_000, 4_096, 1 << 20] {
            let memory = mib * MIB;
            let shares = MemoryShares::of(memory);
            let MemoryShares { store, tail, kafka_requests, kafka_answers, http_bodies, fanout } = shares;
            let bodies = 2 * http_bodies.max(HTTP_BYTES_LEAST);
            let all = PROCESS_BYTES + store + tail + 2 * kafka_requests + kafka_answers + bodies + fanout;
            assert!(all <= memory / 10 * 9, "{mib} MiB: {all}");
            assert!(all >= memory / 10 * 8, "{mib} MiB: {all}");
        }
    }

    #[test]
    fn little_memory_leaves_something_for_everyone() {
        let shares = MemoryShares::of(16 * MIB);
        let MemoryShares { store, tail, kafka_requests, kafka_answers, http_bodies, fanout } = shares;
        assert_eq!((store, tail, http_bodies, fanout), (3 * MIB, MIB, MIB / 2, MIB / 16));
        assert!(kafka_requests > MIB / 2 && kafka_answers > MIB / 2);
    }
}
