//! The token: exchanged for a new one in time, and read anew where the server refuses it.

use std::sync::PoisonError;
use std::time::Duration;

use agentrouter_kernel::Timestamp;
use tokio::time::Instant;

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

/// How many refusals in a row it takes until a token is given up for one that looks worse.
const REFUSALS: u32 = 3;

/// How often the token in use was refused in a row.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    count: u32,
    counted_at: Option<Instant>,
    /// The calls that had gone through by then.
    passes: u64,
}

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

    /// Looks for another token after the server refused the one in use. Returns whether there is one now.
    pub(crate) async fn reload_token(&self) -> bool {
        let given = self.given_token().await;
        let current = self.shared.token();
        let is_refused_for_good = self.count_refusal() >= REFUSALS;
        let now = self.worker.clock.now();
        // The kept one, too: what took its place may be no better.
        let others = [given, self.worker.store.token()].into_iter().flatten();
        let mut others = others.filter(|other| *other != current);
        let next = others.find(|other| is_refused_for_good || may_follow(&current, other, now));
        if !next.is_some_and(|token| self.shared.use_token(&token)) {
            return false;
        }
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count = 0;
        self.report(&Report::TokenRenewed);
        true
    }

    /// The token anew where it came from.
    async fn given_token(&self) -> Option<Token> {
        let Some(path) = self.worker.config.token_file.clone() else {
            return Some(self.worker.config.token.clone());
        };
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

    /// Counts how often the token was refused in a row. Calls that were refused together count once.
    fn count_refusal(&self) -> u32 {
        let passes = self.client().passes();
        let apart = self.worker.config.refused_pause / 2;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.passes != passes {
            *refusals = Refusals { passes, ..Refusals::default() };
        }
        if refusals.counted_at.is_none_or(|at| at.elapsed() >= apart) {
            refusals.count = refusals.count.saturating_add(1);
            refusals.counted_at = Some(Instant::now());
        }
        refusals.count
    }

    /// Forgets the kept token once the server has taken the one that is used instead.
    pub(crate) fn forget_replaced_token(&self) {
        if self.client().has_passed()
            && self.worker.store.token().is_some_and(|kept| kept != self.shared.token())
        {
            self.worker.store.forget_token();
        }
    }
}

/// Whether a token may take the place of one that was refused once, which may have been for a reason that passes.
fn may_follow(refused: &Token, other: &Token, now: Timestamp) -> bool {
    let Some(claims) = other.claims() else { return true };
    let is_older = refused.claims().is_some_and(|refused| refused.succeeds(&claims));
    !is_older && now < Timestamp::from_secs(claims.exp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::unsigned;

    #[test]
    fn a_good_token_does_not_make_way_for_a_worse_one() {
        let token = |iat: i64| unsigned(&json!({"iat": iat, "exp": iat + 100, "cust": "c", "ws": "w"}));
        let now = Timestamp::from_secs(1_050);
        assert!(may_follow(&token(1_000), &token(1_040), now));
        assert!(!may_follow(&token(1_040), &token(1_000), now), "an older one");
        assert!(!may_follow(&token(900), &token(940), now), "one that has ended");
        assert!(may_follow(&token(1_000), &Token::new("opaque"), now));
        assert!(may_follow(&Token::new("opaque"), &token(1_000), now));
    }
}
