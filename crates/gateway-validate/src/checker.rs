//! One message against its rules.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Buf as _;
use prost_protovalidate::{Error, ValidationOption, Validator, Violation};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tonic::Status;

use crate::refusal::{self, Words};
use crate::rules::{self, Annotations, FaultyRules};

/// Compressed flag and length in front of every message of gRPC's.
pub(crate) const PREFIX: usize = 5;

/// The largest message, in bytes, of which every broken rule is found. Each costs ten microseconds and a copy of the
/// message around it, and two bytes of a message can break one: of a larger message only the first is found.
const ALL_UP_TO: usize = 2 << 10;

/// The rpcs that have rules, and what checks them.
pub(crate) struct Checker {
    rpcs: HashMap<String, Arc<Rpc>>,
    validator: Validator,
    words: Words,
    domain: String,
}

/// An rpc whose requests are checked.
#[derive(Debug)]
pub(crate) struct Rpc {
    input: MessageDescriptor,
    pub(crate) is_client_streaming: bool,
}

impl fmt::Debug for Checker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checker").field("rpcs", &self.rpcs.len()).finish_non_exhaustive()
    }
}

impl Checker {
    /// Reads the rules of a pool, and tries each of them.
    pub(crate) fn new(pool: &DescriptorPool, domain: String) -> Result<Self, FaultyRules> {
        let annotations = Annotations::of(pool);
        let mut rpcs = HashMap::new();
        let mut messages: Vec<MessageDescriptor> = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                let Some(reached) = annotations.reached(&method.input()) else { continue };
                messages.extend(reached);
                let path = format!("/{}/{}", service.full_name(), method.name());
                let is_client_streaming = method.is_client_streaming();
                rpcs.insert(path, Arc::new(Rpc { input: method.input(), is_client_streaming }));
            }
        }
        messages.sort_by(|one, other| one.full_name().cmp(other.full_name()));
        messages.dedup();
        let validator = rules::validator(pool);
        rules::try_all(&validator, &annotations, &messages)?;
        let words = Words::of(messages.iter());
        Ok(Self { rpcs, validator, words, domain })
    }

    /// The rpc of a path, if its requests have rules.
    pub(crate) fn rpc(&self, path: &str) -> Option<&Arc<Rpc>> {
        self.rpcs.get(path)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.rpcs.keys().map(String::as_str)
    }

    /// Checks the frames of a call that has one message. What is no whole frame is left to the service.
    pub(crate) fn frames(&self, rpc: &Rpc, mut frames: &[u8]) -> Result<(), Status> {
        while let Some(length) = frame_length(frames)? {
            let Some((frame, rest)) = frames.split_at_checked(length) else { break };
            self.message(rpc, frame.get(PREFIX..).unwrap_or_default(), None)?;
            frames = rest;
        }
        Ok(())
    }

    /// Checks a message; `index` is its place among those of a stream.
    pub(crate) fn message(&self, rpc: &Rpc, wire: &[u8], index: Option<usize>) -> Result<(), Status> {
        let Ok(message) = DynamicMessage::decode(rpc.input.clone(), wire) else {
            return Err(refusal::of_no_message(index, &self.domain));
        };
        let options: &[ValidationOption] =
            if wire.len() > ALL_UP_TO { &[ValidationOption::FailFast] } else { &[] };
        match self.validator.validate_with(&message, options) {
            Ok(()) => Ok(()),
            Err(Error::Validation(broken)) => {
                let mut broken = broken.into_violations();
                // Entries of a map are met in no order.
                broken.sort_by_cached_key(Violation::field_path);
                Err(refusal::of_violations(&broken, index, &self.words, &self.domain))
            }
            Err(error) => Err(refusal::of_failure(&error)),
        }
    }
}

/// The length of the frame that begins here, with its prefix; none where the prefix is not there yet.
pub(crate) fn frame_length(mut bytes: &[u8]) -> Result<Option<usize>, Status> {
    if bytes.len() < PREFIX {
        return Ok(None);
    }
    if bytes.get_u8() != 0 {
        return Err(refusal::of_compressed());
    }
    let length = usize::try_from(bytes.get_u32()).unwrap_or(usize::MAX);
    Ok(Some(length.saturating_add(PREFIX)))
}
