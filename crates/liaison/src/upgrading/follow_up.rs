//! The upgrades that an earlier run of the worker left behind. Their events may have come to an end without it.

use futures::future::join_all;

use super::Sent;
use crate::deliver::Undone;
use crate::run::Run;
use crate::upgrade::{UpgradeState, Upgrader};

impl Run {
    /// Tells how they stand, until each has ended and the server knows.
    pub(crate) async fn follow_up_upgrades(&self) {
        let left = self.worker.store.upgrades();
        let Some(upgrader) = self.worker.target.upgrader().filter(|_| !left.is_empty()) else { return };
        join_all(left.iter().map(|id| self.follow_up(upgrader, id))).await;
    }

    async fn follow_up(&self, upgrader: &dyn Upgrader, id: &str) {
        let mut told = None;
        while self.until_reached().await && self.worker.store.upgrades().contains(id) {
            let state = tokio::select! {
                () = self.stop.cancelled() => return,
                state = upgrader.state(id) => state,
            };
            // Whoever works on it tells of it.
            if !self.inbox.is_begun(id) {
                match state {
                    Ok(state) => {
                        if Box::pin(self.tell_left(id, state, &mut told)).await {
                            return;
                        }
                    }
                    Err(rejected) => {
                        tracing::debug!(id, "the data plane cannot tell how an upgrade stands: {rejected}");
                    }
                }
            }
            if !self.rest(self.worker.jitter.spread(self.worker.config.upgrade_poll)).await {
                return;
            }
        }
    }

    /// Tells how one stands, where that is news. Returns whether there is nothing left to do about it.
    async fn tell_left(&self, id: &str, state: UpgradeState, told: &mut Option<UpgradeState>) -> bool {
        let is_news = told.as_ref() != Some(&state);
        let sent = if is_news { self.tell_phase(id, &state).await } else { Ok(Sent::Counts) };
        match sent {
            Ok(Sent::Counts | Sent::Refused) => {
                let has_ended =
                    !matches!(state, UpgradeState::Running { .. } | UpgradeState::NeedsCredentials(_));
                *told = Some(state);
                // Its event may have been claimed meanwhile.
                let is_over = has_ended && !self.inbox.is_begun(id);
                if is_over {
                    self.worker.store.end_upgrade(id);
                }
                is_over
            }
            // The intake tells what is wrong with the token.
            Ok(Sent::NotDelivered) | Err(Undone::Denied(_) | Undone::Rejected(_) | Undone::Lost) => false,
            Err(Undone::Stopped) => true,
        }
    }
}
