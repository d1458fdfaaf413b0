//! The first key of an installation.

use agentrouter_envelope::Secret;
use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Fault, Role};
use agentrouter_storage::Tx;

use crate::authenticator::looks_like_jwt;
use crate::keys::{self, GATEWAY_PREFIX, NewKey, Shape};
use crate::model::{KeyKind, NewApiKey};
use crate::store;

/// What the key is called, and who it says made it: nobody could yet.
const DISPLAY_NAME: &str = "bootstrap";

/// Inserts an operator key of a customer: the given one, or a new one, which is returned. The caller decides that the
/// database is empty.
///
/// # Errors
/// INVALID_ARGUMENT for a given key that no call could present. Whether one that is not in the key format
/// ([`keys::is_key_format`]) is good enough is for the caller to decide.
pub async fn bootstrap_key(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    key: Option<&Secret>,
) -> Result<Option<Secret>, Fault> {
    let (hash, shown_prefix, generated) = if let Some(given) = key {
        let text = presentable(given.expose())?;
        // A part of a short key would be too much of it.
        let is_long = keys::shape(text) == Shape::Key;
        (keys::hash(text), if is_long { keys::shown_prefix(text) } else { String::new() }, None)
    } else {
        let new = NewKey::generate(KeyKind::Management)?;
        (new.hash, new.shown_prefix, Some(new.text))
    };
    let id = Id::new(tx.now().await?);
    let new = NewApiKey {
        display_name: DISPLAY_NAME.to_owned(),
        kind: KeyKind::Management,
        role: Some(Role::Operator),
        identity: None,
        expires_at: None,
    };
    store::api_keys::insert(tx, customer, id, &new, (&shown_prefix, DISPLAY_NAME)).await?;
    if !store::api_keys::insert_secret(tx, id, &hash).await? {
        return Err(Fault::already_exists::<id::ApiKey>(DISPLAY_NAME));
    }
    Ok(generated)
}

/// A chosen key as calls will present it: without its prefix. It must survive a header, and must not be taken for
/// another kind of credential.
fn presentable(given: &str) -> Result<&str, Fault> {
    let text = keys::without_prefix(given);
    let wrong = |what: &str| Err(Fault::invalid_field("bootstrap_key", what));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("must be visible ASCII characters without spaces");
    }
    if text.starts_with(GATEWAY_PREFIX) || looks_like_jwt(text) {
        return wrong("must not look like a gateway key or a token");
    }
    if keys::shape(text) == Shape::MistypedKey {
        return wrong("looks like a key with a typing error: its checksum is wrong");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_keys_must_be_presentable() {
        for (given, text) in [("dev", "dev"), ("ak-dev", "dev"), ("ak-ak-dev", "dev"), ("a.b.c", "a.b.c")] {
            assert_eq!(presentable(given).unwrap(), text);
        }
        for bad in
            ["", "ak-", "ak-ak-", "two words", "clé", "line\n", "gk-x", "ak-gk-x", "eyJ.e.s", &"0".repeat(49)]
        {
            let fault = presentable(bad).unwrap_err();
            assert_eq!(fault.violations()[0].field, "bootstrap_key", "{bad:?}");
            assert!(bad.len() < 4 || !fault.message().contains(bad), "{bad:?} is not quoted");
        }
    }
}
