//! What may be done so many times in a rolling day.

use super::error::Error;

const DAY_MS: i64 = 86_400_000;

/// Counts one more among `times_ms`, unless there were `max` of them in the last day already.
pub fn count_today(
    times_ms: &mut Vec<i64>,
    max: usize,
    now_ms: i64,
    refusal: impl FnOnce() -> String,
) -> Result<(), Error> {
    times_ms.retain(|at_ms| now_ms.saturating_sub(*at_ms) < DAY_MS);
    if times_ms.len() >= max {
        return Err(Error::LimitExceeded(refusal()));
    }
    times_ms.push(now_ms);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_rolls() {
        let mut times = Vec::new();
        for now_ms in [0, 1_000] {
            count_today(&mut times, 2, now_ms, || "too often".to_owned()).unwrap();
        }
        let refused = count_today(&mut times, 2, DAY_MS - 1, || "too often".to_owned());
        assert_eq!(refused, Err(Error::LimitExceeded("too often".to_owned())));
        count_today(&mut times, 2, DAY_MS, || "too often".to_owned()).unwrap();
        assert_eq!(times, [1_000, DAY_MS]);
    }
}
