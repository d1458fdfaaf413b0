//! Envelope encryption of stored secrets.
//!
//! Every secret is encrypted with a fresh AES-256-GCM data key, which is itself encrypted under a
//! key-encryption key (KEK). The secret is bound to what it belongs to (see [`Aad`]), so that a ciphertext
//! copied to another row does not open. A sealed value names its KEK, so that keys can be rotated one value at
//! a time, and the data key alone is encrypted anew then. This crate stores nothing and reads no file.

mod keyring;
mod secret;

pub use keyring::{Aad, EnvelopeError, Kek, Keyring, random_bytes};
pub use secret::{Secret, SecretBytes};
