//! What an operator can loosen: options of checklist A1 to A4. Without them everything here is refused, as `binding`
//! and `paths` tell.

use agentrouter_gateway::{
    BuildError, Options, RequestOptions, SystemParameters, TrailingSlash, Transcoder, UnknownParameters,
};
use http::Method;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::backend::{Backend, backend};
use super::{Answer, answer, pool, request, send, transcoder_with};

fn reading(requests: RequestOptions) -> Transcoder<Backend> {
    transcoder_with(Options { requests, ..Options::default() })
}

async fn query(requests: &RequestOptions, query: &str) -> Answer {
    send(&reading(requests.clone()), request("GET", &format!("/v1/query?{query}"), "")).await
}

fn slashes(trailing_slash: TrailingSlash) -> Transcoder<Backend> {
    transcoder_with(Options { trailing_slash, ..Options::default() })
}

/// A1 #22: one slash at the end means nothing; two are no path, and a `**` does not swallow one.
#[tokio::test]
async fn a_trailing_slash_can_be_ignored() {
    let transcoder = slashes(TrailingSlash::Ignored);
    for (method, path, bound) in [
        ("GET", "/v1/items/5/", "5"),
        ("GET", "/v1/files/a/", "files/a"),
        ("POST", "/v1/items/5:revoke/", "5"),
    ] {
        assert_eq!(send(&transcoder, request(method, path, "")).await.json()["s"], bound, "{path}");
    }
    for path in ["/", "/v1/items//", "/v1/items/", "//v1/items/5"] {
        assert_eq!(send(&transcoder, request("GET", path, "")).await.status, 404, "{path}");
    }
    assert_eq!(send(&transcoder, request("PUT", "/v1/items/5/", "")).await.status, 405);
    assert!(transcoder.methods("/v1/items/5/").contains(&Method::GET));
}

