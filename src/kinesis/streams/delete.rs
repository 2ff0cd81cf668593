//! DeleteStream. Answers an empty body.
//!
//! As recorded from AWS, a stream that is still CREATING can be deleted as well.

use crate::kinesis::Context;
use crate::kinesis::error::{Error, Refused};
use crate::kinesis::validate::input;
use crate::model::attributes::Transition;

input! {
    DeleteStream about a stream {
        enforce_consumer_deletion: bool = "EnforceConsumerDeletion" &[];
    }
}

pub async fn delete_stream(cx: Context, input: DeleteStream) -> Result<(), Error> {
    let stream = cx.stream()?;
    let home = &cx.door.home;
    let attributes = stream.attributes();
    if attributes.transition(cx.now_ms) == Some(Transition::Deleting) {
        return Err(Error::stream_not_active(home, &stream.name, Transition::Deleting));
    }
    let has_consumers = attributes.live_consumers(cx.now_ms).next().is_some();
    if has_consumers && !input.enforce_consumer_deletion.unwrap_or(false) {
        let (account, name) = (&home.account, &stream.name);
        return Err(Error::ResourceInUse(format!(
            "DeleteStream can't delete {account}:{name} because there are consumers associated with this data stream. To \
             delete {name} anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the \
             consumers that are associated with it."
        )));
    }
    let until_ms = cx.now_ms.saturating_add(cx.door.config.state_delay);
    let begun = cx.door.broker.begin_deletion(&stream, until_ms).await;
    begun.map_err(|error| Refused::Catalog(error).into_error(home, &stream.name))
}
