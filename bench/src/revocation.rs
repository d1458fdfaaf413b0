//! Measure 14: credentials are checked and revoked beside a million live ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::identity::WhoAmIRequest;
use agentrouter_api::identity::sessions_service_client::SessionsServiceClient;
use agentrouter_identity::{Authenticator, SigningKeys};
use agentrouter_rpc::Authenticate;
use agentrouter_storage::{Db, Engine, Sql, query};
use anyhow::{Context, Result, anyhow, ensure};
use prost::Message;
use tonic::Code;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::{Fleet, UNAUDITED};
use crate::postgres::Meter;
use crate::server;
use crate::stats::{Millis, digits, figure};
use crate::worker::Client;

/// Tokens that one statement makes.
const CHUNK: i64 = 50_000;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let (live, checks, revokes) = bench.size((1_000_000, 500, 30), (2_000, 30, 4));
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "revocation", checks).await?;
    fill(site.db(), &fleet, live).await?;
    let tokens = fleet.tokens(site.db()).await?;
    check(bench, &site, &tokens, live).await?;

    let key = fleet.admin_key(&site.api).await?;
    let mut admin =
        Client::new(server::api(site.running.address, &key).await?).max_decoding_message_size(64 << 20);
    let before = list(&mut admin, &fleet).await?;
    revoke_elsewhere(bench, &site, &mut admin, tokens.get(..revokes).context("tokens")?).await?;
    let after = list(&mut admin, &fleet).await?;
    let bytes = figure(after.0.saturating_sub(before.0)) / figure(after.1.saturating_sub(before.1).max(1));
    bench.line(
        "revocation",
        format_args!(
            "a data plane holds {} revocations in {} bytes, {} each, and fetches all of them for one more",
            after.1,
            after.0,
            digits(bytes)
        ),
    );
    bench.judge(&bars::REVOKED_BYTES, figure(after.0));
    drop(admin);
    site.close(bench).await
}

/// Live tokens, and the revocations of a hundredth as many tokens of gateways.
async fn fill(db: &Db, fleet: &Fleet, live: i64) -> Result<()> {
    const TOKENS: Sql = Sql::Each {
        sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
             INSERT INTO tokens (id, customer_id, token_use, role, created_at, expires_at) \
             SELECT randomblob(16), $1, 'session', '', :now, :now + 86400000000 FROM n",
        postgres: "INSERT INTO tokens (id, customer_id, token_use, role, created_at, expires_at) \
             SELECT gen_random_uuid(), $1, 'session', '', :now, :now + 86400000000 FROM generate_series(1, $2)",
    };
    const REVOKED: Sql = Sql::Each {
        sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
             INSERT INTO revoked_tokens (customer_id, jti, revoked_by, reason, revoked_at, expires_at) \
             SELECT $1, lower(hex(randomblob(16))), '', '', :now, :now + 86400000000 FROM n",
        postgres: "INSERT INTO revoked_tokens (customer_id, jti, revoked_by, reason, revoked_at, expires_at) \
             SELECT $1, replace(CAST(gen_random_uuid() AS TEXT), '-', ''), '', '', :now, :now + 86400000000 \
             FROM generate_series(1, $2)",
    };
    let mut left = live;
    while left > 0 {
        let mut tx = db.begin().await?;
        query(TOKENS).bind(fleet.customer).bind(left.min(CHUNK)).execute(&mut tx).await?;
        tx.commit_unaudited(UNAUDITED).await?;
        left -= CHUNK;
    }
    let mut tx = db.begin().await?;
    query(REVOKED).bind(fleet.customer).bind(live / 100).execute(&mut tx).await?;
    Ok(tx.commit_unaudited(UNAUDITED).await?)
}

