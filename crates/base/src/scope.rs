//! Structured concurrency: every task belongs to a scope.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Owns tasks. Closing a scope asks its tasks and those of its children to
/// end, waits for them, and after a deadline aborts and names the late ones.
/// A cheap handle; clones are the same scope.
#[derive(Clone, Debug)]
pub struct Scope(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: Cow<'static, str>,
    parent: Option<Scope>,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Running>,
}

/// The tasks of a whole tree of scopes.
#[derive(Debug, Default)]
struct Running {
    next: AtomicU64,
    tasks: Mutex<HashMap<u64, Task>>,
}

#[derive(Debug)]
struct Task {
    scope: Scope,
    name: Cow<'static, str>,
    /// None until the runtime has taken the task.
    handle: Option<AbortHandle>,
}

/// Tasks that had to be aborted when their scope was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ended in time: {}", names.join(", "))]
pub struct Late {
    /// `scope/child/task` of each, sorted.
    pub names: Vec<String>,
}

impl Scope {
    /// A scope that is nobody's child.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            path: name.into(),
            parent: None,
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            running: Arc::default(),
        }))
    }

    /// A scope inside this one: closed with it, and closable by itself.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(Arc::new(Inner {
            path: format!("{}/{name}", self.0.path).into(),
            parent: Some(self.clone()),
            token: self.0.token.child_token(),
            tracker: TaskTracker::new(),
            running: self.0.running.clone(),
        }))
    }

    /// Runs `task` until it ends. It is expected to end soon after
    /// [`Scope::cancelled`]; it is dropped only when it is late at
    /// [`Scope::close`]. A panic ends the task alone and is logged.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let id = self.0.running.next.fetch_add(1, Ordering::Relaxed);
        let ended = Ended {
            id,
            running: self.0.running.clone(),
            _tokens: self.lineage().map(|scope| scope.0.tracker.token()).collect(),
        };
        let full_name = (self.clone(), name.clone());
        let run = async move {
            let _ended = ended;
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                let (scope, name) = full_name;
                let text = panic_text(&*panic);
                tracing::error!(task = %format_args!("{}/{name}", scope.0.path), "panicked: {text}");
            }
        };
        let scope = self.clone();
        let task = Task { scope, name, handle: None };
        // Listed before it runs, because it may end before `spawn` returns.
        self.0.running.tasks.lock().insert(id, task);
        let handle = tokio::spawn(run).abort_handle();
        if let Some(task) = self.0.running.tasks.lock().get_mut(&id) {
            task.handle = Some(handle);
        }
    }

    /// Resolves when this scope, or one around it, is asked to end.
    pub async fn cancelled(&self) {
        self.0.token.cancelled().await;
    }

    /// Whether this scope, or one around it, has been asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Asks the tasks of this scope and of its children to end.
    pub fn cancel(&self) {
        self.0.token.cancel();
    }

    /// The token behind [`Scope::cancelled`], for code that takes tokens.
    pub fn token(&self) -> CancellationToken {
        self.0.token.clone()
    }

    /// Tasks that have not ended, those of children included.
    pub fn len(&self) -> usize {
        self.0.tracker.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks all tasks to end and waits for them, at most for `deadline`;
    /// those that still run are then aborted and named. Must not be called
    /// from a task of this scope.
    pub async fn close(self, deadline: Duration) -> Result<(), Late> {
        self.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(deadline, self.0.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let mut names: Vec<String> = Vec::new();
        for task in self.0.running.tasks.lock().values() {
            if task.scope.lineage().any(|scope| Arc::ptr_eq(&scope.0, &self.0)) {
                names.push(format!("{}/{}", task.scope.0.path, task.name));
                if let Some(handle) = &task.handle {
                    handle.abort();
                }
            }
        }
        names.sort();
        match names.is_empty() {
            true => Ok(()), // the last one ended between the two looks
            false => Err(Late { names }),
        }
    }

    /// This scope, the one around it, and so on.
    fn lineage(&self) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(self), |scope| scope.0.parent.as_ref())
    }
}

/// Takes its task off the list when it ends, in whatever way.
struct Ended {
    id: u64,
    running: Arc<Running>,
    _tokens: Vec<TaskTrackerToken>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let task = self.running.tasks.lock().remove(&self.id);
        drop(task); // outside the lock: it may be the last owner of a scope
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_tasks_of_children() {
        let scope = Scope::new("root");
        let child = scope.child("listener");
        let (done, was_done) = oneshot::channel();
        child.clone().spawn("session", async move {
            child.cancelled().await;
            tokio::time::sleep(SECOND / 2).await;
            done.send(()).unwrap();
        });
        assert_eq!(scope.len(), 1);
        scope.close(SECOND).await.unwrap();
        was_done.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_late_are_named_and_aborted() {
        let scope = Scope::new("root");
        let child = scope.child("delivery");
        let (dropped, was_dropped) = oneshot::channel::<()>();
        child.spawn("stubborn", async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        let obedient = scope.clone();
        scope.spawn("obedient", async move { obedient.cancelled().await });
        let late = scope.close(SECOND).await.unwrap_err();
        assert_eq!(late.names, ["root/delivery/stubborn"]);
        was_dropped.await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_closes_alone() {
        let scope = Scope::new("root");
        let child = scope.child("one");
        let other = scope.clone();
        scope.spawn("other", async move { other.cancelled().await });
        child.spawn("short", async {});
        child.close(SECOND).await.unwrap();
        assert!(!scope.is_cancelled());
        assert_eq!(scope.len(), 1);
        scope.close(SECOND).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_only_its_task() {
        let scope = Scope::new("root");
        scope.spawn("bad", async { panic!("expected in this test") });
        scope.close(SECOND).await.unwrap();
    }
}
