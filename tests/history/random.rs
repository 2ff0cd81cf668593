//! The choices of a run, by its seed.

use crate::numbers;

pub struct Random(numbers::Random);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(numbers::Random(seed))
    }

    /// A stream of its own for each worker.
    pub fn of(seed: u64, worker: u32) -> Random {
        Random::new(numbers::Random(seed ^ (u64::from(worker) << 40)).next())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound as usize) as u64
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
