//! Rules that cannot be kept.

use super::*;

fn faults(body: &str) -> Vec<String> {
    let source = format!(
        "syntax = \"proto3\"; package bad.v1;\n\
         import \"buf/validate/validate.proto\"; import \"google/protobuf/descriptor.proto\";\n\
         service Bad {{ rpc Call(Request) returns (Request); }}\n{body}"
    );
    let mut resolver = published();
    resolver.add(Source("bad.proto", source));
    match Validation::new(&compile(resolver, &["bad.proto"])) {
        Ok(_) => Vec::new(),
        Err(faulty) => {
            let shown = faulty.to_string();
            assert!(shown.starts_with(&format!("{} faulty rules", faulty.0.len())), "{shown}");
            let faulty = faulty.0.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert!(faulty.iter().all(|fault| shown.contains(fault)), "{shown}");
            faulty
        }
    }
}

/// A12 #118: faulty rules fail the start, and each is named with its file, place and rule.
#[test]
fn faulty_rules_fail_the_start() {
    let faulty = faults(
        r#"
        message Request {
          option (buf.validate.message).cel = {id: "whole" message: "m" expression: "this.("};
          Inner inner = 1;
          map<string, Inner> more = 2 [(buf.validate.field).map.keys.int32.gt = 1];
        }
        message Inner {
          string text = 1 [(buf.validate.field).int32.gt = 1];
          int32 number = 2 [(buf.validate.field).cel = {id: "number" message: "m" expression: "this >"}];
          int32 unknown = 3 [(buf.validate.field).cel = {id: "unknown" message: "m" expression: "nothing(this)"}];
          optional int32 present = 4 [(buf.validate.field).cel = {id: "kind" message: "m" expression: "this + 1"}];
          repeated string items = 5 [(buf.validate.field).repeated.items.cel = {
            id: "items" message: "m" expression: "int(this) > 0"
          }];
          string pattern = 6 [(buf.validate.field).string.pattern = "("];
          Inner inner = 7 [(buf.validate.field).repeated.min_items = 1];
          string right = 8 [(buf.validate.field).string.min_len = 1];
        }
        "#,
    );
    let begin = [
        "bad.proto: bad.v1.Inner.text: expected rule `string`, got `int32`",
        "bad.proto: bad.v1.Inner.number: failed to compile CEL rule `this >`",
        "bad.proto: bad.v1.Inner.unknown: with an empty value: failed to execute CEL rule `unknown`",
        "bad.proto: bad.v1.Inner.present: with an empty value: CEL rule `kind` returned unsupported type `int`",
        "bad.proto: bad.v1.Inner.items: with an empty value: failed to execute CEL rule `items`",
        "bad.proto: bad.v1.Inner.pattern: ",
        "bad.proto: bad.v1.Inner.inner: ",
        "bad.proto: bad.v1.Request: failed to compile CEL rule `this.(`",
    ];
    for (fault, begin) in faulty.iter().zip(begin) {
        assert!(fault.starts_with(begin), "{fault} / {begin}");
    }
    assert_eq!(faulty.len(), begin.len(), "{faulty:#?}");
    // What stands below a rule that does not compile is told of when that is right.
    let faulty = faults(
        "message Request { map<string, int32> more = 2 [(buf.validate.field).map.keys.int32.gt = 1]; }",
    );
    assert!(
        matches!(&faulty[..], [fault] if fault.starts_with("bad.proto: bad.v1.Request.more: ")),
        "{faulty:?}"
    );
}

/// A12 #118, A4 #66: an edition's field without presence, as it stands in a pool that knows no editions.
#[test]
fn rules_that_would_be_passed_over_fail_the_start() {
    let faulty = faults(
        "message Request { optional string text = 1 [
           features.field_presence = IMPLICIT, (buf.validate.field).string.min_len = 1
         ]; }",
    );
    assert_eq!(faulty, ["bad.proto: bad.v1.Request.text: rules of fields without presence need proto3"]);
}

/// A12 #118: rules of one's own, messages that hold themselves, and pools without any rules.
#[test]
fn rules_that_work_are_found() {
    let own = r#"
        extend buf.validate.StringRules {
          optional bool shouted = 80000 [(buf.validate.predefined).cel = {
            id: "string.shouted" message: "must be loud" expression: "!rule || this.endsWith('!')"
          }];
        }
        message Request { string text = 1 [(buf.validate.field).string.(shouted) = true]; Request next = 2; }
    "#;
    assert_eq!(faults(own), [""; 0]);
    assert_eq!(faults("message Request { Request next = 1; }"), [""; 0]);

    let mut resolver = ChainFileResolver::new();
    let source = "syntax = \"proto3\"; package p; message M {} service S { rpc Call(M) returns (M); }";
    resolver.add(Source("plain.proto", source.to_owned()));
    let validation = Validation::new(&compile(resolver, &["plain.proto"])).expect("no rules");
    assert_eq!(validation.rpcs().count(), 0);
}
