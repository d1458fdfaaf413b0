//! The watch of the plane: every event once, in the order in which they were offered, from a cursor on.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use super::State;

const HEARTBEAT: Duration = Duration::from_millis(100);

pub(super) type Messages = BoxStream<'static, Result<pb::WatchPendingEventsResponse, Status>>;

/// Where a watch begins, and what would have to change to cut it.
pub(super) fn open(state: &mut State, request: &pb::WatchPendingEventsRequest) -> Result<(u64, u32), Status> {
    if !state.watches {
        return Err(Status::unimplemented("there is no watch"));
    }
    state.cursors.push(request.cursor.clone());
    if request.cursor.is_empty() {
        return Ok((0, state.cuts));
    }
    let at = request.cursor.parse().map_err(|_| Status::invalid_argument("that is no cursor"))?;
    if at < state.oldest_cursor {
        return Err(Status::out_of_range("the cursor is too old"));
    }
    Ok((at, state.cuts))
}

struct Watch {
    states: watch::Receiver<State>,
    at: u64,
    cuts: u32,
    has_spoken: bool,
}

/// What is new after a place, and where that leads.
fn news(state: &State, after: u64) -> (Vec<pb::ConfigurationEvent>, u64) {
    let (mut news, mut at) = (Vec::new(), after);
    let pending = state.pending();
    for (number, delivery) in (1..).zip(&state.events) {
        if number > after {
            at = number;
            news.extend(pending.iter().find(|event| event.id == delivery.event.id).cloned());
        }
    }
    (news, at)
}

pub(super) fn messages(states: watch::Receiver<State>, (at, cuts): (u64, u32)) -> Messages {
    stream::unfold(Watch { states, at, cuts, has_spoken: false }, |mut watch| async move {
        let (at, cuts, has_spoken) = (watch.at, watch.cuts, watch.has_spoken);
        let is_new = |state: &State| state.cuts != cuts || !has_spoken || news(state, at).1 != at;
        if has_spoken && watch.states.borrow().oldest_cursor == u64::MAX {
            return Some((Err(Status::out_of_range("the place is forgotten already")), watch));
        }
        // After a while it says that there is nothing new.
        let _ = timeout(HEARTBEAT, watch.states.wait_for(is_new)).await;
        let (is_cut, (events, at)) = {
            let state = watch.states.borrow();
            (state.cuts != cuts, news(&state, at))
        };
        if is_cut {
            return None;
        }
        (watch.at, watch.has_spoken) = (at, true);
        let message = pb::WatchPendingEventsResponse { events, cursor: at.to_string() };
        Some((Ok(message), watch))
    })
    .boxed()
}
