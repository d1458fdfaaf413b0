//! Key-encryption keys, and values sealed under them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentrouter_kernel::Fault;
use aws_lc_rs::aead::{AES_256_GCM, Aad as AeadAad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::SecretBytes;

/// The data key is bound to no row, so that a rotation wraps it anew without knowing what the value belongs to. The
/// value itself is.
const FORMAT: u8 = 2;
/// The format of the first version: the data key is bound to the row, too. It is read, and written no more.
const FORMAT_BOUND_KEY: u8 = 1;
const KEY_LENGTH: usize = 32;
const TAG_LENGTH: usize = 16;
const WRAPPED_LENGTH: usize = NONCE_LEN + KEY_LENGTH + TAG_LENGTH;

/// What can go wrong with a sealed value or a key. No variant carries secret material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The value was sealed under a key that is not in the ring.
    #[error("the value is sealed under the key {0:?}, which is not configured")]
    UnknownKey(String),
    /// The value was changed, or belongs to another row.
    #[error("a sealed value does not open: it was changed or moved")]
    DoesNotOpen,
    /// The bytes are no sealed value.
    #[error("the bytes are no sealed value")]
    Malformed,
    /// The configured key is unusable.
    #[error(
        "a key-encryption key must be `id:` and 32 bytes in base64, with an id of 1 to 32 letters, digits, - or _"
    )]
    BadKey,
    /// A rotation took every configured key out of service.
    #[error("every configured key-encryption key was retired by a rotation; add the one that it rotated to")]
    Retired,
    /// The system gave no random bytes.
    #[error("no randomness")]
    NoRandomness,
}

impl From<EnvelopeError> for Fault {
    fn from(error: EnvelopeError) -> Self {
        Self::internal(error)
    }
}

/// What a sealed value is bound to, part by part. Opening needs exactly the same parts.
#[derive(Debug, Clone)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Starts with what the value is, such as `provider-credential`.
    pub fn new(purpose: &str) -> Self {
        Self(Vec::new()).with(purpose.as_bytes())
    }

    /// Adds a part, such as a row id.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        // Lengths keep neighbouring parts apart.
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }
}

/// A key-encryption key with the id that sealed values name it by.
pub struct Kek {
    id: String,
    key: LessSafeKey,
}

impl Kek {
    /// A key from its parts.
    ///
    /// # Errors
    /// `BadKey` where the id or the length is not as it should be.
    pub fn new(id: &str, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let id_is_valid = (1..=32).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !id_is_valid || bytes.len() != KEY_LENGTH {
            return Err(EnvelopeError::BadKey);
        }
        Ok(Self { id: id.to_owned(), key: aead_key(bytes)? })
    }

    /// Reads `id:base64`, or bare base64, which gets the id `default`.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let (id, encoded) = text.trim().split_once(':').unwrap_or(("default", text.trim()));
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| EnvelopeError::BadKey)?);
        Self::new(id, &bytes)
    }

    /// The text of a new key, as [`Kek::parse`] reads it.
    pub fn generate(id: &str) -> Result<Zeroizing<String>, EnvelopeError> {
        let bytes = Zeroizing::new(random_bytes::<KEY_LENGTH>()?);
        Ok(Zeroizing::new(format!("{id}:{}", STANDARD.encode(*bytes))))
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kek").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key-encryption keys in use: the first one that no rotation retired seals, all of them open.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<Kek>,
    /// Index of the key that seals; the number of keys where all are retired.
    sealing: AtomicUsize,
}

impl Keyring {
    /// A ring of one or more keys.
    ///
    /// # Errors
    /// `BadKey` where there is none, or two share an id.
    pub fn new(keys: Vec<Kek>) -> Result<Self, EnvelopeError> {
        let repeats =
            keys.iter().enumerate().any(|(index, key)| keys[..index].iter().any(|other| other.id == key.id));
        if keys.is_empty() || repeats {
            return Err(EnvelopeError::BadKey);
        }
        Ok(Self { keys, sealing: AtomicUsize::new(0) })
    }

