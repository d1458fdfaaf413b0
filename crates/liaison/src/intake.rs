//! How events come in: by a watch, and by long polls where a watch does not work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrouter_api::configurator::WatchPendingEventsResponse;
use tokio::time::{Instant, timeout};
use tonic::{Code, Streaming};

use crate::backoff::Backoff;
use crate::failure::Failure;
use crate::run::Run;

/// How long a watch may be silent. The server says something every 10 s.
const SILENCE: Duration = Duration::from_secs(35);
/// How long the first message may take. What holds it back longer holds back all of them.
const OPENING: Duration = Duration::from_secs(10);
/// A watch that ends before this has been cut, unless the server said why.
const EARLY: Duration = Duration::from_secs(30);
/// What a watch that fell silent ends with; no server says so.
const SILENT: Code = Code::Aborted;
/// How many watches in a row may be cut before the worker polls instead.
const CUTS_MAX: u32 = 3;
/// How long a poll's events may wait for a place before the next poll: a cancel needs none.
const CROWDED: Duration = Duration::from_secs(1);
/// How long it polls before it tries to watch again.
const POLLING: Duration = Duration::from_mins(10);

/// What is known of the way events come in.
struct Intake {
    failures: Backoff,
    fruitless: Backoff,
    /// Where the watch goes on.
    cursor: String,
    /// Watches that were cut, in a row.
    cuts: u32,
    /// Until when watching is of no use.
    polls_until: Option<Instant>,
}

/// What to do after a round.
enum Next {
    /// The next one.
    AtOnce,
    /// The next one after a short pause: this one would come again at once.
    Soon,
}

impl Run {
    pub(crate) async fn intake(&self) {
        let mut intake = Intake {
            failures: self.backoff(),
            fruitless: self.fruitless(),
            cursor: self.worker.store.cursor(),
            cuts: 0,
            polls_until: None,
        };
        while !self.stop.is_cancelled() {
            let watches =
                self.worker.config.watch && intake.polls_until.is_none_or(|until| until <= Instant::now());
            // Boxed, because most of it is in use for a moment only.
            let round =
                if watches { Box::pin(self.watch(&mut intake)).await } else { Box::pin(self.poll()).await };
            self.shared.watching.store(false, Ordering::Relaxed);
            if self.stop.is_cancelled() {
                return;
            }
            let pause = match round {
                Ok(Next::AtOnce) => {
                    intake.failures.reset();
                    intake.fruitless.reset();
                    continue;
                }
                Ok(Next::Soon) => {
                    intake.failures.reset();
                    intake.fruitless.next(None)
                }
                Err(failure) => self.after(failure, &mut intake.failures).await,
            };
            if !self.rest(pause).await {
                return;
            }
        }
    }

