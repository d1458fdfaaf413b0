//! `google.api.http` annotations to routes. Everything that can be wrong with a
//! rule is found here, once, before the first request.

use std::fmt;
use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, Value,
};
use thiserror::Error;

use crate::answer::{AnswerOptions, Extensions, Rule};
use crate::bind::FieldPath;
use crate::json::{FieldTable, MessageId, Tables, Type};
use crate::options::Options;
use crate::reading::{Reading, Readings, Selector, TrailingSlash};
use crate::router::{RouteId, Router, RuleMethod};
use crate::template::Template;
use crate::wkt::WellKnown;

pub(crate) const EXTENSION: &str = "google.api.http";
const EXTENSION_NUMBER: u32 = 72_295_728;
pub(crate) const HTTP_BODY: &str = "google.api.HttpBody";

/// One route: an HTTP method and path template that reach an rpc.
///
/// A response of the transcoder carries `Arc<RouteInfo>` among its extensions,
/// so that a layer around it can label metrics and spans without the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteInfo {
    /// The HTTP method, or `*` where the rule serves every method.
    pub method: String,
    /// The path template as in the annotation.
    pub template: String,
    /// Full name of the rpc, as in `library.v1.Library.GetBook`.
    pub rpc: String,
}

/// Why a descriptor pool gives no gateway: every faulty rule it holds.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The pool has no usable `google.api.http` extension: `google/api/annotations.proto`
    /// is missing from it, or its options were lost on the way. Decode the pool
    /// from the compiler's bytes; `prost_types::FileDescriptorSet` drops extensions.
    #[error("the descriptor pool has no extension `google.api.http` of `google.protobuf.MethodOptions`")]
    NoAnnotations,
    /// Selectors of [`Options::requests_of`] or [`AnswerOptions::json_of`] that name no rpc with a route.
    #[error("no rpc with a route is named by {}", .0.join(", "))]
    Selectors(Vec<String>),
    /// Rules that cannot be served.
    #[error("{}", list(.0))]
    Rules(Vec<RuleError>),
}

/// What is wrong with one `google.api.http` rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The proto file the rpc is in.
    pub file: String,
    /// Full name of the rpc.
    pub rpc: String,
    /// The rule's template, empty where it has none.
    pub template: String,
    /// What is wrong, completing "the rule ...".
    pub problem: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, rpc, template, problem } = self;
        write!(formatter, "{file}: {rpc}: the rule `{template}` {problem}")
    }
}

fn list(errors: &[RuleError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Where the request body goes.
#[derive(Debug, Clone)]
pub(crate) enum BodyRule {
    None,
    Whole,
    /// The field at this place of the request.
    Field(usize),
}

/// What kind of thing the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    Message,
    /// A message with a JSON form of its own.
    WellKnown,
    /// A `google.api.HttpBody`: any bytes of any type.
    Raw,
    /// A list, a map or a scalar, or nothing.
    Other,
}

/// A path variable, resolved against the request message.
#[derive(Debug)]
pub(crate) struct PathVariable {
    pub(crate) field: FieldPath,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// One segment exactly: its `%2F` are decoded.
    pub(crate) is_single: bool,
}

/// A rule made ready for requests.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) info: Arc<RouteInfo>,
    pub(crate) template: Template,
    /// `/package.Service/Method`.
    pub(crate) grpc_path: PathAndQuery,
    pub(crate) input: MessageId,
    pub(crate) output: MessageId,
    /// Whether the rpc answers with a stream.
    pub(crate) is_streaming: bool,
    pub(crate) is_client_streaming: bool,
    pub(crate) variables: Vec<PathVariable>,
    pub(crate) body: BodyRule,
    pub(crate) payload: Payload,
    pub(crate) reading: Arc<Reading>,
    /// Number of the field of the response that is the body.
    pub(crate) response_body: Option<u32>,
    /// The mask a PATCH is given from its body, and a PUT in full: `update_mask` of the request.
    pub(crate) update_mask: Option<FieldPath>,
    /// Whether it is a PUT.
    pub(crate) replaces: bool,
    /// `etag` of the request, bound to `If-Match`.
    pub(crate) request_etag: Option<FieldPath>,
    /// Number of the `etag` of the response, sent as `ETag`.
    pub(crate) response_etag: Option<u32>,
    /// What answers look like.
    pub(crate) answer: Rule,
}