/// A1 #22: or it sends to the path without it, with method, body and query as they are.
#[tokio::test]
async fn a_trailing_slash_can_redirect() {
    let transcoder = slashes(TrailingSlash::Redirected);
    for (method, uri, location) in [
        ("GET", "/v1/items/5/", "/v1/items/5"),
        ("POST", "/v1/create/?b=%20true", "/v1/create?b=%20true"),
        ("DELETE", "/v1/create/", "/v1/create"),
    ] {
        let answer = send(&transcoder, request(method, uri, "{}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (308, location), "{uri}");
    }
    for uri in ["/", "/v1/items//", "/v2/", "//evil.example/", "/v1/items/5/nested/"] {
        assert_eq!(send(&transcoder, request("GET", uri, "")).await.status, 404, "{uri}");
    }
    assert_eq!(send(&transcoder, request("GET", "/v1/items/5", "")).await.status, 200);
}

/// A4 #56, #60: unknown members and enum names are passed over, on the routes that say so.
#[tokio::test]
async fn unknown_fields_can_be_ignored_per_route() {
    let loose = RequestOptions { ignore_unknown_fields: true, ..RequestOptions::default() };
    let transcoder = transcoder_with(Options {
        requests_of: vec![("gateway.test.v1.Echo.Create".to_owned(), loose.clone())],
        ..Options::default()
    });
    let body = r#"{"zz":{"deep":[1]},"e":"BLUE","msg":{"nope":1,"name":"n"},"s":"x"}"#;
    let json = send(&transcoder, request("POST", "/v1/create", body)).await.json();
    assert_eq!((&json["s"], &json["msg"]["name"]), (&json!("x"), &json!("n")));
    assert_eq!(json["e"], "COLOUR_UNSPECIFIED");
    let strict = send(&transcoder, request("POST", "/v1/items/search", body)).await;
    assert_eq!(strict.violations(), ["zz: UNKNOWN_FIELD", "e: INVALID_VALUE", "msg.nope: UNKNOWN_FIELD"]);
    // What is no JSON, or of the wrong type, stays wrong.
    for body in [r#"{"zz":}"#, r#"{"i32":"x"}"#, r#"{"s":"a","s":"b"}"#] {
        assert_eq!(send(&transcoder, request("POST", "/v1/create", body)).await.status, 400, "{body}");
    }
}

/// A4 #56: the last selector counts, the general options come last, and one that names nothing is a mistake.
#[tokio::test]
async fn selectors_choose_among_options() {
    let loose = || RequestOptions { ignore_unknown_fields: true, ..RequestOptions::default() };
    let options = Options {
        requests: loose(),
        requests_of: vec![
            ("gateway.test.v1.*".to_owned(), loose()),
            ("gateway.test.v1.Echo.Create".to_owned(), RequestOptions::default()),
        ],
        ..Options::default()
    };
    let transcoder = transcoder_with(options);
    let status = async |uri| send(&transcoder, request("POST", uri, r#"{"zz":1}"#)).await.status.as_u16();
    assert_eq!((status("/v1/create").await, status("/v1/items/search").await), (400, 200));

    let requests_of = vec![("gateway.test.v1.Echo.Craete".to_owned(), loose())];
    let options = Options { requests_of, ..Options::default() };
    let error = Transcoder::with_options(&pool(), backend(pool()), options).expect_err("a misspelled rpc");
    assert!(
        matches!(&error, BuildError::Selectors(idle) if *idle == ["gateway.test.v1.Echo.Craete"]),
        "{error}"
    );
}

/// A2 #36: unknown parameters are refused, passed over, or passed over by name; known ones are read all the same.
#[tokio::test]
async fn unknown_parameters_can_be_ignored() {
    let rule = |unknown_parameters| RequestOptions { unknown_parameters, ..RequestOptions::default() };
    let ignored = rule(UnknownParameters::Ignored);
    for parameters in ["zz=1&s=x", "msg.zz=1&s=x", "s.x=%zz&s=x", "$alt=json&s=x"] {
        assert_eq!(query(&ignored, parameters).await.json()["s"], "x", "{parameters}");
    }
    assert_eq!(
        query(&ignored, "zz=1&i32=x&msg=1").await.violations(),
        ["i32: INVALID_VALUE", "msg: NOT_BINDABLE"]
    );
    // What is bound elsewhere is known.
    let override_path = send(&reading(ignored), request("GET", "/v1/items/5?s=6", "")).await;
    assert_eq!(override_path.violations(), ["s: CONFLICTING_FIELD"]);

    let allowed = rule(UnknownParameters::Allowed(vec!["utm_source".to_owned()]));
    assert_eq!(query(&allowed, "utm_source=a&utm_source=b&s=x").await.json()["s"], "x");
    assert_eq!(query(&allowed, "utm_sourc=a").await.violations(), ["utm_sourc: UNKNOWN_FIELD"]);
}

/// A2 #36: system parameters are reserved, also where the request has a field of their name, and handed on.
#[tokio::test]
async fn system_parameters_are_reserved() {
    let names = ["$alt", "$fields", "access_token", "opt"].map(str::to_owned).to_vec();
    let options = RequestOptions { system_parameters: names, ..RequestOptions::default() };
    let parameters = "$alt=json&%24fields=s%2Ci32&access_token=t&s=x&opt=1&opt=2";
    let json = query(&options, parameters).await.json();
    assert_eq!((&json["s"], json.get("opt")), (&json!("x"), None));
    assert_eq!(
        query(&options, "$alt=%zz&$other=1").await.violations(),
        ["$alt: INVALID_VALUE", "$other: UNKNOWN_FIELD"]
    );
    assert_eq!(query(&RequestOptions::default(), "$alt=json").await.violations(), ["$alt: UNKNOWN_FIELD"]);

    let seen = tower::service_fn(|request: http::Request<tonic::body::Body>| async move {
        let found = request.extensions().get::<SystemParameters>().cloned().unwrap_or_default();
        let all: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let all = format!("{} {}", all.join(" "), found.get("opt").unwrap_or_default());
        Ok::<_, std::convert::Infallible>(tonic::Status::aborted(all).into_http::<tonic::body::Body>())
    });
    let options = Options { requests: options, ..Options::default() };
    let transcoder = Transcoder::with_options(&pool(), seen, options).expect("rules that can be served");
    let response = transcoder.oneshot(request("GET", &format!("/v1/query?{parameters}"), "")).await;
    let json = answer(response.expect("infallible")).await.json();
    assert_eq!(json["message"], "$alt=json $fields=s,i32 access_token=t opt=1 opt=2 1");
}

/// A2 #30: names of enum values in any case, in paths and queries; JSON stays exact.
#[tokio::test]
async fn enum_names_can_be_of_any_case() {
    let options = RequestOptions { ignore_enum_case: true, ..RequestOptions::default() };
    let json = query(&options, "e=colour_green&colours=Colour_Red&colours=2").await.json();
    assert_eq!(
        (&json["e"], &json["colours"]),
        (&json!("COLOUR_GREEN"), &json!(["COLOUR_RED", "COLOUR_GREEN"]))
    );
    assert_eq!(query(&options, "e=green").await.violations(), ["e: INVALID_VALUE"]);

    let transcoder = reading(options);
    let path = send(&transcoder, request("GET", "/v1/kinds/1/1/true/colour_green/AA", "")).await;
    assert_eq!(path.json()["e"], "COLOUR_GREEN");
    let body = send(&transcoder, request("POST", "/v1/create", r#"{"e":"colour_green"}"#)).await;
    assert_eq!(body.violations(), ["e: INVALID_VALUE"]);
}

/// A2 #31: `1`, `0` and a flag by itself; nothing else.
#[tokio::test]
async fn booleans_can_be_lenient() {
    let options = RequestOptions { lenient_booleans: true, ..RequestOptions::default() };
    for (text, value) in [("b", true), ("b=", true), ("b=1", true), ("b=0", false), ("b=true", true)] {
        assert_eq!(query(&options, text).await.json()["b"], value, "{text}");
        let wrapped = query(&options, &format!("wrapped_{}", text.replace('b', "bool"))).await;
        assert_eq!(wrapped.json()["wrapped_bool"], value, "{text}");
    }
    for text in ["b=TRUE", "b=yes", "b=2", "b=t", "i32"] {
        assert_eq!(query(&options, text).await.status, 400, "{text}");
    }
    let body = send(&reading(options), request("POST", "/v1/create", r#"{"b":1}"#)).await;
    assert_eq!(body.violations(), ["b: INVALID_VALUE"]);
}

/// A3 #44: a body where the rule has none can be passed over, whatever it is.
#[tokio::test]
async fn an_unexpected_body_can_be_ignored() {
    let options = RequestOptions { ignore_unexpected_body: true, ..RequestOptions::default() };
    for body in [&b"{\"s\":\"y\"}"[..], b"\xff", b"no JSON"] {
        let answer = send(&reading(options.clone()), request("DELETE", "/v1/items/5", body)).await;
        assert_eq!(answer.status, 200, "{body:?}");
        let get = send(&reading(options.clone()), request("GET", "/v1/items/5", body)).await;
        assert_eq!(get.json()["s"], "5", "{body:?}");
    }
}

/// A2 #28: an entry of a map by its key.
#[tokio::test]
async fn map_parameters_bind_entries() {
    let options = RequestOptions { map_parameters: true, ..RequestOptions::default() };
    let json = query(&options, "labels[env]=prod&labels%5Ba.b%5D=x+y&labels[]=&s=z").await.json();
    assert_eq!(json["labels"], json!({"": "", "a.b": "x y", "env": "prod"}));
    assert_eq!(json["s"], "z");
    for (parameters, expected) in [
        ("labels[a]=1&labels[a]=2", "labels[a]: DUPLICATE_FIELD"),
        ("labels=x", "labels: NOT_BINDABLE"),
        ("labels[a=x", "labels[a: UNKNOWN_FIELD"),
        ("by_number[1]=x", "by_number[1]: NOT_BINDABLE"),
        ("by_number[x]=x", "by_number[x]: INVALID_VALUE"),
        ("s[a]=x", "s[a]: UNKNOWN_FIELD"),
        ("strings[0]=x", "strings[0]: UNKNOWN_FIELD"),
        ("zz[a]=x", "zz[a]: UNKNOWN_FIELD"),
    ] {
        assert_eq!(query(&options, parameters).await.violations(), [expected], "{parameters}");
    }
    let off: Value = query(&RequestOptions::default(), "labels[env]=prod").await.violations().into();
    assert_eq!(off, json!(["labels[env]: UNKNOWN_FIELD"]));
    let body = send(&reading(options), request("POST", "/v1/body/labels?labels[a]=b", "{}")).await;
    assert_eq!(body.violations(), ["labels[a]: NOT_BINDABLE"]);
}
