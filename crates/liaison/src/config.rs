//! What a worker needs to know, and whether it makes sense.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use agentrouter_kernel::{Fault, Violations};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::policy::UpgradePolicy;
use crate::tls::ClientTls;
use crate::token::Token;

/// What the server accepts as `wait`; a worker that does not wait would only burn its time.
const WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);
/// What the server accepts as `lease`.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(15);
/// How many slots may be worked on at once: a server takes 200 calls on a connection.
const CONCURRENCY: RangeInclusive<usize> = 1..=150;
/// The longest pause: more than anybody wants, and far from where times overflow.
const PAUSE_MAX: Duration = Duration::from_hours(24 * 365);
/// The longest worker id, in characters.
const WORKER_ID_MAX: usize = 255;

/// How a [`Worker`](crate::Worker) works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where the management plane is: `http://host:port` or `https://host:port`, without a path.
    pub base_url: String,
    /// Whom it trusts, and as whom it comes, where that URL is https.
    pub tls: ClientTls,
    /// A workspace token. Other credentials see no secrets, so that configurations with credentials fail.
    pub token: Token,
    /// Names this worker in claims, at most 255 characters. Two running workers must not share one: the server
    /// takes them for the same.
    pub worker_id: String,
    /// How long a poll waits for events: from 1 s to 60 s, 30 s by default.
    pub wait: Duration,
    /// How long a claim holds unless renewed: from 1 s to 900 s, 30 s by default. Longer applies renew it.
    pub lease: Duration,
    /// The shortest pause after a failure, 0.1 s by default.
    pub backoff_min: Duration,
    /// The longest pause after a failure, 15 s by default, unless the server asks for more.
    pub backoff_max: Duration,
    /// The pause after the server refused the token or the call, 15 s by default: asking faster helps nobody.
    pub refused_pause: Duration,
    /// Whether to watch for events, true by default. Where that does not work, the worker polls as it does without.
    pub watch: bool,
    /// How often a watching worker looks by itself at what waits, should the watch have missed it: 5 min by default.
    pub safety_poll: Duration,
    /// How often the doctor's observation is sent, where there is one: 1 min by default, and not more often.
    pub doctor_interval: Duration,
    /// How many slots are worked on at once, 16 by default.
    pub concurrency: usize,
    /// Whether to have everything checked at the start, true by default.
    pub sync_at_start: bool,
    /// How often drift is looked for: 5 min by default, 0 for never. Each time is up to a fifth later.
    pub sweep_interval: Duration,
    /// Every how manieth sweep is a full sync: 12 by default, 0 for none.
    pub full_sync_every: u32,
    /// How long a stopping worker waits for what is being applied, 30 s by default.
    pub stop_grace: Duration,
    /// How often a running upgrade is looked at, 5 s by default.
    pub upgrade_poll: Duration,
    /// What upgrades may install: nothing by default.
    pub upgrades: UpgradePolicy,
    /// Where the worker keeps what it remembers over a restart: a folder of its own, or nowhere.
    pub state_dir: Option<PathBuf>,
    /// Where the token came from, to be read again when the server refuses the one in use.
    pub token_file: Option<PathBuf>,
}

impl WorkerConfig {
    /// The defaults, with a new worker id.
    pub fn new(base_url: impl Into<String>, token: Token) -> Self {
        Self {
            base_url: base_url.into(),
            tls: ClientTls::default(),
            token,
            worker_id: default_worker_id(&mut fastrand::Rng::new()),
            wait: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(15),
            refused_pause: Duration::from_secs(15),
            watch: true,
            safety_poll: Duration::from_mins(5),
            doctor_interval: Duration::from_mins(1),
            concurrency: 16,
            sync_at_start: true,
            sweep_interval: Duration::from_mins(5),
            full_sync_every: 12,
            stop_grace: Duration::from_secs(30),
            upgrade_poll: Duration::from_secs(5),
            upgrades: UpgradePolicy::default(),
            state_dir: None,
            token_file: None,
        }
    }

