//! The target over a program that stands in for `aigw`: it reads its file once and answers what is asked of it, so
//! that every way to fail can be had. The real one is in the tests of the whole (`tests/data_plane`).

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    ConfigType, Configuration, ProviderConfig, ProvidersPayload, ProxyUrlPayload, UserKeysPayload,
};
use agentrouter_liaison::{Rejected, Target};
use agentrouter_target_agent_router::{AgentRouterOptions, AgentRouterTarget, Mode, OpenError, Ports};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

/// What the stand-in needs to know; without them it is a test that has nothing to do.
const CONFIG: &str = "STAND_IN_CONFIG";
const DATA: &str = "STAND_IN_DATA";
const ADMIN: &str = "STAND_IN_ADMIN";

/// No test by itself, but the program that the others run.
#[test]
fn stand_in_program() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let config = PathBuf::from(config);
    let text = std::fs::read_to_string(&config).unwrap();
    let mut starts =
        std::fs::OpenOptions::new().create(true).append(true).open(config.with_extension("starts")).unwrap();
    starts.write_all(b".").unwrap();
    if text.contains("exit-at-once") {
        std::process::exit(3);
    }
    if text.contains("never-ready") {
        std::thread::sleep(Duration::from_mins(10));
    }
    let port = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap().parse::<u16>().unwrap();
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (data, admin, envoy) = (listen(port(DATA)), listen(port(ADMIN)), listen(0));
    let envoy_port = envoy.local_addr().unwrap().port();
    eprintln!(
        "Envoy AI Gateway listening on http://localhost:1 (admin http://localhost:{envoy_port}) after 1s"
    );
    std::thread::scope(|scope| {
        for listener in [data, admin, envoy] {
            scope.spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                }
            });
        }
    });
}

/// A port that nobody listens at, and that nobody is given for a connection meanwhile.
fn free_port() -> u16 {
    // Below those that the system gives out. Test programs that run at the same time begin elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 21_000 + u16::try_from(std::process::id() % 400).unwrap() * 20;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A folder with the stand-in in it.
struct Folder {
    root: tempfile::TempDir,
    ports: Ports,
    /// A machine has one Agent Router at a time: two that look at its fixed ports would each take the other for a
    /// stranger there.
    _turn: MutexGuard<'static, ()>,
}

impl Folder {
    async fn new() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let root = tempfile::tempdir().unwrap();
        let ports = Ports { data: free_port(), admin: free_port() };
        let script = format!(
            "#!/bin/sh\n{CONFIG}=\"$2\" {DATA}={} {ADMIN}={} exec '{}' --exact stand_in_program --nocapture\n",
            ports.data,
            ports.admin,
            std::env::current_exe().unwrap().display()
        );
        let program = root.path().join("aigw");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { root, ports, _turn: turn }
    }

    fn options(&self) -> AgentRouterOptions {
        let mut options = AgentRouterOptions::new(self.path(), self.root.path().join("aigw"));
        options.ports = self.ports;
        options.quiet = Duration::from_millis(200);
        options
    }

    fn open(&self) -> AgentRouterTarget {
        AgentRouterTarget::open(self.options()).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("gateway")
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.path().join("config.yaml")).unwrap_or_default()
    }

    /// How often the program was started.
    fn starts(&self) -> usize {
        std::fs::read(self.path().join("config.starts")).unwrap_or_default().len()
    }
}

fn configuration(config_type: ConfigType, version: i64, payload: Option<Payload>) -> Configuration {
    Configuration {
        id: format!("cfg_{config_type:?}"),
        user_id: "system".to_owned(),
        config_type: config_type.into(),
        version,
        checksum: format!("{version:064}"),
        deleted: payload.is_none(),
        payload,
        ..Configuration::default()
    }
}

fn providers(version: i64, models: &[&str]) -> Configuration {
    let provider = |(number, model): (usize, &&str)| ProviderConfig {
        provider_id: format!("p{number}"),
        schema: "openai".to_owned(),
        base_url: if *model == "bad-url" { "not a url" } else { "https://a.example/v1" }.to_owned(),
        models: vec![(*model).to_owned()],
        ..ProviderConfig::default()
    };
    let providers = models.iter().enumerate().map(provider).collect();
    configuration(ConfigType::Providers, version, Some(Payload::Providers(ProvidersPayload { providers })))
}

fn proxy_url(version: i64) -> Configuration {
    let url = format!("https://v{version}.example.com");
    configuration(ConfigType::ProxyUrl, version, Some(Payload::ProxyUrl(ProxyUrlPayload { url })))
}

