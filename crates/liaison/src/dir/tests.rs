//! A folder under ordinary and hostile circumstances.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    ConfigType, Configuration, Credential, ObservedSlot, ProviderConfig, ProvidersPayload, ProxyUrlPayload,
};
use tempfile::TempDir;

use super::*;

fn folder() -> (TempDir, DirTarget) {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let target = DirTarget::open(parent.path().join("slots")).expect("a folder");
    (parent, target)
}

fn configuration(user_id: &str, version: i64) -> Configuration {
    Configuration {
        id: format!("cfg_{user_id}"),
        customer_id: "acme".to_owned(),
        user_id: user_id.to_owned(),
        config_type: ConfigType::ProxyUrl.into(),
        key_id: "k".to_owned(),
        version,
        checksum: format!("sum-{version}"),
        payload: Some(Payload::ProxyUrl(ProxyUrlPayload { url: format!("https://{version}.example") })),
        ..Default::default()
    }
}

fn tombstone(user_id: &str, version: i64) -> Configuration {
    Configuration { deleted: true, payload: None, ..configuration(user_id, version) }
}

fn path_of(target: &DirTarget, configuration: &Configuration) -> PathBuf {
    target.file(&Slot::from(configuration)).expect("a path")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder lists");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn versions(target: &DirTarget) -> Vec<(String, i64)> {
    let observed = target.observed().expect("the folder lists");
    observed.into_iter().map(|slot| (slot.user_id, slot.version)).collect()
}

async fn apply(target: &DirTarget, configuration: &Configuration) -> i64 {
    target.apply(configuration).await.expect("it applies").version
}

#[tokio::test]
async fn writes_standard_json_that_only_the_owner_reads() {
    let (_parent, target) = folder();
    let credential =
        Credential { id: "cred_1".to_owned(), version: 9_007_199_254_740_993, value: "s3cret".to_owned() };
    let provider = ProviderConfig {
        provider_id: "openai".to_owned(),
        base_url: "https://api.example/v1".to_owned(),
        models: vec!["m1".to_owned()],
        credential: Some(credential),
        ..Default::default()
    };
    let configuration = Configuration {
        id: "cfg_1".to_owned(),
        user_id: "system".to_owned(),
        config_type: ConfigType::Providers.into(),
        version: 7,
        checksum: "abc".to_owned(),
        updated_at: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
        payload: Some(Payload::Providers(ProvidersPayload { providers: vec![provider] })),
        ..Default::default()
    };
    let applied = target.apply(&configuration).await.expect("it applies");
    assert_eq!(applied, Applied { version: 7, checksum: "abc".to_owned(), resources: Vec::new() });

    let path = target.path().join("providers.system.json");
    assert_eq!(path_of(&target, &configuration), path);
    let text = fs::read_to_string(&path).expect("the file reads");
    let expected = r#"{
  "id": "cfg_1",
  "userId": "system",
  "configType": "CONFIG_TYPE_PROVIDERS",
  "version": "7",
  "checksum": "abc",
  "updatedAt": "1970-01-01T00:00:01.500Z",
  "providers": {
    "providers": [
      {
        "providerId": "openai",
        "baseUrl": "https://api.example/v1",
        "models": [
          "m1"
        ],
        "credential": {
          "id": "cred_1",
          "version": "9007199254740993",
          "value": "s3cret"
        }
      }
    ]
  }
}
"#;
    assert_eq!(text, expected);
    assert_eq!(file::read(&path).expect("it reads").map(|held| held.configuration), Some(configuration));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(target.path())), (0o600, 0o700));
    }
}

#[tokio::test]
async fn versions_only_grow() {
    let (_parent, target) = folder();
    assert_eq!(apply(&target, &configuration("u", 2)).await, 2);
    let path = path_of(&target, &configuration("u", 2));
    let before = fs::read(&path).expect("the file reads");
    let older = target.apply(&configuration("u", 1)).await.expect("what is held is told");
    assert_eq!(older, Applied { version: 2, checksum: "sum-2".to_owned(), resources: Vec::new() });
    assert_eq!(apply(&target, &tombstone("u", 1)).await, 2);
    assert_eq!(fs::read(&path).expect("the file reads"), before);
    assert_eq!(apply(&target, &configuration("u", 5)).await, 5);
    assert_eq!(versions(&target), [("u".to_owned(), 5)]);
}

