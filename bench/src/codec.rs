//! Messages between JSON text, the wire and the structs of the services, on one core: by the gateway's tables, and by
//! reflection.

use std::hint::black_box;
use std::time::{Duration, Instant};

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_api::configurator as pb;
use agentrouter_gateway::{ProtoJson, ReadOptions, WriteOptions};
use anyhow::{Context, Result, ensure};
use prost::Message;
use prost_reflect::DynamicMessage;

use crate::report::Report;
use crate::stats::Millis;

const MESSAGE: &str = "agentrouter.configurator.v1.ListPendingEventsResponse";
const RUNS: usize = 9;

pub(crate) fn run(report: &Report, quick: bool) -> Result<()> {
    let rounds = if quick { 20 } else { 20_000 };
    let message = message();
    let wire = message.encode_to_vec();
    let codec = ProtoJson::new(&DESCRIPTOR_POOL);
    let text = codec.to_json(MESSAGE, &wire, WriteOptions::default())?;
    let desc = DESCRIPTOR_POOL.get_message_by_name(MESSAGE).context("a known message")?;
    ensure!(codec.to_wire(MESSAGE, &text, ReadOptions::default())? == wire, "it comes back");
    let reflected = || -> Result<DynamicMessage> {
        let mut deserializer = serde_json::Deserializer::from_slice(&text);
        Ok(DynamicMessage::deserialize(desc.clone(), &mut deserializer)?)
    };
    let decoded = || pb::ListPendingEventsResponse::decode(wire.as_slice());
    let measures: [(&str, &dyn Fn() -> Result<usize>); 6] = [
        ("the structs alone, decoded", &|| Ok(decoded()?.events.len())),
        ("the structs alone, encoded", &|| Ok(message.encode_to_vec().len())),
        ("text to structs by tables", &|| {
            let wire = codec.to_wire(MESSAGE, &text, ReadOptions::default())?;
            Ok(pb::ListPendingEventsResponse::decode(wire.as_slice())?.events.len())
        }),
        ("text to structs by reflection", &|| {
            let wire = reflected()?.encode_to_vec();
            Ok(pb::ListPendingEventsResponse::decode(wire.as_slice())?.events.len())
        }),
        ("structs to text by tables", &|| {
            Ok(codec.to_json(MESSAGE, &message.encode_to_vec(), WriteOptions::default())?.len())
        }),
        ("structs to text by reflection", &|| {
            let message = DynamicMessage::decode(desc.clone(), message.encode_to_vec().as_slice())?;
            Ok(serde_json::to_vec(&message)?.len())
        }),
    ];
    let mut times = vec![Vec::new(); measures.len()];
    // In turns, so that all see the same machine.
    for _ in 0..RUNS {
        for ((_, measure), times) in measures.iter().zip(&mut times) {
            times.push(time(rounds, measure)?);
        }
    }
    let micros = |times: Vec<Duration>| Millis::new(times).p50() * 1e3;
    let medians: Vec<f64> = times.into_iter().map(micros).collect();
    let size = format!("{} B of JSON, {} B on the wire", text.len(), wire.len());
    for ((name, _), median) in measures.iter().zip(&medians) {
        report.line("codec", "", format_args!("{size}: {name}: {median:.2} us"));
    }
    if let [_, _, read, read_by_reflection, write, write_by_reflection] = medians.as_slice() {
        report.line(
            "codec",
            "",
            format_args!(
                "reflection takes {:.1} times as long to read and {:.1} times as long to write",
                read_by_reflection / read,
                write_by_reflection / write
            ),
        );
    }
    Ok(())
}

/// The time of one call.
fn time(rounds: u32, measure: &dyn Fn() -> Result<usize>) -> Result<Duration> {
    let started = Instant::now();
    for _ in 0..rounds {
        black_box(measure()?);
    }
    Ok(started.elapsed() / rounds)
}

/// Three events, with times, numbers, enums, and parameters that may be anything.
fn message() -> pb::ListPendingEventsResponse {
    let events = (1..=3).map(|number| pb::ConfigurationEvent {
        id: format!("evt_01M8JDS37SE00800080000000{number}"),
        workspace_id: "edge".to_owned(),
        user_id: "system".to_owned(),
        config_type: pb::ConfigType::Providers.into(),
        event_type: pb::EventType::Updated.into(),
        version: 41 + number,
        status: pb::EventStatus::Pending.into(),
        created_at: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 123_456_000 }),
        metadata: Some(prost_types::Struct {
            fields: [("reason", "a person asked for \"it\"")]
                .map(|(name, text)| {
                    let kind = Some(prost_types::value::Kind::StringValue(text.to_owned()));
                    (name.to_owned(), prost_types::Value { kind })
                })
                .into(),
        }),
        ..Default::default()
    });
    pb::ListPendingEventsResponse { events: events.collect(), renewed: Vec::new() }
}
