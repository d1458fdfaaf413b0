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
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks.map(block).collect()
}

fn block(text: &str) -> String {
    let (items, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("- "));
    let items = items.iter().filter_map(|item| item.strip_prefix("- "));
    let items: String =
        items.flat_map(|item| ["<li>".to_owned(), inline(item), "</li>".to_owned()]).collect();
    let paragraph = lines.join(" ");
    let paragraph = if paragraph.is_empty() { paragraph } else { format!("<p>{}</p>", inline(&paragraph)) };
    if items.is_empty() { paragraph } else { format!("{paragraph}<ul>{items}</ul>") }
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