/// Checks tokens as the server does for each call: once as new ones, then one of them again and again.
async fn check(bench: &Bench<'_>, site: &Site, tokens: &[String], live: i64) -> Result<()> {
    let keys = SigningKeys::load_or_create(site.db(), &Arc::new(server::keyring()?))
        .await
        .map_err(|fault| anyhow!(fault))?;
    let (authenticator, _usage) = Authenticator::new(site.db().clone(), Arc::new(keys));
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for token in tokens {
        let started = Instant::now();
        authenticator.authenticate(token).await.map_err(|fault| anyhow!(fault))?;
        cold.push(started.elapsed());
    }
    let token = tokens.last().context("a token")?;
    for _ in 0..20_000 {
        let started = Instant::now();
        authenticator.authenticate(token).await.map_err(|fault| anyhow!(fault))?;
        warm.push(started.elapsed());
    }
    let (cold, warm) = (Millis::new(cold), Millis::new(warm));
    bench.line(
        "revocation",
        format_args!(
            "beside {live} live tokens and {} revoked ones, a check of a token seen in the last half \
                 second: {warm}; of another one, with its look-up: {cold}",
            live / 100
        ),
    );
    bench.judge(&bars::REVOKED_CHECK, warm.p99() * 1e3);
    Ok(())
}

/// Revokes tokens that another replica has just seen, and asks that one until it refuses.
async fn revoke_elsewhere(
    bench: &Bench<'_>,
    site: &Site,
    admin: &mut Client,
    tokens: &[String],
) -> Result<()> {
    // SQLite has one replica only.
    let other =
        if bench.engine == Engine::Postgres { Some(Site::open(site.target.clone()).await?) } else { None };
    let address = other.as_ref().map_or(site.running.address, |other| other.running.address);
    let (mut calls, mut gone) = (Vec::new(), Vec::new());
    let meter = Meter::start(site.db()).await?;
    for token in tokens {
        let mut worker = SessionsServiceClient::new(server::api(address, token).await?);
        let jti = worker.who_am_i(WhoAmIRequest {}).await?.into_inner().credential_id;
        let started = Instant::now();
        admin
            .revoke_user_token(pb::RevokeUserTokenRequest { jti, ..Default::default() })
            .await
            .context("RevokeUserToken")?;
        let revoked = Instant::now();
        calls.push(revoked - started);
        loop {
            match worker.who_am_i(WhoAmIRequest {}).await {
                Err(status) if status.code() == Code::Unauthenticated => break,
                Err(status) => return Err(status.into()),
                Ok(_) => ensure!(revoked.elapsed() < Duration::from_secs(10), "a revoked token still works"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gone.push(revoked.elapsed());
    }
    let cost = meter.stop(site.db()).await?;
    let gone = Millis::new(gone);
    let which = if other.is_some() { "another replica" } else { "the same process" };
    bench.line(
        "revocation",
        format_args!("RevokeUserToken: {}; refused by {which} after its answer: {gone}", Millis::new(calls)),
    );
    if let Some(cost) = cost {
        bench.line("revocation", format_args!("a revocation: {}", cost.per_event(tokens.len())));
    }
    bench.judge(&bars::REVOKED_EVERYWHERE, gone.max());
    if let Some(other) = other {
        drop(other.api);
        other.running.stop().await?;
    }
    Ok(())
}

/// Size and length of the list that data planes get.
async fn list(admin: &mut Client, fleet: &Fleet) -> Result<(usize, usize)> {
    let slot = |user_id: &str| pb::ConfigurationQuery {
        user_id: user_id.to_owned(),
        config_type: ConfigType::RevokedTokens.into(),
        ..Default::default()
    };
    let trigger = pb::TriggerUpdateRequest {
        user_id: "system".to_owned(),
        config_type: ConfigType::RevokedTokens.into(),
        ..Default::default()
    };
    admin.trigger_update(trigger).await.with_context(|| format!("the list of {}", fleet.slug))?;
    let request = pb::GetConfigurationRequest { queries: vec![slot("system")] };
    let answer = admin.get_configuration(request).await?.into_inner();
    let configuration = answer.configurations.first().context("a list")?;
    let Some(pb::configuration::Payload::RevokedTokens(list)) = &configuration.payload else {
        return Err(anyhow!("another payload"));
    };
    Ok((configuration.encoded_len(), list.tokens.len()))
}