    /// Reads keys separated by commas or white space.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
        Self::new(parts.map(Kek::parse).collect::<Result<_, _>>()?)
    }

    /// The id of the key that seals; empty where all are retired.
    pub fn sealing_key_id(&self) -> &str {
        self.keys.get(self.sealing.load(Ordering::Relaxed)).map_or("", |key| key.id.as_str())
    }

    /// The ids of all keys.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Seals from now on with the first key that is not retired, also where the ring is shared. Where none is left,
    /// nothing can be sealed until this is called again.
    pub fn retire(&self, is_retired: impl Fn(&str) -> bool) {
        let left = self.keys.iter().position(|key| !is_retired(&key.id));
        self.sealing.store(left.unwrap_or(self.keys.len()), Ordering::Relaxed);
    }

    /// The id of the key that a sealed value needs, whether or not it is in a ring.
    ///
    /// # Errors
    /// `Malformed` where the bytes are no sealed value.
    pub fn key_id(sealed: &[u8]) -> Result<&str, EnvelopeError> {
        split(sealed).map(|(_, id, _)| id)
    }

    /// The key that seals.
    fn sealing_key(&self) -> Result<&Kek, EnvelopeError> {
        self.keys.get(self.sealing.load(Ordering::Relaxed)).ok_or(EnvelopeError::Retired)
    }

    fn key(&self, id: &str) -> Result<&Kek, EnvelopeError> {
        let found = self.keys.iter().find(|key| key.id == id);
        found.ok_or_else(|| EnvelopeError::UnknownKey(id.to_owned()))
    }

    /// The same value under the key that seals; none where it is there already. Only its data key is decrypted. Of
    /// values in the first format that key is bound to the row, so `bound_to` tells what they belong to.
    ///
    /// # Errors
    /// As [`Keyring::open`].
    pub fn rewrap(
        &self,
        sealed: &[u8],
        bound_to: impl FnOnce() -> Aad,
    ) -> Result<Option<Vec<u8>>, EnvelopeError> {
        let (format, id, rest) = split(sealed)?;
        let kek = self.sealing_key()?;
        if format == FORMAT && id == kek.id {
            return Ok(None);
        }
        let (wrapped, body) = rest.split_at_checked(WRAPPED_LENGTH).ok_or(EnvelopeError::Malformed)?;
        let aad = if format == FORMAT { data_key_aad() } else { bound_to() };
        let data_key = decrypt(&self.key(id)?.key, &aad, wrapped)?;
        join(kek, data_key.expose(), body).map(Some)
    }

    /// Encrypts a value under a fresh data key.
    pub fn seal(&self, aad: &Aad, plain: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let kek = self.sealing_key()?;
        let data_key = Zeroizing::new(random_bytes::<KEY_LENGTH>()?);
        let body = encrypt(&aead_key(&*data_key)?, aad, plain)?;
        join(kek, &*data_key, &body)
    }

    /// Decrypts a value.
    ///
    /// # Errors
    /// `UnknownKey` names the missing key; `DoesNotOpen` says no more than that.
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> Result<SecretBytes, EnvelopeError> {
        let (format, id, rest) = split(sealed)?;
        let kek = self.key(id)?;
        let (wrapped, body) = rest.split_at_checked(WRAPPED_LENGTH).ok_or(EnvelopeError::Malformed)?;
        let data_key = if format == FORMAT {
            decrypt(&kek.key, &data_key_aad(), wrapped)?
        } else {
            decrypt(&kek.key, aad, wrapped)?
        };
        decrypt(&aead_key(data_key.expose())?, aad, body)
    }
}

