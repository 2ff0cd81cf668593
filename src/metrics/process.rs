//! What every program tells of itself: `process_*`, by the names that all of them have for it.
//!
//! The crate's collector counts processor time in whole seconds, by which a broker at rest costs nothing for minutes and
//! then a second at once; here it is as fine as the system counts it.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};

const CPU: &str = "process_cpu_seconds_total";

pub(super) struct Process(ProcessCollector);

impl Process {
    pub fn this() -> Process {
        Process(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        let Some(seconds) = cpu_seconds() else { return families };
        for family in families.iter_mut().filter(|family| family.name() == CPU) {
            let mut counter = Counter::default();
            counter.set_value(seconds);
            family.mut_metric().iter_mut().for_each(|metric| metric.set_counter(counter.clone()));
        }
        families
    }
}

/// User and system time of all threads; None where the system does not say.
fn cpu_seconds() -> Option<f64> {
    let mut told = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is writable for as long as the call takes.
    let outcome = unsafe { libc::getrusage(libc::RUSAGE_SELF, told.as_mut_ptr()) };
    if outcome != 0 {
        return None;
    }
    // SAFETY: all its fields are numbers, for which zeros are values, and the call has filled them in.
    let told = unsafe { told.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(seconds(told.ru_utime) + seconds(told.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_told_in_less_than_seconds() {
        let told = || {
            let families = Process::this().collect();
            let cpu = families.iter().find(|family| family.name() == CPU).unwrap();
            cpu.get_metric()[0].get_counter().get_value()
        };
        let before = told();
        // Some work, until the system has noticed it.
        while told() == before {
            std::hint::black_box((0..100_000_u64).sum::<u64>());
        }
        assert!(told() - before < 1.0, "{before}, then {}", told());
    }
}
