//! Tokens of OIDC issuers that the installation trusts by its configuration.
//!
//! What a token says counts only after its signature was checked with a key that the issuer publishes over https, by
//! an asymmetric algorithm, and only for an audience that the configuration names. Who the user is here is decided
//! elsewhere, by a mapping that an admin made.

mod fetch;
mod keys;

use std::fmt;
use std::time::Duration;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::scope::CustomerScope;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;

use fetch::Https;
use keys::Keys;

/// Longer than any ID token with reasonable claims.
const TOKEN_MAX: usize = 16 * 1024;
/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::from_mins(1);
/// The longest subject that OIDC allows, in bytes.
pub(crate) const SUBJECT_MAX: usize = 255;
/// The longest issuer, in bytes.
pub(crate) const ISSUER_MAX: usize = 512;
/// The algorithms that prove something: whoever can check a signature of theirs cannot make one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An issuer as the configuration names it.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The issuer, exactly as its tokens name it in `iss`: an https URL.
    pub issuer: String,
    /// The audiences that tokens must be for, one of them at least.
    pub audiences: Vec<String>,
    /// Slugs or row ids of the customers whose admins may map its users.
    pub customers: Vec<String>,
    /// Certificates in PEM that its server is trusted by, beside those of the system.
    pub ca_certificates: Option<Vec<u8>>,
    /// The least time between two attempts to read its keys.
    pub min_refresh: Duration,
}

/// Why a configured issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The URL is not one that is trusted.
    #[error("issuer {0:?} must be an https URL without user info, query and fragment")]
    Url(String),
    /// It trusts nobody, or is trusted for nobody.
    #[error("issuer {0:?} needs {1}")]
    Missing(String, &'static str),
    /// It is there twice.
    #[error("issuer {0:?} is configured twice")]
    Twice(String),
    /// The certificates cannot be used.
    #[error("issuer {0:?}: the CA file cannot be used")]
    Certificates(String, #[source] reqwest::Error),
}

/// The trusted issuers.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Issuer>);

struct Issuer {
    config: IssuerConfig,
    keys: Keys,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A user, as an issuer vouches for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) issuer: String,
    pub(crate) subject: String,
}

impl Issuers {
    /// Reads nothing from anybody yet.
    ///
    /// # Errors
    /// Names the issuer that cannot be used.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(configs.len());
        for config in configs {
            let name = config.issuer.clone();
            let is_plain = |url: &reqwest::Url| {
                url.scheme() == "https"
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            };
            if name.len() > ISSUER_MAX || !reqwest::Url::parse(&name).is_ok_and(|url| is_plain(&url)) {
                return Err(IssuerError::Url(name));
            }
            if config.audiences.iter().all(String::is_empty) {
                return Err(IssuerError::Missing(name, "audiences"));
            }
            if config.customers.is_empty() {
                return Err(IssuerError::Missing(name, "customers"));
            }
            if issuers.iter().any(|other| other.config.issuer == name) {
                return Err(IssuerError::Twice(name));
            }
            let https = Https::new(config.ca_certificates.as_deref())
                .map_err(|error| IssuerError::Certificates(name.clone(), error))?;
            let keys = Keys::new(name, https, config.min_refresh);
            issuers.push(Issuer { config, keys });
        }
        Ok(Self(issuers))
    }

    /// Whether an issuer's users may be mapped by a customer.
    pub(crate) fn are_trusted(&self, issuer: &str, customer: &CustomerScope) -> bool {
        let names =
            |name: &String| *name == customer.slug || Id::<Customer>::parse(name) == Some(customer.id);
        self.0.iter().any(|known| known.config.issuer == issuer && known.config.customers.iter().any(names))
    }

    /// Who a token was issued to.
    ///
    /// # Errors
    /// UNAUTHENTICATED `OIDC_TOKEN_INVALID` whatever is wrong with it; UNAVAILABLE `OIDC_ISSUER_UNAVAILABLE` where
    /// the keys that it needs cannot be read.
    pub(crate) async fn verify(&self, token: &str, now: Timestamp) -> Result<Subject, Fault> {
        if token.len() > TOKEN_MAX {
            return Err(invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("it is no signed JWT"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(invalid("its algorithm is not asymmetric"));
        }
        // Logout tokens and the like are signed by the same keys, for other ends.
        let is_id_token = header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        if !is_id_token {
            return Err(invalid("it is no ID token"));
        }
        // Only to find the key by. Nothing of it counts before the signature does.
        let claimed = claimed_issuer(token).ok_or_else(|| invalid("it names no issuer"))?;
        let issuer = self.0.iter().find(|known| known.config.issuer == claimed);
        let issuer = issuer.ok_or_else(|| invalid("its issuer is not trusted"))?;
        let key = issuer.keys.find(header.kid.as_deref(), header.alg).await?;
        let key = key.ok_or_else(|| invalid("its key is not one of its issuer's"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &issuer.validation(header.alg))
            .map_err(|_| invalid("its signature, issuer or audience is wrong"))?
            .claims;
        issuer.check(&claims, now)?;
        Ok(Subject { issuer: claims.iss, subject: claims.sub })
    }
}

/// What a token says of its issuer, which nothing proves yet.
fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claimed>(&claims).ok().map(|claimed| claimed.iss)
}

/// What an ID token says, as far as it matters here. Times are seconds since the epoch.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    #[serde(default)]
    azp: Option<String>,
    exp: i64,
    iat: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    events: Option<Value>,
}

