//! Files of editions as files of proto2 that mean the same.
//!
//! Options and all else that is not looked at stay the bytes that they are, so that nothing is lost: annotations,
//! comments, reserved names.

use std::collections::HashSet;

use prost::{DecodeError, Message as _};

use super::DescriptorsError;
use super::features::{
    EnumOptions, EnumType, Features, FieldOptions, FieldPresence, FileOptions, MessageEncoding,
    MessageOptions, OneofOptions, Parts, RepeatedFieldEncoding, options,
};

/// Of `google.protobuf.FieldDescriptorProto.Type`.
const TYPE_STRING: i32 = 9;
const TYPE_GROUP: i32 = 10;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;
/// Of `google.protobuf.FieldDescriptorProto.Label`.
const LABEL_REQUIRED: i32 = 2;
const LABEL_REPEATED: i32 = 3;

/// `google.protobuf.FileDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    package: Option<String>,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<Enum>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    services: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "7")]
    extensions: Vec<Field>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    options: Parts,
    #[prost(bytes = "vec", repeated, tag = "9")]
    source_code_info: Parts,
    #[prost(int32, repeated, tag = "10")]
    public_dependency: Vec<i32>,
    #[prost(int32, repeated, tag = "11")]
    weak_dependency: Vec<i32>,
    #[prost(string, optional, tag = "12")]
    syntax: Option<String>,
    #[prost(int32, optional, tag = "14")]
    edition: Option<i32>,
}

/// `google.protobuf.DescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<Message>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<Enum>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    extension_ranges: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "6")]
    extensions: Vec<Field>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    options: Parts,
    #[prost(message, repeated, tag = "8")]
    oneofs: Vec<Oneof>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    reserved_ranges: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "10")]
    reserved_names: Vec<String>,
}

/// `google.protobuf.FieldDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    extendee: Option<String>,
    #[prost(int32, optional, tag = "3")]
    number: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    label: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    kind: Option<i32>,
    #[prost(string, optional, tag = "6")]
    type_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    default_value: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    options: Parts,
    #[prost(int32, optional, tag = "9")]
    oneof_index: Option<i32>,
    #[prost(string, optional, tag = "10")]
    json_name: Option<String>,
}

/// `google.protobuf.OneofDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Oneof {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    options: Parts,
}

/// `google.protobuf.EnumDescriptorProto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Enum {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    values: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    options: Parts,
    #[prost(bytes = "vec", repeated, tag = "4")]
    reserved_ranges: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "5")]
    reserved_names: Vec<String>,
}

/// A serialized file in proto2.
pub(super) fn rewritten(file: &[u8]) -> Result<Vec<u8>, DescriptorsError> {
    let mut file = File::decode(file)?;
    let edition = file.edition.take().unwrap_or_default();
    let Some(features) = Features::of_edition(edition) else {
        return Err(DescriptorsError::Edition { file: file.name.unwrap_or_default(), edition });
    };
    file.syntax = Some("proto2".to_owned());
    let features = features.with(options::<FileOptions>(&file.options)?.features);
    let scope = match file.package.as_deref() {
        None | Some("") => String::new(),
        Some(package) => format!(".{package}"),
    };
    for message in &mut file.messages {
        message.rewrite(&scope, features)?;
    }
    for desc in &mut file.enums {
        desc.rewrite(features)?;
    }
    for extension in &mut file.extensions {
        extension.rewrite(features, false)?;
    }
    Ok(file.encode_to_vec())
}

