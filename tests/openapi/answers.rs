//! Every operation, called as the document says, and every answer judged by it.

use std::io::Write as _;

use agentrouter_testkit::TestDb;
use reqwest::{Client as Http, Method, Response, Url};
use serde_json::{Value, json};

use crate::checks::{script, succeed};
use crate::common::{OPERATOR_KEY, TestServer};
use crate::document::{Call, Operation, document, of_rpc, operations};
use crate::surface::client::{Client, method};
use crate::surface::table::RPCS;
use crate::surface::tenant::{Form, Names, Tenant};

/// A tenant on a server of its own, called over REST.
pub(crate) struct World {
    pub(crate) server: TestServer,
    pub(crate) tenant: Tenant,
    http: Http,
}

impl World {
    pub(crate) async fn new(db: TestDb) -> Self {
        let server = TestServer::start(db).await;
        let client = Client(server.channel().await);
        let tenant = Tenant::create(&client, OPERATOR_KEY, Names { customer: "acme", suffix: "" }).await;
        Self { server, tenant, http: Http::new() }
    }

    pub(crate) async fn send(
        &self,
        operation: &Operation,
        call: &Call,
        headers: &[(&str, &str)],
        token: Option<&str>,
    ) -> Response {
        let mut url = Url::parse(&format!("{}{}", self.server.base_url, call.path)).unwrap();
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let mut request = self.http.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }
}

/// What was asked and answered, for the judge.
#[derive(Default)]
struct Record(Vec<Value>);

impl Record {
    async fn add(&mut self, operation: &Operation, call: &Call, mut response: Response) -> u16 {
        let status = response.status().as_u16();
        let headers: Vec<String> = response.headers().keys().map(|name| name.as_str().to_owned()).collect();
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        // A stream goes on; its first message is enough.
        let body = if operation.is_stream() && status == 200 {
            String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap()
        } else {
            response.text().await.unwrap()
        };
        self.0.push(json!({
            "operation": operation.id, "path": operation.path, "method": operation.method.to_lowercase(),
            "status": status, "media": media, "headers": headers, "body": body, "request": call.body,
        }));
        status
    }

    /// Has the whole record judged by a validator of JSON schemas that knows nothing of this product.
    async fn judge(self) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let everything = json!({"document": document(), "exchanges": self.0});
        file.write_all(everything.to_string().as_bytes()).unwrap();
        let mut judge = script("judge.py");
        judge.arg(file.path());
        let told = succeed(judge).await;
        assert!(told.starts_with("judged "), "{told}");
    }
}

pub(crate) async fn every_operation_answers_as_documented(db: TestDb) {
    let world = World::new(db).await;
    let mut record = Record::default();
    let mut called = Vec::new();
    for rpc in RPCS {
        let message = world.tenant.request(rpc, Form::Slug);
        let token = world.tenant.rightful(rpc);
        for operation in of_rpc(rpc.name) {
            let call = operation.call(&message);
            refusals(&world, operation, &call, token, &mut record).await;
            let accept = ("accept", if operation.is_stream() { "text/event-stream" } else { "*/*" });
            let response = world.send(operation, &call, &[accept], Some(token)).await;
            assert_eq!(
                record.add(operation, &call, response).await,
                200,
                "{}: {:?}",
                operation.id,
                record.0.last()
            );
            if operation.is_stream() {
                let response = world.send(operation, &call, &[], Some(token)).await;
                assert_eq!(record.add(operation, &call, response).await, 200);
            }
            called.push(operation.id);
        }
    }
    called.sort_unstable();
    let mut all: Vec<_> = operations().iter().map(|operation| operation.id).collect();
    all.sort_unstable();
    assert_eq!(called, all);
    record.judge().await;
    world.server.stop().await;
}

/// Calls that are refused before they change anything.
async fn refusals(world: &World, operation: &Operation, call: &Call, token: &str, record: &mut Record) {
    let response = world.send(operation, call, &[], None).await;
    assert_eq!(record.add(operation, call, response).await, 401, "{}", operation.id);

    let mut unknown = call.clone();
    unknown.query.push(("no_such_parameter".to_owned(), "1".to_owned()));
    let response = world.send(operation, &unknown, &[], Some(token)).await;
    assert_eq!(record.add(operation, &unknown, response).await, 400, "{}", operation.id);

    if operation.parameters("header").any(|header| header["name"] == "If-Match") {
        let response = world.send(operation, call, &[("if-match", "\"stale\"")], Some(token)).await;
        assert_eq!(record.add(operation, call, response).await, 412, "{}", operation.id);
    }
    if let Some(body) = &call.body {
        let mut unknown = call.clone();
        unknown.body = Some(json!({"no_such_member": body}));
        let response = world.send(operation, &unknown, &[], Some(token)).await;
        assert_eq!(record.add(operation, &unknown, response).await, 400, "{}", operation.id);
        let plain = [("content-type", "text/plain")];
        let mut text = call.clone();
        text.body = None;
        let response = world.send_text(operation, &text, &plain, token).await;
        assert_eq!(record.add(operation, &text, response).await, 415, "{}", operation.id);
    }
}

impl World {
    /// A unary call in Connect's own form: the status and the answer.
    pub(crate) async fn connect(&self, rpc: &str, message: &Value, token: &str) -> (u16, Value) {
        let method = method(rpc);
        let path = format!("{}/{}", method.parent_service().full_name(), method.name());
        let request = self.http.post(format!("{}/{path}", self.server.base_url)).bearer_auth(token);
        let request = request.header("connect-protocol-version", "1").json(message);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// A call whose body is no JSON.
    async fn send_text(
        &self,
        operation: &Operation,
        call: &Call,
        headers: &[(&str, &str)],
        token: &str,
    ) -> Response {
        let url = format!("{}{}", self.server.base_url, call.path);
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let mut request = self.http.request(method, url).bearer_auth(token).body("text");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}
