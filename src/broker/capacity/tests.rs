use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn refused(wait_ms: i64) -> Verdict {
    Verdict::Refused { wait_ms }
}

/// Times and sizes of what was granted, out of `asks`: milliseconds since the last one, and tokens.
fn granted(rate: Rate, asks: &[(i64, u64)]) -> Vec<(i64, u64)> {
    let mut bucket = Bucket::default();
    let mut now_ms = 0;
    let mut granted = Vec::new();
    for (after_ms, tokens) in asks {
        now_ms += after_ms;
        if bucket.take(rate, *tokens, now_ms).is_granted() {
            granted.push((now_ms, *tokens));
        }
    }
    granted
}

fn rates() -> impl Strategy<Value = Rate> {
    (1u64..5_000_000, 1u64..20_000_000).prop_map(|(per_s, burst)| Rate { per_s, burst })
}

proptest! {
    #[test]
    fn no_window_holds_more_than_its_rate_and_a_burst(
        rate in rates(),
        asks in prop::collection::vec((0i64..700, 0u64..3_000_000), 1..80),
    ) {
        let asks: Vec<_> = asks.into_iter().map(|(after, tokens)| (after, tokens.min(rate.burst))).collect();
        let granted = granted(rate, &asks);
        for (first, (from_ms, _)) in granted.iter().enumerate() {
            let mut sum = 0u128;
            for (until_ms, tokens) in &granted[first..] {
                sum += u128::from(*tokens);
                let came = u128::from(rate.per_s) * (until_ms - from_ms) as u128;
                prop_assert!(sum * 1_000 <= came + u128::from(rate.burst) * 1_000);
            }
        }
    }

    /// The wait is neither too short nor a millisecond too long.
    #[test]
    fn who_waits_as_told_is_granted_and_not_before(
        rate in rates(),
        asks in prop::collection::vec((0i64..300, 0u64..30_000_000), 1..60),
    ) {
        let mut bucket = Bucket::default();
        let mut now_ms = 0;
        for (after_ms, tokens) in asks {
            now_ms += after_ms;
            if let Verdict::Refused { wait_ms } = bucket.take(rate, tokens, now_ms) {
                prop_assert!(wait_ms > 0);
                let early = bucket.take(rate, tokens, now_ms + wait_ms - 1);
                prop_assert_eq!(early, Verdict::Refused { wait_ms: 1 });
                now_ms += wait_ms;
                prop_assert_eq!(bucket.take(rate, tokens, now_ms), Verdict::Granted);
            }
        }
    }

    #[test]
    fn debt_is_paid_exactly_when_it_was_said(
        rate in rates(),
        charges in prop::collection::vec((0i64..2_000, 0u64..3_000_000), 1..60),
    ) {
        let mut bucket = Bucket::default();
        let mut now_ms = 0;
        for (after_ms, tokens) in charges {
            now_ms += after_ms;
            let wait_ms = bucket.charge(rate, tokens, now_ms);
            prop_assert!(wait_ms <= DEBT_MS_MAX);
            if wait_ms > 0 {
                prop_assert_eq!(bucket.debt_ms(rate, now_ms + wait_ms - 1), 1);
                prop_assert_eq!(bucket.debt_ms(rate, now_ms + wait_ms), 0);
                now_ms += wait_ms;
            }
        }
    }

    /// A writer that pauses as it is told has the rate, a burst and its last request at most, however it cuts them.
    #[test]
    fn a_patient_writer_in_debt_keeps_the_rate(requests in prop::collection::vec((1u64..2_000, 0u64..2 * MIB), 1..60)) {
        let limits = WriteLimits::new(1_024);
        let mut gauge = WriteGauge::default();
        let (mut now_ms, mut records, mut bytes) = (0i64, 0, 0);
        for (count, size) in requests {
            records += count;
            bytes += size;
            prop_assert!(bytes <= MIB * now_ms as u64 / 1_000 + MIB + size);
            prop_assert!(records <= now_ms as u64 + 1_000 + count);
            now_ms += gauge.charge(&limits, count, size, now_ms);
            prop_assert_eq!(gauge.debt_ms(&limits, now_ms), 0);
        }
    }

    /// However often the clock is read in between, the same comes back.
    #[test]
    fn reading_the_clock_costs_nothing(rate in rates(), steps in prop::collection::vec(0i64..5, 1..200)) {
        let mut often = Bucket::default();
        let mut once = Bucket::default();
        let tokens = rate.burst + rate.per_s;
        often.charge(rate, tokens, 0);
        once.charge(rate, tokens, 0);
        let mut now_ms = 0;
        for step in steps {
            now_ms += step;
            often.debt_ms(rate, now_ms);
        }
        prop_assert_eq!(often.debt_ms(rate, now_ms), once.debt_ms(rate, now_ms));
        prop_assert_eq!(often.spent, once.spent);
    }
}

#[test]
fn a_shard_takes_a_thousand_records_and_a_mebibyte_a_second() {
    let limits = WriteLimits::new(1_024);
    let mut by_count = WriteGauge::default();
    for _ in 0..1_000 {
        assert_eq!(by_count.take(&limits, 1, 100, 0), Verdict::Granted);
    }
    assert_eq!(by_count.take(&limits, 1, 100, 0), refused(1));
    assert_eq!(by_count.take(&limits, 10, 100, 0), refused(10));
    assert_eq!(by_count.take(&limits, 10, 100, 10), Verdict::Granted);

    let mut by_size = WriteGauge::default();
    assert_eq!(by_size.take(&limits, 1, MIB, 0), Verdict::Granted);
    // What is refused takes nothing of the other bucket.
    assert_eq!(by_size.take(&limits, 1_000, MIB / 2, 0), refused(500));
    assert_eq!(by_size.take(&limits, 999, MIB / 2, 500), Verdict::Granted);
}

