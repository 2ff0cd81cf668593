//! ShareAcknowledge (79), versions 1 and 2, and what a ShareFetch acknowledges by the way. It goes with the member's share
//! session and counts it up; epoch -1 ends the session, and what the member still holds is for others.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_acknowledge_response::{
    LeaderIdAndEpoch, PartitionData, ShareAcknowledgeTopicResponse,
};
use kafka_protocol::messages::{ShareAcknowledgeRequest, ShareAcknowledgeResponse};

use super::{AcknowledgeExtra, by_topic, lock_timeout_ms, of_share, partition_id, release, session_key};
use crate::kafka::Context;
use crate::share::ShareError;
use crate::share::partition::{AckBatch, Acknowledgement};
use crate::share::sessions::{FINAL, OPENING, Place, SessionKey};

/// Batches of one acknowledgement for one partition: more than records can be held.
const BATCHES_MAX: usize = 100_000;

/// What a client says of offsets `first..=last`, as it says it.
pub struct Said {
    pub first: i64,
    pub last: i64,
    pub kinds: Vec<i8>,
}

/// The answer, and for how long records are locked, which version 2 tells.
pub async fn share_acknowledge(
    cx: Context,
    request: ShareAcknowledgeRequest,
    extra: AcknowledgeExtra,
) -> (ShareAcknowledgeResponse, i32) {
    let refused = |error: ResponseError| ShareAcknowledgeResponse::default().with_error_code(error.code());
    let key = match session_key(request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(key) => key,
        Err(error) => return (refused(error), 0),
    };
    let lock_timeout_ms = lock_timeout_ms(&cx, &key);
    let answer = match begin(&cx, &key, request.share_session_epoch) {
        Ok(ended) => {
            let told = acknowledge(&cx, &key, said(request), extra.renews).await;
            ended.iter().for_each(|places| release(&cx.door, &key, places));
            respond(told)
        }
        Err(failure) => refused(of_share(failure)),
    };
    (answer, lock_timeout_ms)
}

/// Takes the session's turn; what it fetched, if it ends.
fn begin(cx: &Context, key: &SessionKey, epoch: i32) -> Result<Option<Vec<Place>>, ShareError> {
    if !cx.door.shares.holds(&key.group_id) {
        return Err(ShareError::GroupIdNotFound);
    }
    match epoch {
        OPENING => Err(ShareError::InvalidSessionEpoch),
        FINAL => cx.door.share_sessions.close(key).map(Some),
        epoch => cx.door.share_sessions.acknowledge(key, epoch).map(|()| None),
    }
}

fn said(request: ShareAcknowledgeRequest) -> Vec<(Place, Vec<Said>)> {
    let partitions = request.topics.into_iter().flat_map(|topic| {
        topic.partitions.into_iter().map(move |partition| {
            let batches = partition.acknowledgement_batches.into_iter().map(|batch| Said {
                first: batch.first_offset,
                last: batch.last_offset,
                kinds: batch.acknowledge_types,
            });
            ((topic.topic_id, partition.partition_index), batches.collect())
        })
    });
    partitions.collect()
}

/// Hands over what is said of records, of all partitions before anything is awaited: they are written together.
pub async fn acknowledge(
    cx: &Context,
    key: &SessionKey,
    said: Vec<(Place, Vec<Said>)>,
    renews: bool,
) -> IndexMap<Place, Option<ResponseError>> {
    let renews = renews && cx.door.shares.settings_of(&key.group_id).renewal;
    let mut seen = BTreeSet::new();
    let answers = said.into_iter().map(|(place, said)| {
        let again = !seen.insert(place);
        async move {
            let answer =
                if again { Err(ResponseError::InvalidRequest) } else { one(cx, key, place, said, renews).await };
            (place, answer.err())
        }
    });
    join_all(answers.collect::<Vec<_>>()).await.into_iter().collect()
}

async fn one(cx: &Context, key: &SessionKey, place: Place, said: Vec<Said>, renews: bool) -> Result<(), ResponseError> {
    let batches = parse(said, renews)?;
    let broker = &cx.door.broker;
    broker.stream_by_topic_id(place.0).ok_or(ResponseError::UnknownTopicId)?;
    let id = partition_id(&cx.door, &place);
    let share = id.and_then(|id| cx.door.shares.share(&key.group_id, id));
    let share = share.ok_or(ResponseError::UnknownTopicOrPartition)?;
    cx.door.shares.acknowledge(&share, &key.member_id, &batches).await.map_err(of_share)
}

fn parse(said: Vec<Said>, renews: bool) -> Result<Vec<AckBatch>, ResponseError> {
    if said.len() > BATCHES_MAX {
        return Err(ResponseError::InvalidRequest);
    }
    let kind = |code: i8| match code {
        0 => Ok(Acknowledgement::Gap),
        1 => Ok(Acknowledgement::Accept),
        2 => Ok(Acknowledgement::Release),
        3 => Ok(Acknowledgement::Reject),
        4 if renews => Ok(Acknowledgement::Renew),
        _ => Err(ResponseError::InvalidRequest),
    };
    let batch = |said: Said| {
        let kinds = said.kinds.into_iter().map(kind).collect::<Result<_, _>>()?;
        Ok(AckBatch { first: said.first, last: said.last, kinds })
    };
    said.into_iter().map(batch).collect()
}

fn respond(told: IndexMap<Place, Option<ResponseError>>) -> ShareAcknowledgeResponse {
    let partition = |((topic_id, index), error): (Place, Option<ResponseError>)| {
        let data = PartitionData::default()
            .with_partition_index(index)
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(-1).with_leader_epoch(-1));
        (topic_id, data)
    };
    let topics = by_topic(told.into_iter().map(partition)).into_iter().map(|(topic_id, partitions)| {
        ShareAcknowledgeTopicResponse::default().with_topic_id(topic_id).with_partitions(partitions)
    });
    ShareAcknowledgeResponse::default().with_responses(topics.collect())
}
