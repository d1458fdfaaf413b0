//! What an operator can decide about answers.

use std::time::Duration;

use http::HeaderName;

use crate::json::JsonOutput;

/// How a server stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// `application/x-ndjson`: one message per line. An error is the line `{"error": status}`.
    Lines,
    /// `text/event-stream`: server-sent events. An error is an event of the type `error`.
    Events,
    /// `application/json`: one array. An error leaves it without its end, and breaks the transfer off.
    Array,
}

/// How a [`Transcoder`](crate::Transcoder) answers.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub struct AnswerOptions {
    /// How messages are written as JSON.
    pub json: JsonOutput,
    /// How those of some rpcs are written: `library.v1.Library.GetBook`, all of `library.v1.Library.*`. Of several
    /// selectors that name an rpc the last counts; one that names none is a [`BuildError`](crate::BuildError).
    pub json_of: Vec<(String, JsonOutput)>,
    /// The shortest answer in bytes that is compressed for a client that asks for it. `None`: none ever is.
    pub compress_from: Option<usize>,
    /// Give unary answers to GET without an `etag` field an `ETag` made of their body.
    pub etag_of_body: bool,
    /// Write every error as `application/problem+json` (RFC 9457). Off: for clients that accept it.
    pub problem_details: bool,
    /// Answer 204 without a body where the response is `google.protobuf.Empty`.
    pub empty_is_no_content: bool,
    /// Let clients name the fields that they want to see of an answer, by the query parameter `$fields=id,part.name`
    /// or by the header `X-Goog-FieldMask`: paths of proto or JSON names, separated by commas, or `*` for everything.
    /// They go on into each value of a list or a map. A path that the answer does not have is refused with 400.
    /// A `google.api.HttpBody` is always sent as a whole. The header reaches the rpc, too, which may save work by it;
    /// the parameter does only where [`RequestOptions::system_parameters`](crate::RequestOptions) reserves it, and is
    /// left to the rpc then.
    pub field_masks: bool,
    /// The name of the response metadata by which an rpc may choose the HTTP status of its success, from 200 to 399
    /// and not 304. The client does not get to see it. `None`: no rpc may.
    pub status_metadata: Option<HeaderName>,
    /// How a stream is written for a client whose `Accept` leaves it open.
    pub stream_format: StreamFormat,
    /// How long the response headers of a stream wait for its first message, so
    /// that an early error still becomes an HTTP status. Afterwards the stream
    /// begins with 200 and an error arrives in band.
    pub stream_header_wait: Duration,
    /// How long a stream of events may be silent before a comment tells proxies and clients that it lives.
    pub event_keep_alive: Duration,
}

impl Default for AnswerOptions {
    /// [`JsonOutput::REST`], compression from 1 KiB, streams as lines whose headers wait for 250 ms, comments after
    /// 15 s of silence, and field masks; nothing else.
    fn default() -> Self {
        Self {
            json: JsonOutput::REST,
            json_of: Vec::new(),
            compress_from: Some(1 << 10),
            etag_of_body: false,
            problem_details: false,
            empty_is_no_content: false,
            field_masks: true,
            status_metadata: None,
            stream_format: StreamFormat::Lines,
            stream_header_wait: Duration::from_millis(250),
            event_keep_alive: Duration::from_secs(15),
        }
    }
}
