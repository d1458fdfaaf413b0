//! Which changes of events are news.
//!
//! The API lists events by age, not by when they changed. So each look reads three things: the newest events until a
//! page brings nothing new, all that are open, and, one by one, those that were open before and are not any more. What
//! is open is bounded by the fleet; what has ended is read once.

use std::collections::{HashMap, HashSet, VecDeque};

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::{ConfigurationEvent, EventStatus};
use futures::stream::{self, StreamExt};
use tonic::{Code, Status};

use super::history::{self, Change};
use crate::client::Client;

/// The newest events, by the page.
const PAGE: i32 = 100;
/// Open events, by the page.
const PAGE_MAX: i32 = 1_000;
/// Single events asked for at once.
const AT_ONCE: usize = 16;
/// Ended events that are remembered, so that they are not told again.
const ENDED_MAX: usize = 50_000;

/// Reads events again and again.
#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    wanted: pb::ListEventsRequest,
    /// How many events to begin with.
    lines: usize,
    news: News,
}

impl Follower {
    pub(super) fn new(client: Client, wanted: pb::ListEventsRequest, lines: usize) -> Self {
        Self { client, news: News::new(wanted.stuck), wanted, lines }
    }

    /// What happened since the last look, the oldest first. A look that fails half-way has told nothing, and the next
    /// one tells it.
    pub(super) async fn look(&mut self) -> Result<Vec<Change>, Status> {
        let is_first = self.news.is_first;
        let mut events: Vec<ConfigurationEvent> = self.newest(is_first).await?;
        let statuses: &[EventStatus] = if self.wanted.stuck {
            &[EventStatus::Unspecified]
        } else {
            &[EventStatus::Pending, EventStatus::Acknowledged, EventStatus::Failed]
        };
        for status in statuses {
            events.extend(self.open(*status).await?);
        }
        let found: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let gone: Vec<String> =
            self.news.open.keys().filter(|id| !found.contains(id.as_str())).cloned().collect();
        let client = &self.client;
        let mut asked = stream::iter(gone.into_iter().map(|event_id| async move {
            let request = pb::GetEventRequest { event_id: event_id.clone() };
            (event_id, client.configurator().get_event(request).await)
        }))
        .buffer_unordered(AT_ONCE);
        let mut lost = Vec::new();
        while let Some((event_id, answer)) = asked.next().await {
            match answer {
                Ok(event) => events.push(event.into_inner()),
                // Its history was cut off.
                Err(status) if status.code() == Code::NotFound => lost.push(event_id),
                Err(status) => return Err(status),
            }
        }
        drop(asked);
        self.news.forget(&lost);
        let mut changes = self.news.take(&events);
        if is_first {
            let skipped = changes.len().saturating_sub(self.lines);
            changes.drain(..skipped);
        }
        Ok(changes)
    }

