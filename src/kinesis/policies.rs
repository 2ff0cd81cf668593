//! Resource policies of streams and consumers: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy. What they say
//! is evaluated in `dispatch`. As recorded, a resource without one answers an empty structure.

use serde::Serialize;

use super::Context;
use super::consumers;
use super::error::Error;
use super::validate::{Rule, input};
use crate::broker::catalog::Draft;
use crate::model::attributes::Transition;
use crate::security::policy::Policy;

/// What AWS answers where there is none.
const NO_POLICY: &str = "{}";

input! {
    PutResourcePolicy about a resource {
        policy: String = "Policy" &[Rule::Required];
    }
}

input! { GetResourcePolicy about a resource {} }

input! { DeleteResourcePolicy about a resource {} }

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetResourcePolicyOutput {
    policy: String,
}

pub async fn put_resource_policy(cx: Context, input: PutResourcePolicy) -> Result<(), Error> {
    let stream = cx.stream()?;
    let policy = input.policy.unwrap_or_default();
    Policy::parse(&policy).map_err(|error| Error::InvalidArgument(error.to_string()))?;
    cx.change(&stream, |draft| {
        *policy_of(&cx, &stream.name, draft)? = Some(policy);
        Ok(())
    })
    .await
}

pub async fn get_resource_policy(cx: Context, _input: GetResourcePolicy) -> Result<GetResourcePolicyOutput, Error> {
    let attributes = cx.stream()?.attributes();
    let policy = match cx.named_consumer() {
        Some(named) => &consumers::find(&cx, &attributes, named)?.policy,
        None => &attributes.policy,
    };
    Ok(GetResourcePolicyOutput { policy: policy.clone().unwrap_or_else(|| NO_POLICY.to_owned()) })
}

pub async fn delete_resource_policy(cx: Context, _input: DeleteResourcePolicy) -> Result<(), Error> {
    let stream = cx.stream()?;
    cx.change(&stream, |draft| match policy_of(&cx, &stream.name, draft)?.take() {
        Some(_) => Ok(()),
        None => {
            let arn = cx.named.as_ref().map(|named| named.arn(&cx.door.home)).unwrap_or_default();
            Err(Error::ResourceNotFound(format!("No resource policy found for resource ARN {arn}.")))
        }
    })
    .await
}

/// The policy of what the request names, which must be ACTIVE or at least stay.
fn policy_of<'a>(cx: &Context, stream: &str, draft: &'a mut Draft<'_>) -> Result<&'a mut Option<String>, Error> {
    match draft.attributes.transition(draft.now_ms) {
        Some(state @ (Transition::Creating | Transition::Deleting)) => {
            return Err(Error::stream_not_active(&cx.door.home, stream, state));
        }
        Some(Transition::Updating) | None => {}
    }
    let Some(named) = cx.named_consumer() else { return Ok(&mut draft.attributes.policy) };
    let consumer = consumers::find_mut(cx, &mut draft.attributes, named)?;
    match consumer.transition(cx.now_ms) {
        Some(_) => Err(consumers::not_active(cx, stream, consumer)),
        None => Ok(&mut consumer.policy),
    }
}
