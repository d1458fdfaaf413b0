//! Rules from outside of the proto files, as the `http` section of a service configuration has them.

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::Deserialize;
use thiserror::Error;

use crate::rule::{self, annotation};

/// The rules of a service configuration: each replaces the annotation of the method that its selector names.
///
/// ```json
/// {"http": {"rules": [
///   {"selector": "library.v1.Library.GetBook", "get": "/v2/books/{id}",
///    "additional_bindings": [{"get": "/v2/shelves/{shelf}/books/{id}"}]}
/// ]}}
/// ```
#[derive(Debug, Clone, Default)]
pub struct HttpRules {
    /// The rules; of several for a method the last counts.
    pub rules: Vec<HttpRule>,
}

/// A rule: `google.api.HttpRule`, with one HTTP method and its path template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpRule {
    /// Full name of the method, as in `library.v1.Library.GetBook`. Empty in an additional binding.
    pub selector: String,
    /// The path of GET.
    pub get: Option<String>,
    /// The path of PUT.
    pub put: Option<String>,
    /// The path of POST.
    pub post: Option<String>,
    /// The path of DELETE.
    pub delete: Option<String>,
    /// The path of PATCH.
    pub patch: Option<String>,
    /// Another method and its path.
    pub custom: Option<CustomHttpPattern>,
    /// The field that the body is; `*` for the whole request, empty for none.
    pub body: String,
    /// The field of the response that the answer is; empty for all of it.
    #[serde(alias = "responseBody")]
    pub response_body: String,
    /// Further routes to the method.
    #[serde(alias = "additionalBindings")]
    pub additional_bindings: Vec<HttpRule>,
}

/// An HTTP method of one's own, or `*` for every one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomHttpPattern {
    /// The HTTP method.
    pub kind: String,
    /// Its path template.
    pub path: String,
}

/// Why rules cannot be put into a descriptor pool.
#[derive(Debug, Error)]
pub enum HttpRulesError {
    /// The text is no service configuration.
    #[error("the rules cannot be read: {0}")]
    Text(#[from] serde_json::Error),
    /// The pool has no method of that name.
    #[error("the pool has no method `{0}`")]
    NoMethod(String),
    /// The rule has none, or more than one, of `get`, `put`, `post`, `delete`, `patch` and `custom`.
    #[error("the rule of `{0}` must have one HTTP method")]
    Pattern(String),
    /// The pool has no `google.api.http`, which the rules are written as.
    #[error("the descriptor pool has no extension `google.api.http` of `google.protobuf.MethodOptions`")]
    NoAnnotations,
    /// The pool cannot be written and read again.
    #[error("the descriptor pool cannot be changed: {0}")]
    Pool(String),
}

/// A service configuration, as far as it is read.
#[derive(Deserialize)]
struct ServiceConfig {
    #[serde(default)]
    http: Http,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    #[serde(default)]
    rules: Vec<HttpRule>,
}

impl HttpRules {
    /// Reads the JSON of a service configuration: the member `http` with its `rules`. Other sections are passed over.
    ///
    /// # Errors
    /// Where the text is no JSON, or a rule has members that it does not have.
    pub fn from_json(text: &str) -> Result<Self, HttpRulesError> {
        let config: ServiceConfig = serde_json::from_str(text)?;
        Ok(Self { rules: config.http.rules })
    }

