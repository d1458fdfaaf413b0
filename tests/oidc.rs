//! Signing in with the token of an OIDC issuer: who may, as whom, and which tokens count.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the unexpected must stop")]

mod common;

mod oidc {
    pub(crate) mod issuer;
}

use std::time::Duration;

use agentrouter_kernel::{Clock, SystemClock};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::TestServer;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use oidc::issuer::Issuer;
use reqwest::Method;
use serde_json::{Value, json};

on_both_engines!(
    a_mapped_user_signs_in,
    a_user_without_a_role_reaches_projects_only,
    a_session_ends_with_its_mapping,
    other_tokens_are_refused,
    keys_are_read_anew_and_only_where_they_should_be,
    users_are_mapped_by_those_who_may,
);

/// A server that trusts an issuer for `acme`, and has `acme` and `globex`.
struct World {
    server: TestServer,
    issuer: Issuer,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let issuer = Issuer::start().await;
        let trusted = vec![
            issuer.trusted("", &["acme"]),
            issuer.trusted("/direct", &["acme", "globex"]),
            issuer.trusted("/redirecting", &["acme"]),
            issuer.trusted("/large", &["acme"]),
        ];
        let server = TestServer::start_with(db, |config| config.oidc_issuers = trusted).await;
        for customer in ["acme", "globex"] {
            server.ok(Method::POST, "/v1/customers", Some(json!({"customer_id": customer}))).await;
        }
        Self { server, issuer }
    }

    fn subject(&self, path: &str, subject: &str, role: &str) -> Value {
        json!({"issuer": format!("{}{path}", self.issuer.url), "subject": subject, "role": role})
    }

    /// An identity of `acme` with these users.
    async fn identity(&self, subjects: &[Value]) -> Value {
        let body = json!({"display_name": "Ada", "external_subjects": subjects});
        self.server.ok(Method::POST, "/v1/customers/acme/identities", Some(body)).await
    }

    async fn set_subjects(&self, identity: &Value, subjects: Value) -> Value {
        let path = format!("/v1/customers/acme/identities/{}", identity["id"].as_str().unwrap());
        self.server.ok(Method::PATCH, &path, Some(json!({"external_subjects": subjects}))).await
    }

    /// Exchanges a token; the status, and the answer.
    async fn exchange(&self, token: &str, more: Value) -> (u16, Value) {
        let mut body = json!({"oidc_token": token});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = self.server.http.post(format!("{}/v1/sessions", self.server.base_url)).json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// A session's token.
    async fn session(&self, token: &str) -> String {
        let (status, answer) = self.exchange(token, json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// The reason why a token is refused.
    async fn refused(&self, token: &str) -> (u16, String) {
        let (status, answer) = self.exchange(token, json!({})).await;
        (status, reason(&answer))
    }

    async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        let response = self.server.rest_as(&format!("Bearer {token}"), Method::GET, path, None).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Claims as the issuer beside the real one would make them.
    fn claims(&self, path: &str, subject: &str) -> Value {
        let now = SystemClock.now().as_micros() / 1_000_000;
        json!({
            "iss": format!("{}{path}", self.issuer.url), "sub": subject, "aud": "agentrouter",
            "iat": now, "exp": now + 3600,
        })
    }
}

fn reason(answer: &Value) -> String {
    let details = answer["details"].as_array().into_iter().flatten();
    details.filter_map(|detail| detail["reason"].as_str()).collect()
}

fn invalid() -> (u16, String) {
    (401, "OIDC_TOKEN_INVALID".to_owned())
}

async fn a_mapped_user_signs_in(db: TestDb) {
    let mut world = World::new(db).await;
    let ada = world.identity(&[world.subject("", "ada", "admin")]).await;
    assert_eq!(ada["external_subjects"], json!([world.subject("", "ada", "admin")]));
    let token = world.issuer.sign_in("ada", "agentrouter").await;
    let session = world.session(&token).await;
    let (_, who) = world.get(&session, "/v1/whoami").await;
    assert_eq!(
        (who["credential"].as_str(), who["role"].as_str(), who["customer_id"].as_str(), &who["identity_id"]),
        (Some("session"), Some("admin"), Some("acme"), &ada["id"])
    );
    // Never above what the admin gave, and less where less is asked for.
    for (more, expected) in [
        (json!({"role": "operator"}), (403, "ROLE_ABOVE_CALLER")),
        (json!({"role": "viewer"}), (200, "viewer")),
        (json!({"role": "member"}), (200, "")),
        (json!({"identity_id": ada["id"]}), (200, "admin")),
        (json!({"ttl": "10s"}), (400, "INVALID_FIELDS")),
    ] {
        let (status, answer) = world.exchange(&token, more.clone()).await;
        let told = if status == 200 {
            answer["session"]["role"].as_str().unwrap().to_owned()
        } else {
            reason(&answer)
        };
        assert_eq!((status, told.as_str()), expected, "{more}: {answer}");
    }
    let other = world.identity(&[]).await;
    let (status, answer) = world.exchange(&token, json!({"identity_id": other["id"]})).await;
    assert_eq!((status, reason(&answer).as_str()), (403, "ROLE_REQUIRED"));
    // A token beside another credential, which of the two counts?
    let response = world.server.rest(Method::POST, "/v1/sessions", Some(json!({"oidc_token": token}))).await;
    assert_eq!(response.status(), 400);
    // The session makes no other one, and the audit log tells who came.
    let bearer = format!("Bearer {session}");
    let again = world.server.rest_as(&bearer, Method::POST, "/v1/sessions", Some(json!({}))).await;
    assert_eq!(again.status(), 403);
    let audit =
        world.server.ok(Method::GET, "/v1/customers/acme/audit-entries?page.page_size=100", None).await;
    let entries = audit["audit_entries"].as_array().unwrap();
    let signed_in = entries
        .iter()
        .find(|entry| entry["actor_kind"] == "oidc_token" && entry["outcome"] == "AUDIT_OUTCOME_SUCCEEDED");
    assert_eq!(signed_in.unwrap()["identity_id"], ada["id"], "{audit}");
    assert!(!audit.to_string().contains(&token));
    world.server.stop().await;
}

async fn a_user_without_a_role_reaches_projects_only(db: TestDb) {
    let mut world = World::new(db).await;
    let ada = world.identity(&[world.subject("", "ada", "")]).await;
    let member = json!({"identity_id": ada["id"], "role": "member"});
    let path = "/v1/customers/acme/projects/default/members";
    world.server.ok(Method::POST, path, Some(member)).await;
    world.server.ok(Method::POST, "/v1/customers/acme/projects", Some(json!({"project_id": "other"}))).await;
    let token = world.issuer.sign_in("ada", "agentrouter").await;
    let session = world.session(&token).await;
    for (path, status) in [
        ("/v1/customers/acme/projects/default", 200),
        ("/v1/customers/acme/projects/other", 404),
        ("/v1/customers/acme/identities", 403),
        ("/v1/customers/acme/projects", 403),
    ] {
        assert_eq!(world.get(&session, path).await.0, status, "{path}");
    }
    world.server.stop().await;
}

async fn a_session_ends_with_its_mapping(db: TestDb) {
    let mut world = World::new(db).await;
    let ada = world.identity(&[world.subject("", "ada", "admin")]).await;
    let token = world.issuer.sign_in("ada", "agentrouter").await;
    let session = world.session(&token).await;
    // Another user beside it changes nothing.
    let both = json!([world.subject("", "ada", "admin"), world.subject("", "eve", "")]);
    world.set_subjects(&ada, both).await;
    assert_eq!(world.get(&session, "/v1/whoami").await.0, 200);
    // A smaller role does.
    world.set_subjects(&ada, json!([world.subject("", "ada", "viewer")])).await;
    assert_eq!(world.get(&session, "/v1/whoami").await.0, 401);
    let session = world.session(&token).await;
    assert_eq!(world.get(&session, "/v1/whoami").await.1["role"], "viewer");
    assert_eq!(world.set_subjects(&ada, json!([])).await["external_subjects"], json!([]));
    assert_eq!(world.get(&session, "/v1/whoami").await.0, 401);
    assert_eq!(world.refused(&token).await, (401, "OIDC_SUBJECT_UNKNOWN".to_owned()));
    // An identity that goes takes its users with it.
    world.set_subjects(&ada, json!([world.subject("", "ada", "viewer")])).await;
    let session = world.session(&token).await;
    let path = format!("/v1/customers/acme/identities/{}", ada["id"].as_str().unwrap());
    world.server.ok(Method::DELETE, &path, None).await;
    assert_eq!(world.get(&session, "/v1/whoami").await.0, 401);
    assert_eq!(world.refused(&token).await, (401, "OIDC_SUBJECT_UNKNOWN".to_owned()));
    // And a customer that is archived lets nobody in.
    world.identity(&[world.subject("", "ada", "viewer")]).await;
    world.session(&token).await;
    world.server.ok(Method::DELETE, "/v1/customers/acme", None).await;
    assert_eq!(world.refused(&token).await, (401, "OIDC_SUBJECT_UNKNOWN".to_owned()));
    world.server.stop().await;
}

async fn other_tokens_are_refused(db: TestDb) {
    let mut world = World::new(db).await;
    let subjects = ["", "/direct"].map(|path| world.subject(path, "ada", "admin"));
    world.identity(&subjects).await;
    let good = world.issuer.sign_in("ada", "agentrouter").await;
    world.session(&good).await;
    let stranger = world.issuer.sign_in("eve", "agentrouter").await;
    assert_eq!(world.refused(&stranger).await, (401, "OIDC_SUBJECT_UNKNOWN".to_owned()));
    let wrong_audience = world.issuer.sign_in("ada", "other").await;
    assert_eq!(world.refused(&wrong_audience).await, invalid());

    // What the issuer signs for other ends, or says of other times and people.
    let direct = world.claims("/direct", "ada");
    let with = |changes: Value| {
        let mut claims = direct.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let now = direct["iat"].as_i64().unwrap();
    let fine = world.issuer.sign(&direct, &json!({"typ": "JWT"})).await;
    world.session(&fine).await;
    for (claims, header) in [
        (with(json!({"exp": now - 61})), json!({})),
        (with(json!({"iat": now + 120})), json!({})),
        (with(json!({"nbf": now + 120})), json!({})),
        (with(json!({"exp": null})), json!({})),
        (with(json!({"iat": null})), json!({})),
        (with(json!({"sub": ""})), json!({})),
        (with(json!({"sub": null})), json!({})),
        (with(json!({"aud": []})), json!({})),
        (with(json!({"aud": ["agentrouter", "other"]})), json!({})),
        (with(json!({"azp": "other"})), json!({})),
        (with(json!({"iss": "https://elsewhere.example"})), json!({})),
        (with(json!({"iss": format!("{}/direct/", world.issuer.url)})), json!({})),
        (with(json!({"events": {}})), json!({})),
        (direct.clone(), json!({"typ": "logout+jwt"})),
        (direct.clone(), json!({"typ": "at+jwt"})),
        (direct.clone(), json!({"kid": "nobody"})),
    ] {
        let token = world.issuer.sign(&claims, &header).await;
        assert_eq!(world.refused(&token).await, invalid(), "{claims} {header}");
    }

    // What anybody can make of a good one.
    let mut parts = good.split('.');
    let (head, body, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    let mut promoted = claims.clone();
    promoted["sub"] = json!("root");
    let key = world.issuer.key().await;
    let mut forged = vec![
        format!("{head}.{}.{signature}", encoded(&promoted)),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{head}.{body}.{}", signature.chars().rev().collect::<String>()),
        String::from("x"),
        "a".repeat(20_000),
    ];
    for algorithm in ["none", "None", "NONE", ""] {
        forged.push(format!("{}.{body}.", encoded(&json!({"alg": algorithm, "kid": key["kid"]}))));
        forged.push(format!("{}.{body}.{signature}", encoded(&json!({"alg": algorithm, "kid": key["kid"]}))));
    }
    // The public key as the secret of a symmetric algorithm, in the forms that libraries mistook for one; and the
    // symmetric key that the issuer publishes by mistake.
    let n = key["n"].as_str().unwrap();
    for (kid, secret) in [
        (&key["kid"], n.as_bytes().to_vec()),
        (&key["kid"], URL_SAFE_NO_PAD.decode(n).unwrap()),
        (&key["kid"], key.to_string().into_bytes()),
        (&json!("symmetric"), b"secret".to_vec()),
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(algorithm);
            header.kid = kid.as_str().map(str::to_owned);
            forged.push(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap());
        }
    }
    for token in &forged {
        assert_eq!(world.refused(token).await, invalid(), "{token:.100}");
    }
    // Our own tokens are nobody's OIDC tokens.
    let own = world.session(&good).await;
    assert_eq!(world.refused(&own).await, invalid());

    // Expired, by the clock of the store.
    world.server.running.db.advance_clock(Duration::from_secs(3600 + 61));
    assert_eq!(world.refused(&good).await, invalid());
    world.server.stop().await;
}

async fn keys_are_read_anew_and_only_where_they_should_be(db: TestDb) {
    let mut world = World::new(db).await;
    let paths = ["", "/direct", "/redirecting", "/large"];
    let subjects: Vec<Value> = paths.iter().map(|path| world.subject(path, "ada", "")).collect();
    world.identity(&subjects).await;
    let before = world.issuer.sign_in("ada", "agentrouter").await;
    world.session(&before).await;
    // Another key signs: it is asked for, and the old one counts no more.
    world.issuer.rotate().await;
    let after = world.issuer.sign_in("ada", "agentrouter").await;
    world.session(&after).await;
    assert_eq!(world.refused(&before).await, invalid());

    let claims = world.claims("/direct", "ada");
    let direct = world.issuer.sign(&claims, &json!({})).await;
    world.session(&direct).await;
    // Without a name, the one key that fits; the symmetric one beside it never does.
    let unnamed = world.issuer.sign(&claims, &json!({"kid": null})).await;
    world.session(&unnamed).await;
    for path in ["/redirecting", "/large"] {
        let token = world.issuer.sign(&world.claims(path, "ada"), &json!({})).await;
        assert_eq!(world.refused(&token).await, (503, "OIDC_ISSUER_UNAVAILABLE".to_owned()), "{path}");
    }
    world.server.stop().await;
}

async fn users_are_mapped_by_those_who_may(db: TestDb) {
    let world = World::new(db).await;
    let key = async |customer: &str, role: &str| {
        let path = format!("/v1/customers/{customer}/api-keys");
        let made =
            world.server.ok(Method::POST, &path, Some(json!({"display_name": "k", "role": role}))).await;
        format!("Bearer {}", made["key"].as_str().unwrap())
    };
    let (admin, viewer, rival) =
        (key("acme", "admin").await, key("acme", "viewer").await, key("globex", "admin").await);
    let create = async |caller: &str, customer: &str, subjects: Value| {
        let path = format!("/v1/customers/{customer}/identities");
        let body = json!({"display_name": "x", "external_subjects": subjects});
        let response = world.server.rest_as(caller, Method::POST, &path, Some(body)).await;
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let refused = async |caller: &str, customer: &str, subjects: Value| {
        let (status, answer) = create(caller, customer, subjects).await;
        (status, reason(&answer))
    };
    let is = |status: u16, reason: &str| (status, reason.to_owned());
    let ada = |path: &str, role: &str| json!([world.subject(path, "ada", role)]);

    assert_eq!(refused(&viewer, "acme", ada("", "")).await, is(403, "ROLE_REQUIRED"));
    assert_eq!(refused(&admin, "acme", ada("", "operator")).await, is(403, "ROLE_ABOVE_CALLER"));
    // The issuer is trusted for the users of acme: an admin of another customer must not catch them.
    assert_eq!(refused(&rival, "globex", ada("", "")).await, is(400, "OIDC_ISSUER_NOT_TRUSTED"));
    assert_eq!(refused(&rival, "acme", ada("", "")).await, is(404, "CUSTOMER_NOT_FOUND"));
    let unknown = json!([{"issuer": "https://elsewhere.example", "subject": "ada"}]);
    assert_eq!(refused(&admin, "acme", unknown).await, is(400, "OIDC_ISSUER_NOT_TRUSTED"));
    let (status, created) = create(&admin, "acme", ada("", "admin")).await;
    assert_eq!(status, 200, "{created}");
    // One user leads to one identity, of the customer and of the whole installation.
    let taken = "EXTERNAL_SUBJECT_ALREADY_EXISTS";
    assert_eq!(refused(&admin, "acme", ada("", "admin")).await, is(409, taken));
    assert_eq!(create(&rival, "globex", ada("/direct", "admin")).await.0, 200);
    assert_eq!(refused(&admin, "acme", ada("/direct", "admin")).await, is(409, taken));
    // Nothing of a refused identity stays.
    let listed = world.server.ok(Method::GET, "/v1/customers/acme/identities", None).await;
    assert_eq!(listed["identities"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["identities"][0]["external_subjects"], ada("", "admin"));

    // An admin takes no operator's mapping away, by any way.
    let operator = world.identity(&[world.subject("", "root", "operator")]).await;
    let path = format!("/v1/customers/acme/identities/{}", operator["id"].as_str().unwrap());
    for body in
        [json!({"external_subjects": []}), json!({"external_subjects": [world.subject("", "root", "admin")]})]
    {
        let response = world.server.rest_as(&admin, Method::PATCH, &path, Some(body)).await;
        assert_eq!(reason(&response.json().await.unwrap()), "ROLE_ABOVE_CALLER");
    }
    let response = world.server.rest_as(&admin, Method::DELETE, &path, None).await;
    assert_eq!(reason(&response.json().await.unwrap()), "ROLE_ABOVE_CALLER");

    // All that is wrong at once.
    let wrong = json!([
        {"issuer": "", "subject": "a b", "role": "root"},
        {"issuer": "https://a.example", "subject": "x".repeat(256)},
        {"issuer": "https://a.example", "subject": "twice"},
        {"issuer": "https://a.example", "subject": "twice"},
    ]);
    let (_, answer) = create(&admin, "acme", wrong).await;
    let violations =
        answer["details"].as_array().unwrap().iter().find_map(|d| d["field_violations"].as_array());
    let fields: Vec<_> = violations.unwrap().iter().map(|v| v["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "external_subjects[0].issuer",
            "external_subjects[0].subject",
            "external_subjects[0].role",
            "external_subjects[1].subject",
            "external_subjects[3]",
        ]
    );
    let stored = query("SELECT COUNT(*) AS value FROM external_subjects");
    assert_eq!(stored.value::<i64>(&world.server.test_db.db).await.unwrap(), Some(3));
    world.server.stop().await;
}
