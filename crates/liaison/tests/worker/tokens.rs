//! Tokens that are renewed, refused, and read anew.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_kernel::{Clock, SystemClock};
use agentrouter_liaison::{DirTarget, Report, Token, WorkerConfig};
use aws_lc_rs::digest;

use crate::plane::{Plane, TOKEN};
use crate::running::{Gated, Running, config};

/// A token of the plane's workspace that was issued some seconds ago and is good for an hour in all.
pub(crate) fn token(seconds_ago: i64) -> String {
    let issued = SystemClock.now().as_secs() - seconds_ago;
    let payload = serde_json::json!({"iat": issued, "exp": issued + 3600, "cust": "acme", "ws": "edge"});
    let encode = |bytes: &[u8]| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let signature = digest::digest(&digest::SHA256, payload.to_string().as_bytes());
    format!("e30.{}.{}", encode(payload.to_string().as_bytes()), encode(signature.as_ref()))
}

pub(crate) fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn a_token_is_renewed_in_the_last_third_of_its_life_and_used_at_once() {
    let plane = Plane::start().await;
    let (old, new) = (leak(token(2500)), token(0));
    plane.change(|state| (state.token, state.next_token) = (old, new.clone()));
    let target = Gated::new();
    target.open.send_replace(true);
    let worker = Running::start(WorkerConfig { token: Token::new(old), ..config(&plane) }, target);
    worker.until(|report| matches!(report, Report::TokenRenewed)).await;
    // The old one is not taken any more.
    let event = plane.change(|state| {
        state.token = TOKEN;
        state.publish(crate::plane::configuration("ann", 1))
    });
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.renewals, [("acme".to_owned(), "edge".to_owned())]);
    worker.stop().await;
}

#[tokio::test]
async fn a_token_that_is_young_or_does_not_say_is_left_as_it_is() {
    for text in [token(2000), TOKEN.to_owned()] {
        let plane = Plane::start().await;
        let text = leak(text);
        plane.change(|state| state.token = text);
        let event = plane.publish("ann", 1);
        let target = Gated::new();
        target.open.send_replace(true);
        let worker = Running::start(WorkerConfig { token: Token::new(text), ..config(&plane) }, target);
        plane.until(|state| state.completion(&event).is_some()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(plane.state().renewals.is_empty());
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_refused_token_is_read_anew_from_its_file() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "an-old-token\n").expect("a file");
    let config =
        WorkerConfig { token: Token::new("an-old-token"), token_file: Some(path.clone()), ..config(&plane) };
    let event = plane.publish("ann", 1);
    let target = DirTarget::open(folder.path().join("slots")).expect("a folder");
    let worker = Running::start(config, Arc::new(target));
    worker.until(|report| matches!(report, Report::Refused { code: "UNAUTHENTICATED", .. })).await;
    assert!(!worker.reports().contains(&Report::TokenRenewed));
    std::fs::write(&path, format!("{TOKEN}\n")).expect("a file");
    plane.until(|state| state.completion(&event).is_some()).await;
    assert!(worker.stop().await.contains(&Report::TokenRenewed));
}

#[tokio::test]
async fn a_newer_token_in_the_state_folder_wins_until_it_is_refused() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (old, new) = (leak(token(2500)), token(0));
    plane.change(|state| (state.token, state.next_token) = (old, new));
    let config = || WorkerConfig {
        token: Token::new(old),
        state_dir: Some(folder.path().join("state")),
        ..config(&plane)
    };
    let target = Gated::new();
    target.open.send_replace(true);
    let worker = Running::start(config(), Arc::clone(&target) as Arc<dyn agentrouter_liaison::Target>);
    worker.until(|report| matches!(report, Report::TokenRenewed)).await;
    worker.stop().await;

    // Only the renewed one is good now.
    plane.change(|state| state.token = TOKEN);
    let event = plane.publish("ann", 1);
    let worker = Running::start(config(), Arc::clone(&target) as Arc<dyn agentrouter_liaison::Target>);
    plane.until(|state| state.completion(&event).is_some()).await;
    let reports = worker.stop().await;
    assert!(!reports.iter().any(|report| matches!(report, Report::Refused { .. })), "{reports:?}");

    // And now only the given one.
    plane.change(|state| (state.token, state.keeps_renewed) = (old, false));
    let event = plane.publish("ann", 2);
    let worker = Running::start(config(), target);
    plane.until(|state| state.completion(&event).is_some()).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_refusal_that_passes_costs_no_renewed_token() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (old, new) = (leak(token(2500)), leak(token(0)));
    plane.change(|state| (state.token, state.next_token) = (old, new.to_owned()));
    let config = WorkerConfig {
        token: Token::new(old),
        state_dir: Some(folder.path().join("state")),
        ..config(&plane)
    };
    let target = Gated::new();
    target.open.send_replace(true);
    let worker = Running::start(config, target);
    worker.until(|report| matches!(report, Report::TokenRenewed)).await;
    // Everything is refused for a moment, and then the renewed one is good.
    plane.change(|state| {
        (state.token, state.keeps_renewed) = (TOKEN, false);
        state.cuts += 1;
        state.publish(crate::plane::configuration("ann", 1))
    });
    worker.until(|report| matches!(report, Report::Refused { code: "UNAUTHENTICATED", .. })).await;
    let event = plane.change(|state| {
        state.token = new;
        state.publish(crate::plane::configuration("bob", 1))
    });
    plane.until(|state| state.completion(&event).is_some()).await;
    let reports = worker.stop().await;
    let renewals = reports.iter().filter(|report| matches!(report, Report::TokenRenewed)).count();
    assert_eq!(renewals, 1, "{reports:?}");
    let kept = std::fs::read_to_string(folder.path().join("state/liaison.json")).expect("it is kept");
    assert!(kept.contains(new), "{kept}");
}
