//! Envelope encryption of stored secrets.
//!
//! Every secret is encrypted with a fresh AES-256-GCM data key, which is itself encrypted under a
//! key-encryption key (KEK). Both layers are bound to what the secret belongs to (see [`Aad`]), so that a
//! ciphertext copied to another row does not open. A sealed value names its KEK, so that keys can be rotated
//! one value at a time. This crate stores nothing and reads no file.

mod keyring;
mod secret;

pub use keyring::{Aad, EnvelopeError, Kek, Keyring, random_bytes};
pub use secret::{Secret, SecretBytes};
