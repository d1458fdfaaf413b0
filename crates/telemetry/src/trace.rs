//! Traces: the span of a call, and the spans of what a version went through on its way to a data plane.
//!
//! A version is created in one call and applied in others, days later perhaps and once per workspace. So a version
//! keeps the context of the call that made it (as a W3C `traceparent`), and later calls *link* to it. Beside that the
//! trace of the trigger itself gets two spans per delivery, `delivery.wait` and `delivery.apply`, up to a rate that
//! a fan-out to thousands of workspaces cannot exceed; beyond it the links are all there is.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use opentelemetry::context::FutureExt;
use opentelemetry::global::BoxedTracer;
pub use opentelemetry::trace::SpanContext;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
pub use opentelemetry::{Context, KeyValue};

/// The most spans a second that are added to the traces of triggers.
const DELIVERY_SPANS_PER_SECOND: u32 = 200;

/// Starts spans. Clones are the same tracer.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    tracer: BoxedTracer,
    delivery: Mutex<Budget>,
}

/// What is left of this second.
struct Budget {
    since: Instant,
    left: u32,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer(..)")
    }
}

impl Tracer {
    /// A tracer that hands its spans to this one.
    pub fn new(tracer: BoxedTracer) -> Self {
        let delivery = Mutex::new(Budget { since: Instant::now(), left: DELIVERY_SPANS_PER_SECOND });
        Self(Arc::new(Inner { tracer, delivery }))
    }

    /// Starts the span of a call. While the context is the current one, [`Tracer::current`] tells of it.
    pub fn start_call(&self, service: &str, method: &str, caller: Option<SpanContext>) -> Context {
        let parent =
            caller.map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller));
        let builder = SpanBuilder::from_name(format!("{service}/{method}")).with_kind(SpanKind::Server);
        let builder = builder.with_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
        ]);
        let span = builder.start_with_context(&self.0.tracer, &parent);
        parent.with_span(span)
    }

    /// Ends the span of a call with its gRPC code. Only codes that tell of a fault of the server make it an error.
    pub fn end_call(context: &Context, code: i32) {
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        if matches!(code, 2 | 4 | 12..=15) {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// The context of the call that this runs in, to be kept with a version; none where the call is not sampled.
    pub fn current(&self) -> Option<String> {
        let context = Context::current();
        let span = context.span();
        (span.span_context().is_valid() && span.span_context().is_sampled())
            .then(|| traceparent(span.span_context()))
    }

    /// Whether the call that this runs in, or the trigger, is recorded.
    pub fn is_wanted(&self, trigger: Option<&str>) -> bool {
        trigger.is_some() || Context::current().span().span_context().is_sampled()
    }

    /// Links the call that this runs in to the trigger of a version, and tells in it and in the trigger's trace what
    /// became of a delivery.
    pub fn deliver(&self, trigger: Option<&str>, step: Step) {
        let context = Context::current();
        let call = context.span();
        call.set_attributes(step.attributes.iter().cloned());
        let Some(trigger) = trigger.and_then(|text| parse(text, None)) else { return };
        call.add_link(trigger.clone(), Vec::new());
        if !trigger.is_sampled() || !self.take_budget() {
            return;
        }
        let links = if call.span_context().is_valid() && call.span_context().trace_id() != trigger.trace_id()
        {
            vec![Link::new(call.span_context().clone(), Vec::new(), 0)]
        } else {
            Vec::new()
        };
        let builder = SpanBuilder::from_name(step.name)
            .with_kind(SpanKind::Internal)
            .with_start_time(step.start)
            .with_attributes(step.attributes)
            .with_links(links);
        let parent = Context::new().with_remote_span_context(trigger);
        let mut span = builder.start_with_context(&self.0.tracer, &parent);
        span.end_with_timestamp(step.end);
    }

    fn take_budget(&self) -> bool {
        let mut budget = self.0.delivery.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.since.elapsed() >= Duration::from_secs(1) {
            *budget = Budget { since: Instant::now(), left: DELIVERY_SPANS_PER_SECOND };
        }
        let taken = budget.left.checked_sub(1);
        budget.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

/// A step of a delivery.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is called.
    pub name: &'static str,
    /// When it began, by the database's clock.
    pub start: SystemTime,
    /// When it ended, by the database's clock.
    pub end: SystemTime,
    /// Ids and names, and nothing that is secret.
    pub attributes: Vec<KeyValue>,
}

/// The trace id of a context, in hexadecimal; none where it has no trace.
pub fn trace_id(context: &Context) -> Option<String> {
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id().to_string())
}

/// A context in the form of the W3C header `traceparent`.
pub fn traceparent(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        (context.trace_flags() & TraceFlags::SAMPLED).to_u8()
    )
}

/// Reads the W3C headers `traceparent` and `tracestate`. A header of a later version is read as far as this one goes;
/// one that breaks the rules is as good as none, and so is a broken `tracestate`.
pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !is_well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = tracestate.and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
    let context =
        SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_and_back() {
        let context = parse(GOOD, Some("vendor=value")).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().header(), "vendor=value");
        assert_eq!(traceparent(&context), GOOD);
    }

    #[test]
    fn what_breaks_the_rules_is_as_good_as_none() {
        for text in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033",
        ] {
            assert_eq!(parse(text, None), None, "{text}");
        }
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(traceparent(&parse(later, None).unwrap()), GOOD);
        assert!(parse(GOOD, Some("no pair")).unwrap().trace_state().header().is_empty());
    }
}