    /// The same descriptors with these rules in the place of annotations. Whatever is made of them, routes and OpenAPI
    /// document alike, follows the rules. Methods without a rule keep their annotation.
    ///
    /// # Errors
    /// Where a selector names no method, or a rule has no HTTP method. What is wrong with templates and fields is
    /// found where routes are made.
    pub fn apply(&self, pool: &DescriptorPool) -> Result<DescriptorPool, HttpRulesError> {
        let extension = annotation(pool).ok_or(HttpRulesError::NoAnnotations)?;
        let files = pool.get_message_by_name("google.protobuf.FileDescriptorSet");
        let files = files.ok_or(HttpRulesError::NoAnnotations)?;
        let broken = |error: &dyn std::fmt::Display| HttpRulesError::Pool(error.to_string());
        // The messages of `prost-types` would lose every other extension.
        let mut set =
            DynamicMessage::decode(files, pool.encode_to_vec().as_slice()).map_err(|error| broken(&error))?;
        for rule in &self.rules {
            let value = rule.message(&extension)?;
            let method = find(&mut set, &rule.selector);
            let method = method.ok_or_else(|| HttpRulesError::NoMethod(rule.selector.clone()))?;
            let options = field(method, "options").and_then(Value::as_message_mut);
            let options = options.ok_or(HttpRulesError::NoAnnotations)?;
            options.set_extension(&extension, Value::Message(value));
        }
        DescriptorPool::decode(set.encode_to_vec().as_slice()).map_err(|error| broken(&error))
    }
}

impl HttpRule {
    /// The rule as the annotation holds it.
    fn message(&self, extension: &ExtensionDescriptor) -> Result<DynamicMessage, HttpRulesError> {
        let kind = extension.kind();
        let desc = kind.as_message().ok_or(HttpRulesError::NoAnnotations)?;
        self.binding(desc, &self.selector)
    }

    fn binding(&self, desc: &MessageDescriptor, selector: &str) -> Result<DynamicMessage, HttpRulesError> {
        let mut rule = DynamicMessage::new(desc.clone());
        let patterns = [
            ("get", &self.get),
            ("put", &self.put),
            ("post", &self.post),
            ("delete", &self.delete),
            ("patch", &self.patch),
        ];
        let mut given = 0;
        for (name, path) in patterns {
            if let Some(path) = path {
                rule.set_field_by_name(name, Value::String(path.clone()));
                given += 1;
            }
        }
        let custom = desc.get_field_by_name("custom");
        let custom_kind = custom.as_ref().map(prost_reflect::FieldDescriptor::kind);
        if let (Some(custom), Some(desc)) =
            (&self.custom, custom_kind.as_ref().and_then(|kind| kind.as_message()))
        {
            let mut pattern = DynamicMessage::new(desc.clone());
            pattern.set_field_by_name("kind", Value::String(custom.kind.clone()));
            pattern.set_field_by_name("path", Value::String(custom.path.clone()));
            rule.set_field_by_name("custom", Value::Message(pattern));
            given += 1;
        }
        if given != 1 {
            return Err(HttpRulesError::Pattern(selector.to_owned()));
        }
        for (name, text) in [("body", &self.body), ("response_body", &self.response_body)] {
            if !text.is_empty() {
                rule.set_field_by_name(name, Value::String(text.clone()));
            }
        }
        let further = self.additional_bindings.iter();
        let further: Vec<Value> = further
            .map(|further| further.binding(desc, selector).map(Value::Message))
            .collect::<Result<_, _>>()?;
        if !further.is_empty() {
            rule.set_field_by_name("additional_bindings", Value::List(further));
        }
        Ok(rule)
    }
}

/// The method of this full name in a set of files.
fn find<'s>(set: &'s mut DynamicMessage, selector: &str) -> Option<&'s mut DynamicMessage> {
    for file in messages(set, "file") {
        let package = text(file, "package");
        for service in messages(file, "service") {
            let service_name = text(service, "name");
            for method in messages(service, "method") {
                let parts = [package.as_str(), service_name.as_str(), &text(method, "name")];
                let name: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                if name.join(".") == selector {
                    return Some(method);
                }
            }
        }
    }
    None
}

fn messages<'m>(
    message: &'m mut DynamicMessage,
    name: &str,
) -> impl Iterator<Item = &'m mut DynamicMessage> + use<'m> {
    let list = field(message, name).and_then(Value::as_list_mut);
    list.into_iter().flatten().filter_map(Value::as_message_mut)
}

fn field<'m>(message: &'m mut DynamicMessage, name: &str) -> Option<&'m mut Value> {
    let field = message.descriptor().get_field_by_name(name)?;
    Some(message.get_field_mut(&field))
}

fn text(message: &DynamicMessage, name: &str) -> String {
    rule::string(message, name)
}
