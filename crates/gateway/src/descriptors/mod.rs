//! Descriptor pools from descriptor sets of any syntax, editions included.
//!
//! `prost-reflect` knows proto2 and proto3. A file of an edition says of each element by features what those two say by
//! their syntax; it is rewritten to proto2, element by element, before the pool sees it. For two things proto2 has no
//! word: a singular field without presence, and an enum that is not closed. So that the first can be told at all, and
//! closed enums of editions from all others, these features stay in the options: [`has_presence`] and [`is_closed`] look
//! there.
//!
//! Features that decide nothing about messages on the wire or as JSON are passed over: what a compiler checks
//! (`json_format`, naming, visibility), and whether text has to be UTF-8, which JSON asks for anyway.

mod editions;
mod features;

use prost::{DecodeError, Message as _};
use prost_reflect::{DescriptorError, DescriptorPool, EnumDescriptor, FieldDescriptor};
use thiserror::Error;

use features::{EnumOptions, EnumType, FieldOptions, FieldPresence};

/// Why there is no pool.
#[derive(Debug, Error)]
pub enum DescriptorsError {
    /// The bytes are no `FileDescriptorSet`.
    #[error("the bytes are no descriptor set: {0}")]
    Decode(#[from] DecodeError),
    /// A file is of an edition whose rules are not known here.
    #[error("`{file}` is of an edition that is not known (number {edition}); 2023 and 2024 are")]
    Edition {
        /// The file's name.
        file: String,
        /// Of `google.protobuf.Edition`; 0 where the file tells none.
        edition: i32,
    },
    /// The files do not fit together.
    #[error("the descriptors do not fit together: {0}")]
    Pool(#[from] DescriptorError),
}

/// A `FileDescriptorSet`, whose only field is the files.
#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// What a file says of its language.
#[derive(Clone, PartialEq, prost::Message)]
struct Language {
    #[prost(string, optional, tag = "12")]
    syntax: Option<String>,
}

/// The pool of a serialized `FileDescriptorSet`, as `buf build -o` and
/// `protoc --include_imports --descriptor_set_out` write it: proto2, proto3, and the editions 2023 and 2024.
///
/// All options are kept, annotations among them. In the pool, files of editions are files of proto2 that mean the same;
/// `supports_presence` is true there for fields without presence, too, which this crate knows by the features that stay
/// in their options.
///
/// # Errors
/// Where the bytes are no descriptor set, a file is of an edition that is not known, or the files do not fit together.
pub fn descriptor_pool(set: &[u8]) -> Result<DescriptorPool, DescriptorsError> {
    let files = Files::decode(set)?;
    descriptor_pool_of(files.file)
}

/// The pool of serialized files.
pub(crate) fn descriptor_pool_of(mut files: Vec<Vec<u8>>) -> Result<DescriptorPool, DescriptorsError> {
    for file in &mut files {
        if Language::decode(file.as_slice())?.syntax.as_deref() == Some("editions") {
            *file = editions::rewritten(file)?;
        }
    }
    Ok(DescriptorPool::decode(Files { file: files }.encode_to_vec().as_slice())?)
}

/// Whether a field that is absent differs from one that has its default.
pub(crate) fn has_presence(field: &FieldDescriptor) -> bool {
    let features = || field.options().transcode_to::<FieldOptions>().ok()?.features;
    field.supports_presence()
        && features().is_none_or(|features| features.field_presence() != FieldPresence::Implicit)
}

/// Whether an enum of an edition has no values but those with a name. Those of proto2 count as open, as in most
/// languages: a number without a name is kept.
pub(crate) fn is_closed(desc: &EnumDescriptor) -> bool {
    let features = || desc.options().transcode_to::<EnumOptions>().ok()?.features;
    features().is_some_and(|features| features.enum_type() == EnumType::Closed)
}
