//! The media types of answers: checklist A3, A4, A6, A9.

use agentrouter_gateway::{AnswerOptions, Defaults, JsonOutput, Names};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{asking, get, pool, send, with};

/// A9 #99.
#[tokio::test]
async fn accept_is_weighed() {
    for (accept, status, content_type) in [
        ("*/*", 200, "application/json"),
        ("text/html, */*;q=0.1", 200, "application/json"),
        ("application/json;q=0.1, application/x-protobuf", 200, "application/x-protobuf"),
        ("text/html", 406, "application/json"),
        ("application/json;q=0", 406, "application/json"),
    ] {
        let answer = get(AnswerOptions::default(), "/v1/things/a", &[("accept", accept)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (status, content_type),
            "{accept}"
        );
    }
    let refused = get(AnswerOptions::default(), "/v1/events", &[("accept", "application/x-protobuf")]).await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (406, "NOT_ACCEPTABLE"));
}

/// A3 #53: the message, or the part of it that the rule names.
#[tokio::test]
async fn answers_are_protobuf_where_they_are_asked_for() {
    let accept = [("accept", "application/x-protobuf")];
    let uri = "?text=t&part.number=7";
    let whole = get(AnswerOptions::default(), &format!("/v1/things/a{uri}"), &accept).await;
    let thing = pool().get_message_by_name("gateway.answers.v1.Thing").expect("a message");
    let thing = prost_reflect::DynamicMessage::decode(thing, whole.body.clone()).expect("protobuf");
    assert_eq!(thing.get_field_by_name("text").expect("a field").as_str(), Some("t"));
    let part = get(AnswerOptions::default(), &format!("/v1/things/a/part{uri}"), &accept).await;
    assert_eq!(part.body, &[8, 7][..]);
}

/// A3 #47: of the type that it names, in one piece or in several, and for HEAD.
#[tokio::test]
async fn http_bodies_are_sent_as_they_are() {
    let uri = "/v1/files/text-csv?text=a,b&headers=content-disposition:attachment";
    let file = get(AnswerOptions::default(), uri, &[("accept", "application/json")]).await;
    assert_eq!((file.status.as_u16(), file.header("content-type")), (200, "text/csv"));
    assert_eq!((file.header("content-disposition"), &*file.body), ("attachment", &b"a,b"[..]));
    let nameless = get(AnswerOptions::default(), "/v1/files/-?text=a", &[]).await;
    assert_eq!(nameless.header("content-type"), "/");
    let mut head = asking(uri, &[]);
    *head.method_mut() = http::Method::HEAD;
    let head = send(&with(AnswerOptions::default()), head).await;
    assert_eq!(
        (head.header("content-length"), head.header("content-type"), head.body.len()),
        ("3", "text/csv", 0)
    );

    let parts = get(AnswerOptions::default(), "/v1/files/text-csv/parts?text=ab&to=3", &[]).await;
    assert_eq!((parts.header("content-type"), &*parts.body), ("text/csv", &b"ababab"[..]));
    // Broken off, and no trace of the error among the bytes.
    let request = asking("/v1/files/text-csv/parts?text=ab&to=1&fail=13", &[]);
    let response = with(AnswerOptions::default()).oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
    assert_eq!(&*first, b"ab");
    assert!(body.frame().await.expect("an end").is_err());
}

async fn written(json: JsonOutput, uri: &str) -> String {
    let answers = AnswerOptions {
        json_of: vec![("gateway.answers.v1.Answers.GetThing".into(), json)],
        ..AnswerOptions::default()
    };
    String::from_utf8(get(answers, uri, &[]).await.body.to_vec()).expect("text")
}

/// A4 #61: at run time and per rpc.
#[tokio::test]
async fn json_is_written_as_the_operator_likes() {
    let rest = JsonOutput::REST;
    let part = "/v1/things/a/part?part.number=7&part.colour=COLOUR_RED";
    assert_eq!(written(rest, part).await, r#"{"number":"7","colour":"COLOUR_RED"}"#);
    let numbers = JsonOutput { enums_as_numbers: true, int64_as_numbers: true, ..rest };
    assert_eq!(written(numbers, part).await, r#"{"number":7,"colour":1}"#);
    assert_eq!(written(numbers, "/v1/things/a/part?part.number=0").await, r#"{"number":0,"colour":0}"#);
    let never = JsonOutput { defaults: Defaults::Never, ..rest };
    assert_eq!(written(never, "/v1/things/a").await, r#"{"id":"a"}"#);
    let always = JsonOutput { defaults: Defaults::Always, ..rest };
    let text = written(always, "/v1/things/a").await;
    assert!(text.contains(r#""part":null,"note":null,"to":0"#), "{text}");
    assert!(!written(rest, "/v1/things/a").await.contains("note"));
    let event = AnswerOptions { json: JsonOutput { names: Names::Json, ..rest }, ..AnswerOptions::default() };
    let event = get(event, "/v1/events?to=1", &[]).await;
    assert_eq!(event.body, "{\"id\":\"1\",\"retryMs\":2500,\"text\":\"number 1\"}\n");

    let pretty = "{\n  \"number\": \"7\",\n  \"colour\": \"COLOUR_RED\"\n}\n";
    assert_eq!(written(JsonOutput { pretty: true, ..rest }, part).await, pretty);
    assert_eq!(written(rest, &format!("{part}&$prettyPrint=true")).await, pretty);
    let wrong = get(AnswerOptions::default(), "/v1/things/a?$prettyPrint=yes", &[]).await;
    assert_eq!(wrong.violations(), ["$prettyPrint: INVALID_VALUE"]);
}

/// A6 #74: for a client that accepts it, or for all.
#[tokio::test]
async fn errors_are_problems_where_they_are_asked_for() {
    let all = AnswerOptions { problem_details: true, ..AnswerOptions::default() };
    let accepting: &[(&str, &str)] = &[("accept", "application/json, application/problem+json")];
    for (answers, headers) in [(AnswerOptions::default(), accepting), (all, &[])] {
        let answer = get(answers, "/v1/things/a?nothing=1", headers).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (400, "application/problem+json")
        );
        let problem = answer.json();
        assert_eq!((&problem["type"], &problem["title"]), (&"about:blank".into(), &"Bad Request".into()));
        assert_eq!((&problem["status"], &problem["code"]), (&400.into(), &3.into()));
        assert!(problem["detail"].as_str().expect("text").contains("`nothing`"), "{problem}");
        assert_eq!(answer.violations(), ["nothing: UNKNOWN_FIELD"]);
    }
    let plain = get(AnswerOptions::default(), "/nowhere", &[("accept", "application/json")]).await;
    assert_eq!(plain.header("content-type"), "application/json");
    let problem = get(AnswerOptions::default(), "/nowhere", accepting).await;
    assert_eq!((problem.status.as_u16(), problem.header("content-type")), (404, "application/problem+json"));
}
