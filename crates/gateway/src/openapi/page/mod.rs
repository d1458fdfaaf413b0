//! An OpenAPI document as one HTML page that needs nothing else: no script has
//! to run for it to be read, and nothing is fetched.

mod markdown;
mod operation;
mod schema;

use std::fmt::Write as _;

use serde_json::Value;

use markdown::{escaped, markdown};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the page says beside the document.
#[derive(Debug, Clone, Copy)]
pub struct PageSettings<'s> {
    /// Where the document is served.
    pub document: &'s str,
    /// What stands for the server's address in calls of curl, such as `$BASE_URL`.
    pub base_url: &'s str,
    /// What stands for the bearer token there, such as `$TOKEN`.
    pub token: &'s str,
}

/// The page. Its one style and one script are inline, for a policy that allows exactly these by their hashes.
#[derive(Debug, Clone)]
pub struct Page {
    /// The whole page.
    pub html: String,
    /// What stands in its `style` element.
    pub style: &'static str,
    /// What stands in its `script` element.
    pub script: &'static str,
}

/// One operation where it stands in the document.
struct Operation<'d> {
    path: &'d str,
    method: &'d str,
    value: &'d Value,
}

impl<'d> Operation<'d> {
    fn text(&self, key: &str) -> &'d str {
        text(self.value, key)
    }

    fn has_tag(&self, tag: &str) -> bool {
        self.value.get("tags").and_then(Value::as_array).is_some_and(|tags| tags.iter().any(|own| own == tag))
    }
}

/// Shows a document that [`openapi`](super::openapi()) made.
pub fn page(document: &Value, settings: PageSettings<'_>) -> Page {
    let mut html = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut html, document, settings);
    Page { html, style: STYLE, script: SCRIPT }
}

fn write(html: &mut String, document: &Value, settings: PageSettings<'_>) -> std::fmt::Result {
    let info = document.get("info").unwrap_or(&Value::Null);
    let title = escaped(text(info, "title"));
    let operations = operations(document);
    let tags = document.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<nav>\n\
         <input id=\"filter\" type=\"search\" placeholder=\"Filter\" aria-label=\"Filter operations\" hidden>\n"
    )?;
    for tag in tags {
        let tag = text(tag, "name");
        write!(html, "<h2><a href=\"#tag-{0}\">{0}</a></h2>\n<ul>\n", escaped(tag))?;
        for operation in operations.iter().filter(|operation| operation.has_tag(tag)) {
            let id = escaped(operation.text("operationId"));
            writeln!(html, "<li><a href=\"#{id}\">{id}</a></li>")?;
        }
        html.push_str("</ul>\n");
    }
    html.push_str("<h2><a href=\"#schemas\">Schemas</a></h2>\n</nav>\n<main>\n");
    write!(
        html,
        "<h1>{title} <small>{}</small></h1>\n{}\n<p>This page shows <a href=\"{2}\">{2}</a>.</p>\n",
        escaped(text(info, "version")),
        markdown(text(info, "description")),
        escaped(settings.document),
    )?;
    for tag in tags {
        let name = text(tag, "name");
        write!(
            html,
            "<section>\n<h2 id=\"tag-{0}\">{0}</h2>\n{1}\n",
            escaped(name),
            markdown(text(tag, "description"))
        )?;
        for operation in operations.iter().filter(|operation| operation.has_tag(name)) {
            operation::write(html, document, operation, settings)?;
        }
        html.push_str("</section>\n");
    }
    html.push_str("<section>\n<h2 id=\"schemas\">Schemas</h2>\n");
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    for (name, schema) in schemas.into_iter().flatten() {
        writeln!(html, "<details class=\"schema\" id=\"schema-{0}\"><summary>{0}</summary>", escaped(name))?;
        schema::write(html, schema)?;
        html.push_str("</details>\n");
    }
    write!(html, "</section>\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
}

/// All operations, by path and in the order that people expect of methods.
fn operations(document: &Value) -> Vec<Operation<'_>> {
    const METHODS: [&str; 8] = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
    let paths = document.get("paths").and_then(Value::as_object);
    let mut operations = Vec::new();
    for (path, item) in paths.into_iter().flatten() {
        for method in METHODS {
            if let Some(value) = item.get(method) {
                operations.push(Operation { path, method, value });
            }
        }
    }
    operations
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a reference leads to; any other value itself.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let target = value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_document_says_is_text() {
        let document = json!({
            "info": {"title": "<title2>", "version": "1", "description": "<script>alert(1)</script>"},
            "tags": [{"name": "<i>", "description": "`<u>`"}],
            "paths": {"/v1/<x>/{a}": {"get": {
                "operationId": "\"><img>", "tags": ["<i>"], "summary": "<s>", "description": "</details>",
                "parameters": [{"name": "<a>", "in": "path", "schema": {"type": "<t>"}}],
                "responses": {"200": {"description": "<p>", "content": {"<m>": {"schema": {}}}}},
            }}},
            "components": {"schemas": {"<q>": {"type": "object", "properties": {"<k>": {"type": "string"}}}}},
        });
        let html = page(&document, PageSettings { document: "/d", base_url: "$B", token: "$T" }).html;
        for hostile in [
            "<title2>",
            "<script>alert",
            "<i>",
            "<u>",
            "<img>",
            "<s>",
            "<x>",
            "<a>",
            "<t>",
            "<m>",
            "<q>",
            "<k>",
        ] {
            assert!(!html.contains(hostile), "{hostile}");
        }
        assert_eq!(html.matches("<script>").count(), 1);
        assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
    }
}
