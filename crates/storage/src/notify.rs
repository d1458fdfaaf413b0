//! Wake-ups: tells whoever waits for a customer's events that there may be news. A wake-up is a hint; the
//! tables are the truth.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use agentrouter_kernel::id::{Customer, Id};
use tokio::sync::{broadcast, watch};

/// Announces committed changes inside this process, and hears of other processes' through
/// [`Notifier::announce_from_elsewhere`].
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    customers: Mutex<HashMap<Id<Customer>, watch::Sender<u64>>>,
    outgoing: broadcast::Sender<Id<Customer>>,
}

/// Changes that nobody has passed on yet; when it overflows, other processes find out by their safety poll.
const OUTGOING: usize = 1024;

impl Default for Notifier {
    fn default() -> Self {
        Self(Arc::new(Inner { customers: Mutex::default(), outgoing: broadcast::channel(OUTGOING).0 }))
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier(..)")
    }
}

impl Notifier {
    /// Waits for news of a customer. News between two waits are not lost: they end the next one at once.
    pub fn subscribe(&self, customer: Id<Customer>) -> watch::Receiver<u64> {
        let mut customers = self.0.customers.lock().unwrap_or_else(PoisonError::into_inner);
        customers.entry(customer).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Changes committed by this process, for the task that tells other processes.
    pub fn outgoing(&self) -> broadcast::Receiver<Id<Customer>> {
        self.0.outgoing.subscribe()
    }

    /// Announces a change that this process committed.
    pub fn announce(&self, customer: Id<Customer>) {
        self.announce_from_elsewhere(customer);
        // Nobody listens on an embedded database.
        let _ = self.0.outgoing.send(customer);
    }

    /// Announces a change that another process committed.
    pub fn announce_from_elsewhere(&self, customer: Id<Customer>) {
        let mut customers = self.0.customers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = customers.get(&customer) {
            if sender.receiver_count() == 0 {
                customers.remove(&customer);
            } else {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// The customers that somebody waits for.
    pub(crate) fn awaited(&self) -> Vec<Id<Customer>> {
        let mut customers = self.0.customers.lock().unwrap_or_else(PoisonError::into_inner);
        customers.retain(|_, sender| sender.receiver_count() > 0);
        customers.keys().copied().collect()
    }

    /// Announces that anything may have changed.
    pub fn announce_all(&self) {
        let mut customers = self.0.customers.lock().unwrap_or_else(PoisonError::into_inner);
        customers.retain(|_, sender| sender.receiver_count() > 0);
        for sender in customers.values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
