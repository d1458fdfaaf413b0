//! Configuration: flags, then environment, then a TOML file, then defaults; read and checked once.

pub mod edge;
pub mod limits;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentrouter_envelope::{Keyring, Secret};
use agentrouter_identity::IssuerConfig;
use agentrouter_storage::Target;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use self::edge::{CorsArgs, EdgeArgs, EdgeConfig, EdgeFile, TlsArgs};
use self::limits::{LimitArgs, RateArgs};
use crate::telemetry::{LogFormat, Traces};

/// The keys of an OIDC issuer are asked for no more often than this, whoever sends tokens with unknown ones.
const OIDC_MIN_REFRESH: Duration = Duration::from_secs(30);

/// Settings of `serve`, as flags and environment variables. What is not given here is looked up in the file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// TOML file with settings.
    #[arg(long, env = "AGENTROUTER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on. [default: 127.0.0.1:8080]
    #[arg(long, env = "AGENTROUTER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
    /// What to log, such as `info` or `agentrouter=debug,warn`. [default: info]
    #[arg(long, env = "AGENTROUTER_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How lines of the log look. [default: auto, which is text on a terminal and JSON elsewhere]
    #[arg(long, env = "AGENTROUTER_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Serve `/metrics` on this address, too, for anybody who can reach it.
    #[arg(long, env = "AGENTROUTER_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,
    /// Send spans to this collector by OTLP over gRPC. [default: as OTEL_EXPORTER_OTLP_ENDPOINT says; else none]
    #[arg(long, env = "AGENTROUTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How many full syncs a second this process lets in; more are told when to come back. [default: 250]
    #[arg(long, env = "AGENTROUTER_FULL_SYNCS_PER_SECOND", value_name = "N")]
    pub full_syncs_per_second: Option<u32>,
    /// Accept a bootstrap key that is not in the key format on any address.
    #[arg(long)]
    pub allow_weak_bootstrap_key: bool,
    /// Let webhooks lead to private and loopback addresses, and to http.
    #[arg(long, env = "AGENTROUTER_WEBHOOK_ALLOW_PRIVATE")]
    pub webhook_allow_private: bool,
    #[command(flatten)]
    pub edge: EdgeArgs,
}

/// Where the data is.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// Folder of the embedded database and of generated keys. [default: .agentrouter]
    #[arg(long, env = "AGENTROUTER_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// `sqlite:<file>` or `postgres://...`. [default: a SQLite file in the data dir]
    #[arg(long, env = "AGENTROUTER_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// The most connections to the database. [default: 16]
    #[arg(long, env = "AGENTROUTER_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<u32>,
}

/// The keys of the TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    database_url: Option<String>,
    max_connections: Option<u32>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    metrics_listen: Option<String>,
    otlp_endpoint: Option<String>,
    full_syncs_per_second: Option<u32>,
    allow_weak_bootstrap_key: Option<bool>,
    webhook_allow_private: Option<bool>,
    trusted_proxies: Option<usize>,
    #[serde(default)]
    tls: TlsArgs,
    #[serde(default)]
    cors: CorsArgs,
    #[serde(default)]
    limits: LimitArgs,
    #[serde(default)]
    rates: RateArgs,
    #[serde(default)]
    oidc_issuers: Vec<FileIssuer>,
}

/// A trusted OIDC issuer, as an entry of `oidc_issuers`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIssuer {
    issuer: String,
    audiences: Vec<String>,
    customers: Vec<String>,
    ca_file: Option<PathBuf>,
    min_refresh_seconds: Option<u64>,
}

impl FileIssuer {
    fn read(self) -> Result<IssuerConfig> {
        let ca_certificates = match &self.ca_file {
            Some(path) => Some(
                std::fs::read(path).with_context(|| format!("oidc_issuers: ca_file: {}", path.display()))?,
            ),
            None => None,
        };
        let min_refresh = self.min_refresh_seconds.map_or(OIDC_MIN_REFRESH, Duration::from_secs);
        Ok(IssuerConfig {
            issuer: self.issuer,
            audiences: self.audiences,
            customers: self.customers,
            ca_certificates,
            min_refresh,
        })
    }
}

/// Secrets, by environment or file only: flags show in process lists.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The first operator key.
    pub bootstrap_key: Option<Secret>,
    /// Key-encryption keys; none where they are to be found or made in the data dir.
    pub keyring: Option<Keyring>,
}

