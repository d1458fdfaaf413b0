//! The secrets of the installation.

use agentrouter_envelope::{Kek, Keyring};
use agentrouter_identity::keks::{KeyringError, has_kek_check, verify_keyring};
use agentrouter_identity::secrets::page_key;
use agentrouter_kernel::page::{CursorValue, PageScope};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};

use crate::start_together;

on_both_engines!(
    page_tokens_are_good_on_every_replica,
    replicas_that_start_together_share_one_page_key,
    the_first_keyring_is_the_right_one,
    a_keyring_that_does_not_fit_is_named,
    a_secret_that_was_moved_does_not_open,
);

fn ring(keys: &[(&str, u8)]) -> Keyring {
    Keyring::new(keys.iter().map(|(id, byte)| Kek::new(id, &[*byte; 32]).unwrap()).collect()).unwrap()
}

const SCOPE: PageScope<'static> =
    PageScope { method: "List", parent: "cust_1", filter: "", order_by: "", caller: "key_1" };

async fn page_tokens_are_good_on_every_replica(test: TestDb) {
    let keyring = ring(&[("a", 1)]);
    let cursor = vec![CursorValue::Integer(7)];
    let token = page_key(&test.db, &keyring).await.unwrap().seal(SCOPE, &cursor).unwrap();
    let replica = page_key(&test.reopen().await, &keyring).await.unwrap();
    assert_eq!(replica.open(SCOPE, &token).unwrap(), Some(cursor));
    // What is stored is not the key.
    let stored: Vec<u8> = query("SELECT sealed AS value FROM server_secrets WHERE name = 'page-key'")
        .value(&test.db)
        .await
        .unwrap()
        .unwrap();
    assert!(stored.len() > 32 + 32);
}

async fn replicas_that_start_together_share_one_page_key(test: TestDb) {
    let tokens = start_together(&test, |db| async move {
        let keyring = ring(&[("a", 1)]);
        verify_keyring(&db, &keyring).await.unwrap();
        page_key(&db, &keyring).await.unwrap().seal(SCOPE, &vec![CursorValue::Integer(7)]).unwrap()
    })
    .await;
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    let names: Vec<String> =
        query("SELECT name AS value FROM server_secrets ORDER BY name").values(&test.db).await.unwrap();
    assert_eq!(names, ["kek-check", "page-key"]);
}

async fn the_first_keyring_is_the_right_one(test: TestDb) {
    assert!(!has_kek_check(&test.db).await.unwrap());
    verify_keyring(&test.db, &ring(&[("a", 1)])).await.unwrap();
    assert!(has_kek_check(&test.db).await.unwrap());
    verify_keyring(&test.db, &ring(&[("a", 1)])).await.unwrap();
    // A new key in front: the old one still opens what it sealed.
    verify_keyring(&test.db, &ring(&[("b", 2), ("a", 1)])).await.unwrap();
}

async fn a_keyring_that_does_not_fit_is_named(test: TestDb) {
    verify_keyring(&test.db, &ring(&[("first", 1)])).await.unwrap();
    let error = verify_keyring(&test.db, &ring(&[("second", 1)])).await.unwrap_err();
    assert!(matches!(&error, KeyringError::MissingKey(id) if id == "first"), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the database needs the key-encryption key \"first\", which is not configured"
    );
    let error = verify_keyring(&test.db, &ring(&[("first", 2), ("second", 1)])).await.unwrap_err();
    assert!(matches!(&error, KeyringError::WrongKey(id) if id == "first"), "{error:?}");

    let mut tx = test.db.begin().await.unwrap();
    query("UPDATE server_secrets SET sealed = $1").bind(vec![0_u8; 9]).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let error = verify_keyring(&test.db, &ring(&[("first", 1)])).await.unwrap_err();
    assert!(matches!(error, KeyringError::Envelope(_)), "{error:?}");
    test.db.close().await;
    let error = verify_keyring(&test.db, &ring(&[("first", 1)])).await.unwrap_err();
    assert!(matches!(error, KeyringError::Storage(_)), "{error:?}");
}

async fn a_secret_that_was_moved_does_not_open(test: TestDb) {
    let keyring = ring(&[("a", 1)]);
    verify_keyring(&test.db, &keyring).await.unwrap();
    page_key(&test.db, &keyring).await.unwrap();
    let mut tx = test.db.begin().await.unwrap();
    query("UPDATE server_secrets SET sealed = (SELECT sealed FROM server_secrets WHERE name = 'kek-check')")
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    verify_keyring(&test.db, &keyring).await.unwrap();
    assert_eq!(page_key(&test.db, &keyring).await.unwrap_err().reason(), "INTERNAL");
}