/// Reads the rules of every method in the pool.
pub(crate) fn routes(
    pool: &DescriptorPool,
    tables: &Tables,
    options: &Options,
) -> Result<(Vec<Route>, Router), BuildError> {
    let extension = annotation(pool).ok_or(BuildError::NoAnnotations)?;

    let (readings, extensions) = (Readings::new(options), Extensions::of(pool));
    let router = Router::new(options.trailing_slash == TrailingSlash::Ignored);
    let answers = &options.answers;
    let (routes, errors) = (Vec::new(), Vec::new());
    let mut table = Table { tables, readings, answers, extensions, routes, router, errors };
    for service in pool.services() {
        for method in service.methods() {
            if let Some(rule) = rule(&method, &extension) {
                table.add_method(&method, &rule);
            }
        }
    }
    let rpcs = table.routes.iter().map(|route| route.info.rpc.as_str());
    let mut idle = table.readings.idle(&rpcs);
    let selectors = answers.json_of.iter().map(|(selector, _)| selector);
    let is_idle = |text: &&String| !rpcs.clone().any(|rpc| Selector::new(text).selects(rpc));
    idle.extend(selectors.filter(is_idle).cloned());
    if table.errors.is_empty() && !idle.is_empty() {
        return Err(BuildError::Selectors(idle));
    }
    if table.errors.is_empty() {
        Ok((table.routes, table.router))
    } else {
        Err(BuildError::Rules(table.errors))
    }
}

/// The extension that annotations are.
pub(crate) fn annotation(pool: &DescriptorPool) -> Option<ExtensionDescriptor> {
    pool.get_extension_by_name(EXTENSION).filter(|extension| {
        extension.number() == EXTENSION_NUMBER
            && extension.containing_message().full_name() == "google.protobuf.MethodOptions"
    })
}

pub(crate) fn rule(method: &MethodDescriptor, extension: &ExtensionDescriptor) -> Option<DynamicMessage> {
    let options = method.options();
    if !options.has_extension(extension) {
        return None;
    }
    options.get_extension(extension).as_message().cloned()
}

struct Table<'t> {
    tables: &'t Tables,
    readings: Readings,
    answers: &'t AnswerOptions,
    extensions: Extensions,
    routes: Vec<Route>,
    router: Router,
    errors: Vec<RuleError>,
}

impl Table<'_> {
    fn add_method(&mut self, method: &MethodDescriptor, rule: &DynamicMessage) {
        self.add(method, rule);
        let additional = rule.get_field_by_name("additional_bindings");
        let additional = additional.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
        for rule in additional.iter().filter_map(Value::as_message) {
            if rule.has_field_by_name("additional_bindings") {
                self.error(method, rule, "has additional bindings inside an additional binding");
            }
            self.add(method, rule);
        }
    }

    fn add(&mut self, method: &MethodDescriptor, rule: &DynamicMessage) {
        let route = match route(method, rule, self) {
            Ok(route) => route,
            Err(problem) => return self.error(method, rule, &problem),
        };
        let id: RouteId = self.routes.len();
        match self.router.insert(&route.0.template, route.1, id) {
            Ok(()) => self.routes.push(route.0),
            Err(there) => {
                let there = self.routes.get(there).map(|route| &route.info);
                let there =
                    there.map(|info| format!(" {} of {}", info.template, info.rpc)).unwrap_or_default();
                self.error(method, rule, &format!("matches the same requests as{there}"));
            }
        }
    }

    fn error(&mut self, method: &MethodDescriptor, rule: &DynamicMessage, problem: &str) {
        self.errors.push(RuleError {
            file: method.parent_file().name().to_owned(),
            rpc: method.full_name().to_owned(),
            template: pattern(rule).map(|(_, template)| template).unwrap_or_default(),
            problem: problem.to_owned(),
        });
    }
}

