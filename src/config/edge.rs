//! The settings of the server's edge: TLS, limits, and which pages may call.

use std::path::PathBuf;
use std::time::Duration;

use agentrouter_edge::{BodyPace, Cors, HeadLimits};
use agentrouter_listener::{ClientCertificates, Limits, MinVersion, TlsFiles};
use agentrouter_rpc::{CallLimits, Rates};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::limits::{LimitArgs, RateArgs};

/// How often the files of certificates are looked at.
const RELOAD_SECONDS: u64 = 10;
/// How long browsers remember to come by TLS only: a year.
const HSTS_SECONDS: u64 = 31_536_000;
/// How long browsers keep the answer to a preflight; they cap it themselves.
const CORS_MAX_AGE_SECONDS: u64 = 7200;

/// Settings of the edge, as flags and variables, or as tables of the file.
#[derive(Debug, Clone, Default, Args)]
pub struct EdgeArgs {
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub cors: CorsArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub rates: RateArgs,
    /// How many proxies in front tell who called them, in `X-Forwarded-For` or `Forwarded`. [default: 0]
    #[arg(long, env = "AGENTROUTER_TRUSTED_PROXIES", value_name = "N", help_heading = None)]
    pub trusted_proxies: Option<usize>,
}

/// TLS: off unless there is a certificate.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[command(next_help_heading = "TLS")]
#[serde(deny_unknown_fields, default)]
pub struct TlsArgs {
    /// The server's certificate and those between it and the root, in PEM. Read again when it changes.
    #[arg(id = "tls-cert", long = "tls-cert", env = "AGENTROUTER_TLS_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, in PEM. Read again when it changes.
    #[arg(id = "tls-key", long = "tls-key", env = "AGENTROUTER_TLS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Ask clients for a certificate that one of these has issued, in PEM.
    #[arg(
        id = "tls-client-ca",
        long = "tls-client-ca",
        env = "AGENTROUTER_TLS_CLIENT_CA",
        value_name = "FILE"
    )]
    pub client_ca: Option<PathBuf>,
    /// Whether clients need one. [default: required]
    #[arg(
        id = "tls-client-auth",
        long = "tls-client-auth",
        env = "AGENTROUTER_TLS_CLIENT_AUTH",
        value_enum,
        value_name = "WHETHER"
    )]
    pub client_auth: Option<ClientAuth>,
    /// The oldest version that is spoken. [default: 1.2]
    #[arg(
        id = "tls-min-version",
        long = "tls-min-version",
        env = "AGENTROUTER_TLS_MIN_VERSION",
        value_enum,
        value_name = "VERSION"
    )]
    pub min_version: Option<OldestVersion>,
    /// How often the files are looked at. [default: 10]
    #[arg(
        id = "tls-reload-seconds",
        long = "tls-reload-seconds",
        env = "AGENTROUTER_TLS_RELOAD_SECONDS",
        value_name = "N"
    )]
    pub reload_seconds: Option<u64>,
    /// How long browsers remember to come by TLS only; 0 for not at all. [default: 31536000]
    #[arg(
        id = "tls-hsts-seconds",
        long = "tls-hsts-seconds",
        env = "AGENTROUTER_TLS_HSTS_SECONDS",
        value_name = "N"
    )]
    pub hsts_seconds: Option<u64>,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    Optional,
    Required,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub enum OldestVersion {
    #[value(name = "1.2")]
    #[serde(rename = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which pages of other origins may call: none by default.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[command(next_help_heading = "Pages of other origins")]
#[serde(deny_unknown_fields, default)]
pub struct CorsArgs {
    /// Origins such as `https://console.example.com`, separated by commas, or `*` for any.
    #[arg(
        id = "cors-origins",
        long = "cors-origins",
        env = "AGENTROUTER_CORS_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGINS"
    )]
    pub origins: Vec<String>,
    /// Let them send cookies and client certificates, which keys in `authorization` do not need.
    #[arg(id = "cors-credentials", long = "cors-credentials", env = "AGENTROUTER_CORS_CREDENTIALS")]
    pub credentials: bool,
    /// How long browsers keep what they are told. [default: 7200]
    #[arg(
        id = "cors-max-age-seconds",
        long = "cors-max-age-seconds",
        env = "AGENTROUTER_CORS_MAX_AGE_SECONDS",
        value_name = "N"
    )]
    pub max_age_seconds: Option<u64>,
}

/// The tables of the file.
#[derive(Debug, Default)]
pub(super) struct EdgeFile {
    pub(super) tls: TlsArgs,
    pub(super) cors: CorsArgs,
    pub(super) limits: LimitArgs,
    pub(super) rates: RateArgs,
    pub(super) trusted_proxies: Option<usize>,
}

/// The checked settings of the edge.
#[derive(Debug, Clone, Default)]
pub struct EdgeConfig {
    /// None for plain text.
    pub tls: Option<TlsConfig>,
    /// What connections may cost.
    pub connections: Limits,
    /// How much heads may say.
    pub heads: HeadLimits,
    /// How fast bodies have to come.
    pub bodies: BodyPace,
    /// How many calls there may be at once.
    pub calls: CallLimits,
    /// How often callers may call.
    pub rates: Rates,
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
    /// How many proxies are believed.
    pub trusted_proxies: usize,
}

/// TLS, where it is spoken.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The files of it.
    pub files: TlsFiles,
    /// How often they are looked at.
    pub reload: Duration,
    /// What browsers are told.
    pub hsts_seconds: u64,
}