#[tokio::test]
async fn the_versions_of_another_configuration_do_not_count() {
    let (_parent, target) = folder();
    apply(&target, &configuration("u", 9)).await;
    let elsewhere = Configuration { id: "cfg_elsewhere".to_owned(), ..configuration("u", 1) };
    assert_eq!(apply(&target, &elsewhere).await, 1);
    assert_eq!(versions(&target), [("u".to_owned(), 1)]);
}

#[tokio::test]
async fn the_same_version_again_repairs_the_file_and_else_leaves_it_alone() {
    let (_parent, target) = folder();
    let wanted = configuration("u", 3);
    apply(&target, &wanted).await;
    let path = path_of(&target, &wanted);
    let written = fs::metadata(&path).expect("it is there").modified().expect("a time");
    apply(&target, &wanted).await;
    assert_eq!(fs::metadata(&path).expect("it is there").modified().expect("a time"), written);

    let good = fs::read_to_string(&path).expect("the file reads");
    fs::write(&path, good.replace("3.example", "evil.example")).expect("an edit by hand");
    apply(&target, &wanted).await;
    assert_eq!(fs::read_to_string(&path).expect("the file reads"), good);
}

#[tokio::test]
async fn tombstones_remove_the_file() {
    let (_parent, target) = folder();
    apply(&target, &configuration("u", 1)).await;
    apply(&target, &configuration("v", 1)).await;
    let applied = target.apply(&tombstone("u", 2)).await.expect("it applies");
    assert_eq!(applied, Applied { version: 2, checksum: "sum-2".to_owned(), resources: Vec::new() });
    assert_eq!(apply(&target, &tombstone("u", 2)).await, 2);
    assert_eq!(versions(&target), [("v".to_owned(), 1)]);
    assert_eq!(apply(&target, &configuration("u", 3)).await, 3);
    assert_eq!(versions(&target), [("u".to_owned(), 3), ("v".to_owned(), 1)]);
}

#[tokio::test]
async fn corrupt_files_are_overwritten_and_not_observed() {
    let (_parent, target) = folder();
    let good = String::from_utf8(file::render(&configuration("u", 9)).expect("it renders")).expect("text");
    let truncated = good.get(..good.len() / 2).expect("half of it").to_owned();
    for corrupt in ["", "{", "[]", "null", "{\"version\": \"x\"}", &format!("{good}{{}}"), &truncated] {
        let wanted = configuration("u", 1);
        fs::write(path_of(&target, &wanted), corrupt).expect("a corrupt file");
        assert_eq!(target.observed().expect("the folder lists"), [], "{corrupt}");
        assert_eq!(apply(&target, &wanted).await, 1, "{corrupt}");
        assert_eq!(versions(&target), [("u".to_owned(), 1)], "{corrupt}");
        fs::write(path_of(&target, &wanted), corrupt).expect("a corrupt file");
        assert_eq!(apply(&target, &tombstone("u", 2)).await, 2, "{corrupt}");
        assert_eq!(versions(&target), [], "{corrupt}");
    }
}

#[tokio::test]
async fn files_of_a_newer_worker_keep_their_version() {
    let (_parent, target) = folder();
    let path = path_of(&target, &configuration("u", 4));
    let text = file::render(&configuration("u", 4)).expect("it renders");
    let text = String::from_utf8(text).expect("text").replacen('{', "{ \"newField\": {\"a\": 1},", 1);
    fs::write(&path, text).expect("a file");
    assert_eq!(apply(&target, &configuration("u", 3)).await, 4);
}

#[tokio::test]
async fn hostile_ids_stay_in_the_folder() {
    let (parent, target) = folder();
    let long = "é".repeat(5_000);
    let hostile = ["../../etc/passwd", "/etc/passwd", "..", "", "a\0b", "日本語", &long, ".liaison.lock"];
    for user_id in hostile {
        assert_eq!(apply(&target, &configuration(user_id, 1)).await, 1, "{user_id}");
        let held = file::read(&path_of(&target, &configuration(user_id, 1)))
            .expect("it reads")
            .expect("it is there");
        assert_eq!(held.configuration.user_id, user_id);
    }
    assert_eq!(names(parent.path()), BTreeSet::from(["slots".to_owned()]));
    assert_eq!(names(target.path()).len(), hostile.len() + 1);
    let observed: BTreeSet<_> = versions(&target).into_iter().map(|(user_id, _)| user_id).collect();
    assert_eq!(observed, hostile.iter().map(ToString::to_string).collect());
    for user_id in hostile {
        apply(&target, &tombstone(user_id, 2)).await;
    }
    assert_eq!(names(target.path()), BTreeSet::from([LOCK_FILE.to_owned()]));
}