/// The checked configuration of a server.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the data is.
    pub store: StoreConfig,
    /// What to log.
    pub log: String,
    /// What the server tells about itself, and where.
    pub observability: Observability,
    /// How many full syncs a second are let in; none for the default.
    pub full_syncs_per_second: Option<u32>,
    /// Whether a weak bootstrap key is accepted on any address.
    pub allow_weak_bootstrap_key: bool,
    /// Whether webhooks may lead to private and loopback addresses, and to http.
    pub webhook_allow_private: bool,
    /// TLS, limits, and which pages may call.
    pub edge: EdgeConfig,
    /// OIDC issuers whose tokens are exchanged for sessions.
    pub oidc_issuers: Vec<IssuerConfig>,
    /// Secrets.
    pub secrets: Secrets,
}

/// What the server tells about itself, and where.
#[derive(Debug, Clone, Default)]
pub struct Observability {
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// A listener of its own for `/metrics`.
    pub metrics_listen: Option<SocketAddr>,
    /// Where spans go to.
    pub traces: Traces,
}

/// Where the data is, checked.
#[derive(Clone)]
pub struct StoreConfig {
    /// Folder of the embedded database and of generated keys.
    pub data_dir: PathBuf,
    /// The database.
    pub target: Target,
    /// The most connections.
    pub max_connections: u32,
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        let engine = if matches!(self.target, Target::Postgres(_)) { "postgres" } else { "sqlite" };
        f.debug_struct("StoreConfig")
            .field("data_dir", &self.data_dir)
            .field("engine", &engine)
            .finish_non_exhaustive()
    }
}

/// Looks up an environment variable; a parameter, so that tests need no environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it, besides the flags")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn load(args: &ServeArgs, lookup: Lookup<'_>) -> Result<Self> {
        let file = File::read(args.config.as_deref())?;
        let listen = args.listen.clone().or(file.listen).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let listen = parse_listen("AGENTROUTER_LISTEN (listen)", &listen)?;
        let metrics_listen = args.metrics_listen.clone().or(file.metrics_listen);
        let metrics_listen =
            metrics_listen.map(|text| parse_listen("AGENTROUTER_METRICS_LISTEN (metrics_listen)", &text));
        let observability = Observability {
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            metrics_listen: metrics_listen.transpose()?,
            traces: Traces::load(args.otlp_endpoint.clone().or(file.otlp_endpoint), lookup)?,
        };
        let store = StoreArgs {
            data_dir: args.store.data_dir.clone().or(file.data_dir),
            database_url: args.store.database_url.clone().or(file.database_url),
            max_connections: args.store.max_connections.or(file.max_connections),
        };
        let edge = EdgeFile {
            tls: file.tls,
            cors: file.cors,
            limits: file.limits,
            rates: file.rates,
            trusted_proxies: file.trusted_proxies,
        };
        let config = Self {
            listen,
            store: StoreConfig::load(&store)?,
            log: args.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            observability,
            full_syncs_per_second: args.full_syncs_per_second.or(file.full_syncs_per_second),
            allow_weak_bootstrap_key: args.allow_weak_bootstrap_key
                || file.allow_weak_bootstrap_key.unwrap_or(false),
            webhook_allow_private: args.webhook_allow_private || file.webhook_allow_private.unwrap_or(false),
            edge: EdgeConfig::load(&args.edge, &edge)?,
            oidc_issuers: file.oidc_issuers.into_iter().map(FileIssuer::read).collect::<Result<_>>()?,
            secrets: Secrets::load(lookup)?,
        };
        config.check_bootstrap_key()?;
        Ok(config)
    }

    /// A key that can be guessed is good enough for oneself only.
    fn check_bootstrap_key(&self) -> Result<()> {
        let weak = self
            .secrets
            .bootstrap_key
            .as_ref()
            .is_some_and(|key| !agentrouter_identity::keys::is_key_format(key.expose()));
        if weak && !self.listen.ip().is_loopback() && !self.allow_weak_bootstrap_key {
            bail!(
                "AGENTROUTER_BOOTSTRAP_KEY is not in the key format, and {} is no loopback address: \
                 use a generated key, or pass --allow-weak-bootstrap-key",
                self.listen
            );
        }
        Ok(())
    }
}

impl StoreConfig {
    /// Reads and checks where the data is.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn load(args: &StoreArgs) -> Result<Self> {
        let data_dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from(".agentrouter"));
        let target = match &args.database_url {
            Some(url) => Target::parse(url).context("AGENTROUTER_DATABASE_URL (database_url)")?,
            None => Target::Sqlite(data_dir.join("agentrouter.db")),
        };
        let max_connections = args.max_connections.unwrap_or(16);
        if !(2..=10_000).contains(&max_connections) {
            bail!(
                "AGENTROUTER_MAX_CONNECTIONS (max_connections) must be from 2 to 10000, not {max_connections}"
            );
        }
        Ok(Self { data_dir, target, max_connections })
    }
}

