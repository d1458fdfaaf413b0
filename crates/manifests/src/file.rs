//! Resources as a file.
//!
//! The documents are JSON, which is YAML too: `aigw` replaces `$NAME` anywhere in the text of its file by its
//! environment, and JSON is the form in which a dollar can be written so that nothing sees it. A key or a model with a
//! dollar in its name stays what it is, and reads nothing of the environment.

use std::fmt::Write;

use crate::resource::Resource;

/// The first line; also what makes a reader that guesses take the file for YAML.
const HEAD: &str = "# Written by AgentRouter, and written again with every change.\n";

/// A file with one document for each resource.
///
/// # Errors
/// None of the resources is one that cannot be written; the type of `serde_json` says otherwise.
pub fn to_file(resources: &[Resource]) -> Result<String, serde_json::Error> {
    let mut text = HEAD.to_owned();
    for resource in resources {
        text.push_str("---\n");
        for c in serde_json::to_string_pretty(resource)?.chars() {
            if is_plain(c) {
                text.push(c);
            } else {
                // Outside of texts there is nothing but plain ASCII. Writing to a String does not fail.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Whether a character means the same in JSON and in YAML, and nothing to `aigw`. Those that do not are below U+10000,
/// so that four digits do.
fn is_plain(c: char) -> bool {
    !matches!(c, '$' | '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::resource::{Metadata, Secret, SecretText};

    #[test]
    fn texts_survive_and_are_seen_by_nothing_on_the_way() {
        let value = "a$HOME ${HOME:-x} $$ \u{2028}\u{85}\u{feff} \"\\\n\t é 🙂 # --- : {}";
        let secret = Resource::Secret(Secret {
            api_version: "v1",
            kind: "Secret",
            metadata: Metadata { name: "a".to_owned(), ..Metadata::default() },
            r#type: "Opaque",
            string_data: BTreeMap::from([("apiKey".to_owned(), SecretText::new(value))]),
        });
        let text = to_file(std::slice::from_ref(&secret)).unwrap();
        assert!(!text.contains('$'), "{text}");
        assert!(text.chars().all(is_plain), "{text}");
        let json = text.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix("---\n")).unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read["stringData"]["apiKey"], value);
        assert!(!format!("{secret:?}").contains("HOME"));
    }
}
