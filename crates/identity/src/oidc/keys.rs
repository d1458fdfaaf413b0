//! The keys that an issuer publishes, read when they are needed and kept.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use agentrouter_kernel::{Fault, FaultKind};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::fetch::{FetchError, Https};

/// Keys that are older are read again before they are used, so that one that was withdrawn stops to count.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Keys that cannot be read again are used for so long, because an issuer may be away for a while.
const GRACE: Duration = Duration::from_hours(1);

/// The keys of one issuer.
pub(crate) struct Keys {
    min_refresh: Duration,
    published: Arc<Published>,
    /// Whoever holds it is the one that asks.
    asked: Mutex<Asked>,
}

/// The last attempt to read the keys.
#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    /// It goes on when the caller who began it goes away, and ends with the keys.
    reading: JoinSet<()>,
}

/// What an issuer publishes, as far as it was read.
struct Published {
    issuer: String,
    https: Https,
    known: RwLock<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<[Jwk]>,
    at: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    pub(crate) fn new(issuer: String, https: Https, min_refresh: Duration) -> Self {
        let published = Arc::new(Published { issuer, https, known: RwLock::default() });
        Self { min_refresh, published, asked: Mutex::default() }
    }

    /// The key of this id for this algorithm; where a token names none, the only one that fits. A key that is not
    /// known is asked for, but not more often than configured.
    ///
    /// # Errors
    /// UNAVAILABLE where the issuer does not answer and what is known is too old.
    pub(crate) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, Fault> {
        let known = self.published.known();
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < MAX_AGE)
            && let Some(key) = select(&known.keys, kid, algorithm)
        {
            return Ok(Some(key));
        }
        self.refresh(known.map(|known| known.at)).await;
        let known = self.published.known().filter(|known| known.at.elapsed() < GRACE);
        let known = known.ok_or_else(|| unavailable(self.min_refresh))?;
        Ok(select(&known.keys, kid, algorithm))
    }

    /// Asks for the keys, unless somebody did since the caller looked, or it is too early to ask again.
    async fn refresh(&self, seen: Option<Instant>) {
        let mut asked = self.asked.lock().await;
        // Whoever began an attempt may have gone away during it.
        while asked.reading.join_next().await.is_some() {}
        let is_newer = self.published.known().map(|known| known.at) != seen;
        let is_early = asked.at.is_some_and(|at| at.elapsed() < self.min_refresh);
        if is_newer || is_early {
            return;
        }
        // Also a failure counts: whoever floods us with unknown keys does not flood the issuer. And because an attempt
        // counts, it is not the caller's, who may go away: whoever does so again and again keeps nobody out.
        asked.at = Some(Instant::now());
        let published = Arc::clone(&self.published);
        asked.reading.spawn(async move { published.read().await });
        while asked.reading.join_next().await.is_some() {}
    }
}

impl Published {
    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn read(&self) {
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys: keys.into(), at: Instant::now() };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the keys of an OIDC issuer cannot be read");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, FetchError> {
        let base = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        let discovery: Discovery =
            self.https.json(&format!("{base}/.well-known/openid-configuration")).await?;
        if discovery.issuer != self.issuer {
            return Err(FetchError::Form);
        }
        let set: KeySet = self.https.json(&discovery.jwks_uri).await?;
        // A key of a kind that nobody here knows does not spoil the others.
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }
}

fn select(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut fitting = keys.iter().filter(|key| fits(key, algorithm)).filter(|key| match kid {
        Some(kid) => key.common.key_id.as_deref() == Some(kid),
        None => true,
    });
    let key = fitting.next()?;
    // Two keys without a name: which one it is cannot be told.
    if fitting.next().is_some() { None } else { DecodingKey::from_jwk(key).ok() }
}

/// Whether a key is for signatures by this algorithm. A symmetric key never is.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let family = match &key.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        _ => return false,
    };
    let named = key.common.key_algorithm.map(|named| named.to_string());
    family == algorithm.family()
        && key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && named.is_none_or(|named| named.eq_ignore_ascii_case(&format!("{algorithm:?}")))
}

fn unavailable(retry_after: Duration) -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        "OIDC_ISSUER_UNAVAILABLE",
        "the keys of the token's issuer cannot be read; retry later",
    )
    .with_retry_after(retry_after.max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Semaphore, watch};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    /// An issuer that tells its keys only when it is let.
    struct Issuer {
        url: String,
        certificate: String,
        answers: Arc<Semaphore>,
        /// How often its keys were asked for.
        asked: watch::Receiver<usize>,
        _serving: JoinSet<()>,
    }

    impl Issuer {
        async fn start() -> Self {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let certificate = made.cert.pem();
            let acceptor = acceptor(&certificate, &made.signing_key.serialize_pem());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let answers = Arc::new(Semaphore::new(0));
            let (count, asked) = watch::channel(0);
            let (issuer, gate) = (url.clone(), Arc::clone(&answers));
            let mut serving = JoinSet::new();
            serving.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    answer(&acceptor, stream, &issuer, &count, &gate).await;
                }
            });
            Self { url, certificate, answers, asked, _serving: serving }
        }

        fn keys(&self) -> Keys {
            let https = Https::new(Some(self.certificate.as_bytes())).unwrap();
            Keys::new(self.url.clone(), https, Duration::from_hours(1))
        }

        async fn until_asked(&mut self) {
            self.asked.wait_for(|asked| *asked > 0).await.unwrap();
        }
    }

    fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Answers one request, unless its sender goes away.
    async fn answer(
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        issuer: &str,
        count: &watch::Sender<usize>,
        gate: &Semaphore,
    ) {
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let body = if head.starts_with(b"GET /keys ") {
            count.send_modify(|count| *count += 1);
            tokio::select! {
                permit = gate.acquire() => permit.unwrap().forget(),
                _ = stream.read_u8() => return,
            }
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "known"}]})
        } else {
            json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})
        };
        let body = body.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // The sender may have read enough by now.
        let _ = stream.shutdown().await;
    }

    #[tokio::test]
    async fn an_attempt_goes_on_when_its_caller_goes_away() {
        let mut issuer = Issuer::start().await;
        let keys = issuer.keys();
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = keys.find(Some("unknown"), Algorithm::EdDSA) => panic!("the issuer did not answer yet"),
                () = issuer.until_asked() => {}
            }
        }
        issuer.answers.add_permits(8);
        assert!(keys.find(Some("known"), Algorithm::EdDSA).await.unwrap().is_some());
        assert!(keys.find(Some("unknown"), Algorithm::EdDSA).await.unwrap().is_none());
        assert_eq!(*issuer.asked.borrow(), 1, "nobody makes it be asked more often");
    }

    #[tokio::test]
    async fn those_who_come_together_ask_once() {
        let mut issuer = Issuer::start().await;
        let keys = issuer.keys();
        let find = || keys.find(Some("known"), Algorithm::EdDSA);
        let answering = async {
            issuer.until_asked().await;
            issuer.answers.add_permits(8);
        };
        let (one, other, ()) = tokio::join!(find(), find(), answering);
        assert!(one.unwrap().is_some() && other.unwrap().is_some());
        assert_eq!(*issuer.asked.borrow(), 1);
    }
}
