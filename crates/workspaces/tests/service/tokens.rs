//! IssueWorkspaceToken and RenewWorkspaceToken. Signing and verifying are the issuer's; what is tested here is who
//! gets a token for what.

use std::time::Duration;

use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{
    IssueWorkspaceTokenRequest, IssueWorkspaceTokenResponse, RenewWorkspaceTokenRequest,
    RenewWorkspaceTokenResponse, Workspace,
};
use agentrouter_delivery::revocation::{self, Revocation};
use agentrouter_envelope::Secret;
use agentrouter_kernel::id::{self, Customer, Id, Token};
use agentrouter_kernel::{Fault, Principal};
use agentrouter_rpc::convert::timestamp;
use agentrouter_rpc::{IssuedToken, WorkspaceTokens};
use agentrouter_storage::{Tx, query, row};
use agentrouter_testkit::{
    TestDb, call, on_both_engines, operator, refused, request, until_awaited, violations, workspace,
};
use tonic::{Code, Response, Status};

use crate::Tenant;

on_both_engines!(
    a_token_is_issued_for_the_workspace,
    a_repeat_with_the_same_key_issues_no_second_token,
    a_kept_answer_is_sealed,
    only_known_workspaces_get_tokens,
    a_worker_renews_its_own_token,
    nobody_renews_for_another_workspace,
    a_revoked_token_is_not_renewed,
);

const HOUR: Duration = Duration::from_hours(1);

/// Issues tokens whose text names what they are for, and notes them in the caller's transaction.
pub(crate) struct Issuer;

#[tonic::async_trait]
impl WorkspaceTokens for Issuer {
    async fn issue(
        &self,
        tx: &mut Tx,
        customer: Id<Customer>,
        workspace: Id<id::Workspace>,
    ) -> Result<IssuedToken, Fault> {
        const INSERT: &str = "INSERT INTO tokens (id, customer_id, token_use, workspace_id, role, created_at, expires_at) \
             VALUES ($1, $2, 'workspace', $3, '', $4, $5)";
        let now = tx.now().await?;
        let (jti, expires_at) = (Id::<Token>::new(now), now.plus(Duration::from_hours(24)));
        query(INSERT).bind(jti).bind(customer).bind(workspace).bind(now).bind(expires_at).execute(tx).await?;
        let token = Secret::new(format!("SECRET {customer} {workspace} {jti}"));
        Ok(IssuedToken { token, jti: jti.to_string(), expires_at })
    }
}

row! {
    #[derive(Debug, PartialEq)]
    struct Noted {
        id: Id<Token>,
        customer_id: Id<Customer>,
        workspace_id: Id<id::Workspace>,
        expires_at: agentrouter_kernel::Timestamp,
    }
}

impl Tenant<'_> {
    fn issue_request(&self, workspace_id: &str) -> IssueWorkspaceTokenRequest {
        IssueWorkspaceTokenRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
        }
    }

    pub(crate) async fn issue(
        &self,
        workspace_id: &str,
    ) -> Result<Response<IssueWorkspaceTokenResponse>, Status> {
        let message = self.issue_request(workspace_id);
        self.service.issue_workspace_token(request(call(&self.admin), message)).await
    }

    async fn renew(
        &self,
        caller: &Principal,
        workspace_id: &str,
    ) -> Result<Response<RenewWorkspaceTokenResponse>, Status> {
        let message = RenewWorkspaceTokenRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
        };
        self.service.renew_workspace_token(request(call(caller), message)).await
    }

    /// A worker with a token of this workspace.
    async fn worker(&self, of: &Workspace) -> Principal {
        let credential_id = self.issue(&of.id).await.unwrap().into_inner().jti;
        let worker = workspace(self.id, self.slug, Id::parse(&of.id).unwrap(), &of.workspace_id);
        Principal { credential_id, ..worker }
    }

    async fn noted(&self) -> Vec<Noted> {
        query("SELECT id, customer_id, workspace_id, expires_at FROM tokens ORDER BY id")
            .all(&self.db.db)
            .await
            .unwrap()
    }
}

async fn a_token_is_issued_for_the_workspace(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let issued = acme.issue("eu-1").await.unwrap().into_inner();
    let noted = acme.noted().await;
    assert_eq!(noted.len(), 1);
    assert_eq!((noted[0].customer_id, noted[0].workspace_id.to_string()), (acme.id, created.id.clone()));
    let expected = IssueWorkspaceTokenResponse {
        token: format!("SECRET {} {} {}", acme.id, created.id, noted[0].id),
        jti: noted[0].id.to_string(),
        expires_at: Some(timestamp(noted[0].expires_at)),
    };
    assert_eq!(issued, expected);
    assert_eq!(acme.audited().await, [created.id.clone(), created.id.clone()]);
    // The old token stays.
    let again = acme.issue(&created.id).await.unwrap().into_inner();
    assert_ne!(again.jti, issued.jti);
    assert_eq!(acme.noted().await.len(), 2);
}