    /// The newest events, until a page brings nothing new.
    async fn newest(&self, is_first: bool) -> Result<Vec<ConfigurationEvent>, Status> {
        let mut events = Vec::new();
        let lines = i32::try_from(self.lines).unwrap_or(PAGE_MAX);
        let mut request = pb::ListEventsRequest {
            page_size: if is_first { lines.clamp(PAGE, PAGE_MAX) } else { PAGE },
            ..self.wanted.clone()
        };
        loop {
            let page = self.client.configurator().list_events(request.clone()).await?.into_inner();
            let brings_news = page.events.iter().any(|event| !self.news.knows(event));
            events.extend(page.events);
            if is_first || !brings_news || page.next_page_token.is_empty() {
                return Ok(events);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All events in a state that is not the last one.
    async fn open(&self, status: EventStatus) -> Result<Vec<ConfigurationEvent>, Status> {
        let mut events = Vec::new();
        let mut request =
            pb::ListEventsRequest { status: status.into(), page_size: PAGE_MAX, ..self.wanted.clone() };
        loop {
            let page = self.client.configurator().list_events(request.clone()).await?.into_inner();
            events.extend(page.events);
            if page.next_page_token.is_empty() {
                return Ok(events);
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// What was told already.
#[derive(Debug)]
struct News {
    is_first: bool,
    /// Only the newest state of an event counts: what led to it was not asked for.
    newest_only: bool,
    /// What was told of the events that may still change.
    open: HashMap<String, Vec<Key>>,
    ended: HashSet<String>,
    /// The same, the oldest first.
    ended_in_order: VecDeque<String>,
}

/// What makes a change the same as one told before.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    status: EventStatus,
    attempt: i32,
    time: i64,
    stuck: bool,
}

impl Key {
    fn of(change: &Change) -> Self {
        let stuck = change.is_stuck();
        Self { status: change.status, attempt: change.attempt, time: change.time.as_micros(), stuck }
    }

    /// Claims and waits are told once for an attempt, however often they are renewed or put off.
    fn is_told_by(&self, told: &[Self]) -> bool {
        let is_repeat = |last: &Self| {
            matches!(self.status, EventStatus::Acknowledged | EventStatus::Pending)
                && (last.status, last.attempt) == (self.status, self.attempt)
        };
        told.contains(self) || told.last().is_some_and(is_repeat)
    }
}

impl News {
    fn new(newest_only: bool) -> Self {
        Self {
            is_first: true,
            newest_only,
            open: HashMap::new(),
            ended: HashSet::new(),
            ended_in_order: VecDeque::new(),
        }
    }

    /// Whether nothing of an event is news.
    fn knows(&self, event: &ConfigurationEvent) -> bool {
        if self.ended.contains(&event.id) {
            return true;
        }
        let last = history::of(event).pop();
        self.open.get(&event.id).zip(last).is_some_and(|(told, last)| Key::of(&last).is_told_by(told))
    }

    /// What was not told yet, in the order of time. At the first look that is the state of each event only.
    fn take(&mut self, events: &[ConfigurationEvent]) -> Vec<Change> {
        let mut changes = Vec::new();
        for event in events {
            if self.ended.contains(&event.id) {
                continue;
            }
            let history = history::of(event);
            let newest_only = self.is_first || self.newest_only;
            let told = self.open.entry(event.id.clone()).or_default();
            let first = if newest_only { history.len().saturating_sub(1) } else { 0 };
            for (index, change) in history.into_iter().enumerate() {
                let key = Key::of(&change);
                if key.is_told_by(told) {
                    continue;
                }
                told.push(key);
                if index >= first {
                    changes.push(change);
                }
            }
            if matches!(event.status(), EventStatus::Applied | EventStatus::Superseded) {
                self.open.remove(&event.id);
                self.end(event.id.clone());
            }
        }
        self.is_first = false;
        changes.sort_by_key(|change| change.time);
        changes
    }

    /// Nothing more will come of these, so they are not asked for again.
    fn forget(&mut self, ids: &[String]) {
        for id in ids {
            self.open.remove(id);
        }
    }

    fn end(&mut self, id: String) {
        if self.ended.insert(id.clone()) {
            self.ended_in_order.push_back(id);
        }
        while self.ended_in_order.len() > ENDED_MAX {
            if let Some(oldest) = self.ended_in_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::{at, event};
    use super::super::history::word;
    use super::*;

    fn words(news: &mut News, events: &[ConfigurationEvent]) -> Vec<String> {
        news.take(events).iter().map(|change| format!("{} {}", change.event_id, word(change))).collect()
    }

    fn held(event: &ConfigurationEvent, attempt: i32, seconds: i64) -> ConfigurationEvent {
        ConfigurationEvent {
            status: EventStatus::Acknowledged.into(),
            attempt,
            acknowledged_at: at(seconds),
            ..event.clone()
        }
    }

    #[test]
    fn nothing_is_told_twice_and_nothing_is_left_out() {
        let mut news = News::new(false);
        let (one, two) = (event("one"), event("two"));
        assert_eq!(words(&mut news, &[held(&one, 1, 1)]), ["one acknowledged 1"]);
        assert!(news.knows(&held(&one, 1, 1)));
        assert!(words(&mut news, &[held(&one, 1, 1), held(&one, 1, 1)]).is_empty());
        // A renewed claim is the same claim.
        assert!(words(&mut news, &[held(&one, 1, 9)]).is_empty());
        // What came and ended between two looks is told from its beginning.
        let applied = ConfigurationEvent {
            status: EventStatus::Applied.into(),
            completed_at: at(12),
            ..held(&two, 1, 11)
        };
        assert!(!news.knows(&applied));
        assert_eq!(
            words(&mut news, std::slice::from_ref(&applied)),
            ["two pending 0", "two acknowledged 1", "two applied 1"]
        );
        assert!(news.knows(&applied));
        assert!(words(&mut news, &[applied]).is_empty());
        assert_eq!(news.open.keys().collect::<Vec<_>>(), ["one"]);
        news.forget(&["one".to_owned()]);
        assert!(news.open.is_empty());
    }

    #[test]
    fn a_released_claim_is_told_as_pending_again() {
        let mut news = News::new(false);
        let one = event("one");
        assert_eq!(words(&mut news, std::slice::from_ref(&one)), ["one pending 0"]);
        assert_eq!(words(&mut news, &[held(&one, 1, 1)]), ["one acknowledged 1"]);
        let released = ConfigurationEvent { acknowledged_at: at(1), ..one.clone() };
        assert_eq!(words(&mut news, std::slice::from_ref(&released)), ["one pending 0"]);
        assert!(words(&mut news, &[released]).is_empty());
        assert_eq!(words(&mut news, &[held(&one, 1, 5)]), ["one acknowledged 1"]);
    }

    #[test]
    fn what_has_ended_is_forgotten_at_last() {
        let mut news = News::new(false);
        for number in 0..=ENDED_MAX {
            news.end(number.to_string());
        }
        assert_eq!((news.ended.len(), news.ended_in_order.len()), (ENDED_MAX, ENDED_MAX));
        assert!(!news.ended.contains("0"));
    }
}
