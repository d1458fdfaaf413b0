//! Names of resources from ids that others chose.

use std::fmt::Write;

use aws_lc_rs::digest;

/// The longest id that is part of a name as it is. With the longest prefix and a number after it, the name stays below
/// the 63 characters of a DNS label.
const PLAIN_MAX: usize = 40;
/// What is kept of an id that is not, before its hash.
const HEAD: usize = 12;

/// `<prefix>-<id>`, where the id is fit for it; else `<prefix>--<what people can read of it>-<hash>`. An id that is
/// fit never has two hyphens in a row and does not begin with one, so that no two ids have the same name.
pub(crate) fn name(prefix: &str, id: &str) -> String {
    if is_plain(id) {
        return format!("{prefix}-{id}");
    }
    let head: String =
        id.chars().map(|c| c.to_ascii_lowercase()).filter(|c| is_letter_or_digit(*c)).take(HEAD).collect();
    format!("{prefix}--{head}-{}", hash(&[id]))
}

/// A name that stands for a list of ids, in this order.
pub(crate) fn name_of_all(prefix: &str, ids: &[&str]) -> String {
    match ids {
        [id] => name(prefix, id),
        _ => format!("{prefix}---{}", hash(ids)),
    }
}

fn is_plain(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= PLAIN_MAX
        && id.chars().all(|c| is_letter_or_digit(c) || c == '-')
        && !id.starts_with('-')
        && !id.ends_with('-')
        && !id.contains("--")
}

fn is_letter_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// 128 bits in hexadecimal. Every id is preceded by its length, so that no two lists are the same bytes.
fn hash(ids: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for id in ids {
        context.update(&(id.len() as u64).to_be_bytes());
        context.update(id.as_bytes());
    }
    let mut text = String::with_capacity(32);
    for byte in context.finish().as_ref().iter().take(16) {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn is_label(name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.chars().all(|c| is_letter_or_digit(c) || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-')
    }

    #[test]
    fn slugs_can_be_read() {
        assert_eq!(name("provider", "openai"), "provider-openai");
        assert_eq!(name("provider", "azure-eu-2"), "provider-azure-eu-2");
        assert_eq!(name_of_all("models", &["openai"]), "models-openai");
    }

    #[test]
    fn hostile_ids_are_labels_and_stay_apart() {
        let long = "a".repeat(10_000);
        let slug = "a".repeat(63);
        let hashed = name("", "A");
        let ids = [
            "",
            "-",
            "--",
            "a",
            "A",
            "a-",
            "-a",
            "a--b",
            "a-b",
            ".",
            "..",
            "../../etc/passwd",
            "a/b",
            "a\0b",
            "a\nb",
            "ünï",
            "日本語",
            "\u{202e}x",
            " ",
            "${HOME}",
            "a: b",
            "- a",
            "---",
            "{}",
            &slug,
            &long,
            &hashed[1..],
            hashed.trim_start_matches('-'),
        ];
        let mut names = BTreeSet::new();
        for id in ids {
            let name = name("provider", id);
            assert!(is_label(&name), "{name}");
            assert!(names.insert(name.clone()), "{name} stands for two ids");
        }
        for list in [&["a", "b"][..], &["ab"], &["b", "a"], &["a-b"], &["a", "", "b"], &[]] {
            let name = name_of_all("provider", list);
            assert!(is_label(&name), "{name}");
            names.insert(name);
        }
        // `ab` is new, `a-b` was there.
        assert_eq!(names.len(), ids.len() + 5);
    }
}