async fn a_repeat_with_the_same_key_issues_no_second_token(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let keyed = || {
        let mut call = call(&acme.admin);
        call.idempotency_key = Some("once".to_owned());
        acme.service.issue_workspace_token(request(call, acme.issue_request("eu-1")))
    };
    let first = keyed().await.unwrap().into_inner();
    assert_eq!(keyed().await.unwrap().into_inner(), first);
    assert_eq!(acme.noted().await.len(), 1);
}

async fn a_kept_answer_is_sealed(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let mut call = call(&acme.admin);
    call.idempotency_key = Some("once".to_owned());
    let message = acme.issue_request("eu-1");
    let issued = acme.service.issue_workspace_token(request(call, message)).await.unwrap().into_inner();
    assert!(issued.token.starts_with("SECRET"));
    let kept: Vec<Vec<u8>> =
        query("SELECT response AS value FROM idempotency_records").values(&db.db).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(!kept[0].windows(6).any(|window| window == b"SECRET"));
    assert!(!format!("{:?}", acme.service).contains("SECRET"));
}

async fn only_known_workspaces_get_tokens(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let theirs = globex.created("eu-1").await;
    acme.created("us-1").await;
    let not_found = (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.issue("eu-1").await), not_found);
    assert_eq!(refused(acme.issue(&theirs.id).await), not_found);
    assert_eq!(violations(acme.issue("").await), ["workspace_id"]);
    let intruder = Tenant { slug: globex.slug, ..acme };
    assert_eq!(refused(intruder.issue("eu-1").await), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    assert_eq!(globex.noted().await, []);
}

async fn a_worker_renews_its_own_token(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let worker = acme.worker(&created).await;
    for name in ["eu-1", created.id.as_str()] {
        let renewed = acme.renew(&worker, name).await.unwrap().into_inner();
        let noted = acme.noted().await.pop().unwrap();
        assert_eq!(renewed.jti, noted.id.to_string());
        assert_eq!(renewed.token, format!("SECRET {} {} {}", acme.id, created.id, noted.id));
        assert_eq!(renewed.expires_at, Some(timestamp(noted.expires_at)));
    }
    assert_eq!(acme.noted().await.len(), 3);
    acme.archive("eu-1", "").await.unwrap();
    let gone = acme.renew(&worker, "eu-1").await;
    assert_eq!(refused(gone), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
}

async fn nobody_renews_for_another_workspace(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let own = acme.created("eu-1").await;
    let other = acme.created("eu-2").await;
    let theirs = globex.created("eu-1").await;
    let worker = acme.worker(&own).await;
    // Whether or not it exists, and whoever it belongs to.
    let mismatch = (Code::PermissionDenied, "WORKSPACE_MISMATCH".to_owned());
    for name in ["eu-2", &other.id, "eu-3", &theirs.id] {
        assert_eq!(refused(acme.renew(&worker, name).await), mismatch, "{name}");
    }
    let foreign = globex.renew(&worker, "eu-1").await;
    assert_eq!(refused(foreign), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    let claimless = acme.renew(&operator(acme.id, acme.slug), "eu-1").await;
    assert_eq!(refused(claimless), (Code::PermissionDenied, "WORKSPACE_CLAIM_REQUIRED".to_owned()));
    assert_eq!(violations(acme.renew(&worker, "").await), ["workspace_id"]);
    assert_eq!(acme.noted().await.len(), 1);
}

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
}

async fn revoke(tx: &mut Tx, worker: &Principal) {
    let (jti, expires_at) = (worker.credential_id.as_str(), Some(tx.now().await.unwrap().plus(HOUR)));
    let revocation = Revocation { jti, revoked_by: "key_1", reason: "lost", expires_at };
    revocation::revoke(tx, worker.customer, revocation).await.unwrap();
}

// Another replica may keep its answer about the token for a moment more.
async fn a_revoked_token_is_not_renewed(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let (revoked, other) = (acme.worker(&created).await, acme.worker(&created).await);
    let mut tx = db.db.begin().await.unwrap();
    revoke(&mut tx, &revoked).await;
    tx.commit_unaudited("test data").await.unwrap();
    assert_eq!(refused(acme.renew(&revoked, "eu-1").await), unauthenticated());
    acme.renew(&other, "eu-1").await.unwrap();
    db.db.advance_clock(HOUR * 24);
    assert_eq!(refused(acme.renew(&other, "eu-1").await), unauthenticated(), "it expired");
}

/// On SQLite there is one transaction at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_renewed_while_its_revocation_is_being_committed() {
    let db = agentrouter_testkit::postgres().await;
    let acme = Tenant::new(&db, "acme").await;
    let worker = acme.worker(&acme.created("eu-1").await).await;
    let mut tx = db.db.begin().await.unwrap();
    revoke(&mut tx, &worker).await;
    let commit = async {
        until_awaited(&mut tx, 1).await;
        tx.commit_unaudited("test data").await.unwrap();
    };
    let (renewed, ()) = tokio::join!(acme.renew(&worker, "eu-1"), commit);
    assert_eq!(refused(renewed), unauthenticated());
}
