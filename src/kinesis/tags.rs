//! Tags of streams (AddTagsToStream, RemoveTagsFromStream, ListTagsForStream) and of streams and consumers alike
//! (TagResource, UntagResource, ListTagsForResource).
//!
//! Texts are AWS's as recorded, except that a stream has up to 50 tags today (the recorded text says 10) and that a colon
//! is allowed, as in the tags of all of AWS's services.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Context;
use super::arn::Home;
use super::consumers;
use super::error::Error;
use super::shapes::Tag;
use super::validate::{Rule, input};
use crate::broker::catalog::Draft;
use crate::model::attributes::Transition;

type Tags = BTreeMap<String, String>;

/// Of a stream or consumer.
const TAGS_MAX: usize = 50;
/// Tags that one answer of ListTagsForStream lists.
const PAGE: usize = 50;

pub const TAGS: &[Rule] = &[Rule::LengthMin(1), Rule::LengthMax(200), Rule::Keys(1, 128), Rule::Values(0, 256)];
const REQUIRED_TAGS: &[Rule] =
    &[Rule::Required, Rule::LengthMin(1), Rule::LengthMax(200), Rule::Keys(1, 128), Rule::Values(0, 256)];
const TAG_KEYS: &[Rule] = &[Rule::Required, Rule::LengthMin(1), Rule::LengthMax(50), Rule::Items(1, 128)];

input! {
    AddTagsToStream about a stream {
        tags: BTreeMap<String, String> = "Tags" REQUIRED_TAGS;
    }
}

input! {
    RemoveTagsFromStream about a stream {
        tag_keys: Vec<String> = "TagKeys" TAG_KEYS;
    }
}

input! {
    ListTagsForStream about a stream {
        limit: i32 = "Limit" &[Rule::Min(1), Rule::Max(50)];
        exclusive_start_tag_key: String = "ExclusiveStartTagKey" &[Rule::LengthMin(1), Rule::LengthMax(128)];
    }
}

input! {
    TagResource about a resource {
        tags: BTreeMap<String, String> = "Tags" REQUIRED_TAGS;
    }
}

input! {
    UntagResource about a resource {
        tag_keys: Vec<String> = "TagKeys" TAG_KEYS;
    }
}

input! { ListTagsForResource about a resource {} }

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForStreamOutput {
    tags: Vec<Tag>,
    has_more_tags: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForResourceOutput {
    tags: Vec<Tag>,
}

pub async fn add_tags_to_stream(cx: Context, input: AddTagsToStream) -> Result<(), Error> {
    add(&cx, input.tags.unwrap_or_default()).await
}

pub async fn remove_tags_from_stream(cx: Context, input: RemoveTagsFromStream) -> Result<(), Error> {
    remove(&cx, input.tag_keys.unwrap_or_default()).await
}

pub async fn tag_resource(cx: Context, input: TagResource) -> Result<(), Error> {
    add(&cx, input.tags.unwrap_or_default()).await
}

pub async fn untag_resource(cx: Context, input: UntagResource) -> Result<(), Error> {
    remove(&cx, input.tag_keys.unwrap_or_default()).await
}

pub async fn list_tags_for_stream(cx: Context, input: ListTagsForStream) -> Result<ListTagsForStreamOutput, Error> {
    let attributes = cx.stream()?.attributes();
    let limit = input.limit.map_or(PAGE, |limit| limit.unsigned_abs() as usize);
    let after = input.exclusive_start_tag_key;
    let mut rest = attributes.tags.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
    let tags = rest.by_ref().take(limit).map(tag).collect();
    Ok(ListTagsForStreamOutput { tags, has_more_tags: rest.next().is_some() })
}

pub async fn list_tags_for_resource(
    cx: Context,
    _input: ListTagsForResource,
) -> Result<ListTagsForResourceOutput, Error> {
    let attributes = cx.stream()?.attributes();
    let tags = match cx.named_consumer() {
        Some(named) => &consumers::find(&cx, &attributes, named)?.tags,
        None => &attributes.tags,
    };
    Ok(ListTagsForResourceOutput { tags: tags.iter().map(tag).collect() })
}

fn tag((key, value): (&String, &String)) -> Tag {
    Tag { key: key.clone(), value: value.clone() }
}

async fn add(cx: &Context, tags: Tags) -> Result<(), Error> {
    let stream = cx.stream()?;
    check(&cx.door.home, "add tags to", &stream.name, &tags)?;
    let home = &cx.door.home;
    cx.change(&stream, |draft| merge(home, &stream.name, tags_of(cx, &stream.name, draft)?, tags)).await
}

async fn remove(cx: &Context, keys: Vec<String>) -> Result<(), Error> {
    let stream = cx.stream()?;
    check_texts(&cx.door.home, "remove tags from", &stream.name, keys.iter())?;
    cx.change(&stream, |draft| {
        let tags = tags_of(cx, &stream.name, draft)?;
        for key in &keys {
            tags.remove(key);
        }
        Ok(())
    })
    .await
}

/// The tags of what the request names. A stream's cannot be changed while it comes or goes.
fn tags_of<'a>(cx: &Context, stream: &str, draft: &'a mut Draft<'_>) -> Result<&'a mut Tags, Error> {
    match draft.attributes.transition(draft.now_ms) {
        Some(state @ (Transition::Creating | Transition::Deleting)) => {
            return Err(Error::stream_not_active(&cx.door.home, stream, state));
        }
        Some(Transition::Updating) | None => {}
    }
    match cx.named_consumer() {
        Some(named) => Ok(&mut consumers::find_mut(cx, &mut draft.attributes, named)?.tags),
        None => Ok(&mut draft.attributes.tags),
    }
}

/// Refuses keys and values that AWS does not take; `act` is what was to be done with them.
pub fn check(home: &Home, act: &str, stream: &str, tags: &Tags) -> Result<(), Error> {
    check_texts(home, act, stream, tags.keys().chain(tags.values()))?;
    if tags.keys().any(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        return Err(Error::InvalidArgument(format!(
            "Failed to {act} stream {stream} under account {} because tag keys that begin with aws: are reserved.",
            home.account
        )));
    }
    Ok(())
}

fn check_texts<'a>(
    home: &Home,
    act: &str,
    stream: &str,
    mut texts: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), Error> {
    let is_allowed =
        |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '.' | '/' | '=' | '+' | '-' | '%' | '@' | ':');
    if texts.clone().any(|text| !text.chars().all(is_allowed)) {
        let text = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, \
                    _ . / = + - % @.";
        return Err(Error::InvalidArgument(text.to_owned()));
    }
    if texts.any(|text| text.contains('%')) {
        return Err(Error::InvalidArgument(format!(
            "Failed to {act} stream {stream} under account {} because some tags contained illegal characters. The allowed \
             characters are Unicode letters, white-spaces, '_',',','/','=','+','-','@'.",
            home.account
        )));
    }
    Ok(())
}

/// Adds `more` to `tags`, or says that it would be too many.
pub fn merge(home: &Home, stream: &str, tags: &mut Tags, more: Tags) -> Result<(), Error> {
    let added = more.keys().filter(|key| !tags.contains_key(*key)).count();
    if tags.len() + added > TAGS_MAX {
        return Err(Error::InvalidArgument(format!(
            "Failed to add tags to stream {stream} under account {} because a given stream cannot have more than \
             {TAGS_MAX} tags associated with it.",
            home.account
        )));
    }
    tags.extend(more);
    Ok(())
}