impl Secrets {
    /// Reads the secrets.
    ///
    /// # Errors
    /// Names the variable that is wrong, and shows nothing of its value.
    pub fn load(lookup: Lookup<'_>) -> Result<Self> {
        let keyring = match (lookup("AGENTROUTER_KEK"), lookup("AGENTROUTER_KEK_FILE")) {
            (Some(_), Some(_)) => bail!("AGENTROUTER_KEK and AGENTROUTER_KEK_FILE are both set; use one"),
            (Some(text), None) => Some(Keyring::parse(&text).context("AGENTROUTER_KEK")?),
            (None, Some(path)) => {
                let text = Secret::new(
                    std::fs::read_to_string(&path)
                        .with_context(|| format!("AGENTROUTER_KEK_FILE: {path}"))?,
                );
                Some(Keyring::parse(text.expose()).context("AGENTROUTER_KEK_FILE")?)
            }
            (None, None) => None,
        };
        Ok(Self { bootstrap_key: lookup("AGENTROUTER_BOOTSTRAP_KEY").map(Secret::from), keyring })
    }
}

impl File {
    fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("AGENTROUTER_CONFIG: {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("AGENTROUTER_CONFIG: {}", path.display()))
    }
}

fn parse_listen(setting: &str, text: &str) -> Result<SocketAddr> {
    // `localhost:8080` reads better than an address, and names one.
    let text = text.replace("localhost", "127.0.0.1");
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().ok().with_context(|| format!("{setting}: {text:?} has no valid port"))?;
        return Ok(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port));
    }
    let parsed = text.parse().ok();
    parsed.with_context(|| format!("{setting}: {text:?} is no address and port such as 127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &ServeArgs, environment: &[(&str, &str)]) -> Result<Config> {
        Config::load(args, &|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn error(args: &ServeArgs, environment: &[(&str, &str)]) -> String {
        format!("{:#}", load(args, environment).unwrap_err())
    }

    #[test]
    fn defaults() {
        let config = load(&ServeArgs::default(), &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.store.data_dir, PathBuf::from(".agentrouter"));
        assert!(matches!(config.store.target, Target::Sqlite(path) if path.ends_with("agentrouter.db")));
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agentrouter.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:1\"\nlog = \"debug\"\n").unwrap();
        let args =
            ServeArgs { config: Some(path.clone()), listen: Some("[::1]:2".into()), ..ServeArgs::default() };
        let config = load(&args, &[]).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.log.as_str()), ("[::1]:2", "debug"));
        std::fs::write(&path, "listn = \"127.0.0.1:1\"\n").unwrap();
        assert!(error(&args, &[]).contains("listn"));
    }

    #[test]
    fn the_edge_has_tables_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agentrouter.toml");
        let text = "trusted_proxies = 1\n[limits]\ncalls = 7\nwaits = 8\n[rates]\ncalls_per_second = 9\n\
                    [cors]\norigins = [\"https://a.example\"]\n[tls]\ncert = \"c\"\nkey = \"k\"\nmin_version = \"1.3\"\n";
        std::fs::write(&path, text).unwrap();
        let mut args = ServeArgs { config: Some(path), ..ServeArgs::default() };
        args.edge.limits.waits = Some(80);
        let edge = load(&args, &[]).unwrap().edge;
        assert_eq!((edge.calls.calls, edge.calls.waits, edge.trusted_proxies), (7, 80, 1));
        assert!(edge.rates.calls.is_some_and(|rate| rate.times == 9));
        assert!(edge.cors.is_some() && edge.tls.is_some());
    }

    #[test]
    fn errors_name_the_setting_and_hide_secrets() {
        let listen = ServeArgs { listen: Some("nowhere".into()), ..ServeArgs::default() };
        assert!(error(&listen, &[]).contains("AGENTROUTER_LISTEN"));
        let url =
            StoreArgs { database_url: Some("mysql://user:hunter2@host/db".into()), ..StoreArgs::default() };
        let message = error(&ServeArgs { store: url, ..ServeArgs::default() }, &[]);
        assert!(message.contains("AGENTROUTER_DATABASE_URL") && !message.contains("hunter2"), "{message}");
        let message = error(&ServeArgs::default(), &[("AGENTROUTER_KEK", "hunter2")]);
        assert!(message.contains("AGENTROUTER_KEK") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn weak_bootstrap_keys_stay_on_loopback() {
        let weak = [("AGENTROUTER_BOOTSTRAP_KEY", "dev")];
        assert!(load(&ServeArgs::default(), &weak).is_ok());
        let mut args = ServeArgs { listen: Some("0.0.0.0:8080".into()), ..ServeArgs::default() };
        assert!(error(&args, &weak).contains("AGENTROUTER_BOOTSTRAP_KEY"));
        args.allow_weak_bootstrap_key = true;
        assert!(load(&args, &weak).is_ok());
    }
}