impl EdgeConfig {
    pub(super) fn load(args: &EdgeArgs, file: &EdgeFile) -> Result<Self> {
        let limits = args.limits.or(&file.limits);
        Ok(Self {
            tls: TlsConfig::load(&args.tls, &file.tls)?,
            connections: limits.of_connections()?,
            heads: limits.of_heads(),
            bodies: limits.of_bodies(),
            calls: limits.of_calls(),
            rates: args.rates.or(&file.rates).rates()?,
            cors: cors(&args.cors, &file.cors)?,
            trusted_proxies: args.trusted_proxies.or(file.trusted_proxies).unwrap_or(0),
        })
    }
}

impl TlsConfig {
    fn load(args: &TlsArgs, file: &TlsArgs) -> Result<Option<Self>> {
        let cert = args.cert.as_ref().or(file.cert.as_ref());
        let key = args.key.as_ref().or(file.key.as_ref());
        let client_ca = args.client_ca.as_ref().or(file.client_ca.as_ref());
        let client_auth = args.client_auth.or(file.client_auth);
        let (certificates, key) = match (cert, key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) if client_ca.is_none() => return Ok(None),
            (None, None) => {
                bail!("AGENTROUTER_TLS_CLIENT_CA (tls.client_ca) needs AGENTROUTER_TLS_CERT (tls.cert)")
            }
            (Some(_), None) => bail!("AGENTROUTER_TLS_CERT (tls.cert) needs AGENTROUTER_TLS_KEY (tls.key)"),
            (None, Some(_)) => bail!("AGENTROUTER_TLS_KEY (tls.key) needs AGENTROUTER_TLS_CERT (tls.cert)"),
        };
        let clients = match (client_ca, client_auth) {
            (Some(ca), Some(ClientAuth::Optional)) => ClientCertificates::Optional(ca.clone()),
            (Some(ca), Some(ClientAuth::Required) | None) => ClientCertificates::Required(ca.clone()),
            (None, None) => ClientCertificates::None,
            (None, Some(_)) => {
                bail!(
                    "AGENTROUTER_TLS_CLIENT_AUTH (tls.client_auth) needs AGENTROUTER_TLS_CLIENT_CA (tls.client_ca)"
                )
            }
        };
        let min_version = match args.min_version.or(file.min_version) {
            Some(OldestVersion::Tls13) => MinVersion::Tls13,
            Some(OldestVersion::Tls12) | None => MinVersion::Tls12,
        };
        let reload = args.reload_seconds.or(file.reload_seconds).unwrap_or(RELOAD_SECONDS);
        if reload == 0 {
            bail!("AGENTROUTER_TLS_RELOAD_SECONDS (tls.reload_seconds) must be at least 1");
        }
        Ok(Some(Self {
            files: TlsFiles { certificates, key, clients, min_version },
            reload: Duration::from_secs(reload),
            hsts_seconds: args.hsts_seconds.or(file.hsts_seconds).unwrap_or(HSTS_SECONDS),
        }))
    }
}

fn cors(args: &CorsArgs, file: &CorsArgs) -> Result<Option<Cors>> {
    let origins = if args.origins.is_empty() { &file.origins } else { &args.origins };
    if origins.is_empty() {
        return Ok(None);
    }
    let max_age = args.max_age_seconds.or(file.max_age_seconds).unwrap_or(CORS_MAX_AGE_SECONDS);
    Cors::new(origins, args.credentials || file.credentials, Duration::from_secs(max_age))
        .context("AGENTROUTER_CORS_ORIGINS (cors.origins)")
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(args: &EdgeArgs) -> String {
        format!("{:#}", EdgeConfig::load(args, &EdgeFile::default()).map(drop).expect_err("it is wrong"))
    }

    #[test]
    fn tls_needs_its_files_together() {
        let file = |name: &str| Some(PathBuf::from(name));
        for (tls, needs) in [
            (TlsArgs { cert: file("c"), ..TlsArgs::default() }, "AGENTROUTER_TLS_KEY"),
            (TlsArgs { key: file("k"), ..TlsArgs::default() }, "AGENTROUTER_TLS_CERT"),
            (TlsArgs { client_ca: file("a"), ..TlsArgs::default() }, "AGENTROUTER_TLS_CERT"),
            (
                TlsArgs {
                    cert: file("c"),
                    key: file("k"),
                    client_auth: Some(ClientAuth::Optional),
                    ..TlsArgs::default()
                },
                "AGENTROUTER_TLS_CLIENT_CA",
            ),
        ] {
            let error = error(&EdgeArgs { tls, ..EdgeArgs::default() });
            assert!(error.contains(&format!("needs {needs}")), "{error}");
        }
        let tls = TlsArgs { cert: file("c"), key: file("k"), client_ca: file("a"), ..TlsArgs::default() };
        let tls = TlsConfig::load(&tls, &TlsArgs::default()).expect("together").expect("TLS");
        assert_eq!(tls.files.clients, ClientCertificates::Required(PathBuf::from("a")), "the safer one");
        assert_eq!((tls.files.min_version, tls.reload.as_secs()), (MinVersion::Tls12, 10));
    }

    // A11 #112: any page on the web cannot act as whoever is signed in.
    #[test]
    fn credentials_are_not_for_any_page() {
        let cors = CorsArgs { origins: vec!["*".to_owned()], credentials: true, max_age_seconds: None };
        let error = error(&EdgeArgs { cors, ..EdgeArgs::default() });
        assert!(error.starts_with("AGENTROUTER_CORS_ORIGINS (cors.origins): credentials cannot"), "{error}");
    }
}
