use std::cell::Cell;

use proptest::prelude::*;

use super::*;

fn router(rules: &[(&str, &str)]) -> (Router, Vec<Template>) {
    let mut router = Router::default();
    let mut templates = Vec::new();
    for (index, (method, text)) in rules.iter().enumerate() {
        let template = Template::parse(text).expect("a valid template");
        let method = match *method {
            "*" => RuleMethod::Any,
            other => RuleMethod::One(other.parse().expect("a method")),
        };
        router.insert(&template, method, index).expect("a new shape");
        templates.push(template);
    }
    (router, templates)
}

/// The template that served the request and its raw captures, or the status.
fn lookup(rules: &[(&str, &str)], method: &str, path: &str) -> String {
    let (router, templates) = router(rules);
    match router.find(path, &method.parse().expect("a method")) {
        Outcome::Found(found) => {
            let template = &templates[found.route];
            let captures = template
                .variables
                .iter()
                .map(|v| format!(" {}={}", v.field_path, found.capture(template, v.start, v.end)));
            format!("{} {}{}", rules[found.route].0, rules[found.route].1, captures.collect::<String>())
        }
        Outcome::WrongMethod(allowed) => {
            format!("405 {}", allowed.into_iter().collect::<Vec<_>>().join(","))
        }
        Outcome::NotFound => "404".to_owned(),
    }
}

const RULES: &[(&str, &str)] = &[
    ("GET", "/v1/{a}/b"),
    ("GET", "/v1/x/c"),
    ("POST", "/v1/search"),
    ("GET", "/v1/{id}"),
    ("GET", "/v1/users/{id}"),
    ("POST", "/v1/tokens/{jti}:revoke"),
    ("GET", "/v1/tokens/{jti}"),
    ("POST", "/v1/users:batchGet"),
    ("GET", "/files/{id=dir/**}"),
    ("GET", "/files/{id=dir/**}/rev"),
    ("GET", "/files/{id=dir/**}/{n}/rev"),
    ("GET", "/files/dir/known"),
    ("GET", "/files/dir/*"),
    ("POST", "/files/{id=dir/**}:touch"),
    ("PURGE", "/cache/{key}"),
    ("*", "/any/{x}"),
    ("DELETE", "/any/{x}"),
    ("HEAD", "/head/{x}"),
    ("GET", "/head/{y}"),
    ("GET", "/{name=shelves/*/books/*}"),
];

/// A1 #2, #3, #4, #5, #9, #11, #12, #15, #18, #20, #21; the rows of B.7 on paths.
#[test]
fn finds_the_most_specific_route_that_serves_the_method() {
    let cases = [
        ("GET", "/v1/x/b", "GET /v1/{a}/b a=x"),
        ("GET", "/v1/x/c", "GET /v1/x/c"),
        ("GET", "/v1/search", "GET /v1/{id} id=search"),
        ("POST", "/v1/search", "POST /v1/search"),
        ("DELETE", "/v1/search", "405 GET,HEAD,OPTIONS,POST"),
        ("GET", "/v1/users/", "404"),
        ("GET", "/v1//b", "404"),
        ("GET", "/v1/x/b/", "404"),
        ("GET", "/", "404"),
        ("GET", "", "404"),
        ("GET", "*", "404"),
        ("GET", "/V1/x/b", "404"),
        ("GET", "/%761/x/%62", "GET /v1/{a}/b a=x"),
        ("GET", "/v1%2Fx/b", "404"),
        ("GET", "/v1/users/urn:a:b", "GET /v1/users/{id} id=urn:a:b"),
        ("POST", "/v1/tokens/a:b:revoke", "POST /v1/tokens/{jti}:revoke jti=a:b"),
        ("POST", "/v1/tokens/a%3Arevoke", "405 GET,HEAD,OPTIONS"),
        ("GET", "/v1/tokens/a:revoke", "GET /v1/tokens/{jti} jti=a:revoke"),
        ("POST", "/v1/tokens/:revoke", "405 GET,HEAD,OPTIONS"),
        ("DELETE", "/v1/tokens/a:revoke", "405 GET,HEAD,OPTIONS,POST"),
        ("POST", "/v1/users:batchGet", "POST /v1/users:batchGet"),
        ("POST", "/v1/users:batch%47et", "POST /v1/users:batchGet"),
        ("GET", "/v1/users:batchGet", "GET /v1/{id} id=users:batchGet"),
        ("GET", "/files/dir", "GET /files/{id=dir/**} id=dir"),
        ("GET", "/files/dir/", "404"),
        ("GET", "/files/dir/a/b", "GET /files/{id=dir/**} id=dir/a/b"),
        ("GET", "/files/dir/known", "GET /files/dir/known"),
        ("GET", "/files/dir/other", "GET /files/dir/*"),
        ("GET", "/files/dir/a//b", "404"),
        ("GET", "/files/dir/a/b/c/rev", "GET /files/{id=dir/**}/{n}/rev id=dir/a/b n=c"),
        ("GET", "/files/dir/rev", "GET /files/dir/*"),
        ("POST", "/files/dir:touch", "POST /files/{id=dir/**}:touch id=dir"),
        ("POST", "/files/dir/a/b:touch", "POST /files/{id=dir/**}:touch id=dir/a/b"),
        ("PURGE", "/cache/k", "PURGE /cache/{key} key=k"),
        ("GET", "/cache/k", "405 OPTIONS,PURGE"),
        ("TRACE", "/any/1", "* /any/{x} x=1"),
        ("DELETE", "/any/1", "DELETE /any/{x} x=1"),
        ("HEAD", "/v1/x/c", "GET /v1/x/c"),
        ("HEAD", "/head/1", "HEAD /head/{x} x=1"),
        ("GET", "/shelves/1/books/2", "GET /{name=shelves/*/books/*} name=shelves/1/books/2"),
        ("GET", "/shelves/1/books", "404"),
    ];
    for (method, path, expected) in cases {
        assert_eq!(lookup(RULES, method, path), expected, "{method} {path}");
    }
}

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts the nodes that lookups walk through.
pub(super) fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// A1 #23: a lookup walks through as many nodes among 1,000 routes as among 10, and holds nothing but the segments
/// of the path.
#[test]
fn more_routes_are_no_more_steps() {
    let rules = |count: usize| -> Vec<(String, String)> {
        let shapes = ["r{n}/{id}", "{a}/r{n}", "r{n}/{a=**}/tail", "r{n}/{id}:do", "same/{x}/r{n}"];
        let shapes = shapes.iter().cycle().zip(0..count);
        shapes
            .map(|(shape, n)| ("GET".to_owned(), format!("/v1/{}", shape.replace("{n}", &n.to_string()))))
            .collect()
    };
    let steps = |count: usize, path: &str| {
        let rules = rules(count);
        let rules: Vec<_> = rules.iter().map(|(method, path)| (method.as_str(), path.as_str())).collect();
        let (router, _) = router(&rules);
        STEPS.set(0);
        let found = router.find(path, &Method::GET);
        if let Outcome::Found(found) = &found {
            assert_eq!(found.segments.len(), path.split('/').count() - 1);
        }
        (format!("{found:?}"), STEPS.get())
    };
    for path in
        ["/v1/r0/x", "/v1/x/r1", "/v1/r2/a/b/c/tail", "/v1/r3/x:do", "/v1/same/x/r4", "/v1/none/of/them"]
    {
        let (few, many) = (steps(10, path), steps(1000, path));
        assert_eq!(few, many, "{path}");
        assert!(few.1 <= 2 * path.split('/').count(), "{path}: {few:?}");
    }
}

