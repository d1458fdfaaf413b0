//! The token: exchanged for a new one in time, and read anew where the server refuses it.

use std::time::Duration;

use agentrouter_kernel::Timestamp;

use crate::report::Report;
use crate::run::Run;
use crate::token::{Claims, Token};

/// How long to sleep at most: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_hours(1);
/// The shortest pause after a renewal that failed: there is a third of the token's life left for others.
const RETRY: Duration = Duration::from_secs(30);
/// How much longer the pauses get.
const RETRY_MAX: Duration = Duration::from_mins(30);
/// The longest token file, in bytes: more than any token has.
const FILE_MAX: u64 = 64 << 10;

/// How long a renewed token is left alone, whatever the clock says.
fn due_again(claims: &Claims) -> Duration {
    let life = u64::try_from(claims.exp.saturating_sub(claims.iat)).unwrap_or_default();
    (Duration::from_secs(life) / 10).min(LOOK)
}

impl Run {
    /// Renews the token whenever less than a third of its life is left.
    pub(crate) async fn renew_tokens(&self) {
        let mut failures = 0_u32;
        loop {
            // A token that does not say when it ends is never renewed, but may be replaced by one that does.
            let claims = self.shared.token().claims();
            let Some(claims) = claims.filter(|claims| !claims.ws.is_empty() && !claims.cust.is_empty())
            else {
                if !self.rest(LOOK).await {
                    return;
                }
                continue;
            };
            let now = self.worker.clock.now();
            let due = Timestamp::from_secs(claims.renew_from());
            if now < due {
                // Workers whose tokens were issued together do not renew them together.
                let ahead = due.since(now);
                if !self.rest((ahead + self.worker.jitter.within(ahead / 10)).min(LOOK)).await {
                    return;
                }
                continue;
            }
            if !self.until_reached().await {
                return;
            }
            let pause = match Box::pin(self.renew_token(&claims)).await {
                // Where this machine's clock is far ahead, the new token looks old at once.
                Ok(()) => {
                    failures = 0;
                    due_again(&claims)
                }
                Err(why) => {
                    tracing::warn!("cannot renew the token: {why}");
                    failures = failures.saturating_add(1);
                    RETRY.saturating_mul(1 << failures.min(6)).min(RETRY_MAX)
                }
            };
            if !self.rest(self.worker.jitter.spread(pause)).await {
                return;
            }
        }
    }

    async fn renew_token(&self, claims: &Claims) -> Result<(), String> {
        let renewed = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            renewed = self.client().renew_token(&claims.cust, &claims.ws) => renewed,
        };
        let token = renewed.map_err(|failure| format!("{}: {}", failure.code_name(), failure.message))?;
        // Otherwise it would be due again at once.
        if token.claims().is_none_or(|new| new.exp <= claims.exp) {
            return Err("the server's new token is not good for longer than the old one".to_owned());
        }
        if !self.shared.use_token(&token) {
            return Err("the server's new token is not one".to_owned());
        }
        self.worker.store.keep_token(&token);
        self.worker.store.save().await;
        self.report(&Report::TokenRenewed);
        Ok(())
    }

    /// Reads the token anew where it came from, after the server refused the one in use. Returns whether it is
    /// another one now.
    pub(crate) async fn reload_token(&self) -> bool {
        let token = match self.worker.config.token_file.clone() {
            None => Some(self.worker.config.token.clone()),
            Some(path) => {
                let read = tokio::task::spawn_blocking(move || {
                    use std::io::Read;
                    let mut text = String::new();
                    std::fs::File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
                    std::io::Result::Ok(Token::new(text))
                });
                match read.await {
                    Ok(Ok(token)) => Some(token),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "cannot read the token file");
                        None
                    }
                    Err(_) => None,
                }
            }
        };
        let Some(token) = token.filter(|token| *token != self.shared.token()) else { return false };
        if !self.shared.use_token(&token) {
            return false;
        }
        self.worker.store.forget_token();
        self.report(&Report::TokenRenewed);
        true
    }
}
