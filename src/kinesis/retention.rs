//! IncreaseStreamRetentionPeriod and DecreaseStreamRetentionPeriod: the stream's `retention.ms`. Both answer an empty body.
//!
//! What lies beyond a shorter period is gone at once, and a longer one does not bring it back: `broker` trims first.

use super::Context;
use super::error::{Error, Refused};
use super::shapes::{RETENTION_HOURS_MAX, hours_ms, retention_hours};
use super::validate::{Rule, input};
use crate::model::settings::topic;

const RETENTION_HOURS_MIN: i64 = 24;
const HOURS: &[Rule] = &[Rule::Required, Rule::Min(1)];

input! {
    IncreaseStreamRetentionPeriod about a stream {
        hours: i32 = "RetentionPeriodHours" HOURS;
    }
}

input! {
    DecreaseStreamRetentionPeriod about a stream {
        hours: i32 = "RetentionPeriodHours" HOURS;
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Longer,
    Shorter,
}

pub async fn increase_stream_retention_period(cx: Context, input: IncreaseStreamRetentionPeriod) -> Result<(), Error> {
    set(&cx, input.hours, Direction::Longer).await
}

pub async fn decrease_stream_retention_period(cx: Context, input: DecreaseStreamRetentionPeriod) -> Result<(), Error> {
    set(&cx, input.hours, Direction::Shorter).await
}

async fn set(cx: &Context, hours: Option<i32>, direction: Direction) -> Result<(), Error> {
    let hours = i64::from(hours.unwrap_or_default());
    let stream = cx.stream()?;
    let refuse = |text: String| Err(Error::InvalidArgument(text));
    if hours < RETENTION_HOURS_MIN {
        return refuse(format!(
            "Minimum allowed retention period is {RETENTION_HOURS_MIN} hours. Requested retention period ({hours} hours) \
             is too short."
        ));
    }
    if hours > RETENTION_HOURS_MAX {
        return refuse(format!(
            "Maximum allowed retention period is {RETENTION_HOURS_MAX} hours. Requested retention period ({hours} hours) \
             is too long."
        ));
    }
    // What has expired must be gone before the retention becomes longer.
    let expired = cx.door.broker.expire(&stream).await;
    expired.map_err(|error| Refused::Catalog(error.into()).into_error(&cx.door.home, &stream.name))?;
    let changed = cx.change_active(&stream, |draft| {
        let existing = retention_hours(draft.settings);
        let (wrong, word, other) = match direction {
            Direction::Longer => (hours < existing, "shorter", "Decrease"),
            Direction::Shorter => (hours > existing, "longer", "Increase"),
        };
        if wrong {
            return refuse(format!(
                "Requested retention period ({hours} hours) for stream {} can not be {word} than existing retention \
                 period ({existing} hours). Use {other}RetentionPeriod API.",
                stream.name
            ));
        }
        let ms = hours_ms(hours);
        if draft.settings.retention_ms != ms {
            draft.overrides.insert(topic::RETENTION_MS.to_owned(), ms.to_string());
            cx.updating(draft);
        }
        Ok(())
    });
    changed.await
}
