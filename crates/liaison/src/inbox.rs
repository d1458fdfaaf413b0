//! The events that were offered and are not done with: each once, and of each slot one at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentrouter_api::configurator::{ConfigType, ConfigurationEvent};
use tokio::sync::Notify;

use crate::slot::Slot;

/// How many events wait at most before no more is read from a watch.
const ROOM: usize = 256;

/// What waits, and what is being worked on.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Told when there may be something to begin.
    pub(crate) offered: Notify,
    /// Told when something was begun, claimed or ended.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<ConfigurationEvent>,
    /// The ids of what waits.
    queued: HashSet<String>,
    /// What is worked on, with the attempts that were used when it was offered.
    begun: HashMap<String, i32>,
    /// What was offered again while it was worked on: its claim was lost on the way.
    again: HashMap<String, ConfigurationEvent>,
    /// The slots that are worked on. Instructions have none: a cancel has to reach a running upgrade.
    busy: HashSet<Slot>,
    /// Events begun and not claimed yet.
    claiming: usize,
    /// Events that came to an end that the server knows.
    settled: u64,
}

/// An event that is begun and not claimed yet.
#[derive(Debug)]
pub(crate) struct Claiming<'a>(&'a Inbox);

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes events in; those that are here already are passed over.
    pub(crate) fn offer(&self, events: impl IntoIterator<Item = ConfigurationEvent>) {
        let mut state = self.state();
        for event in events {
            match state.begun.get(&event.id) {
                Some(attempt) if event.attempt > *attempt => {
                    state.again.insert(event.id.clone(), event);
                }
                // An answer from before it was claimed.
                Some(_) => {}
                None => {
                    if state.queued.insert(event.id.clone()) {
                        state.waiting.push_back(event);
                    }
                }
            }
        }
        drop(state);
        self.offered.notify_one();
    }

    /// The next event to begin, while fewer than `most` slots are worked on. Whoever gets one has to call
    /// [`Self::ended`] for it.
    pub(crate) fn next(&self, most: usize) -> Option<(ConfigurationEvent, Claiming<'_>)> {
        let mut state = self.state();
        let is_full = state.busy.len() >= most;
        let may_begin = |event: &ConfigurationEvent| {
            is_instruction(event) || (!is_full && !state.busy.contains(&Slot::from(event)))
        };
        let at = state.waiting.iter().position(may_begin)?;
        let event = state.waiting.remove(at)?;
        state.queued.remove(&event.id);
        state.begun.insert(event.id.clone(), event.attempt);
        if !is_instruction(&event) {
            state.busy.insert(Slot::from(&event));
        }
        state.claiming += 1;
        drop(state);
        self.moved.notify_one();
        Some((event, Claiming(self)))
    }

    /// An event is done with, or `again` waits. `settled` says whether the server knows how it ended.
    pub(crate) fn ended(&self, event: ConfigurationEvent, again: bool, settled: bool) {
        let mut state = self.state();
        if !is_instruction(&event) {
            state.busy.remove(&Slot::from(&event));
        }
        state.begun.remove(&event.id);
        state.settled += u64::from(settled);
        let newer = state.again.remove(&event.id);
        if let Some(event) = newer.or_else(|| again.then_some(event)) {
            state.queued.insert(event.id.clone());
            state.waiting.push_back(event);
        }
        drop(state);
        self.offered.notify_one();
        self.moved.notify_one();
    }

    /// Whether an event is being worked on.
    pub(crate) fn is_begun(&self, event_id: &str) -> bool {
        self.state().begun.contains_key(event_id)
    }

    /// Whether everything that was offered is claimed or done with.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.claiming == 0
    }

    /// Waits until everything that was offered is claimed or done with.
    pub(crate) async fn quiet(&self) {
        while !self.is_quiet() {
            self.moved.notified().await;
        }
    }

    /// Waits until there is room for more.
    pub(crate) async fn room(&self) {
        while self.state().waiting.len() >= ROOM {
            self.moved.notified().await;
        }
    }

    /// How many events have ended so that the server knows, and whether any is worked on.
    pub(crate) fn progress(&self) -> (u64, bool) {
        let state = self.state();
        (state.settled, !state.begun.is_empty())
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.0.state().claiming -= 1;
        self.0.moved.notify_one();
    }
}

/// Whether an event says what to do once, instead of what a slot should be.
pub(crate) fn is_instruction(event: &ConfigurationEvent) -> bool {
    event.config_type == i32::from(ConfigType::DataplaneUpgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, user_id: &str, config_type: ConfigType) -> ConfigurationEvent {
        ConfigurationEvent {
            id: id.to_owned(),
            user_id: user_id.to_owned(),
            config_type: config_type.into(),
            ..Default::default()
        }
    }

    fn next(inbox: &Inbox, most: usize) -> Option<ConfigurationEvent> {
        inbox.next(most).map(|(event, _)| event)
    }

    #[test]
    fn an_event_is_taken_in_once_and_a_slot_worked_on_once() {
        let inbox = Inbox::default();
        let keys = ConfigType::UserKeys;
        let events = [event("1", "ann", keys), event("2", "ann", keys), event("3", "bob", keys)];
        inbox.offer(events.clone());
        inbox.offer(events);
        let first = next(&inbox, 8).expect("the first");
        let other = next(&inbox, 8).expect("another slot");
        assert_eq!((first.id.as_str(), other.id.as_str()), ("1", "3"));
        assert_eq!(next(&inbox, 8), None);
        inbox.ended(first, false, true);
        assert_eq!(next(&inbox, 1), None, "one at a time, and bob is worked on");
        assert_eq!(next(&inbox, 2).map(|event| event.id), Some("2".to_owned()));
        assert!(inbox.is_quiet());
        assert_eq!(inbox.progress(), (1, true));
    }

    #[test]
    fn instructions_need_no_room_and_do_not_wait_for_one_another() {
        let inbox = Inbox::default();
        let upgrade = ConfigType::DataplaneUpgrade;
        inbox.offer([
            event("1", "ann", ConfigType::Byok),
            event("2", "system", upgrade),
            event("3", "system", upgrade),
        ]);
        assert!(next(&inbox, 1).is_some() && next(&inbox, 1).is_some() && next(&inbox, 1).is_some());
    }

    #[test]
    fn what_is_offered_again_while_it_is_worked_on_follows() {
        let inbox = Inbox::default();
        let offered = event("1", "ann", ConfigType::Byok);
        inbox.offer([offered.clone()]);
        let begun = next(&inbox, 1).expect("it waits");
        inbox.offer([offered.clone(), ConfigurationEvent { attempt: 1, ..offered }]);
        assert_eq!(next(&inbox, 2), None);
        inbox.ended(begun, false, false);
        assert_eq!(next(&inbox, 1).map(|event| event.attempt), Some(1));
    }

    #[test]
    fn what_failed_on_the_way_waits_again() {
        let inbox = Inbox::default();
        inbox.offer([event("1", "ann", ConfigType::Byok)]);
        let begun = next(&inbox, 1).expect("it waits");
        inbox.ended(begun, true, false);
        assert!(!inbox.is_quiet());
        assert!(next(&inbox, 1).is_some());
    }
}