#[test]
fn a_greedy_writer_gets_the_rate_to_the_byte() {
    let limits = WriteLimits::new(1_024);
    let mut gauge = WriteGauge::default();
    let (mut now_ms, mut bytes) = (0, 0);
    while now_ms < 3_600_000 {
        match gauge.take(&limits, 1, 7_919, now_ms) {
            Verdict::Granted => bytes += 7_919,
            Verdict::Refused { wait_ms } => now_ms += wait_ms,
        }
    }
    let most = MIB * 3_600 + MIB;
    assert!(bytes <= most && bytes > most - 2 * 7_919, "{bytes} of {most}");
}

#[test]
fn large_records_come_in_bursts_around_the_same_average() {
    let limits = WriteLimits::new(10_240);
    let mut gauge = WriteGauge::default();
    assert_eq!(gauge.take(&limits, 1, 10 * MIB, 0), Verdict::Granted);
    assert_eq!(gauge.take(&limits, 1, 10 * MIB, 0), refused(10_000));
    assert_eq!(gauge.take(&limits, 1, MIB, 999), refused(1));
    assert_eq!(gauge.take(&limits, 1, MIB, 1_000), Verdict::Granted);
    // A stream of smaller records keeps its second's worth.
    assert_eq!(WriteLimits::new(1).bytes, Rate { per_s: MIB, burst: MIB });
}

#[test]
fn five_calls_a_second_read() {
    let mut gauge = ReadGauge::default();
    for _ in 0..5 {
        assert_eq!(gauge.begin_call(7), Verdict::Granted);
        gauge.end_call(100, false, 7);
    }
    assert_eq!(gauge.begin_call(7), refused(200));
    assert_eq!(gauge.begin_call(206), refused(1));
    assert_eq!(gauge.begin_call(207), Verdict::Granted);
}

#[test]
fn after_the_largest_answer_calls_are_refused_for_five_seconds() {
    let mut gauge = ReadGauge::default();
    assert_eq!(gauge.begin_call(0), Verdict::Granted);
    gauge.end_call(10 * MIB - 5_000, true, 0);
    assert_eq!(gauge.begin_call(0), refused(5_000));
    assert_eq!(gauge.begin_call(4_999), refused(1));
    assert_eq!(gauge.begin_call(5_000), Verdict::Granted);
}

#[test]
fn beyond_the_pipe_calls_are_refused_for_a_second_at_least() {
    let mut gauge = ReadGauge::default();
    assert_eq!(gauge.begin_call(0), Verdict::Granted);
    gauge.end_call(2 * MIB, false, 0);
    assert_eq!(gauge.begin_call(0), Verdict::Granted);
    gauge.end_call(1, false, 0);
    assert_eq!(gauge.begin_call(1), refused(999));
    // Whoever goes on asking is not put off for longer by that.
    assert_eq!(gauge.begin_call(999), refused(1));
    assert_eq!(gauge.begin_call(1_000), Verdict::Granted);
    gauge.end_call(5 * MIB, false, 1_000);
    assert_eq!(gauge.begin_call(1_000), refused(1_501));
}

#[test]
fn others_on_the_pipe_hold_up_calls() {
    let mut gauge = ReadGauge::default();
    assert_eq!(gauge.pipe.charge(3 * MIB, 0), 500);
    assert_eq!(gauge.begin_call(400), refused(1_000));
    assert_eq!(gauge.begin_call(1_399), refused(1));
    assert_eq!(gauge.begin_call(1_400), Verdict::Granted);
}

#[test]
fn debt_beyond_what_is_remembered_is_forgiven() {
    let mut pipe = Pipe::default();
    assert_eq!(pipe.charge(500 * MIB, 0), DEBT_MS_MAX);
    assert_eq!(pipe.wait_ms(DEBT_MS_MAX), 0);
}

#[test]
fn a_late_reading_of_the_clock_brings_nothing() {
    let rate = Rate::steady(1_000);
    let mut bucket = Bucket::default();
    assert_eq!(bucket.charge(rate, 2_000, 5_000), 1_000);
    assert_eq!(bucket.debt_ms(rate, 4_000), 1_000);
    assert_eq!(bucket.debt_ms(rate, 5_500), 500);
    // Numbers that clients cannot send, but that must not panic.
    bucket.charge(Rate { per_s: u64::MAX, burst: u64::MAX }, u64::MAX, i64::MAX);
    bucket.take(Rate { per_s: 0, burst: 0 }, u64::MAX, i64::MIN);
}

/// One comes back at once when it may, the other some milliseconds later: both are told to wait and do.
#[test]
fn who_is_slower_to_come_back_has_its_turns_too() {
    let mut pipe = Pipe::default();
    let (delays_ms, mut next_ms, mut read) = ([1, 30], [0, 0], [0, 0]);
    while next_ms.iter().any(|at_ms| *at_ms < 60_000) {
        let reader = usize::from(next_ms[1] < next_ms[0]);
        let now_ms = next_ms[reader];
        let wait_ms = match pipe.wait_ms(now_ms) {
            0 => {
                read[reader] += MIB;
                pipe.charge_in_turn(MIB, now_ms)
            }
            wait_ms => {
                pipe.turn_away();
                wait_ms
            }
        };
        next_ms[reader] = now_ms + wait_ms + delays_ms[reader];
    }
    let all = read[0] + read[1];
    assert!(read.iter().all(|bytes| *bytes > all * 2 / 5), "{read:?}");
    assert!(all > 100 * MIB && all <= 122 * MIB, "{all}");
}
