//! What a worker needs to know, and whether it makes sense.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use agentrouter_kernel::{Fault, Violations};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{ClientTlsConfig, Endpoint};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What the server accepts as `wait`; a worker that does not wait would only burn its time.
const WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);
/// What the server accepts as `lease`.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(15);
/// The longest worker id, in characters.
const WORKER_ID_MAX: usize = 255;

/// A bearer token: wiped when dropped, and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(String);

impl Token {
    /// Takes a token over, without the white space around it (files end with a line end).
    pub fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        let token = Self(text.trim().to_owned());
        text.zeroize();
        token
    }

    fn header(&self) -> Option<MetadataValue<Ascii>> {
        let printable = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic());
        let mut text = format!("Bearer {}", self.0);
        let header = printable.then(|| MetadataValue::try_from(&text).ok()).flatten();
        text.zeroize();
        header.map(|mut header| {
            header.set_sensitive(true);
            header
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How a [`Worker`](crate::Worker) works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where the management plane is: `http://host:port` or `https://host:port`, without a path.
    pub base_url: String,
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
}

impl WorkerConfig {
    /// The defaults, with a new worker id.
    pub fn new(base_url: impl Into<String>, token: Token) -> Self {
        Self {
            base_url: base_url.into(),
            token,
            worker_id: default_worker_id(&mut fastrand::Rng::new()),
            wait: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(15),
            refused_pause: Duration::from_secs(15),
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
        let header = self.token.header();
        violations.require(header.is_some(), "token", "must be one line of visible ASCII characters");
        let endpoint = self.endpoint();
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

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(self.base_url.clone())?
            .user_agent(concat!("agentrouter-liaison/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(Duration::from_secs(5))
            // A poll that waits on a dead connection would look like one without events.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        if self.base_url.starts_with("https://") {
            endpoint.tls_config(ClientTlsConfig::new().with_native_roots().timeout(Duration::from_secs(5)))
        } else {
            Ok(endpoint)
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
            token: Token::new(" "),
            ..config()
        };
        let fault = config.check().map(|_| ()).expect_err("nothing of it is right");
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["base_url", "worker_id", "wait", "lease", "backoff_min", "token"]);
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
