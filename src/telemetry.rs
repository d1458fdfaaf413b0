//! Logs: for people on a terminal, JSON lines otherwise. Traces: to a collector, where one is configured.

use std::io::IsTerminal;
use std::time::Duration;

use agentrouter_telemetry::{Telemetry, Tracer};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::config::Lookup;

/// How lines of the log look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error.
///
/// # Errors
/// Names the setting where the filter cannot be read.
pub fn start(filter: &str) -> Result<()> {
    start_as(filter, LogFormat::Auto)
}

/// [`start`], with this look.
///
/// # Errors
/// As [`start`].
pub fn start_as(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).context("AGENTROUTER_LOG (log)")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if is_text {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// Where spans go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Traces {
    /// Nowhere, at no cost.
    #[default]
    Off,
    /// To the collector that the standard environment variables name.
    Environment,
    /// To this collector, by OTLP over gRPC.
    Endpoint(String),
}

impl Traces {
    /// Decides by our own setting and the standard environment variables.
    ///
    /// # Errors
    /// Names the variable that asks for something that is not there.
    pub(crate) fn load(endpoint: Option<String>, lookup: Lookup<'_>) -> Result<Self> {
        if lookup("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(Self::Off);
        }
        match lookup("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(Self::Off),
            Some(other) => bail!("OTEL_TRACES_EXPORTER: there is no exporter {other:?}, only otlp and none"),
        }
        let from_environment = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let traces = match endpoint {
            Some(endpoint) => Self::Endpoint(endpoint),
            None if from_environment.iter().any(|name| lookup(name).is_some()) => Self::Environment,
            None => return Ok(Self::Off),
        };
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(protocol) = lookup(name).filter(|protocol| protocol != "grpc") {
                bail!("{name}: spans are sent by grpc only, not by {protocol:?}");
            }
        }
        Ok(traces)
    }
}

/// Sends spans, until it is stopped.
#[derive(Debug)]
pub(crate) struct Exporter(Option<SdkTracerProvider>);

/// The instruments of a server, and what sends its spans.
///
/// # Errors
/// Where the endpoint of the collector cannot be read. A collector that does not answer is none: spans are lost then.
pub(crate) fn instruments(traces: &Traces, lookup: Lookup<'_>) -> Result<(Telemetry, Exporter)> {
    let builder = SpanExporter::builder().with_tonic();
    let exporter = match traces {
        Traces::Off => return Ok((Telemetry::default(), Exporter(None))),
        Traces::Environment => builder.build(),
        Traces::Endpoint(endpoint) => builder.with_endpoint(endpoint).build(),
    };
    let exporter = exporter.context("the exporter of spans (OTEL_EXPORTER_OTLP_ENDPOINT, otlp_endpoint)")?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let mut resource = Resource::builder().with_attribute(version);
    let is_named = lookup("OTEL_SERVICE_NAME").is_some()
        || lookup("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="));
    if !is_named {
        resource = resource.with_service_name("agentrouter");
    }
    // The sampler, the limits and the batches are by the standard environment variables.
    let provider =
        SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
    let tracer = Tracer::new(BoxedTracer::new(Box::new(provider.tracer("agentrouter"))));
    Ok((Telemetry::new(Some(tracer)), Exporter(Some(provider))))
}

impl Exporter {
    /// Sends what is left, for a few seconds at most.
    pub(crate) async fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let Some(provider) = self.0 else { return };
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the exporter of spans"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(endpoint: Option<&str>, environment: &[(&str, &str)]) -> Result<Traces> {
        Traces::load(endpoint.map(str::to_owned), &|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn traces_are_off_until_a_collector_is_named() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert_eq!(load(None, &[]).unwrap(), Traces::Off);
        assert_eq!(load(None, &[("OTEL_SERVICE_NAME", "x")]).unwrap(), Traces::Off);
        assert_eq!(load(None, &[collector]).unwrap(), Traces::Environment);
        assert_eq!(
            load(Some("http://own:1"), &[collector]).unwrap(),
            Traces::Endpoint("http://own:1".into())
        );
        assert_eq!(load(None, &[collector, ("OTEL_SDK_DISABLED", "true")]).unwrap(), Traces::Off);
        assert_eq!(load(None, &[collector, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(), Traces::Off);
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for (name, value) in
            [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), ("OTEL_TRACES_EXPORTER", "zipkin")]
        {
            let error = load(None, &[collector, (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