async fn versions(target: &AgentRouterTarget) -> Vec<(i32, i64)> {
    let observed = target.observed().await.unwrap().unwrap();
    observed.iter().map(|slot| (slot.config_type, slot.version)).collect()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn changes_that_arrive_together_are_one_start() {
    let folder = Folder::new().await;
    let target = folder.open();
    let (providers_1, url_1, none) =
        (providers(1, &["m"]), proxy_url(1), configuration(ConfigType::McpCatalog, 1, None));
    let (a, b, c) = tokio::join!(target.apply(&providers_1), target.apply(&url_1), target.apply(&none));
    assert_eq!([a, b, c].map(|applied| applied.unwrap().version), [1; 3]);
    assert_eq!(folder.starts(), 1);
    assert_eq!(versions(&target).await, [(1, 1), (4, 1)]);

    // What Agent Router does not read, or reads as it was, starts nothing.
    let keys = Payload::UserKeys(UserKeysPayload::default());
    target.apply(&configuration(ConfigType::UserKeys, 3, Some(keys))).await.unwrap();
    target.apply(&proxy_url(2)).await.unwrap();
    target.apply(&providers(2, &["m"])).await.unwrap();
    assert_eq!(folder.starts(), 1);
    assert_eq!(versions(&target).await, [(1, 2), (4, 2), (5, 3)]);
    assert!(folder.config().contains("https://v2.example.com"));

    // Nothing goes back, and a change is a start.
    assert_eq!(target.apply(&providers(1, &["old"])).await.unwrap().version, 2);
    assert_eq!(target.apply(&providers(3, &["n"])).await.unwrap().version, 3);
    assert_eq!(folder.starts(), 2);
    target.stop().await;
    assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, folder.ports.data)).is_ok());

    // The next worker runs what the folder holds.
    drop(target);
    let target = folder.open();
    until("it runs", async || target.observed().await.is_ok()).await;
    assert_eq!((folder.starts(), versions(&target).await), (3, vec![(1, 3), (4, 2), (5, 3)]));
    target.apply(&configuration(ConfigType::Providers, 4, None)).await.unwrap();
    assert_eq!(versions(&target).await, [(4, 2), (5, 3)]);
    target.stop().await;
}

#[tokio::test]
async fn a_file_that_does_not_come_up_is_followed_by_the_last_that_did() {
    let folder = Folder::new().await;
    let target = folder.open();
    let refused = target.apply(&providers(1, &["exit-at-once"])).await.unwrap_err();
    // Nothing came up before, so it may as well be the machine.
    assert!(!refused.is_permanent() && refused.message().contains("status 3"), "{refused}");
    assert!(target.observed().await.is_err());

    target.apply(&providers(2, &["good"])).await.unwrap();
    let starts = folder.starts();
    let refused = target.apply(&providers(3, &["exit-at-once"])).await.unwrap_err();
    assert!(refused.is_permanent(), "{refused}");
    assert!(folder.config().contains("good") && !folder.config().contains("exit-at-once"));
    assert_eq!((folder.starts(), versions(&target).await), (starts + 2, vec![(1, 2)]));

    // Of changes that arrive together, only the one at fault is refused.
    let (bad, good) = (providers(4, &["exit-at-once"]), proxy_url(1));
    let (bad, good) = tokio::join!(target.apply(&bad), target.apply(&good));
    assert!(bad.as_ref().is_err_and(Rejected::is_permanent), "{bad:?}");
    assert_eq!(good.unwrap().version, 1);
    assert_eq!(versions(&target).await, [(1, 2), (4, 1)]);
    target.stop().await;
}

#[tokio::test]
async fn what_is_not_ready_in_time_is_tried_again_later() {
    let folder = Folder::new().await;
    let mut options = folder.options();
    options.ready = Duration::from_millis(500);
    let target = AgentRouterTarget::open(options).unwrap();
    let late = target.apply(&providers(1, &["never-ready"])).await.unwrap_err();
    assert!(!late.is_permanent() && late.message().contains("not ready"), "{late}");
    target.stop().await;
}

#[tokio::test]
async fn a_program_that_dies_is_started_again() {
    let folder = Folder::new().await;
    let target = folder.open();
    target.apply(&providers(1, &["m"])).await.unwrap();
    let config = folder.path().canonicalize().unwrap().join("config.yaml");
    kill(&config);
    until("it was started again", async || folder.starts() == 2 && target.observed().await.is_ok()).await;
    assert_eq!(versions(&target).await, [(1, 1)]);
    target.stop().await;
}

/// Kills the stand-in, known by the file that its environment names.
fn kill(config: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let wanted = [CONFIG.as_bytes(), b"=", config.as_os_str().as_bytes()].concat();
    let killed = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted).then_some(pid)
    });
    let pids: Vec<i32> = killed.collect();
    assert_eq!(pids.len(), 1);
    let pid = rustix::process::Pid::from_raw(pids[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_part_that_cannot_be_served_is_told() {
    let folder = Folder::new().await;
    let mut options = folder.options();
    options.mode = Mode::WriteOnly;
    let target = AgentRouterTarget::open(options).unwrap();
    let applied = target.apply(&providers(1, &["good", "bad-url"])).await.unwrap();
    let results: Vec<_> =
        applied.resources.iter().map(|result| (result.resource.as_str(), result.applied)).collect();
    assert_eq!(results, [("p1", false), ("p0", true)]);
    assert_eq!(applied.resources[0].reason, "the URL is not valid");
    assert_eq!(folder.starts(), 0);
    // What served before goes on, though it is not what was wanted.
    let applied = target.apply(&providers(2, &["bad-url", "better"])).await.unwrap();
    assert_eq!(applied.resources.iter().map(|result| result.applied).collect::<Vec<_>>(), [false, true]);
    assert!(folder.config().contains("\"good\"") && folder.config().contains("\"better\""));
    let path = folder.path().join("config.yaml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    target.stop().await;
    assert!(!target.apply(&providers(3, &["m"])).await.unwrap_err().is_permanent());
}

#[tokio::test]
async fn folders_that_cannot_be_used_are_told() {
    let folder = Folder::new().await;
    let first = folder.open();
    assert!(matches!(AgentRouterTarget::open(folder.options()), Err(OpenError::Slots(_))));
    first.stop().await;
    let mut options = folder.options();
    options.aigw = "/nowhere/aigw".into();
    assert!(matches!(AgentRouterTarget::open(options), Err(OpenError::NoProgram(_))));
    let mut options = folder.options();
    options.folder = folder.root.path().join("x".repeat(100));
    assert!(matches!(AgentRouterTarget::open(options), Err(OpenError::PathTooLong(_))));
}