    /// Watches for as long as the stream lasts.
    async fn watch(&self, intake: &mut Intake) -> Result<Next, Failure> {
        let (began, token) = (Instant::now(), self.client().token());
        let opened = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Next::AtOnce),
            // It ends long before the watch does.
            opened = Box::pin(self.client().watch(&intake.cursor)) => opened,
        };
        let ended = match opened {
            Ok(mut stream) => {
                self.read(&mut stream, token, intake).await?.map(|failure| failure.with_token(token))
            }
            Err(failure) => Some(failure),
        };
        if self.stop.is_cancelled() {
            return Ok(Next::AtOnce);
        }
        let Some(failure) = ended else {
            self.shared.metrics.reconnects.inc();
            self.note_end(began.elapsed() < EARLY, intake);
            return Ok(Next::Soon);
        };
        match failure.code {
            // The server forgot the cursor, or never gave it out. Without one it starts with what is pending now.
            Code::OutOfRange | Code::InvalidArgument if !intake.cursor.is_empty() => {
                tracing::debug!(code = failure.code_name(), "the cursor is of no use any more");
                intake.cursor.clear();
                // A server that refuses what it gave out would be asked without end.
                Ok(Next::Soon)
            }
            Code::Unimplemented => {
                self.poll_instead(intake, "the server, or what is in front of it, has no watch");
                Ok(Next::AtOnce)
            }
            // Something in between holds streams back until they end. A server in trouble does not answer polls either.
            Code::DeadlineExceeded => {
                self.poll_instead(intake, "a watch was opened and nothing came");
                Ok(Next::AtOnce)
            }
            _ => {
                // A server that says when to come back was not cut off by anything in between.
                if failure.retry_after.is_none() && self.shared.watching.load(Ordering::Relaxed) {
                    self.note_end(failure.code == SILENT || began.elapsed() < EARLY, intake);
                }
                Err(failure)
            }
        }
    }

    /// Reads a stream to its end: none where it ended without an error. An error of this function itself is the
    /// worker's own.
    async fn read(
        &self,
        stream: &mut Streaming<WatchPendingEventsResponse>,
        token: u64,
        intake: &mut Intake,
    ) -> Result<Option<Failure>, Failure> {
        let mut patience = OPENING;
        loop {
            let message = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                message = timeout(patience, stream.message()) => message,
            };
            let message = match message {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(status)) => return Ok(Some(status.into())),
                Err(_) => {
                    // Something holds the messages back, or the server is gone without a word.
                    let silence = format!("the watch was silent for {} s", patience.as_secs());
                    let code = if patience == OPENING { Code::DeadlineExceeded } else { SILENT };
                    return Ok(Some(Failure::local(code, silence)));
                }
            };
            patience = SILENCE;
            if !self.shared.watching.swap(true, Ordering::Relaxed) {
                self.client().passed(token);
            }
            self.contacted();
            intake.failures.reset();
            self.check_workspace(&message.events)?;
            intake.cursor = message.cursor;
            self.inbox.offer(message.events);
            // What was given out before a cursor is not given out again, so a restart goes on from one only where
            // nothing before it waits any more.
            if self.inbox.is_quiet() {
                self.worker.store.keep_cursor(&intake.cursor);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = self.inbox.room() => {}
            }
        }
    }

    /// Notes that a watch ended, and polls where watches are cut again and again.
    fn note_end(&self, is_cut: bool, intake: &mut Intake) {
        intake.cuts = if is_cut { intake.cuts + 1 } else { 0 };
        if intake.cuts >= CUTS_MAX {
            self.poll_instead(intake, "something cuts watches off");
        }
    }

    fn poll_instead(&self, intake: &mut Intake, why: &str) {
        tracing::info!("{why}: the worker polls instead, and tries again later");
        intake.cuts = 0;
        intake.polls_until = Some(Instant::now() + self.worker.jitter.spread(POLLING));
    }

    /// One long poll, and the beginning of what it brought.
    async fn poll(&self) -> Result<Next, Failure> {
        // The first poll does not wait, so that it is known at once whether the server is there.
        let wait = if self.shared.is_connected() { self.worker.config.wait } else { Duration::ZERO };
        let started = Instant::now();
        let events = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Next::AtOnce),
            events = self.client().poll(wait) => events?,
        };
        self.contacted();
        self.check_workspace(&events)?;
        if events.is_empty() {
            return Ok(if started.elapsed() < wait / 2 { Next::Soon } else { Next::AtOnce });
        }
        let (before, _) = self.inbox.progress();
        self.inbox.offer(events);
        // What is not claimed yet would be offered again at once.
        tokio::select! {
            () = self.stop.cancelled() => return Ok(Next::AtOnce),
            waited = timeout(CROWDED, self.inbox.quiet()) => {
                if waited.is_err() {
                    return Ok(Next::AtOnce);
                }
            }
        }
        let (settled, is_working) = self.inbox.progress();
        Ok(if settled > before || is_working { Next::AtOnce } else { Next::Soon })
    }
}