impl Message {
    /// `scope` is the full name around it, with a dot in front.
    fn rewrite(&mut self, scope: &str, outer: Features) -> Result<(), DecodeError> {
        let own = options::<MessageOptions>(&self.options)?;
        if own.map_entry == Some(true) {
            // A map is the same everywhere; the features around it are not about its entries.
            return Ok(());
        }
        let features = outer.with(own.features);
        let scope = format!("{scope}.{}", self.name());
        let mut entries = HashSet::new();
        for message in &mut self.messages {
            message.rewrite(&scope, features)?;
            if options::<MessageOptions>(&message.options)?.map_entry == Some(true) {
                entries.insert(format!("{scope}.{}", message.name()));
            }
        }
        for desc in &mut self.enums {
            desc.rewrite(features)?;
        }
        for field in &mut self.fields {
            let oneof = field.oneof_index.and_then(|index| self.oneofs.get(usize::try_from(index).ok()?));
            let features = match oneof {
                Some(oneof) => features.with(options::<OneofOptions>(&oneof.options)?.features),
                None => features,
            };
            let is_map = field.type_name.as_ref().is_some_and(|name| entries.contains(name));
            field.rewrite(features, is_map)?;
        }
        for extension in &mut self.extensions {
            extension.rewrite(features, false)?;
        }
        self.tell_json_names_apart();
        Ok(())
    }

    /// With `json_format = LEGACY_BEST_EFFORT`, fields may have one JSON name. The one that is called so keeps it, or
    /// else the first; the others go by their own names.
    fn tell_json_names_apart(&mut self) {
        let (own, mut others): (Vec<_>, Vec<_>) =
            self.fields.iter_mut().partition(|field| field.name_in_json() == field.name());
        let mut taken: HashSet<String> = own.iter().map(|field| field.name().to_owned()).collect();
        for field in &mut others {
            if !taken.insert(field.name_in_json()) {
                field.json_name.clone_from(&field.name);
            }
        }
    }
}

