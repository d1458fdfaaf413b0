//! How strictly the requests of a route are read.

use std::sync::Arc;

use crate::options::Options;

/// How requests are read; by default strictly, so that no typing error passes in silence.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub struct RequestOptions {
    /// Pass over members of a JSON body that the message does not have, and over names that an enum does not have.
    pub ignore_unknown_fields: bool,
    /// What is done with query parameters and form fields that are no fields of the request.
    pub unknown_parameters: UnknownParameters,
    /// Query parameters that are never fields, whatever the request's are called: `$alt`, `$fields`, `access_token`.
    /// They are taken out of the query and put into the request's extensions as [`SystemParameters`].
    pub system_parameters: Vec<String>,
    /// Read `labels[env]=prod` as an entry of the map field `labels`.
    pub map_parameters: bool,
    /// Take the names of enum values in any case, in paths, queries and forms.
    pub ignore_enum_case: bool,
    /// Take `1` and `0` for booleans in paths, queries and forms, and a parameter without a value, as in `?flag`, for
    /// `true`.
    pub lenient_booleans: bool,
    /// Pass over a body where the rule has none. Off, one that is not blank is refused.
    pub ignore_unexpected_body: bool,
    /// Read a body of the type `application/x-www-form-urlencoded` as a form: its fields are bound below what the rule
    /// makes the body, by the rules of query parameters. Not for streams of clients, nor where the body is no message
    /// with fields: such a request stays 415. It comes before
    /// [`Options::form_type_is_json`](crate::Options::form_type_is_json).
    ///
    /// Off by default, because a browser sends a form from any page to any server, cookies and all, and asks nobody
    /// first. So it does with a body that has no type, which is read as JSON whatever this says: where cookies let
    /// requests in, a layer outside has to look at `Origin` in any case. Turn it on where no cookie or other credential that browsers add by
    /// themselves lets a request in, or where a layer outside looks at `Origin` or a token of one's own pages.
    pub forms: bool,
    /// Read a body of the type `multipart/form-data`: each part is bound as a field of a form is. A part with the name
    /// of a file becomes a field of the type `bytes`, or a `google.api.HttpBody` with the part's type, and so does any
    /// other part with a type of its own where the field is one of these. Of a repeated field it is one more value.
    ///
    /// Off by default for the same reason as [`forms`](Self::forms).
    pub multipart: bool,
}

/// What is done with query parameters and form fields that are no fields of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UnknownParameters {
    /// They are refused with 400.
    #[default]
    Refused,
    /// They are passed over.
    Ignored,
    /// Those of these names are passed over, and others refused.
    Allowed(Vec<String>),
}

impl UnknownParameters {
    pub(crate) fn allows(&self, name: &str) -> bool {
        match self {
            Self::Refused => false,
            Self::Ignored => true,
            Self::Allowed(names) => names.iter().any(|allowed| allowed == name),
        }
    }
}

/// What is done with a path that ends with a slash and has no route that does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrailingSlash {
    /// It is another path: 404.
    #[default]
    Strict,
    /// It is the path without the slash.
    Ignored,
    /// Its client is sent to the path without the slash by 308, which keeps method and body.
    Redirected,
}

/// What paths, queries and forms may have besides. JSON has its own rules.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lenient {
    /// Names of enum values in any case.
    pub(crate) enums: bool,
    /// `1`, `0` and nothing for booleans.
    pub(crate) booleans: bool,
}

impl Lenient {
    pub(crate) fn of(options: &RequestOptions) -> Self {
        Self { enums: options.ignore_enum_case, booleans: options.lenient_booleans }
    }
}

/// All that a route has to know to read its requests.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) max_query_parameters: usize,
    pub(crate) fully_decode_reserved_expansion: bool,
    pub(crate) options: RequestOptions,
}

/// The ways that some options have, by the rpcs they are for.
#[derive(Debug)]
pub(crate) struct Readings {
    all: Arc<Reading>,
    of: Vec<(Selector, Arc<Reading>)>,
}

impl Readings {
    pub(crate) fn new(options: &Options) -> Self {
        let reading = |requests: &RequestOptions| {
            Arc::new(Reading {
                max_query_parameters: options.max_query_parameters,
                fully_decode_reserved_expansion: options.fully_decode_reserved_expansion,
                options: requests.clone(),
            })
        };
        let of = options.requests_of.iter();
        Self {
            all: reading(&options.requests),
            of: of.map(|(selector, requests)| (Selector::new(selector), reading(requests))).collect(),
        }
    }

    /// That of an rpc, by its full name: the last that selects it.
    pub(crate) fn of(&self, rpc: &str) -> &Arc<Reading> {
        let selected = self.of.iter().rev().find(|(selector, _)| selector.selects(rpc));
        selected.map_or(&self.all, |(_, reading)| reading)
    }

    /// The selectors that select none of the rpcs.
    pub(crate) fn idle<'n>(&self, rpcs: &(impl Iterator<Item = &'n str> + Clone)) -> Vec<String> {
        let selectors = self.of.iter().map(|(selector, _)| selector);
        let idle = selectors.filter(|selector| !rpcs.clone().any(|rpc| selector.selects(rpc)));
        idle.map(|selector| selector.text.clone()).collect()
    }
}

/// Names rpcs as service configurations do: by full name, by `package.Service.*`, or all of them by `*`.
#[derive(Debug)]
pub(crate) struct Selector {
    text: String,
}

impl Selector {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned() }
    }

    pub(crate) fn selects(&self, rpc: &str) -> bool {
        match self.text.strip_suffix('*') {
            None => self.text == rpc,
            Some("") => true,
            Some(prefix) => prefix.ends_with('.') && rpc.starts_with(prefix),
        }
    }
}

/// The query parameters of a request that are none of its fields, by [`RequestOptions::system_parameters`]; among the
/// extensions of the request to the backend where there are any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemParameters(pub(crate) Vec<(String, String)>);

impl SystemParameters {
    /// The value of a parameter, the first where it is given more than once.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All of them, in the order they were given in.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_name_rpcs() {
        for (selector, rpc, selects) in [
            ("a.S.M", "a.S.M", true),
            ("a.S.M", "a.S.Mx", false),
            ("a.S.*", "a.S.M", true),
            ("a.*", "a.S.M", true),
            ("a.S.*", "a.Sx.M", false),
            ("a.S*", "a.S.M", false),
            ("*", "a.S.M", true),
        ] {
            assert_eq!(Selector::new(selector).selects(rpc), selects, "{selector} {rpc}");
        }
    }
}
