//! The routes in terms of descriptors. They are read anew, by the functions that
//! the transcoder reads them with, because its own tables keep only what it
//! needs to serve a request.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};

use crate::rule;
use crate::template::{Template, Variable};
use crate::wkt::WellKnown;

/// One route.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) rpc: MethodDescriptor,
    /// Which of the rpc's routes it is, from 0.
    pub(super) binding: usize,
    /// The HTTP method, or `*` for every one.
    pub(super) http: String,
    pub(super) template: Template,
    pub(super) variables: Vec<PathField>,
    pub(super) body: Body,
    /// The field of the response that is the whole answer.
    pub(super) response_body: Option<FieldDescriptor>,
}

/// A path variable with the field it fills.
#[derive(Debug)]
pub(super) struct PathField {
    pub(super) variable: Variable,
    pub(super) leaf: FieldDescriptor,
}

/// Where the request body goes.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Whole,
    Field(FieldDescriptor),
}

impl Endpoint {
    /// Whether the path carries the field with this dotted name.
    pub(super) fn is_in_path(&self, dotted: &str) -> bool {
        self.variables.iter().any(|field| field.variable.field_path == dotted)
    }

    /// The fields of the request's outermost message that the path carries, by name.
    pub(super) fn path_names(&self) -> Vec<String> {
        let names = self.variables.iter().map(|field| field.variable.field_path.clone());
        names.filter(|name| !name.contains('.')).collect()
    }

    /// Whether the request has an etag, which `If-Match` fills.
    pub(super) fn takes_etag(&self) -> bool {
        has_etag(&self.rpc.input())
    }

    /// Whether the answer carries an `ETag`.
    pub(super) fn gives_etag(&self) -> bool {
        !self.rpc.is_server_streaming() && has_etag(&self.rpc.output())
    }

    /// Whether the body is any bytes of any type.
    pub(super) fn takes_bytes(&self) -> bool {
        let is_bytes = |message: &MessageDescriptor| message.full_name() == rule::HTTP_BODY;
        match &self.body {
            Body::None => false,
            Body::Whole => is_bytes(&self.rpc.input()),
            Body::Field(field) => {
                !field.is_list() && matches!(field.kind(), Kind::Message(message) if is_bytes(&message))
            }
        }
    }

    /// Whether a mask is made of the body's members.
    pub(super) fn infers_mask(&self) -> bool {
        self.http == "PATCH"
            && self.rpc.input().get_field_by_name("update_mask").is_some_and(|field| {
                !field.is_list()
                    && matches!(field.kind(), Kind::Message(desc) if WellKnown::of(&desc) == Some(WellKnown::FieldMask))
            })
    }
}

fn has_etag(message: &MessageDescriptor) -> bool {
    message.get_field_by_name("etag").is_some_and(|field| field.kind() == Kind::String && !field.is_list())
}

/// All routes of a pool, in the order of its descriptors.
pub(super) fn endpoints(pool: &DescriptorPool) -> Vec<Endpoint> {
    let Some(extension) = pool.get_extension_by_name(rule::EXTENSION) else { return Vec::new() };
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.flat_map(|method| of_method(&method, &extension)).collect()
}

fn of_method(method: &MethodDescriptor, extension: &ExtensionDescriptor) -> Vec<Endpoint> {
    let Some(rule) = rule::rule(method, extension) else { return Vec::new() };
    let additional = rule.get_field_by_name("additional_bindings");
    let additional = additional.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    let rules = std::iter::once(&rule).chain(additional.iter().filter_map(Value::as_message));
    rules.enumerate().filter_map(|(binding, rule)| endpoint(method, rule, binding)).collect()
}

fn endpoint(method: &MethodDescriptor, rule: &DynamicMessage, binding: usize) -> Option<Endpoint> {
    let (http, text) = rule::pattern(rule)?;
    let template = Template::parse(&text).ok()?;
    let (input, output) = (method.input(), method.output());
    let variables = template.variables.iter().map(|variable| {
        let leaf = leaf(&input, &variable.field_path)?;
        Some(PathField { variable: variable.clone(), leaf })
    });
    let body = match rule::string(rule, "body").as_str() {
        "" => Body::None,
        "*" => Body::Whole,
        name => Body::Field(input.get_field_by_name(name)?),
    };
    let response_body = match rule::string(rule, "response_body").as_str() {
        "" => None,
        name => Some(output.get_field_by_name(name)?),
    };
    Some(Endpoint {
        rpc: method.clone(),
        binding,
        http,
        variables: variables.collect::<Option<_>>()?,
        template,
        body,
        response_body,
    })
}

/// The field at the end of a dotted path.
fn leaf(message: &MessageDescriptor, dotted: &str) -> Option<FieldDescriptor> {
    let (first, below) = dotted.split_once('.').map_or((dotted, None), |(first, below)| (first, Some(below)));
    let field = message.get_field_by_name(first)?;
    match (below, field.kind()) {
        (None, _) => Some(field),
        (Some(below), Kind::Message(message)) => leaf(&message, below),
        (Some(_), _) => None,
    }
}
