//! Faulty rules fail construction and are all named: checklist A1 #1, #13, #14.

use std::convert::Infallible;
use std::path::Path;

use agentrouter_gateway::{BuildError, Transcoder};
use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use tonic::body::Body;
use tower::service_fn;

struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "bad.proto" {
            File::from_source(name, &self.0)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// A pool with one service whose methods have the given rules.
fn pool(rules: &[&str]) -> DescriptorPool {
    let method = |(index, rule): (usize, &&str)| {
        format!("rpc M{index}(In) returns (Out) {{ option (google.api.http) = {{ {rule} }}; }}\n")
    };
    let methods = rules.iter().enumerate().map(method).collect::<Vec<_>>().concat();
    let source = format!(
        r#"syntax = "proto3";
        package bad.v1;
        import "google/api/annotations.proto";
        service Bad {{ {methods} }}
        message In {{
          string id = 1;
          repeated string list = 2;
          map<string, string> labels = 3;
          In child = 4;
          string long_name = 5;
        }}
        message Out {{ string id = 1; }}"#
    );
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(source));
    resolver.add(IncludeFileResolver::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto")));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("bad.proto").expect("a proto that compiles");
    compiler.descriptor_pool()
}

fn build(rules: &[&str]) -> Result<usize, BuildError> {
    let backend = service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(tonic::Status::unimplemented("").into_http::<Body>())
    });
    Transcoder::new(&pool(rules), backend).map(|transcoder| transcoder.routes().len())
}

fn problem(rule: &str) -> String {
    match build(&[rule]) {
        Err(BuildError::Rules(errors)) => {
            assert_eq!(errors.len(), 1, "{rule}");
            assert_eq!((errors[0].file.as_str(), errors[0].rpc.as_str()), ("bad.proto", "bad.v1.Bad.M0"));
            errors[0].problem.clone()
        }
        other => panic!("{rule}: {other:?}"),
    }
}

#[test]
fn every_kind_of_fault_is_told() {
    for (rule, expected) in [
        (r#"get: "v1/x""#, "must start with `/`"),
        (r#"get: "/v1/{id""#, "ends inside a variable"),
        (r#"get: "/v1/{nope}""#, "binds `nope`, no singular field of bad.v1.In"),
        (r#"get: "/v1/{child.nope}""#, "binds `child.nope`, no singular field of bad.v1.In"),
        (r#"get: "/v1/{id.x}""#, "binds `id.x`, no singular field of bad.v1.In"),
        (r#"get: "/v1/{longName}""#, "binds `longName`, which is written `long_name` in bad.v1.In"),
        (r#"get: "/v1/{list}""#, "binds the repeated field `list`"),
        (r#"get: "/v1/{labels}""#, "binds the map field `labels`"),
        (r#"get: "/v1/{child}""#, "binds the message field `child`"),
        (r#"get: "/v1/{id}/{id}""#, "binds `id` twice"),
        (r#"get: "/v1/x" body: "*""#, "gives GET a body"),
        (r#"post: "/v1/x" body: "nope""#, "has the body `nope`, no field of bad.v1.In"),
        (r#"post: "/v1/x" body: "child.id""#, "has the body `child.id`, no field of bad.v1.In"),
        (r#"post: "/v1/{id}" body: "id""#, "binds `id` to the path and to the body"),
        (r#"get: "/v1/x" response_body: "nope""#, "has the response body `nope`, no field of bad.v1.Out"),
        (r#"body: "*""#, "has no pattern"),
        (r#"custom { kind: "A B" path: "/v1/x" }"#, "has the HTTP method `A B`"),
        (
            r#"get: "/v1/x" additional_bindings { get: "/v1/y" additional_bindings { get: "/v1/z" } }"#,
            "has additional bindings inside an additional binding",
        ),
        (
            r#"get: "/v1/{id}" additional_bindings { get: "/v1/{long_name}" }"#,
            "matches the same requests as /v1/{id} of bad.v1.Bad.M0",
        ),
    ] {
        assert_eq!(problem(rule), expected, "{rule}");
    }
}

/// One start shows them all.
#[test]
fn all_faults_are_listed() {
    let error = build(&[r#"get: "/v1/{id}""#, r#"get: "/v1/{long_name}""#, r#"get: "/v1/{nope}""#])
        .expect_err("two faulty rules");
    assert_eq!(
        error.to_string(),
        "bad.proto: bad.v1.Bad.M1: the rule `/v1/{long_name}` matches the same requests as /v1/{id} of bad.v1.Bad.M0\n\
         bad.proto: bad.v1.Bad.M2: the rule `/v1/{nope}` binds `nope`, no singular field of bad.v1.In"
    );
}

#[test]
fn rules_without_fault_are_served() {
    let rules = [
        r#"get: "/v1/{id=a/**}/rev""#,
        r#"post: "/v1/{child.id}:do" body: "child""#,
        r#"get: "/v1/{id}" additional_bindings { delete: "/v1/{id}" }"#,
    ];
    assert_eq!(build(&rules).expect("rules without fault"), 4);
}

#[test]
fn a_pool_without_annotations_is_refused() {
    let backend = service_fn(|_: http::Request<Body>| async {
        Ok::<_, Infallible>(tonic::Status::unimplemented("").into_http::<Body>())
    });
    let error = Transcoder::new(&DescriptorPool::new(), backend).expect_err("no annotations");
    assert!(matches!(error, BuildError::NoAnnotations), "{error}");
}
