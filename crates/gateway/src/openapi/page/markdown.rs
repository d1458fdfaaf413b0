//! As much of Markdown as comments in protos use: paragraphs, lists, code, links.

/// Text as it may stand between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Paragraphs and lists.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut paragraph = String::new();
        let mut items = String::new();
        for line in block.lines() {
            match line.strip_prefix("- ") {
                Some(item) => items.push_str(&format!("<li>{}</li>", inline(item))),
                None => {
                    paragraph.push_str(line);
                    paragraph.push(' ');
                }
            }
        }
        if !paragraph.is_empty() {
            out.push_str(&format!("<p>{}</p>", inline(paragraph.trim())));
        }
        if !items.is_empty() {
            out.push_str(&format!("<ul>{items}</ul>"));
        }
    }
    out
}

/// One line: `code` between backquotes, everything else as it is.
pub(super) fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(index, part)| {
        let part = escaped(part);
        if index % 2 == 1 { format!("<code>{part}</code>") } else { part }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_html() {
        let text = "One `a < b`.\n\nA list:\n- `x`: y\n- z";
        assert_eq!(
            markdown(text),
            "<p>One <code>a &lt; b</code>.</p><p>A list:</p><ul><li><code>x</code>: y</li><li>z</li></ul>"
        );
    }
}
