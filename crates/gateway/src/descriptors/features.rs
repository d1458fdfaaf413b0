//! Features, as far as they decide how messages are read and written, and the options that hold them.

use prost::{DecodeError, Enumeration, Message};

/// The editions of `google.protobuf.Edition` whose defaults are known. Those of 2024 are those of 2023 in all that is
/// looked at here.
const EDITIONS: std::ops::RangeInclusive<i32> = 1000..=1001;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum FieldPresence {
    Unknown = 0,
    Explicit = 1,
    Implicit = 2,
    LegacyRequired = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum EnumType {
    Unknown = 0,
    Open = 1,
    Closed = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum RepeatedFieldEncoding {
    Unknown = 0,
    Packed = 1,
    Expanded = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum MessageEncoding {
    Unknown = 0,
    LengthPrefixed = 1,
    Delimited = 2,
}

/// Of `google.protobuf.FeatureSet`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Features {
    #[prost(enumeration = "FieldPresence", optional, tag = "1")]
    pub(super) field_presence: Option<i32>,
    #[prost(enumeration = "EnumType", optional, tag = "2")]
    pub(super) enum_type: Option<i32>,
    #[prost(enumeration = "RepeatedFieldEncoding", optional, tag = "3")]
    pub(super) repeated_field_encoding: Option<i32>,
    #[prost(enumeration = "MessageEncoding", optional, tag = "5")]
    pub(super) message_encoding: Option<i32>,
}

impl Features {
    /// What holds in a file that says nothing; none where the edition is not known.
    pub(super) fn of_edition(edition: i32) -> Option<Self> {
        EDITIONS.contains(&edition).then_some(Self {
            field_presence: Some(FieldPresence::Explicit.into()),
            enum_type: Some(EnumType::Open.into()),
            repeated_field_encoding: Some(RepeatedFieldEncoding::Packed.into()),
            message_encoding: Some(MessageEncoding::LengthPrefixed.into()),
        })
    }

    /// What holds inside of this for an element with features of its own.
    pub(super) fn with(self, own: Option<Self>) -> Self {
        let own = own.unwrap_or_default();
        Self {
            field_presence: own.field_presence.or(self.field_presence),
            enum_type: own.enum_type.or(self.enum_type),
            repeated_field_encoding: own.repeated_field_encoding.or(self.repeated_field_encoding),
            message_encoding: own.message_encoding.or(self.message_encoding),
        }
    }
}

/// Of `google.protobuf.FileOptions`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct FileOptions {
    #[prost(message, optional, tag = "50")]
    pub(super) features: Option<Features>,
}

/// Of `google.protobuf.MessageOptions`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct MessageOptions {
    #[prost(bool, optional, tag = "7")]
    pub(super) map_entry: Option<bool>,
    #[prost(message, optional, tag = "12")]
    pub(super) features: Option<Features>,
}

/// Of `google.protobuf.FieldOptions`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub(super) packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    pub(super) features: Option<Features>,
}

/// Of `google.protobuf.OneofOptions`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct OneofOptions {
    #[prost(message, optional, tag = "1")]
    pub(super) features: Option<Features>,
}

/// Of `google.protobuf.EnumOptions`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct EnumOptions {
    #[prost(message, optional, tag = "7")]
    pub(super) features: Option<Features>,
}

/// The options of an element, as bytes in the parts they came in. A part that is added counts last: protobuf merges.
pub(super) type Parts = Vec<Vec<u8>>;

/// The options that are known here.
pub(super) fn options<T: Message + Default>(parts: &Parts) -> Result<T, DecodeError> {
    T::decode(parts.concat().as_slice())
}
