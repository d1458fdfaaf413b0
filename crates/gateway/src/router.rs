//! The route trie: which route serves a method and a raw path.
//!
//! The path is split on `/` before anything is decoded. At every position a
//! literal is tried before `*`, and `*` before `**`, with full backtracking: a
//! branch that serves the path but not the method does not hide another that
//! serves both. Nothing depends on the order in which routes were added.
//!
//! A template holds at most one `**`, so what follows it has a fixed length and
//! sits in a second trie that is walked from the end of the path. A lookup
//! visits each node at most once per `**` above it and compares no route one by
//! one.

use std::collections::{BTreeSet, HashMap, HashSet};

use http::Method;

use crate::escape;
use crate::template::{Segment, Template};

/// The HTTP methods a rule serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleMethod {
    One(Method),
    /// The custom kind `*`.
    Any,
}

impl RuleMethod {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::One(method) => method.as_str(),
            Self::Any => "*",
        }
    }
}

/// Index of a route in the table the router was built from.
pub(crate) type RouteId = usize;

#[derive(Debug, Default)]
pub(crate) struct Router {
    root: Node,
    /// Every verb some template ends with; only these are cut off a path.
    verbs: HashSet<Box<str>>,
    methods: BTreeSet<String>,
    /// Whether a slash at the end of a path means nothing.
    ignores_slash: bool,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// The trie of what follows a `**` here, last segment first.
    many: Option<Box<Node>>,
    /// What ends here without a verb, and with each verb.
    plain: Leaf,
    verbs: HashMap<Box<str>, Leaf>,
}

/// The routes of one shape, by method.
#[derive(Debug, Default)]
struct Leaf(Vec<(RuleMethod, RouteId)>);

/// What a method and a path lead to.
#[derive(Debug)]
pub(crate) enum Outcome<'p> {
    Found(Match<'p>),
    /// Some template matches the path, none of them with this method. The
    /// methods that would be served, sorted.
    WrongMethod(BTreeSet<String>),
    NotFound,
}

/// A matched route and where its segments are in the path.
#[derive(Debug, Clone)]
pub(crate) struct Match<'p> {
    pub(crate) route: RouteId,
    path: &'p str,
    /// Byte ranges of the segments; the last one ends before a verb.
    segments: Vec<(usize, usize)>,
}

impl<'p> Match<'p> {
    /// The raw text of the template's segments `start..end`, where the template
    /// has `total` segments and `**`, if any, takes up the difference.
    pub(crate) fn capture(&self, template: &Template, start: usize, end: usize) -> &'p str {
        let many = template.segments.iter().position(|segment| *segment == Segment::Many);
        // Positions after the `**` shift by what it matched beyond one segment.
        let shift = |index: usize| match many {
            Some(many) if index > many => (index + self.segments.len()).checked_sub(template.segments.len()),
            _ => Some(index),
        };
        let range = shift(start).zip(shift(end)).and_then(|(start, end)| self.segments.get(start..end));
        match range {
            Some([(from, _), .., (_, to)] | [(from, to)]) => self.path.get(*from..*to).unwrap_or_default(),
            _ => "",
        }
    }
}

impl Router {
    pub(crate) fn new(ignores_slash: bool) -> Self {
        Self { ignores_slash, ..Self::default() }
    }

    /// Adds a route; fails with the route already there for this method and shape.
    pub(crate) fn insert(
        &mut self,
        template: &Template,
        method: RuleMethod,
        route: RouteId,
    ) -> Result<(), RouteId> {
        let many = template.segments.iter().position(|segment| *segment == Segment::Many);
        let (head, tail) = template.segments.split_at(many.unwrap_or(template.segments.len()));

        let mut node = head.iter().fold(&mut self.root, Node::child);
        if let Some((_, tail)) = tail.split_first() {
            node = tail.iter().rev().fold(&mut **node.many.get_or_insert_default(), Node::child);
        }

        let Leaf(leaf) = match &template.verb {
            None => &mut node.plain,
            Some(verb) => node.verbs.entry(verb.clone()).or_default(),
        };
        if let Some((_, there)) = leaf.iter().find(|(other, _)| *other == method) {
            return Err(*there);
        }
        self.verbs.extend(template.verb.clone());
        add_names(&method, &mut self.methods);
        leaf.push((method, route));
        Ok(())
    }

    /// Every method some route serves, with the implied HEAD and OPTIONS.
    pub(crate) fn methods(&self) -> &BTreeSet<String> {
        &self.methods
    }

