//! The time that a request is worked on: while its handler runs, and not while it waits. Used by the rows of the table.

use std::future::poll_fn;
use std::pin::pin;

use crate::kafka::Context;
use crate::kafka::throttle::{self, Throttled};

/// A request's time so far. Clocks are read only where a quota wants it.
pub struct Work {
    cx: Context,
    is_timed: bool,
    micros: i64,
}

impl Work {
    pub fn new(cx: &Context) -> Work {
        Work { is_timed: cx.door.quotas.times(cx), cx: cx.clone(), micros: 0 }
    }

    /// Counts what `work` does at once.
    pub fn at_once<T>(&mut self, work: impl FnOnce() -> T) -> T {
        if !self.is_timed {
            return work();
        }
        let clock = self.cx.door.broker.clock();
        let began = clock.tick_micros();
        let done = work();
        self.micros += clock.tick_micros() - began;
        done
    }

    /// Counts what `work` does whenever it goes on.
    pub async fn until_done<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| self.at_once(|| work.as_mut().poll(context))).await
    }

    /// For how long the connection is to pause for it.
    pub fn pause_ms(&self) -> i64 {
        if self.is_timed { self.cx.door.quotas.worked(&self.cx, self.micros) } else { 0 }
    }

    /// Tells the client in its answer: the longer of this pause and one that is told already.
    pub fn tell(&self, response: &mut impl Throttled) -> i64 {
        let pause_ms = self.pause_ms();
        match response.throttle_time_ms() {
            Some(told) => {
                *told = (*told).max(throttle::told_ms(pause_ms));
                (*told).into()
            }
            None => pause_ms,
        }
    }
}