/// The format of a sealed value, the id of the key that it needs, and the rest.
fn split(sealed: &[u8]) -> Result<(u8, &str, &[u8]), EnvelopeError> {
    let [format @ (FORMAT | FORMAT_BOUND_KEY), id_length, rest @ ..] = sealed else {
        return Err(EnvelopeError::Malformed);
    };
    let (id, rest) = rest.split_at_checked(usize::from(*id_length)).ok_or(EnvelopeError::Malformed)?;
    Ok((*format, std::str::from_utf8(id).map_err(|_| EnvelopeError::Malformed)?, rest))
}

/// A sealed value of its parts.
fn join(kek: &Kek, data_key: &[u8], body: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let id_length = u8::try_from(kek.id.len()).map_err(|_| EnvelopeError::BadKey)?;
    let wrapped = encrypt(&kek.key, &data_key_aad(), data_key)?;
    Ok([&[FORMAT, id_length], kek.id.as_bytes(), &wrapped, body].concat())
}

fn data_key_aad() -> Aad {
    Aad::new("data-key")
}

/// Random bytes from the system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], EnvelopeError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| EnvelopeError::NoRandomness)?;
    Ok(bytes)
}

fn aead_key(bytes: &[u8]) -> Result<LessSafeKey, EnvelopeError> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| EnvelopeError::BadKey)
}

fn encrypt(key: &LessSafeKey, aad: &Aad, plain: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let nonce = random_bytes::<NONCE_LEN>()?;
    // With room for the tag, so that no copy of the plain text stays behind where the buffer grows.
    let mut buffer = Vec::with_capacity(plain.len() + TAG_LENGTH);
    buffer.extend_from_slice(plain);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), AeadAad::from(&aad.0), &mut buffer)
        .map_err(|_| EnvelopeError::DoesNotOpen)?;
    Ok([&nonce[..], &buffer].concat())
}

