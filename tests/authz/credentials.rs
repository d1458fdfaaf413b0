//! Credentials that are none, any more or at all. Each was a good one, or differs from a good one in one thing.

use std::time::Duration;

use agentrouter_envelope::Aad;
use agentrouter_storage::{query, row};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::World;
use crate::surface::tenant::{Caller, Form};

/// What it is, and the bearer token.
pub(crate) type Bad = (&'static str, Option<String>);

/// All of them.
pub(crate) async fn bad(world: &World) -> Vec<Bad> {
    let mut bad = vec![("no credential", None)];
    bad.extend(keys(world).await.into_iter().map(|(what, token)| (what, Some(token))));
    bad.extend(sessions(world).await.into_iter().map(|(what, token)| (what, Some(token))));
    bad.extend(workspace_tokens(world).await.into_iter().map(|(what, token)| (what, Some(token))));
    bad
}

async fn keys(world: &World) -> Vec<(&'static str, String)> {
    let mut good = world.acme.token(Caller::Admin).to_owned();
    let last = good.pop().unwrap();
    let mistyped = format!("{good}{}", if last == 'a' { 'b' } else { 'a' });
    let unknown = agentrouter_identity::keys::generate_key().unwrap().expose().to_owned();
    let gateway = world.acme.secrets.iter().find(|(what, _)| what == "a gateway key").unwrap().1.clone();

    let soon = world.server.test_db.db.now().await.unwrap().plus(Duration::from_secs(5));
    let expiring = key(world, json!({"role": "admin", "expires_at": soon.to_string()})).await.1;
    let (revoked_id, revoked) = key(world, json!({"role": "admin"})).await;
    let (rotated_id, rotated) = key(world, json!({"role": "admin"})).await;
    for (name, id) in
        [("ApiKeysService/RevokeApiKey", revoked_id), ("ApiKeysService/RotateApiKey", rotated_id)]
    {
        world.as_operator(name, json!({"customer_id": "acme", "api_key_id": id})).await;
    }
    let identity = identity(world).await;
    let orphaned = key(world, json!({"role": "admin", "identity_id": identity})).await.1;
    let gone = json!({"customer_id": "acme", "identity_id": identity});
    world.as_operator("IdentitiesService/DeleteIdentity", gone).await;

    world.as_operator("TenancyService/CreateCustomer", json!({"customer_id": "closed"})).await;
    let closed = json!({"customer_id": "closed", "display_name": "key", "role": "admin"});
    let closed = text(&world.as_operator("ApiKeysService/CreateApiKey", closed).await["key"]);
    world.as_operator("TenancyService/ArchiveCustomer", json!({"customer_id": "closed"})).await;

    until_refused(world, &expiring).await;
    vec![
        ("garbage", "not-a-credential".to_owned()),
        ("a mistyped key", mistyped),
        ("a key that nobody made", unknown),
        ("a gateway key", gateway),
        ("an expired key", expiring),
        ("a revoked key", revoked),
        ("the old secret of a rotated key", rotated),
        ("a key of a deleted identity", orphaned),
        ("a key of an archived customer", closed),
    ]
}

async fn sessions(world: &World) -> Vec<(&'static str, String)> {
    let forge = Forge::new(world).await;
    let good = world.acme.token(Caller::ViewerSession);
    let mut operator = claims(good);
    operator["role"] = json!("operator");

    let identity = world.acme.name("$identity", Form::Id);
    let admin = world.acme.token(Caller::Admin).to_owned();
    let (revoked_id, revoked) = session(world, &identity, &admin).await;
    let revoke = json!({"session_id": revoked_id});
    world.client.ask("SessionsService/RevokeSession", &revoke, &admin).await;
    let (source_id, source) = key(world, json!({"role": "admin"})).await;
    let sourceless = session(world, &identity, &source).await.1;
    let end = json!({"customer_id": "acme", "api_key_id": source_id});
    world.as_operator("ApiKeysService/RevokeApiKey", end).await;
    let leaving = self::identity(world).await;
    let orphaned = session(world, &leaving, &admin).await.1;
    let gone = json!({"customer_id": "acme", "identity_id": leaving});
    world.as_operator("IdentitiesService/DeleteIdentity", gone).await;
    vec![
        ("an expired session", forge.expired(good)),
        ("a session with another role than was signed", with_claims(good, &operator)),
        ("a session with a role it was not given", forge.sign(&operator)),
        ("a session signed by a stranger", forge.stranger(&claims(good))),
        ("a session that nobody signed", forge.unsigned(&claims(good))),
        ("a revoked session", revoked),
        ("a session of a revoked key", sourceless),
        ("a session of a deleted identity", orphaned),
    ]
}

async fn workspace_tokens(world: &World) -> Vec<(&'static str, String)> {
    let forge = Forge::new(world).await;
    let good = world.acme.token(Caller::Sibling);
    let mut moved = claims(good);
    for claim in ["sub", "ws"] {
        moved[claim] = json!(world.acme.name("$workspace", Form::Id));
    }
    for slug in ["gone", "kept"] {
        let created = json!({"customer_id": "acme", "workspace_id": slug});
        world.as_operator("WorkspacesService/CreateWorkspace", created).await;
    }
    let archived = workspace_token(world, "gone").await;
    let archive = json!({"customer_id": "acme", "workspace_id": "gone"});
    world.as_operator("WorkspacesService/ArchiveWorkspace", archive).await;
    let revoked = workspace_token(world, "kept").await;
    revoke(world, &claims(&revoked)).await;
    vec![
        ("an expired workspace token", forge.expired(good)),
        ("a workspace token with another workspace than was signed", with_claims(good, &moved)),
        ("a workspace token with a workspace it was not given", forge.sign(&moved)),
        ("a workspace token signed by a stranger", forge.stranger(&claims(good))),
        ("a revoked workspace token", revoked),
        ("a token of an archived workspace", archived),
    ]
}

/// Revokes a token behind the server's back, as another replica would.
async fn revoke(world: &World, claims: &Value) {
    let mut tx = world.server.test_db.db.begin().await.unwrap();
    let (jti, end) = (text(&claims["jti"]), tx.now().await.unwrap().plus(Duration::from_hours(24)));
    agentrouter_identity::revoke_token(&mut tx, world.acme.customer, &jti, "test", "lost", end)
        .await
        .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
}

/// Row id and secret of a new key.
async fn key(world: &World, mut request: Value) -> (String, String) {
    request["customer_id"] = json!("acme");
    request["display_name"] = json!("key");
    let created = world.as_operator("ApiKeysService/CreateApiKey", request).await;
    (text(&created["api_key"]["id"]), text(&created["key"]))
}

async fn identity(world: &World) -> String {
    text(&world.as_operator("IdentitiesService/CreateIdentity", json!({"customer_id": "acme"})).await["id"])
}

/// Row id and token of a new session.
async fn session(world: &World, identity: &str, key: &str) -> (String, String) {
    let request = json!({"identity_id": identity, "role": "viewer"});
    let created = world.client.ask("SessionsService/CreateSession", &request, key).await;
    (text(&created["session"]["id"]), text(&created["token"]))
}

async fn workspace_token(world: &World, slug: &str) -> String {
    let request = json!({"customer_id": "acme", "workspace_id": slug});
    text(&world.as_operator("WorkspacesService/IssueWorkspaceToken", request).await["token"])
}

async fn until_refused(world: &World, token: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.client.call("SessionsService/WhoAmI", &json!({}), Some(token)).await.is_ok() {
        assert!(Instant::now() < deadline, "the key does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

row! {
    struct StoredKey {
        name: String,
        sealed: Vec<u8>,
    }
}

/// What only the server should be able to do: sign with its key.
struct Forge {
    header: Header,
    private: EncodingKey,
}

impl Forge {
    async fn new(world: &World) -> Self {
        const NEWEST: &str = "SELECT name, sealed FROM server_secrets WHERE name LIKE 'signing-key/%'";
        let test_db = &world.server.test_db;
        let stored: StoredKey = query(NEWEST).one(&test_db.db).await.unwrap();
        let aad = Aad::new("server-secret").with(&stored.name);
        let private = test_db.deps().keyring.open(&aad, &stored.sealed).unwrap();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = stored.name.strip_prefix("signing-key/").map(str::to_owned);
        let forge = Self { header, private: EncodingKey::from_ed_der(private.expose()) };
        // What is made here is refused for what it says, and not for how it was made.
        let good = world.acme.token(Caller::ViewerSession);
        world.client.ask("SessionsService/WhoAmI", &json!({}), &forge.sign(&claims(good))).await;
        forge
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&self.header, claims, &self.private).unwrap()
    }

    /// The same token, as it was after its time. Its row says that it still works.
    fn expired(&self, token: &str) -> String {
        let mut claims = claims(token);
        claims["exp"] = claims["iat"].clone();
        self.sign(&claims)
    }

    fn stranger(&self, claims: &Value) -> String {
        let stranger = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
        encode(&self.header, claims, &EncodingKey::from_ed_der(stranger.as_ref())).unwrap()
    }

    fn unsigned(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "none", "kid": self.header.kid});
        format!("{}.{}.", part(&header), part(claims))
    }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A token with other claims under the same signature.
fn with_claims(token: &str, claims: &Value) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    let changed = part(claims);
    parts[1] = &changed;
    parts.join(".")
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
