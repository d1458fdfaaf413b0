//! Tokens that are not quite right. Each differs from a genuine one in one thing.

use std::time::Duration;

use agentrouter_envelope::Aad;
use agentrouter_kernel::id::{Id, Token};
use agentrouter_storage::{query, row};
use agentrouter_testkit::{TestDb, on_both_engines};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::World;

on_both_engines!(
    every_claim_is_checked,
    only_our_keys_sign,
    the_algorithm_is_not_the_tokens_choice,
    a_token_of_a_workspace_is_checked_too,
);

row! {
    struct StoredKey {
        name: String,
        sealed: Vec<u8>,
        public_part: Vec<u8>,
    }
}

/// What only the server should be able to do: sign with its key.
struct Forge {
    kid: String,
    private: EncodingKey,
    public: Vec<u8>,
}

impl Forge {
    async fn new(world: &World) -> Self {
        let stored: StoredKey =
            query("SELECT name, sealed, public_part FROM server_secrets WHERE name LIKE 'signing-key/%'")
                .one(&world.test.db)
                .await
                .unwrap();
        let aad = Aad::new("server-secret").with(&stored.name);
        let private = world.test.deps().keyring.open(&aad, &stored.sealed).unwrap();
        Self {
            kid: stored.name.strip_prefix("signing-key/").unwrap().to_owned(),
            private: EncodingKey::from_ed_der(private.expose()),
            public: stored.public_part,
        }
    }

    fn header(&self) -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        header
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.private).unwrap()
    }

    /// The claims with one of them set to another value, or left out.
    fn with(&self, claims: &Value, name: &str, value: Option<Value>) -> String {
        let mut claims = claims.clone();
        let object = claims.as_object_mut().unwrap();
        match value {
            Some(value) => object.insert(name.to_owned(), value),
            None => object.remove(name),
        };
        self.sign(&claims)
    }
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A session, its claims, and the session of another identity.
async fn session(world: &World) -> (String, Value, Value) {
    let (identity, other) = (world.identity("acme", "a@b").await, world.identity("acme", "c@d").await);
    let admin = world.caller("acme", "admin", "").await;
    let token = world.session(&admin, &identity, "viewer").await.token;
    let other = world.session(&admin, &other, "viewer").await.token;
    (token.clone(), claims_of(&token), claims_of(&other))
}

async fn every_claim_is_checked(test: TestDb) {
    let world = World::new(test).await;
    let (token, claims, other) = session(&world).await;
    let forge = Forge::new(&world).await;
    let genuine = world.principal(&token).await;
    // What follows is refused for what it changes, and not for how it was made.
    assert_eq!(world.principal(&forge.sign(&claims)).await, genuine);

    let now = world.test.db.now().await.unwrap().as_secs();
    let unknown = Id::<Token>::new(world.test.db.now().await.unwrap()).to_string();
    let lower_case = claims["jti"].as_str().unwrap().to_lowercase();
    for (name, values) in [
        ("iss", vec![json!("somebody"), json!(""), json!(["agentrouter", "somebody"]), json!(null)]),
        ("aud", vec![json!("somebody"), json!(""), json!(["agentrouter"]), json!(null)]),
        ("sub", vec![other["sub"].clone(), json!(""), json!(7), json!(null)]),
        ("jti", vec![other["jti"].clone(), json!(unknown), json!("tok_1"), json!(""), json!(null)]),
        ("token_use", vec![json!("workspace"), json!("Session"), json!(""), json!(null)]),
        ("cust", vec![json!(world.other.to_string()), json!("acme"), json!(""), json!(null)]),
        ("identity", vec![other["identity"].clone(), json!(""), json!(null)]),
        ("role", vec![json!("operator"), json!("admin"), json!("member"), json!(null)]),
        ("ws", vec![json!("ws_00000000000000000000000000"), json!("")]),
        ("exp", vec![json!(now), json!(now - 1), json!(0), json!(-1), json!("never"), json!(null)]),
        ("nbf", vec![json!(now + 60), json!(i64::MAX), json!("now"), json!(null)]),
        ("iat", vec![json!(now + 60), json!(i64::MAX), json!("now"), json!(null)]),
    ] {
        for value in values {
            world.refuses(&forge.with(&claims, name, Some(value))).await;
        }
        if name != "ws" {
            world.refuses(&forge.with(&claims, name, None)).await;
        }
    }
    // Ids are read in either case, but a revocation is found by the text.
    world.refuses(&forge.with(&claims, "jti", Some(json!(lower_case)))).await;
}

