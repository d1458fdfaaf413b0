//! Work on a connection that does not stop half-way where whoever waits for it goes away.
//!
//! A call may be given up at any moment, by its deadline or with its connection. A BEGIN that nobody waits for would
//! leave the connection inside a transaction that no one knows of, and a COMMIT would be done without being announced.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// A future that a task takes over where it is dropped before its end.
pub(crate) struct ToTheEnd<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> ToTheEnd<T> {
    /// The work, and who waits for it where nobody else does.
    pub(crate) fn new(tasks: TaskTracker, work: BoxFuture<'static, T>) -> Self {
        Self { work: Some(work), tasks }
    }
}

impl<T: Send + 'static> fmt::Debug for ToTheEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToTheEnd").field("has_ended", &self.work.is_none()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let outcome = std::task::ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        // Without a runtime the process is on its way out, and its connections with it.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            self.tasks.spawn_on(async move { drop(work.await) }, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_is_done_all_the_same() {
        let (tasks, go, done) =
            (TaskTracker::new(), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let work = {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            async move {
                go.notified().await;
                done.store(true, Ordering::SeqCst);
            }
        };
        let mut work = ToTheEnd::new(tasks.clone(), Box::pin(work));
        assert_eq!((&mut work).now_or_never(), None);
        drop(work);
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert!(done.load(Ordering::SeqCst));

        assert_eq!(ToTheEnd::new(tasks.clone(), Box::pin(async { 7 })).await, 7);
        assert!(tasks.is_empty(), "what was waited for needs no task");
    }
}