impl Issuer {
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audiences);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Times are compared with the stored clock, which all replicas share.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Fault> {
        let latest = now.plus(LEEWAY);
        if Timestamp::from_secs(claims.exp) <= now.minus(LEEWAY) {
            return Err(invalid("it expired"));
        }
        if Timestamp::from_secs(claims.iat) > latest
            || claims.nbf.is_some_and(|nbf| Timestamp::from_secs(nbf) > latest)
        {
            return Err(invalid("it is not valid yet"));
        }
        if claims.sub.is_empty() || claims.sub.len() > SUBJECT_MAX || claims.events.is_some() {
            return Err(invalid("it is no ID token"));
        }
        // A token for several audiences says for whom it was made.
        let is_shared = claims.aud.as_array().is_some_and(|audiences| audiences.len() > 1);
        let is_ours = claims.azp.as_ref().is_some_and(|azp| self.config.audiences.contains(azp));
        if (is_shared || claims.azp.is_some()) && !is_ours {
            return Err(invalid("it was made for somebody else"));
        }
        Ok(())
    }
}

/// UNAUTHENTICATED. The reason is for whoever sets the issuer up; it repeats nothing of the token.
fn invalid(why: &str) -> Fault {
    Fault::new(
        FaultKind::Unauthenticated,
        "OIDC_TOKEN_INVALID",
        format!("the OIDC token is not accepted: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(issuer: &str) -> IssuerConfig {
        IssuerConfig {
            issuer: issuer.to_owned(),
            audiences: vec!["us".to_owned()],
            customers: vec!["acme".to_owned()],
            ca_certificates: None,
            min_refresh: Duration::ZERO,
        }
    }

    #[test]
    fn only_https_issuers_are_trusted() {
        assert!(
            Issuers::new(vec![config("https://id.example"), config("https://id.example/realms/a")]).is_ok()
        );
        for wrong in [
            "http://id.example",
            "https://me@id.example",
            "https://id.example?x",
            "id.example",
            "",
            "file:///etc",
        ] {
            assert!(matches!(Issuers::new(vec![config(wrong)]), Err(IssuerError::Url(_))), "{wrong}");
        }
        let twice = Issuers::new(vec![config("https://id.example"), config("https://id.example")]);
        assert!(matches!(twice, Err(IssuerError::Twice(_))));
        for (audiences, customers) in [(vec![], vec!["acme".to_owned()]), (vec!["us".to_owned()], vec![])] {
            let config = IssuerConfig { audiences, customers, ..config("https://id.example") };
            assert!(matches!(Issuers::new(vec![config]), Err(IssuerError::Missing(..))));
        }
    }

    #[test]
    fn an_issuer_is_trusted_for_the_customers_it_names() {
        let id = Id::new(Timestamp::from_secs(1));
        let by_id = IssuerConfig { customers: vec![id.to_string()], ..config("https://b.example") };
        let issuers = Issuers::new(vec![config("https://a.example"), by_id]).unwrap();
        let acme = CustomerScope { id: Id::new(Timestamp::from_secs(2)), slug: "acme".to_owned() };
        let other = CustomerScope { id, slug: "other".to_owned() };
        assert!(issuers.are_trusted("https://a.example", &acme));
        assert!(!issuers.are_trusted("https://a.example/", &acme), "exactly as tokens name it");
        assert!(!issuers.are_trusted("https://a.example", &other));
        assert!(issuers.are_trusted("https://b.example", &other));
        assert!(!issuers.are_trusted("https://c.example", &acme));
    }

    #[test]
    fn a_shared_token_says_for_whom_it_is() {
        let issuers = Issuers::new(vec![config("https://a.example")]).unwrap();
        let now = Timestamp::from_secs(1_000);
        let claims = |aud: Value, azp: Option<&str>| Claims {
            iss: String::new(),
            sub: "ada".to_owned(),
            aud,
            azp: azp.map(str::to_owned),
            exp: 1_000,
            iat: 1_000,
            nbf: None,
            events: None,
        };
        let check = |claims: &Claims| issuers.0[0].check(claims, now).is_ok();
        assert!(check(&claims("us".into(), None)));
        assert!(check(&claims(vec!["us", "them"].into(), Some("us"))));
        for (aud, azp) in
            [(vec!["us", "them"], None), (vec!["us", "them"], Some("them")), (vec!["us"], Some("them"))]
        {
            assert!(!check(&claims(aud.into(), azp)), "{azp:?}");
        }
        for wrong in [
            Claims { exp: 940, ..claims("us".into(), None) },
            Claims { iat: 1_061, ..claims("us".into(), None) },
            Claims { nbf: Some(1_061), ..claims("us".into(), None) },
            Claims { sub: "x".repeat(256), ..claims("us".into(), None) },
            Claims { events: Some(Value::Null), ..claims("us".into(), None) },
        ] {
            assert!(!check(&wrong), "{} {} {:?}", wrong.exp, wrong.iat, wrong.nbf);
        }
    }
}