async fn only_our_keys_sign(test: TestDb) {
    let world = World::new(test).await;
    let (token, claims, other) = session(&world).await;
    let forge = Forge::new(&world).await;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();

    let stranger = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
    let stranger = EncodingKey::from_ed_der(stranger.as_ref());
    world.refuses(&encode(&forge.header(), &claims, &stranger).unwrap()).await;

    for kid in [None, Some(""), Some("unknown"), Some(&"A".repeat(43)), Some("../page-key"), Some("page-key")]
    {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = kid.map(str::to_owned);
        world.refuses(&encode(&header, &claims, &forge.private).unwrap()).await;
    }
    // The key that a token brings along is not asked.
    let mut header_with_key = serde_json::to_value(forge.header()).unwrap();
    header_with_key["jwk"] =
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&forge.public)});
    header_with_key["kid"] = json!("A".repeat(43));
    world.refuses(&format!("{}.{payload}.{signature}", part(&header_with_key))).await;

    let escalated = part(&other);
    for changed in [
        format!("{header}.{escalated}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([0; 64])),
        format!("{header}.{payload}.{}", &signature[..signature.len() - 2]),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
    ] {
        world.refuses(&changed).await;
    }
    world.principal(&token).await;
}

async fn the_algorithm_is_not_the_tokens_choice(test: TestDb) {
    let world = World::new(test).await;
    let (token, claims, _) = session(&world).await;
    let forge = Forge::new(&world).await;
    let payload = part(&claims);
    let signature = token.rsplit('.').next().unwrap();

    for algorithm in ["none", "None", "NONE", "", "HS256", "EdDSA "] {
        let header = part(&json!({"typ": "JWT", "alg": algorithm, "kid": forge.kid}));
        for signature in ["", signature] {
            world.refuses(&format!("{header}.{payload}.{signature}")).await;
        }
    }
    // The public key is no secret: it must not serve as one.
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&forge.public));
    let secrets = [
        forge.public.clone(),
        URL_SAFE_NO_PAD.encode(&forge.public).into(),
        pem.into(),
        forge.kid.clone().into(),
    ];
    for secret in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(algorithm);
            header.kid = Some(forge.kid.clone());
            world.refuses(&encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap()).await;
        }
    }
    world.principal(&token).await;
}

async fn a_token_of_a_workspace_is_checked_too(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let sibling = world.test.workspace(world.acme, "sibling").await;
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = agentrouter_identity::issue_workspace_token(&mut tx, &world.signing, world.acme, workspace)
        .await
        .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let claims = claims_of(issued.token.expose());
    let forge = Forge::new(&world).await;
    let genuine = world.principal(issued.token.expose()).await;
    assert_eq!(genuine.workspace, Some((workspace, "default".to_owned())));
    assert_eq!(world.principal(&forge.sign(&claims)).await, genuine);
    for (name, value) in [
        ("ws", json!(sibling.to_string())),
        ("ws", json!(null)),
        ("sub", json!(sibling.to_string())),
        ("token_use", json!("session")),
        ("role", json!("operator")),
        ("identity", json!("id_00000000000000000000000000")),
        ("cust", json!(world.other.to_string())),
    ] {
        world.refuses(&forge.with(&claims, name, Some(value))).await;
    }
    world.authenticator.forget();
    world.test.db.advance_clock(Duration::from_hours(90 * 24));
    world.refuses(issued.token.expose()).await;
}
