//! A REST request to the messages of a call: at once where there is one, while it arrives where there are several.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Uri, Version, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::content::Content;
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::grpc::Sent;
use crate::inflate::Inflating;
use crate::media::{self, Media};
use crate::options::Options;
use crate::router::Match;
use crate::rule::{BodyRule, Payload, Route};
use crate::upload::{Binder, Fault, Upload};
use crate::{body, parts, request};

/// Where a request goes and by what rules.
#[derive(Debug)]
pub(crate) struct Receiver<'r> {
    pub(crate) route: &'r Arc<Route>,
    pub(crate) matched: &'r Match<'r>,
    pub(crate) uri: &'r Uri,
    pub(crate) errors: &'r ErrorRenderer,
    pub(crate) options: &'r Options,
}

impl Receiver<'_> {
    /// Reads and binds a request, or begins to.
    pub(crate) async fn receive<B>(&self, parts: &Parts, body: B) -> Result<Sent, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (route, limit) = (self.route, self.options.max_body_bytes);
        let is_bound = !matches!(route.body, BodyRule::None);
        let is_stream = route.is_client_streaming && is_bound;
        if !is_stream {
            body::check_length(&body, limit)?;
        }
        let (mut media, mut coding) =
            (if route.payload == Payload::Raw { Media::Raw } else { Media::Json }, None);
        if is_bound && !body.is_end_stream() {
            media = media::of(route, &parts.method, &parts.headers, self.options.form_type_is_json)?;
            coding = media::coding(&parts.headers)?;
        }
        if is_stream {
            let source = match coding {
                // A client of HTTP/1.1 sends all it has before it reads anything, so both ways at once could end in
                // each waiting for the other.
                _ if route.is_streaming && parts.version < Version::HTTP_2 => {
                    Body::new(Full::new(Box::pin(body::read(body, coding, limit)).await?))
                }
                None => Body::new(body),
                Some(coding) => Body::new(Inflating::new(body, coding)),
            };
            return Ok(self.stream(parts, source, media));
        }
        let body = body::read(body, coding, limit).await?;
        let content_type = || parts.headers.get(header::CONTENT_TYPE);
        let taken_apart;
        let content = match media {
            Media::Raw => Content::Raw { content_type: content_type(), data: &body },
            Media::Protobuf => Content::Protobuf(&body),
            Media::Form => Content::Form(&body),
            Media::Multipart => {
                // Boxed, as other calls need no room for it.
                let max_parts = route.reading.max_query_parameters;
                taken_apart = Box::pin(parts::read(body, content_type(), max_parts)).await;
                Content::Parts(&taken_apart)
            }
            Media::Json | Media::Lines => Content::Json(&body),
        };
        let parts = request::Parts {
            matched: self.matched,
            query: self.uri.query(),
            headers: &parts.headers,
            content,
            index: None,
        };
        request::frame(route, self.errors.tables(), &parts).map(Sent::One)
    }

    fn stream(&self, parts: &Parts, source: Body, media: Media) -> Sent {
        let fault = Fault::default();
        let binder = Binder {
            route: Arc::clone(self.route),
            errors: self.errors.clone(),
            uri: self.uri.clone(),
            matched: self.matched.clone().in_path(""),
            headers: parts.headers.clone(),
        };
        let upload = Upload::new(source, binder, media, self.options.max_body_bytes, fault.clone());
        Sent::Many(Body::new(upload), fault)
    }
}