    /// What is needed to call the server.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every wrong setting; none of them shows the token.
    pub(crate) fn check(&self) -> Result<(Endpoint, MetadataValue<Ascii>), Fault> {
        let mut violations = Violations::new();
        violations.http_url("base_url", &self.base_url);
        let authority = self.base_url.trim_end_matches('/').split_once("://").map(|(_, rest)| rest);
        let has_path = authority.is_some_and(|authority| authority.contains(['/', '?', '#']));
        violations.require(
            !has_path,
            "base_url",
            "must not have a path: gRPC has none in front of its services",
        );
        violations.require(!self.worker_id.is_empty(), "worker_id", "is required");
        violations.text("worker_id", &self.worker_id, WORKER_ID_MAX);
        violations.require(WAIT.contains(&self.wait), "wait", "must be from 1 s to 60 s");
        violations.require(LEASE.contains(&self.lease), "lease", "must be from 1 s to 900 s");
        let bounded = Duration::ZERO < self.backoff_min && self.backoff_min <= self.backoff_max;
        violations.require(bounded, "backoff_min", "must be more than 0 and at most backoff_max");
        violations.require(
            self.refused_pause >= self.backoff_min,
            "refused_pause",
            "must be at least backoff_min",
        );
        violations.require(CONCURRENCY.contains(&self.concurrency), "concurrency", "must be from 1 to 150");
        for (field, pause) in [
            ("safety_poll", self.safety_poll),
            ("doctor_interval", self.doctor_interval),
            ("upgrade_poll", self.upgrade_poll),
        ] {
            violations.require(!pause.is_zero(), field, "must be more than 0");
        }
        for (field, pause) in [
            ("backoff_max", self.backoff_max),
            ("refused_pause", self.refused_pause),
            ("safety_poll", self.safety_poll),
            ("doctor_interval", self.doctor_interval),
            ("sweep_interval", self.sweep_interval),
            ("stop_grace", self.stop_grace),
            ("upgrade_poll", self.upgrade_poll),
        ] {
            violations.require(pause <= PAUSE_MAX, field, "must be at most 365 days");
        }
        let header = self.token.header();
        violations.require(header.is_some(), "token", "must be one line of visible ASCII characters");
        let tls = self.tls.config(&self.base_url, &mut violations);
        let endpoint = self.endpoint(tls);
        if let Err(error) = &endpoint
            && violations.is_empty()
        {
            violations.add("base_url", format!("cannot be used: {}", crate::failure::chain(error)));
        }
        violations.finish()?;
        match (endpoint, header) {
            (Ok(endpoint), Some(header)) => Ok((endpoint, header)),
            (Err(error), _) => Err(Fault::internal(error)),
            (_, None) => Err(Fault::invalid_field("token", "is required")),
        }
    }

    /// Where the management plane is, as a connection sees it.
    fn endpoint(&self, tls: Option<ClientTlsConfig>) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.base_url.clone())?
            .user_agent(concat!("agentrouter-liaison/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(Duration::from_secs(5))
            // A poll that waits on a dead connection would look like one without events.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        match tls {
            Some(tls) => endpoint.tls_config(tls),
            None => Ok(endpoint),
        }
    }
}

/// The host's name and ten random characters: tells people where a worker runs, and workers apart.
pub fn default_worker_id(rng: &mut fastrand::Rng) -> String {
    let host = gethostname::gethostname();
    let host: String = host
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        .take(64)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    let suffix: String =
        std::iter::repeat_with(|| rng.alphanumeric().to_ascii_lowercase()).take(10).collect();
    format!("{host}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WorkerConfig {
        WorkerConfig::new("http://127.0.0.1:8080", Token::new("secret-token\n"))
    }

    #[test]
    fn defaults_are_good() {
        let config = config();
        let (endpoint, header) = config.check().expect("a good configuration");
        assert_eq!(endpoint.uri(), "http://127.0.0.1:8080/");
        assert_eq!(header.to_str().ok(), Some("Bearer secret-token"));
        assert!(header.is_sensitive());
        assert_eq!((config.wait, config.lease), (Duration::from_secs(30), Duration::from_secs(30)));
    }

    #[test]
    fn tokens_are_never_shown() {
        let shown = format!("{:?}", config());
        assert!(shown.contains("Token(..)"), "{shown}");
        assert!(!shown.contains("secret-token"), "{shown}");
        let bad = WorkerConfig { token: Token::new("two\nlines"), ..config() };
        let fault = bad.check().map(|_| ()).expect_err("a bad token");
        assert!(!format!("{fault:?}").contains("two"), "{fault:?}");
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let config = WorkerConfig {
            base_url: "ftp://example.com".to_owned(),
            worker_id: String::new(),
            wait: Duration::ZERO,
            lease: Duration::from_secs(901),
            backoff_min: Duration::ZERO,
            concurrency: 0,
            upgrade_poll: Duration::ZERO,
            token: Token::new(" "),
            ..config()
        };
        let fault = config.check().map(|_| ()).expect_err("nothing of it is right");
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            ["base_url", "worker_id", "wait", "lease", "backoff_min", "concurrency", "upgrade_poll", "token"]
        );
    }

    #[test]
    fn pauses_that_no_clock_reaches_are_refused() {
        let config = WorkerConfig { safety_poll: Duration::MAX, stop_grace: Duration::MAX, ..config() };
        let fault = config.check().map(|_| ()).expect_err("they are too long");
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["safety_poll", "stop_grace"]);
    }

    #[test]
    fn paths_are_refused_since_they_would_be_dropped() {
        for (url, good) in [
            ("http://localhost:8080/", true),
            ("http://[::1]:8080", true),
            ("http://localhost:8080/api", false),
            ("http://localhost:8080?x=1", false),
            ("http://user@localhost", false),
            ("localhost:8080", false),
        ] {
            let config = WorkerConfig { base_url: url.to_owned(), ..config() };
            assert_eq!(config.check().is_ok(), good, "{url}");
        }
    }

    #[test]
    fn worker_ids_differ() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (one, two) = (default_worker_id(&mut rng), default_worker_id(&mut rng));
        assert_ne!(one, two);
        assert!(one.len() <= 75 && one.is_ascii(), "{one}");
    }
}