#[tokio::test]
async fn leftovers_of_a_crash_are_cleaned_and_in_nobodys_way() {
    let (_parent, target) = folder();
    let wanted = configuration("u", 1);
    let temporary = target
        .path()
        .join(format!(".{}.tmp", path_of(&target, &wanted).file_name().expect("a name").to_string_lossy()));
    fs::write(&temporary, "half a f").expect("a leftover");
    assert_eq!(target.observed().expect("the folder lists"), []);
    assert_eq!(apply(&target, &wanted).await, 1);
    assert!(!temporary.exists());

    fs::write(&temporary, "half a f").expect("a leftover");
    fs::write(target.path().join(".mine.tmp"), "not a leftover").expect("another file");
    let path = target.path().to_owned();
    drop(target);
    let target = DirTarget::open(&path).expect("the folder again");
    assert!(!temporary.exists());
    assert!(path.join(".mine.tmp").exists());
    assert_eq!(versions(&target), [("u".to_owned(), 1)]);
}

#[tokio::test]
async fn observed_is_ordered_and_leaves_strangers_out() {
    let (_parent, target) = folder();
    for user_id in ["b", "a"] {
        apply(&target, &configuration(user_id, 1)).await;
    }
    let stray = file::render(&configuration("a", 8)).expect("it renders");
    fs::write(target.path().join("copy of a.json"), stray).expect("a stray copy");
    fs::write(target.path().join("notes.txt"), "notes").expect("a note");
    fs::create_dir(target.path().join("folder.json")).expect("a folder");
    let slot = |user_id: &str| ObservedSlot {
        user_id: user_id.to_owned(),
        config_type: ConfigType::ProxyUrl.into(),
        key_id: "k".to_owned(),
        version: 1,
        checksum: "sum-1".to_owned(),
    };
    assert_eq!(target.observed().expect("the folder lists"), [slot("a"), slot("b")]);
}

#[tokio::test]
async fn one_worker_per_folder() {
    let (_parent, target) = folder();
    let path = target.path().to_owned();
    let shared = target.clone();
    drop(target);
    assert!(matches!(DirTarget::open(&path), Err(OpenError::InUse(used)) if used == path));
    drop(shared);
    assert!(DirTarget::open(&path).is_ok());
}

#[tokio::test]
async fn refusals_tell_no_paths() {
    let (parent, target) = folder();
    let wanted = configuration("u", 1);
    fs::create_dir(path_of(&target, &wanted)).expect("a folder in the way");
    let rejected = target.apply(&wanted).await.expect_err("a folder is no file");
    assert!(!rejected.is_permanent());
    assert!(rejected.message().starts_with("cannot write proxy_url.u.k.json: "), "{rejected}");
    assert!(!rejected.message().contains(&*parent.path().to_string_lossy()), "{rejected}");

    let instruction = Configuration { config_type: ConfigType::DataplaneUpgrade.into(), ..wanted };
    assert!(target.apply(&instruction).await.expect_err("no file for it").is_permanent());
}

#[tokio::test]
async fn a_file_of_another_slot_is_not_taken() {
    let (_parent, target) = folder();
    // As on a file system that does not tell `U` from `u`.
    let other = file::render(&configuration("U", 9)).expect("it renders");
    fs::write(path_of(&target, &configuration("u", 1)), &other).expect("a file");
    let rejected = target.apply(&configuration("u", 1)).await.expect_err("it is another's");
    assert_eq!(rejected, Rejected::permanent("proxy_url.u.k.json holds another slot, proxy_url/U/k"));
    assert_eq!(fs::read(path_of(&target, &configuration("u", 1))).expect("the file reads"), other);
}