    pub(crate) fn find<'p>(&self, path: &'p str, method: &Method) -> Outcome<'p> {
        let Some(relative) = path.strip_prefix('/') else { return Outcome::NotFound };
        let relative = relative.strip_suffix('/').filter(|_| self.ignores_slash).unwrap_or(relative);
        let mut segments: Vec<&str> = relative.split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Outcome::NotFound;
        }

        let mut allowed = BTreeSet::new();
        let whole = segments.last().copied().unwrap_or_default();
        if let Some((base, verb)) = whole.rsplit_once(':')
            && !base.is_empty()
            && let Some(verb) = self.verbs.get(escape::normalize(verb).as_ref())
        {
            if let Some(last) = segments.last_mut() {
                *last = base;
            }
            if let Some(route) = self.walk(&segments, Some(verb), method, &mut allowed) {
                return Outcome::Found(Match::new(route, path, &segments));
            }
            if let Some(last) = segments.last_mut() {
                *last = whole;
            }
        }
        match self.walk(&segments, None, method, &mut allowed) {
            Some(route) => Outcome::Found(Match::new(route, path, &segments)),
            None if allowed.is_empty() => Outcome::NotFound,
            None => Outcome::WrongMethod(allowed),
        }
    }

    /// The best route for the segments and the verb; without one, `allowed`
    /// gains the methods of all templates that match.
    fn walk(
        &self,
        segments: &[&str],
        verb: Option<&str>,
        method: &Method,
        allowed: &mut BTreeSet<String>,
    ) -> Option<RouteId> {
        let mut visit = |node: &Node| {
            let leaf = match verb {
                None => &node.plain,
                Some(verb) => node.verbs.get(verb)?,
            };
            let found = leaf.find(method);
            if found.is_none() {
                leaf.0.iter().for_each(|(method, _)| add_names(method, allowed));
            }
            found
        };
        self.root.walk(segments, &mut visit)
    }
}

impl<'p> Match<'p> {
    fn new(route: RouteId, path: &'p str, segments: &[&str]) -> Self {
        // Segments are one byte apart; a verb can only follow the last.
        let mut from = 1;
        let segments = segments
            .iter()
            .map(|segment| {
                let range = (from, from + segment.len());
                from = range.1 + 1;
                range
            })
            .collect();
        Self { route, path, segments }
    }

    /// The same match in another copy of the path.
    pub(crate) fn in_path(self, path: &str) -> Match<'_> {
        Match { route: self.route, path, segments: self.segments }
    }
}

impl Node {
    fn child(&mut self, segment: &Segment) -> &mut Self {
        match segment {
            Segment::Literal(text) => self.literals.entry(text.clone()).or_default(),
            // `**` never gets here: the caller splits the template at it.
            Segment::One | Segment::Many => self.one.get_or_insert_default(),
        }
    }

    fn literal(&self, segment: &str) -> Option<&Self> {
        if self.literals.is_empty() {
            return None;
        }
        self.literals.get(escape::normalize(segment).as_ref())
    }

    fn walk(&self, segments: &[&str], visit: &mut impl FnMut(&Self) -> Option<RouteId>) -> Option<RouteId> {
        #[cfg(test)]
        tests::step();
        let here = match segments.split_first() {
            None => visit(self),
            Some((first, rest)) => self
                .literal(first)
                .and_then(|node| node.walk(rest, visit))
                .or_else(|| self.one.as_ref().and_then(|node| node.walk(rest, visit))),
        };
        here.or_else(|| self.many.as_ref().and_then(|node| node.walk_back(segments, visit)))
    }

    /// Walks the trie behind a `**` from the end of the path; a longer tail is
    /// more specific and wins.
    fn walk_back(
        &self,
        segments: &[&str],
        visit: &mut impl FnMut(&Self) -> Option<RouteId>,
    ) -> Option<RouteId> {
        #[cfg(test)]
        tests::step();
        let deeper = segments.split_last().and_then(|(last, rest)| {
            self.literal(last)
                .and_then(|node| node.walk_back(rest, visit))
                .or_else(|| self.one.as_ref().and_then(|node| node.walk_back(rest, visit)))
        });
        deeper.or_else(|| visit(self))
    }
}

impl Leaf {
    /// An exact method wins over what it implies, and that over `*`.
    fn find(&self, method: &Method) -> Option<RouteId> {
        let exact = |wanted: &Method| {
            self.0.iter().find_map(|(method, route)| match method {
                RuleMethod::One(method) if method == wanted => Some(*route),
                _ => None,
            })
        };
        let any = || self.0.iter().find_map(|(method, route)| (*method == RuleMethod::Any).then_some(*route));
        exact(method)
            .or_else(|| (*method == Method::HEAD).then(|| exact(&Method::GET)).flatten())
            .or_else(any)
    }
}

/// The names a route adds to `Allow`: GET implies HEAD, any route OPTIONS.
fn add_names(method: &RuleMethod, names: &mut BTreeSet<String>) {
    names.insert(Method::OPTIONS.to_string());
    match method {
        RuleMethod::Any => {}
        RuleMethod::One(method) => {
            names.insert(method.to_string());
            if *method == Method::GET {
                names.insert(Method::HEAD.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
