//! Says when the content of the config file changed, however the change came about.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Writers rarely finish in one step, so let them.
const SETTLE: Duration = Duration::from_millis(200);

/// Some changes raise no event: on network mounts, or behind a symlink into another folder.
const POLL: Duration = Duration::from_secs(2);

/// Beside the config may lie what changes a thousand times a second, such as the database. Events
/// gather in the kernel for so long, where equal ones become one, and are then taken for `TAKE`.
const GATHER: Duration = Duration::from_millis(50);
const TAKE: Duration = Duration::from_millis(1);

/// Watches until dropped. A change made before `watch` returned is not seen, so begin to watch
/// before loading.
pub struct Watch {
    path: PathBuf,
    poll: Duration,
    next_poll: Instant,
    seen: Option<[u8; 32]>,
    /// Since when the file has been gone or empty.
    gone: Option<Instant>,
    signals: mpsc::Receiver<()>,
    // Kept so that it is dropped with the watch: it owns the thread that sends the signals.
    _watcher: RecommendedWatcher,
}

/// Calls back when the file's content changed.
pub fn watch(path: &Path) -> Result<Watch, notify::Error> {
    Watch::polling(path, POLL)
}

// === impl Watch ===

impl Watch {
    fn polling(path: &Path, poll: Duration) -> Result<Self, notify::Error> {
        // One waiting signal says all there is to say.
        let (sender, signals) = mpsc::channel(1);
        let mut gathered = Instant::now();
        let mut watcher = notify::recommended_watcher(move |event| {
            if matters(&event) {
                let _ = sender.try_send(());
            }
            if gathered.elapsed() > TAKE {
                // The thread is the watcher's own, and has nothing else to do.
                std::thread::park_timeout(GATHER);
                gathered = Instant::now();
            }
        })?;
        // The folder, because renames and ConfigMap swaps replace the file, not its content.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        watcher.watch(folder.unwrap_or_else(|| Path::new(".")), RecursiveMode::NonRecursive)?;
        let seen = std::fs::read(path).ok().map(|content| Sha256::digest(content).into());
        Ok(Self {
            path: path.to_path_buf(),
            poll,
            next_poll: Instant::now() + poll,
            seen,
            gone: None,
            signals,
            _watcher: watcher,
        })
    }

    /// Waits for content that differs from what was last seen. A file that is gone or empty counts
    /// as unchanged at first: it is being written. Dropping the future loses no change. Always `Some`: should events fail, the poll goes on.
    pub async fn changed(&mut self) -> Option<()> {
        loop {
            tokio::select! {
                Some(()) = self.signals.recv() => {
                    sleep(SETTLE).await;
                    // Later signals may still arrive: they lead to one more look.
                    let _ = self.signals.try_recv();
                }
                () = sleep_until(self.next_poll) => {}
            }
            self.next_poll = Instant::now() + self.poll;
            if self.look().await {
                return Some(());
            }
        }
    }

    async fn look(&mut self) -> bool {
        let content = tokio::fs::read(&self.path).await.unwrap_or_default();
        if content.is_empty() {
            let gone = self.gone.get_or_insert_with(Instant::now);
            if gone.elapsed() < self.poll {
                return false;
            }
        } else {
            self.gone = None;
        }
        let found = Some(Sha256::digest(content).into());
        let differs = found != self.seen;
        self.seen = found;
        differs
    }
}

/// Our own reading raises access events, which would make us read again.
fn matters(event: &notify::Result<Event>) -> bool {
    !matches!(event, Ok(Event { kind: EventKind::Access(_), .. }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    /// Far beyond any test, so that only an event can explain what is seen.
    const NEVER: Duration = Duration::from_hours(1);
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn sees(watch: &mut Watch) -> bool {
        timeout(PATIENCE, watch.changed()).await == Ok(Some(()))
    }

    #[tokio::test]
    async fn sees_a_write_in_place_a_rename_over_and_a_replaced_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switchpoint.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::polling(&path, NEVER).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(sees(&mut watch).await, "in place");
        fs::write(folder.path().join("new"), "three").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(sees(&mut watch).await, "renamed over");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "four").unwrap();
        assert!(sees(&mut watch).await, "deleted and created");
    }

    #[tokio::test]
    async fn sees_a_configmap_swap() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        for (generation, content) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(inside(generation)).unwrap();
            fs::write(inside(generation).join("switchpoint.toml"), content).unwrap();
        }
        symlink("..1", inside("..data")).unwrap();
        symlink("..data/switchpoint.toml", inside("switchpoint.toml")).unwrap();
        let mut watch = Watch::polling(&inside("switchpoint.toml"), NEVER).unwrap();
        symlink("..2", inside("..data_tmp")).unwrap();
        fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
        assert!(sees(&mut watch).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_raises_no_event_is_found_by_the_poll() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("real.toml");
        let path = folder.path().join("switchpoint.toml");
        fs::write(&target, "one").unwrap();
        symlink(&target, &path).unwrap();
        let mut watch = watch(&path).unwrap();
        fs::write(&target, "two").unwrap();
        let start = Instant::now();
        assert!(sees(&mut watch).await);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_content_is_no_change_and_none_at_all_is_one_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("switchpoint.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = watch(&path).unwrap();
        fs::write(&path, "one").unwrap();
        assert!(!sees(&mut watch).await);
        fs::write(&path, "").unwrap();
        let start = Instant::now();
        assert!(sees(&mut watch).await);
        assert!(start.elapsed() > POLL, "it was being written");
        fs::remove_file(&path).unwrap();
        assert!(!sees(&mut watch).await, "it is told once");
        fs::write(&path, "one").unwrap();
        assert!(sees(&mut watch).await, "it is back");
    }
}
