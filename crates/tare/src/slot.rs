//! Slots as people write them: `providers`, `user-keys/<user>`, `byok/<user>/<key>`, as the worker's log shows them.

use std::str::FromStr;

use agentrouter_api::configurator::ConfigType;
use agentrouter_liaison::Slot;
use percent_encoding::percent_decode_str;

/// The user of global slots.
const SYSTEM: &str = "system";
/// The types that a slot can have.
const TYPES: [ConfigType; 7] = [
    ConfigType::Providers,
    ConfigType::McpCatalog,
    ConfigType::RevokedTokens,
    ConfigType::ProxyUrl,
    ConfigType::UserKeys,
    ConfigType::Byok,
    ConfigType::McpProfile,
];

/// Any type, in kebab or snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypeName(pub(crate) ConfigType);

impl FromStr for TypeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.replace('-', "_").to_ascii_uppercase();
        let name = if name.starts_with("CONFIG_TYPE_") { name } else { format!("CONFIG_TYPE_{name}") };
        ConfigType::from_str_name(&name)
            .filter(|kind| *kind != ConfigType::Unspecified)
            .map(Self)
            .ok_or_else(|| format!("the type must be {} or dataplane-upgrade", names()))
    }
}

/// A slot on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotName(pub(crate) Slot);

impl FromStr for SlotName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let name = parts.next().unwrap_or_default();
        let kind = name.parse::<TypeName>().ok().map(|name| name.0).filter(|kind| TYPES.contains(kind));
        let kind = kind.ok_or_else(|| format!("the type of a slot must be {}", names()))?;
        let (user, key) = (parts.next().map(decode).transpose()?, parts.next().map(decode).transpose()?);
        if parts.next().is_some() {
            return Err(
                "a slot is <type>, <type>/<user> or <type>/<user>/<key>; a / in an id is %2F".to_owned()
            );
        }
        let is_global =
            matches!(kind, ConfigType::Providers | ConfigType::McpCatalog | ConfigType::RevokedTokens);
        let (user_id, key_id) = match (kind, user, key) {
            // Its user is always the same, so what stands there is the key.
            (ConfigType::ProxyUrl, Some(workspace), None) if workspace != SYSTEM => {
                (SYSTEM.to_owned(), workspace)
            }
            (_, None, _) if is_global => (SYSTEM.to_owned(), String::new()),
            // The server takes an empty user for the caller.
            (_, user, key) => (user.unwrap_or_default(), key.unwrap_or_default()),
        };
        Ok(Self(Slot { config_type: kind.into(), user_id, key_id }))
    }
}

fn decode(part: &str) -> Result<String, String> {
    let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    let is_broken = part.split('%').skip(1).any(|rest| {
        let mut bytes = rest.bytes();
        !hex(bytes.next()) || !hex(bytes.next())
    });
    if is_broken {
        return Err("a % in an id is %25".to_owned());
    }
    percent_decode_str(part).decode_utf8().map(Into::into).map_err(|_| "an id is UTF-8 text".to_owned())
}

fn names() -> String {
    TYPES.map(|kind| short(kind.as_str_name(), "CONFIG_TYPE_").replace('_', "-")).join(", ")
}

/// A value of an enum without its prefix, such as `acknowledged`.
pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(ConfigType, String, String), String> {
        text.parse::<SlotName>()
            .map(|SlotName(slot)| (slot.kind().expect("a type"), slot.user_id.clone(), slot.key_id.clone()))
    }

    #[test]
    fn slots() {
        for (text, kind, user, key) in [
            ("providers", ConfigType::Providers, "system", ""),
            ("providers/system", ConfigType::Providers, "system", ""),
            ("mcp-catalog", ConfigType::McpCatalog, "system", ""),
            ("mcp_catalog", ConfigType::McpCatalog, "system", ""),
            ("CONFIG_TYPE_REVOKED_TOKENS", ConfigType::RevokedTokens, "system", ""),
            ("user-keys/ada", ConfigType::UserKeys, "ada", ""),
            ("user-keys", ConfigType::UserKeys, "", ""),
            ("byok/id_1/sk%2F%1B%5B2J", ConfigType::Byok, "id_1", "sk/\u{1b}[2J"),
            ("proxy-url/ws_1", ConfigType::ProxyUrl, "system", "ws_1"),
            ("proxy_url/system/ws_1", ConfigType::ProxyUrl, "system", "ws_1"),
        ] {
            assert_eq!(parse(text), Ok((kind, user.to_owned(), key.to_owned())), "{text}");
        }
        for wrong in
            ["", "/", "nope", "dataplane-upgrade", "byok/a/b/c", "byok/a/%", "byok/a/%2", "byok/%ff/a"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_worker_shows_is_read_back() {
        for (user, key) in [("system", ""), ("id_1", "a/b"), ("%2F", "100 %"), ("naïve", "日本")] {
            let slot = Slot { config_type: 6, user_id: user.to_owned(), key_id: key.to_owned() };
            assert_eq!(slot.to_string().parse(), Ok(SlotName(slot)));
        }
    }
}
