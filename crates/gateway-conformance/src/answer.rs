//! Answers as a request defines them.

use std::time::Duration;

use agentrouter_gateway::Trailers;
use http::{HeaderMap, HeaderName};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};
use tonic_types::pb;

use crate::proto::conformance_payload::RequestInfo;
use crate::proto::unary_response_definition::Response as Defined;
use crate::proto::{ConformancePayload, Error, Header, UnaryResponseDefinition};
use crate::seen::pack;

/// A single answer, or the error it shall be.
pub(crate) async fn unary(
    definition: Option<UnaryResponseDefinition>,
    seen: RequestInfo,
) -> Result<Response<ConformancePayload>, Status> {
    let definition = definition.unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    let data = match definition.response {
        Some(Defined::Error(error)) => {
            let mut metadata = metadata(&definition.response_headers)?.into_headers();
            metadata.extend(self::metadata(&definition.response_trailers)?.into_headers());
            return Err(status(error, Some(&seen), MetadataMap::from_headers(metadata)));
        }
        Some(Defined::ResponseData(data)) => data,
        None => Vec::new(),
    };
    let payload = ConformancePayload { data, request_info: Some(seen) };
    with_metadata(payload, &definition.response_headers, &definition.response_trailers)
}

/// A response with its headers and trailers.
pub(crate) fn with_metadata<T>(
    message: T,
    headers: &[Header],
    trailers: &[Header],
) -> Result<Response<T>, Status> {
    let mut response = Response::new(message);
    *response.metadata_mut() = metadata(headers)?;
    response.extensions_mut().insert(Trailers(metadata(trailers)?));
    Ok(response)
}

/// The error as a status; tells what was seen where nothing else does.
pub(crate) fn status(error: Error, seen: Option<&RequestInfo>, metadata: MetadataMap) -> Status {
    let mut details = error.details;
    details.extend(seen.map(|seen| pack("ConformancePayload.RequestInfo", seen)));
    let message = error.message.unwrap_or_default();
    let details = pb::Status { code: error.code, message: message.clone(), details }.encode_to_vec();
    Status::with_details_and_metadata(Code::from(error.code), message, details.into(), metadata)
}

fn metadata(headers: &[Header]) -> Result<MetadataMap, Status> {
    let mut map = HeaderMap::new();
    for header in headers {
        let bad = || Status::internal(format!("the header `{}` cannot be sent", header.name));
        let name: HeaderName = header.name.parse().map_err(|_| bad())?;
        for value in &header.value {
            map.append(name.clone(), value.parse().map_err(|_| bad())?);
        }
    }
    Ok(MetadataMap::from_headers(map))
}