/// A1 #11: registration order decides nothing.
#[test]
fn order_of_registration_does_not_matter() {
    let mut reversed = RULES.to_vec();
    reversed.reverse();
    for path in ["/v1/x/b", "/v1/x/c", "/v1/search", "/files/dir/known", "/files/dir/a/b/c/rev"] {
        assert_eq!(lookup(RULES, "GET", path), lookup(&reversed, "GET", path), "{path}");
    }
}

/// A1 #13.
#[test]
fn refuses_the_same_shape_twice() {
    let (mut router, _) = router(&[("GET", "/v1/{a}/{b=x/**}:do")]);
    let same = Template::parse("/v1/*/x/{c=**}:do").expect("a valid template");
    let get = RuleMethod::One(Method::GET);
    assert_eq!(router.insert(&same, get.clone(), 1), Err(0));
    assert_eq!(router.insert(&same, RuleMethod::Any, 1), Ok(()));
    let other_verb = Template::parse("/v1/*/x/**").expect("a valid template");
    assert_eq!(router.insert(&other_verb, get, 2), Ok(()));
}

proptest! {
    /// Whatever the path, the lookup ends, and a capture is part of the path.
    #[test]
    fn any_path_is_looked_up(path in "[/a-z:*%.é{}]{0,40}", method in "[A-Z]{1,8}") {
        let (router, templates) = router(RULES);
        let method = method.parse().expect("a method");
        if let Outcome::Found(found) = router.find(&path, &method) {
            let template = &templates[found.route];
            for variable in &template.variables {
                let capture = found.capture(template, variable.start, variable.end);
                prop_assert!(!capture.is_empty() && path.contains(capture));
            }
        }
    }

    /// A path made from a template's own shape always reaches some route.
    #[test]
    fn paths_of_the_shape_match(index in 0..RULES.len(), fill in "[a-z0-9]{1,6}", many in 0..4usize) {
        let (router, templates) = router(RULES);
        let template = &templates[index];
        let mut path = String::new();
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => { path.push('/'); path.push_str(text); }
                Segment::One => { path.push('/'); path.push_str(&fill); }
                Segment::Many => for _ in 0..many { path.push('/'); path.push_str(&fill); }
            }
        }
        if let Some(verb) = &template.verb { path.push(':'); path.push_str(verb); }
        let method = match RULES[index].0 { "*" => "PATCH", other => other };
        let found = router.find(&path, &method.parse().expect("a method"));
        prop_assert!(matches!(found, Outcome::Found(_)), "{path}");
    }
}
