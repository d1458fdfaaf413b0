//! Typed row ids: a UUIDv7 shown as a prefix and 26 characters of Crockford base32.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use uuid::Uuid;

use crate::time::Timestamp;

/// What a kind of row is called, in ids, errors and reasons.
pub trait Kind: 'static {
    /// Prefix of the text form, without the underscore.
    const PREFIX: &'static str;
    /// The resource in UPPER_SNAKE case: the stem of reasons such as `CUSTOMER_NOT_FOUND`.
    const RESOURCE: &'static str;
    /// The resource in words, for messages.
    const NOUN: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $resource:literal, $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl Kind for $name {
            const PREFIX: &'static str = $prefix;
            const RESOURCE: &'static str = $resource;
            const NOUN: &'static str = $noun;
        }
    )*};
}

kinds! {
    /// A tenant.
    Customer = "cust", "CUSTOMER", "customer";
    /// A project of a customer.
    Project = "proj", "PROJECT", "project";
    /// A membership in a project.
    Member = "mem", "MEMBER", "member";
    /// A person or service account.
    Identity = "id", "IDENTITY", "identity";
    /// A data plane.
    Workspace = "ws", "WORKSPACE", "workspace";
    /// The newest content of a slot.
    Configuration = "cfg", "CONFIGURATION", "configuration";
    /// A delivery or an instruction.
    Event = "evt", "EVENT", "event";
    /// An upgrade of a data plane; its id is that of the event that started it.
    Upgrade = "evt", "UPGRADE", "upgrade";
    /// A management or gateway key.
    ApiKey = "key", "API_KEY", "API key";
    /// An AI provider.
    Provider = "prov", "PROVIDER", "provider";
    /// A stored secret.
    Credential = "cred", "CREDENTIAL", "credential";
    /// An audit entry.
    Audit = "aud", "AUDIT_ENTRY", "audit entry";
    /// A session or workspace token; its id is the token's `jti`.
    Token = "tok", "TOKEN", "token";
    /// A session: the token of one, as the API names it.
    Session = "tok", "SESSION", "session";
    /// A user of an OIDC issuer.
    ExternalSubject = "sub", "EXTERNAL_SUBJECT", "external subject";
    /// An MCP server of a customer's catalog.
    McpServer = "mcp", "MCP_SERVER", "MCP server";
    /// An MCP profile.
    McpProfile = "mcpp", "MCP_PROFILE", "MCP profile";
    /// An endpoint that is told what happens to workspaces.
    Webhook = "whk", "WEBHOOK", "webhook";
    /// The delivery of one message to one webhook.
    WebhookDelivery = "whd", "WEBHOOK_DELIVERY", "webhook delivery";
    /// A message for webhooks.
    WebhookMessage = "msg", "WEBHOOK_MESSAGE", "webhook message";
    /// What happened to a workspace, until somebody is told.
    Signal = "sig", "SIGNAL", "signal";
}

/// The id of a row of one kind. Ids of one kind sort by their time of creation, to the microsecond: the 12
/// bits after the version hold the fraction of the millisecond (RFC 9562, section 6.2, method 3).
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

/// Where a UUIDv7 holds the fraction of its millisecond.
const FRACTION: u128 = 0xfff << 64;

impl<K: Kind> Id<K> {
    /// A new id for a row created at `now`.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_secs()).unwrap_or_default();
        let nanos = u32::try_from(now.subsec_nanos()).unwrap_or_default();
        let uuid = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
        let fraction = u128::from(nanos % 1_000_000) * 4096 / 1_000_000;
        Self(Uuid::from_u128(uuid.as_u128() & !FRACTION | fraction << FRACTION.trailing_zeros()), PhantomData)
    }

    /// An id from its stored form.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The stored form.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// Parses the text form. Letters may be of either case; `I` and `L` read as 1 and `O` as 0, as
    /// Crockford's base32 has it.
    pub fn parse(text: &str) -> Option<Self> {
        parse_prefixed(K::PREFIX, text).map(Self::from_uuid)
    }
}

/// Parses the text form of an id whose kind is known by its prefix only.
pub fn parse_prefixed(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?.as_bytes();
    // 26 digits hold 130 bits, so the first may not exceed 7.
    if digits.len() != 26 || digit(digits[0])? > 7 {
        return None;
    }
    let value = digits.iter().try_fold(0u128, |value, &byte| Some(value << 5 | u128::from(digit(byte)?)))?;
    Some(Uuid::from_u128(value))
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn digit(byte: u8) -> Option<u8> {
    let upper = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|&letter| letter == upper).and_then(|index| u8::try_from(index).ok())
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0.as_u128();
        write!(f, "{}_", K::PREFIX)?;
        for position in (0..26).rev() {
            let index = usize::try_from(value >> (position * 5) & 31).unwrap_or_default();
            write!(f, "{}", char::from(ALPHABET[index]))?;
        }
        Ok(())
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Derived implementations would ask for the same of `K`.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A resource as a request names it: by slug or by row id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOrId<K: Kind> {
    /// A slug. It may not exist.
    Slug(String),
    /// A row id. It may not exist.
    Id(Id<K>),
}

impl<K: Kind> NameOrId<K> {
    /// Reads a slug or a row id. Slugs have no underscore, so the two cannot be confused.
    pub fn parse(text: &str) -> Self {
        Id::parse(text).map_or_else(|| Self::Slug(text.to_owned()), Self::Id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_and_back(value: u128) {
            let id = Id::<Customer>::from_uuid(Uuid::from_u128(value));
            prop_assert_eq!(Id::parse(&id.to_string()), Some(id));
            prop_assert_eq!(Id::parse(&id.to_string().to_lowercase()), Some(id));
            prop_assert_eq!(Id::<Project>::parse(&id.to_string()), None);
        }

        #[test]
        fn hostile_text_is_refused(text in ".{0,40}") {
            if let Some(id) = Id::<Customer>::parse(&text) {
                prop_assert_eq!(id.to_string().len(), 31);
            }
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let early = Id::<Event>::new(Timestamp::from_secs(1_700_000_000));
        let late = Id::<Event>::new(Timestamp::from_secs(1_700_000_001));
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert!(early.to_string().starts_with("evt_01"));
    }

    #[test]
    fn ids_of_one_millisecond_sort_by_its_microseconds() {
        let ids: Vec<_> = (0..1000)
            .map(|micros| Id::<Event>::new(Timestamp::from_micros(1_700_000_000_123_000 + micros)))
            .collect();
        assert!(ids.is_sorted());
        for id in ids {
            assert_eq!(id.uuid().get_version_num(), 7);
            assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122);
            let (seconds, nanos) = id.uuid().get_timestamp().unwrap().to_unix();
            assert_eq!((seconds, nanos), (1_700_000_000, 123_000_000));
        }
    }

    #[test]
    fn an_overflowing_first_digit_is_refused() {
        assert_eq!(Id::<Customer>::parse("cust_80000000000000000000000000"), None);
        assert!(Id::<Customer>::parse("cust_70000000000000000000000000").is_some());
    }
}