fn decrypt(key: &LessSafeKey, aad: &Aad, sealed: &[u8]) -> Result<SecretBytes, EnvelopeError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(EnvelopeError::Malformed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| EnvelopeError::Malformed)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let plain = key
        .open_in_place(nonce, AeadAad::from(&aad.0), &mut buffer)
        .map_err(|_| EnvelopeError::DoesNotOpen)?;
    Ok(SecretBytes::new(&*plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(ids: &[&str]) -> Keyring {
        let key = |id: &&str| Kek::new(id, &[u8::try_from(id.len()).unwrap(); 32]).unwrap();
        Keyring::new(ids.iter().map(key).collect()).unwrap()
    }

    fn aad() -> Aad {
        Aad::new("credential").with("cust_1").with("cred_1")
    }

    #[test]
    fn a_value_opens_only_where_it_belongs() {
        let ring = ring(&["a"]);
        let sealed = ring.seal(&aad(), b"secret").unwrap();
        assert_eq!(ring.open(&aad(), &sealed).unwrap().expose(), b"secret");
        for other in [
            Aad::new("credential").with("cust_2").with("cred_1"),
            Aad::new("credential").with("cust_1cred_1"),
        ] {
            assert_eq!(ring.open(&other, &sealed).unwrap_err(), EnvelopeError::DoesNotOpen);
        }
    }

    #[test]
    fn rotation_keeps_old_values_readable() {
        let old = ring(&["old"]).seal(&aad(), b"secret").unwrap();
        let both = ring(&["new1", "old"]);
        assert_eq!(both.open(&aad(), &old).unwrap().expose(), b"secret");
        assert_eq!(both.sealing_key_id(), "new1");
        assert_eq!(Keyring::key_id(&old), Ok("old"));
        assert_eq!(Keyring::key_id(b"no sealed value"), Err(EnvelopeError::Malformed));
        let new = both.seal(&aad(), b"secret").unwrap();
        assert_eq!(ring(&["old"]).open(&aad(), &new).unwrap_err(), EnvelopeError::UnknownKey("new1".into()));
    }

    #[test]
    fn a_value_is_wrapped_anew_without_its_row() {
        let old = ring(&["old"]).seal(&aad(), b"secret").unwrap();
        let both = ring(&["new1", "old"]);
        let row = || -> Aad { panic!("nobody needs to know the row") };
        let new = both.rewrap(&old, row).unwrap().unwrap();
        assert_eq!(both.rewrap(&new, row), Ok(None));
        assert_eq!(ring(&["new1"]).open(&aad(), &new).unwrap().expose(), b"secret");
        assert_eq!(
            ring(&["new1"]).open(&Aad::new("x"), &new).unwrap_err(),
            EnvelopeError::DoesNotOpen,
            "the value is bound to its row as before"
        );
        assert_eq!(ring(&["new1"]).rewrap(&old, row), Err(EnvelopeError::UnknownKey("old".into())));
    }

    #[test]
    fn values_of_the_first_version_open_and_are_wrapped_anew() {
        // Made by the first version: the key `a` of 32 bytes 1, bound as `aad()` says.
        let kek = &ring(&["a"]).keys[0].key;
        let data_key = [7; KEY_LENGTH];
        let wrapped = encrypt(kek, &aad(), &data_key).unwrap();
        let body = encrypt(&aead_key(&data_key).unwrap(), &aad(), b"secret").unwrap();
        let first = [&[FORMAT_BOUND_KEY, 1, b'a'], &*wrapped, &*body].concat();
        let both = ring(&["new1", "a"]);
        assert_eq!(both.open(&aad(), &first).unwrap().expose(), b"secret");
        assert_eq!(both.rewrap(&first, || Aad::new("x")), Err(EnvelopeError::DoesNotOpen));
        let new = both.rewrap(&first, aad).unwrap().unwrap();
        assert_eq!(ring(&["new1"]).open(&aad(), &new).unwrap().expose(), b"secret");
        // Under the same key, too, it gets the format of today.
        let same = ring(&["a"]).rewrap(&first, aad).unwrap().unwrap();
        assert_eq!(ring(&["a"]).open(&aad(), &same).unwrap().expose(), b"secret");
    }

    #[test]
    fn retired_keys_open_and_do_not_seal() {
        let both = ring(&["old", "new1"]);
        let old = both.seal(&aad(), b"secret").unwrap();
        both.retire(|id| id == "old");
        assert_eq!(both.sealing_key_id(), "new1");
        assert_eq!(Keyring::key_id(&both.seal(&aad(), b"x").unwrap()), Ok("new1"));
        assert_eq!(both.open(&aad(), &old).unwrap().expose(), b"secret");
        both.retire(|_| true);
        assert_eq!((both.sealing_key_id(), both.seal(&aad(), b"x")), ("", Err(EnvelopeError::Retired)));
        both.retire(|_| false);
        assert_eq!(both.sealing_key_id(), "old");
        assert_eq!(both.key_ids().collect::<Vec<_>>(), ["old", "new1"]);
    }

    #[test]
    fn equal_values_look_different() {
        let ring = ring(&["a"]);
        assert_ne!(ring.seal(&aad(), b"x").unwrap(), ring.seal(&aad(), b"x").unwrap());
    }

    #[test]
    fn generated_keys_parse_and_debug_shows_none_of_them() {
        let text = Kek::generate("k1").unwrap();
        let ring = Keyring::parse(&text).unwrap();
        let secret = text.split_once(':').unwrap().1;
        assert!(!format!("{ring:?}").contains(secret));
        for bad in ["", "k1:short", "bad id:AAAA", &format!("{},{}", *text, *text)] {
            assert!(Keyring::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn changed_values_do_not_open(position: prop::sample::Index, flip in 1u8..) {
            let ring = ring(&["a"]);
            let mut sealed = ring.seal(&aad(), b"secret").unwrap();
            let position = position.index(sealed.len());
            sealed[position] ^= flip;
            prop_assert!(ring.open(&aad(), &sealed).is_err());
        }

        #[test]
        fn hostile_bytes_do_not_open(bytes: Vec<u8>) {
            prop_assert!(ring(&["a"]).open(&aad(), &bytes).is_err());
        }
    }
}
