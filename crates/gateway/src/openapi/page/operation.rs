//! One operation: what it does, what it takes, what it answers, and a call of it.

use std::fmt::Write as _;

use serde_json::Value;

use super::markdown::{escaped, inline, markdown};
use super::{Operation, PageSettings, resolved, schema, text};

pub(super) fn write(
    html: &mut String,
    document: &Value,
    operation: &Operation<'_>,
    settings: PageSettings<'_>,
) -> std::fmt::Result {
    let Operation { path, method, value } = operation;
    write!(
        html,
        "<details class=\"operation\" id=\"{}\"><summary><span class=\"method {method}\">{}</span> \
         <code>{}</code> {}</summary>\n{}\n",
        escaped(operation.text("operationId")),
        method.to_ascii_uppercase(),
        escaped(path),
        inline(operation.text("summary")),
        markdown(operation.text("description")),
    )?;
    let parameters = value.get("parameters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (place, title) in [("path", "Path"), ("query", "Query"), ("header", "Headers")] {
        let mut here = parameters.iter().filter(|parameter| text(parameter, "in") == place).peekable();
        if here.peek().is_none() {
            continue;
        }
        write!(html, "<h3>{title}</h3>\n<table>\n")?;
        for parameter in here {
            let is_required = parameter.get("required").is_some_and(|required| required == true);
            let schema =
                parameter.get("schema").or_else(|| parameter.pointer("/content/application~1json/schema"));
            let schema = schema.unwrap_or(&Value::Null);
            schema::row(html, text(parameter, "name"), is_required, schema, text(parameter, "description"))?;
        }
        html.push_str("</table>\n");
    }
    if let Some(body) = value.get("requestBody") {
        html.push_str("<h3>Body</h3>\n");
        html.push_str(&markdown(text(body, "description")));
        content(html, body)?;
    }
    html.push_str("<h3>Answers</h3>\n");
    for (status, answer) in value.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let answer = resolved(document, answer);
        let is_success = status.starts_with('2');
        writeln!(
            html,
            "<p class=\"answer\"><b>{}</b> {}</p>",
            escaped(status),
            inline(text(answer, "description"))
        )?;
        if is_success {
            content(html, answer)?;
        }
    }
    write!(
        html,
        "<h3>Call</h3>\n<pre>{}</pre>\n</details>\n",
        escaped(&curl(operation, parameters, settings))
    )
}

fn content(html: &mut String, holder: &Value) -> std::fmt::Result {
    for (media, content) in holder.get("content").and_then(Value::as_object).into_iter().flatten() {
        let schema = content.get("schema").unwrap_or(&Value::Null);
        writeln!(html, "<p><code>{}</code>: {}</p>", escaped(media), schema::kind(schema))?;
        match content.get("example") {
            None => {}
            Some(Value::String(text)) => writeln!(html, "<pre>{}</pre>", escaped(text.trim()))?,
            Some(example) => {
                let text = serde_json::to_string_pretty(example).unwrap_or_default();
                writeln!(html, "<pre>{}</pre>", escaped(&text))?;
            }
        }
    }
    Ok(())
}

/// A command line that calls the operation with its examples.
fn curl(operation: &Operation<'_>, parameters: &[Value], settings: PageSettings<'_>) -> String {
    let mut path = operation.path.to_owned();
    let mut query = Vec::new();
    for parameter in parameters {
        let name = text(parameter, "name");
        let example = parameter.get("example").map(|example| match example {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let is_required = parameter.get("required").is_some_and(|required| required == true);
        match text(parameter, "in") {
            "path" => {
                if let Some(example) = example {
                    path = path.replace(&format!("{{{name}}}"), &example);
                }
            }
            "query" if is_required => query.push(format!("{name}={}", example.unwrap_or_default())),
            _ => {}
        }
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let mut call = "curl".to_owned();
    match operation.method {
        "get" | "post" => {}
        method => {
            let _ = write!(call, " -X {}", method.to_ascii_uppercase());
        }
    }
    let _ = write!(
        call,
        " \"{}{path}{query}\" \\\n  -H \"Authorization: Bearer {}\"",
        settings.base_url, settings.token
    );
    let body = operation.value.pointer("/requestBody/content/application~1json/example");
    if let Some(body) = body {
        let body = serde_json::to_string(body).unwrap_or_default().replace('\'', r"'\''");
        let _ = write!(call, " \\\n  -H \"Content-Type: application/json\" \\\n  -d '{body}'");
    }
    call
}