impl Field {
    fn rewrite(&mut self, outer: Features, is_map: bool) -> Result<(), DecodeError> {
        let features = outer.with(options::<FieldOptions>(&self.options)?.features);
        let is_message = matches!(self.kind, Some(TYPE_MESSAGE | TYPE_GROUP));
        if is_message && !is_map && features.message_encoding() == MessageEncoding::Delimited {
            self.kind = Some(TYPE_GROUP);
        }
        if self.label == Some(LABEL_REPEATED) {
            // For other types, nobody may say that they are packed.
            if !is_message && !matches!(self.kind, Some(TYPE_STRING | TYPE_BYTES)) {
                let packed = features.repeated_field_encoding() != RepeatedFieldEncoding::Expanded;
                self.add(FieldOptions { packed: Some(packed), features: None });
            }
        } else if self.oneof_index.is_none() && self.extendee.is_none() {
            match features.field_presence() {
                FieldPresence::LegacyRequired => self.label = Some(LABEL_REQUIRED),
                // A message always has presence.
                FieldPresence::Implicit if !is_message => {
                    let field_presence = Some(FieldPresence::Implicit.into());
                    let features = Some(Features { field_presence, ..Features::default() });
                    self.add(FieldOptions { packed: None, features });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The name that was chosen, or lowerCamelCase where a compiler left it out.
    fn name_in_json(&self) -> String {
        if let Some(name) = &self.json_name {
            return name.clone();
        }
        let mut parts = self.name().split('_');
        let mut name = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let mut letters = part.chars();
            name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            name.push_str(letters.as_str());
        }
        name
    }

    fn add(&mut self, options: FieldOptions) {
        self.options.push(options.encode_to_vec());
    }
}

impl Enum {
    fn rewrite(&mut self, outer: Features) -> Result<(), DecodeError> {
        if outer.with(options::<EnumOptions>(&self.options)?.features).enum_type() == EnumType::Closed {
            let enum_type = Some(EnumType::Closed.into());
            let features = Some(Features { enum_type, ..Features::default() });
            self.options.push(EnumOptions { features }.encode_to_vec());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::descriptors::{Files, descriptor_pool, has_presence, is_closed};

    fn field(name: &str, number: i32, kind: i32, label: i32) -> Field {
        let (number, kind, label) = (Some(number), Some(kind), Some(label));
        Field { name: Some(name.to_owned()), number, kind, label, ..Field::default() }
    }

    /// A set with one file, whose message and enum say otherwise than the edition by features around them.
    fn set(edition: Option<i32>) -> Vec<u8> {
        let [int32, optional, repeated] = [5, 1, LABEL_REPEATED];
        let implicit = Features { field_presence: Some(2), message_encoding: Some(2), ..Features::default() };
        let expanded = Features { repeated_field_encoding: Some(2), ..Features::default() };
        let closed = Features { enum_type: Some(2), ..Features::default() };
        let mut in_oneof = field("in_oneof", 2, int32, optional);
        in_oneof.oneof_index = Some(0);
        let mut inner = field("inner", 5, TYPE_MESSAGE, optional);
        inner.type_name = Some(".p.M".to_owned());
        let mut same = field("Numbers", 6, int32, optional);
        same.json_name = Some("numbers".to_owned());
        let message = Message {
            name: Some("M".to_owned()),
            fields: vec![
                field("number", 1, int32, optional),
                in_oneof,
                field("numbers", 3, int32, repeated),
                field("texts", 4, TYPE_STRING, repeated),
                inner,
                same,
            ],
            oneofs: vec![Oneof { name: Some("oneof".to_owned()), options: Vec::new() }],
            options: vec![
                MessageOptions { features: Some(implicit), map_entry: None }.encode_to_vec(),
                MessageOptions { features: Some(expanded), map_entry: None }.encode_to_vec(),
            ],
            ..Message::default()
        };
        let file = File {
            name: Some("f.proto".to_owned()),
            package: Some("p".to_owned()),
            messages: vec![message],
            enums: vec![Enum {
                name: Some("E".to_owned()),
                values: vec![b"\x0a\x01V\x10\x01".to_vec()],
                ..Enum::default()
            }],
            options: vec![FileOptions { features: Some(closed) }.encode_to_vec()],
            syntax: Some("editions".to_owned()),
            edition,
            ..File::default()
        };
        Files { file: vec![file.encode_to_vec()] }.encode_to_vec()
    }

    /// A4 #66: features hold for what is inside, each as far as it can be about that.
    #[test]
    fn features_are_inherited() {
        for edition in [1000, 1001] {
            let pool = descriptor_pool(&set(Some(edition))).unwrap();
            let message = pool.get_message_by_name("p.M").unwrap();
            let field = |name| message.get_field_by_name(name).unwrap();
            let presence = ["number", "in_oneof", "inner"].map(|name| has_presence(&field(name)));
            assert_eq!(presence, [false, true, true]);
            assert!(!field("numbers").is_packed() && !has_presence(&field("texts")));
            assert!(field("inner").is_group());
            assert_eq!(
                ["numbers", "Numbers"].map(|name| field(name).json_name().to_owned()),
                ["numbers", "Numbers"]
            );
            assert!(is_closed(&pool.get_enum_by_name("p.E").unwrap()));
        }
    }

    /// A4 #66: what nobody knows the rules of is refused by its name.
    #[test]
    fn unknown_editions_are_refused() {
        for number in [None, Some(998), Some(1002)] {
            match descriptor_pool(&set(number)) {
                Err(DescriptorsError::Edition { file, edition }) => {
                    assert_eq!((file.as_str(), edition), ("f.proto", number.unwrap_or_default()));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A4 #66.
    #[test]
    fn what_is_no_descriptor_set_is_refused() {
        let set = set(Some(1000));
        for end in 1..set.len() {
            assert!(descriptor_pool(&set[..end]).is_err(), "{end}");
        }
        assert!(descriptor_pool(&[]).is_ok());
    }

    /// A4 #66: a name that no compiler wrote down is lowerCamelCase.
    #[test]
    fn names_in_json() {
        let names =
            ["a", "a_b", "_a", "a__b", "a_1b", "aB_", ""].map(|name| field(name, 1, 5, 1).name_in_json());
        assert_eq!(names, ["a", "aB", "A", "aB", "a1b", "aB", ""]);
    }
}