fn route(
    method: &MethodDescriptor,
    rule: &DynamicMessage,
    table: &Table<'_>,
) -> Result<(Route, RuleMethod), String> {
    let tables = table.tables;
    let (kind, text) = pattern(rule).ok_or("has no pattern")?;
    let rule_method = match kind.as_str() {
        "*" => RuleMethod::Any,
        kind => RuleMethod::One(
            Method::from_bytes(kind.as_bytes()).map_err(|_| format!("has the HTTP method `{kind}`"))?,
        ),
    };
    let is = |wanted: &Method| matches!(&rule_method, RuleMethod::One(method) if method == wanted);
    let template = Template::parse(&text).map_err(|error| error.to_string())?;
    let (request, output) = (method.input(), method.output());
    let find = |message: &MessageDescriptor| {
        let name = message.full_name();
        tables.find(name).ok_or_else(|| format!("is about {name}, which the pool does not hold"))
    };
    let (input, answer) = (find(&request)?, find(&output)?);
    let variables = variables(&template, tables, input, &request)?;

    let body = match string(rule, "body").as_str() {
        "" => BodyRule::None,
        _ if is(&Method::GET) || is(&Method::HEAD) => return Err(format!("gives {kind} a body")),
        "*" => BodyRule::Whole,
        name => {
            let place = place(tables, input, name)
                .ok_or_else(|| format!("has the body `{name}`, no field of {}", request.full_name()))?;
            if variables.iter().any(|variable| variable.field.len() == 1 && variable.field.is_within(place)) {
                return Err(format!("binds `{name}` to the path and to the body"));
            }
            BodyRule::Field(place)
        }
    };
    let response_body = match string(rule, "response_body").as_str() {
        "" => None,
        name => {
            let field = output.get_field_by_name(name);
            let field = field.ok_or_else(|| {
                format!("has the response body `{name}`, no field of {}", output.full_name())
            })?;
            Some(field.number())
        }
    };
    let content = match body {
        BodyRule::None => None,
        BodyRule::Whole => Some(input),
        BodyRule::Field(place) => {
            let field = tables.message(input).and_then(|message| message.fields.get(place));
            field.filter(|field| field.is_singular()).and_then(FieldTable::message)
        }
    };
    let payload = match content.and_then(|id| tables.message(id)) {
        Some(message) if *message.name == *HTTP_BODY => Payload::Raw,
        Some(message) if message.well_known.is_some() => Payload::WellKnown,
        Some(_) => Payload::Message,
        None => Payload::Other,
    };
    let service = method.parent_service().full_name();
    let grpc_path = format!("/{service}/{}", method.name());

    let route = Route {
        info: Arc::new(RouteInfo {
            method: rule_method.as_str().to_owned(),
            template: text,
            rpc: method.full_name().to_owned(),
        }),
        grpc_path: grpc_path.parse().map_err(|_| format!("has the gRPC path `{grpc_path}`"))?,
        is_streaming: method.is_server_streaming(),
        is_client_streaming: method.is_client_streaming(),
        variables,
        body,
        payload,
        reading: Arc::clone(table.readings.of(method.full_name())),
        response_body,
        update_mask: (is(&Method::PATCH) || is(&Method::PUT)).then(|| update_mask(tables, input)).flatten(),
        replaces: is(&Method::PUT),
        request_etag: etag(tables, input),
        response_etag: etag(tables, answer).and_then(|etag| etag.leaf(tables).map(|field| field.number)),
        answer: Rule::of(&table.extensions, method, tables, answer, response_body, table.answers)?,
        output: answer,
        template,
        input,
    };
    Ok((route, rule_method))
}

/// The HTTP method and the template of a rule.
pub(crate) fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    for kind in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(kind) {
            return Some((kind.to_ascii_uppercase(), string(rule, kind)));
        }
    }
    let custom = rule.has_field_by_name("custom").then(|| rule.get_field_by_name("custom"))??;
    let custom = custom.as_message()?;
    Some((string(custom, "kind"), string(custom, "path")))
}

pub(crate) fn string(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn variables(
    template: &Template,
    tables: &Tables,
    input: MessageId,
    request: &MessageDescriptor,
) -> Result<Vec<PathVariable>, String> {
    let resolve = |variable: &crate::template::Variable| {
        let path = &variable.field_path;
        let field = FieldPath::resolve(tables, input, path)
            .map_err(|_| format!("binds `{path}`, no singular field of {}", request.full_name()))?;
        // Templates name fields as the proto file does, not by their JSON names.
        let name = field.name(tables);
        if name != *path {
            return Err(format!("binds `{path}`, which is written `{name}` in {}", request.full_name()));
        }
        let leaf = field.leaf(tables);
        match leaf.and_then(FieldTable::kind) {
            None => Err(format!("binds the map field `{path}`")),
            Some(_) if leaf.is_some_and(|leaf| !leaf.is_singular()) => {
                Err(format!("binds the repeated field `{path}`"))
            }
            Some(Type::Message(_)) => Err(format!("binds the message field `{path}`")),
            Some(_) => Ok(PathVariable {
                field,
                start: variable.start,
                end: variable.end,
                is_single: variable.is_single(template),
            }),
        }
    };
    template.variables.iter().map(resolve).collect()
}

/// The place of a field by its name in the proto file.
fn place(tables: &Tables, message: MessageId, name: &str) -> Option<usize> {
    let message = tables.message(message)?;
    message.find(name, 0).filter(|place| message.fields.get(*place).is_some_and(|field| *field.name == *name))
}

fn update_mask(tables: &Tables, input: MessageId) -> Option<FieldPath> {
    let mask = FieldPath::of(input, place(tables, input, "update_mask")?);
    let field = mask.leaf(tables).filter(|field| field.is_singular())?;
    let is_mask = tables.message(field.message()?)?.well_known == Some(WellKnown::FieldMask);
    is_mask.then_some(mask)
}

fn etag(tables: &Tables, message: MessageId) -> Option<FieldPath> {
    let etag = FieldPath::of(message, place(tables, message, "etag")?);
    let is_text =
        etag.leaf(tables).is_some_and(|field| field.is_singular() && field.kind() == Some(Type::String));
    is_text.then_some(etag)
}
