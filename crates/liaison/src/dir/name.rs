//! File names from ids that others chose.

use std::borrow::Cow;
use std::fmt::Write;

use agentrouter_api::configurator::ConfigType;
use aws_lc_rs::digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::slot::{Slot, short_name};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The longest encoded id. Three parts, their dots and the temporary file's ending stay below the 255 bytes that file
/// systems take.
const PART_MAX: usize = 96;
/// What is kept of a longer one, before its hash.
const PART_HEAD: usize = 56;

/// An id in letters, digits, `-`, `_` and `%` only. One id, one text, and the other way round.
pub(crate) fn encode(id: &str) -> Cow<'_, str> {
    utf8_percent_encode(id, ENCODED).into()
}

/// `type.user.json` or `type.user.key.json`; none for what is no configuration.
pub(super) fn file_name(slot: &Slot) -> Option<String> {
    let kind = slot.kind().filter(|kind| *kind != ConfigType::DataplaneUpgrade)?;
    let mut name = format!("{}.{}", short_name(kind), part(&slot.user_id));
    if !slot.key_id.is_empty() {
        name.push('.');
        name.push_str(&part(&slot.key_id));
    }
    name.push_str(".json");
    Some(name)
}

/// An id as part of a name, cut and hashed where it is long. `~` is never in an encoded id, so that no id is taken for
/// the shortened form of another.
fn part(id: &str) -> Cow<'_, str> {
    let encoded = encode(id);
    if encoded.len() <= PART_MAX {
        return encoded;
    }
    let mut short: String = encoded.chars().take(PART_HEAD).collect();
    short.push('~');
    for byte in digest::digest(&digest::SHA256, id.as_bytes()).as_ref().iter().take(16) {
        // Writing to a String does not fail.
        let _ = write!(short, "{byte:02x}");
    }
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(kind: ConfigType, user_id: &str, key_id: &str) -> Option<String> {
        let slot = Slot { config_type: kind.into(), user_id: user_id.to_owned(), key_id: key_id.to_owned() };
        file_name(&slot)
    }

    #[test]
    fn names_are_readable_where_ids_are() {
        for (kind, user, key, expected) in [
            (ConfigType::Providers, "system", "", "providers.system.json"),
            (ConfigType::ProxyUrl, "system", "ws_01K9", "proxy_url.system.ws_01K9.json"),
            (ConfigType::Byok, "id_01K9", "a.b/c", "byok.id_01K9.a%2Eb%2Fc.json"),
            (ConfigType::UserKeys, "", "", "user_keys..json"),
        ] {
            assert_eq!(name(kind, user, key).as_deref(), Some(expected));
        }
        assert_eq!(name(ConfigType::DataplaneUpgrade, "system", ""), None);
        assert_eq!(name(ConfigType::Unspecified, "system", ""), None);
    }

    #[test]
    fn hostile_ids_stay_inside_and_apart() {
        let long = "a".repeat(10_000);
        let other = format!("{}b", "a".repeat(9_999));
        let hostile = [
            "",
            ".",
            "..",
            "/",
            "../../etc/passwd",
            "/etc/passwd",
            "a/../b",
            "C:\\x",
            "a\0b",
            "a\nb",
            "%2E",
            "%252E",
            "~",
            "naïve",
            "日本語",
            "\u{202e}gnp",
            "a",
            "A",
            " ",
            "-",
            "CON",
            &long,
            &other,
        ];
        let mut names = BTreeSet::new();
        for user in hostile {
            for key in hostile {
                let name = name(ConfigType::Byok, user, key).expect("a name");
                assert!(name.len() <= 240, "{name}");
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_%~.".contains(c);
                assert!(name.chars().all(plain), "{name}");
                assert!(name.starts_with("byok."), "{name}");
                assert!(name.strip_suffix(".json").is_some(), "{name}");
                assert!(names.insert(name.clone()), "{name} stands for two slots");
            }
        }
    }

    #[test]
    fn a_shortened_id_is_not_the_name_of_another() {
        let long = "x".repeat(97);
        let shortened = part(&long).into_owned();
        assert_eq!(shortened.len(), PART_HEAD + 33);
        assert_ne!(part(&shortened), shortened.as_str());
        assert_eq!(part(&"x".repeat(96)).len(), 96);
    }
}
