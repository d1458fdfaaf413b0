//! Processes that a worker left behind: it was killed, and could not end them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::files::Files;

/// How often it is looked whether they have ended, and how long in between.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Ends every `aigw` that reads this folder's file and every Envoy that was started from it. They are known by their
/// command lines, in which those paths stand: a number in a file could be another process by now. Only Linux shows
/// them; elsewhere the ports that they hold are what is told.
pub(crate) async fn end(files: &Files) {
    let ours = Ours { config: &files.config(), envoy: &files.envoy };
    for signal in [Signal::TERM, Signal::KILL] {
        for look in 0..LOOKS {
            let orphans = ours.find();
            if orphans.is_empty() {
                return;
            }
            if look == 0 {
                tracing::warn!(processes = orphans.len(), ?signal, "ending what an earlier worker left");
                for orphan in orphans {
                    // It may have ended meanwhile.
                    let _ = kill_process(orphan, signal);
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the command lines of a folder's processes have in them.
struct Ours<'a> {
    config: &'a Path,
    envoy: &'a Path,
}

impl Ours<'_> {
    fn find(&self) -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let ours = ids.filter(|id| {
            // A process that has ended, or is somebody else's, shows nothing.
            self.has(&std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default())
        });
        ours.filter_map(Pid::from_raw).collect()
    }

    fn has(&self, line: &[u8]) -> bool {
        let words: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        // Its program's name does not count: it may have been a link that leads elsewhere now.
        let runs = words.windows(2).any(|words| words == [OsStr::new("run"), self.config.as_os_str()]);
        words.first().is_some_and(|program| *program == self.envoy.as_os_str()) || runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_by_the_folder() {
        let ours = Ours {
            config: Path::new("/d/config.yaml"),
            envoy: Path::new("/d/data/envoy-versions/1/bin/envoy"),
        };
        let has = |line: &str| ours.has(line.as_bytes());
        assert!(has("/opt/bin/aigw\0run\0/d/config.yaml\0--admin-port\0"));
        assert!(has("/bin/sh\0/opt/aigw\0run\0/d/config.yaml\0"));
        assert!(has("/d/data/envoy-versions/1/bin/envoy\0--config-yaml\0x\0"));
        assert!(!has("/opt/bin/aigw\0run\0/other/config.yaml\0"));
        assert!(has("/opt/bin/aigw-1.2\0run\0/d/config.yaml\0"));
        assert!(!has("/usr/bin/vi\0/d/config.yaml\0run\0"));
        assert!(!has("/usr/bin/envoy\0/d/data/envoy-versions/1/bin/envoy\0"));
        assert!(!has(""));
    }
}
