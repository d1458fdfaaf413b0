//! The route trie: which route serves a method and a raw path.
//!
//! The path is split on `/` before anything is decoded. At every position a
//! literal is tried before `*`, and `*` before `**`, with full backtracking: a
//! branch that serves the path but not the method does not hide another that
//! serves both. Nothing depends on the order in which routes were added.
//!
//! Only templates become keys of the tables, never what a client sends: so their hash may be a fast one.
//!
//! A template holds at most one `**`, so what follows it has a fixed length and
//! sits in a second trie that is walked from the end of the path. A lookup
//! visits each node at most once per `**` above it and compares no route one by
//! one.

use std::collections::BTreeSet;

use http::Method;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

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
    verbs: FxHashSet<Box<str>>,
    methods: BTreeSet<String>,
    /// Whether a slash at the end of a path means nothing.
    ignores_slash: bool,
}

#[derive(Debug, Default)]
struct Node {
    literals: FxHashMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    /// The trie of what follows a `**` here, last segment first.
    many: Option<Box<Node>>,
    /// What ends here without a verb, and with each verb.
    plain: Leaf,
    verbs: FxHashMap<Box<str>, Leaf>,
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
    segments: SmallVec<[(usize, usize); 6]>,
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
        let mut segments: SmallVec<[&str; 8]> = relative.split('/').collect();
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
mod tests;
