//! Answers in streams.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use crate::answer::status;
use crate::proto::conformance_payload::RequestInfo;
use crate::proto::{BidiStreamRequest, ConformancePayload, StreamResponseDefinition};
use crate::seen::pack;

/// Payloads, one after the other, and perhaps an error.
pub(crate) type Payloads = BoxStream<'static, Result<ConformancePayload, Status>>;

/// Where a stream gets the requests that it answers in turns.
pub(crate) struct Turns {
    pub(crate) requests: Streaming<BidiStreamRequest>,
}

/// A stream under way.
struct State {
    definition: StreamResponseDefinition,
    /// How many answers have been given.
    given: usize,
    /// What was seen before the first answer.
    seen: RequestInfo,
    /// Requests since the last answer.
    unanswered: Vec<Any>,
    /// Until the last request, where each one gets its answer.
    turns: Option<Turns>,
    ended: bool,
}

/// The answers that the definition asks for: in turns with the requests, or one after the other.
pub(crate) fn payloads(
    definition: StreamResponseDefinition,
    mut seen: RequestInfo,
    turns: Option<Turns>,
) -> Payloads {
    let unanswered = std::mem::take(&mut seen.requests);
    let state = State { definition, given: 0, seen, unanswered, turns, ended: false };
    let next = |mut state: State| async move {
        if state.ended {
            return None;
        }
        let item = state.next().await.transpose()?;
        state.ended = item.is_err();
        Some((item, state))
    };
    stream::unfold(state, next).boxed()
}

impl State {
    async fn next(&mut self) -> Result<Option<ConformancePayload>, Status> {
        if self.unanswered.is_empty()
            && let Some(turns) = &mut self.turns
        {
            match turns.requests.message().await? {
                Some(request) => self.unanswered.push(pack("BidiStreamRequest", &request)),
                None => self.turns = None,
            }
        }
        let data = self.definition.response_data.get(self.given).cloned();
        let Some(data) = data else {
            let Some(error) = self.definition.error.take() else { return Ok(None) };
            let seen = (self.given == 0).then(|| self.info());
            return Err(status(error, seen.flatten().as_ref(), MetadataMap::new()));
        };
        tokio::time::sleep(Duration::from_millis(self.definition.response_delay_ms.into())).await;
        let request_info = self.info();
        self.given += 1;
        Ok(Some(ConformancePayload { data, request_info }))
    }

    /// What is new since the last answer.
    fn info(&mut self) -> Option<RequestInfo> {
        let requests = std::mem::take(&mut self.unanswered);
        if self.given == 0 {
            return Some(RequestInfo { requests, ..std::mem::take(&mut self.seen) });
        }
        (!requests.is_empty()).then(|| RequestInfo { requests, ..RequestInfo::default() })
    }
}
