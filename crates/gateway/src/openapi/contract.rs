//! What a product says of its API beyond its descriptors.

use prost_reflect::{FieldDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::put;

/// The name of the one security scheme.
pub(super) const BEARER: &str = "bearer";

/// What stands at the top of the document.
#[derive(Debug, Clone)]
pub struct Info {
    /// What the API is called.
    pub title: String,
    /// Version of the product.
    pub version: String,
    /// Markdown for whoever reads the document first.
    pub description: String,
    /// SPDX identifier of the licence.
    pub license: String,
    /// What bearer tokens there are.
    pub bearer: String,
}

impl Info {
    pub(super) fn to_json(&self) -> Value {
        let Self { title, version, description, license, bearer: _ } = self;
        json!({
            "title": title,
            "version": version,
            "description": description,
            "license": {"name": license, "identifier": license},
        })
    }
}

/// Whether a method needs a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// A call without one is refused.
    Required,
    /// It takes one, and can do without.
    Optional,
}

/// A request header that a method reads.
#[derive(Debug, Clone)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// A value it may have.
    pub example: &'static str,
    /// Most characters of it, where that is known.
    pub max_length: Option<u32>,
}

impl Header {
    pub(super) fn to_json(&self) -> Value {
        let Self { name, description, example, max_length } = self;
        let mut schema = Map::new();
        put(&mut schema, "type", "string");
        bounds(&mut schema, (max_length.map(|_| 1), *max_length), ("minLength", "maxLength"));
        json!({
            "name": name,
            "in": "header",
            "description": description,
            "schema": schema,
            "example": example,
        })
    }
}

/// Bounds of a field of a request. Of a list or map those of text and numbers are about its items.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Fewest and most characters.
    pub length: (Option<u32>, Option<u32>),
    /// A regular expression that texts match.
    pub pattern: Option<String>,
    /// The format of texts, such as `uri`.
    pub format: Option<String>,
    /// The only texts there are.
    pub values: Vec<String>,
    /// Smallest and largest number.
    pub range: (Option<i64>, Option<i64>),
    /// Fewest and most items of a list, or entries of a map.
    pub items: (Option<u32>, Option<u32>),
    /// Whether no item of a list occurs twice.
    pub is_set: bool,
    /// Fewest and most characters of a map's keys.
    pub keys: (Option<u32>, Option<u32>),
}

/// What a product adds to its document. Everything has a default, which says nothing.
pub trait Contract {
    /// Whether a method needs a credential.
    fn security(&self, method: &MethodDescriptor) -> Security {
        let _ = method;
        Security::Required
    }

    /// A paragraph to follow the method's comment.
    fn note(&self, method: &MethodDescriptor) -> Option<String> {
        let _ = method;
        None
    }

    /// Headers a method reads beside those that the transcoder reads.
    fn headers(&self, method: &MethodDescriptor) -> Vec<Header> {
        let _ = method;
        Vec::new()
    }

    /// Bounds of a request's field.
    fn rules(&self, field: &FieldDescriptor) -> Rules {
        let _ = field;
        Rules::default()
    }

    /// A value that a field may have, in its JSON form.
    fn example(&self, field: &FieldDescriptor) -> Option<Value> {
        let _ = field;
        None
    }
}

/// A pair of bounds under two keywords.
pub(super) fn bounds<T: Into<Value>>(
    schema: &mut Map<String, Value>,
    (least, most): (Option<T>, Option<T>),
    keywords: (&str, &str),
) {
    if let Some(least) = least {
        put(schema, keywords.0, least);
    }
    if let Some(most) = most {
        put(schema, keywords.1, most);
    }
}
