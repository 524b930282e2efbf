//! System calls of a running process that fail or take their time: `strace`
//! puts the result in their place.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long strace may take to attach to all threads.
const PATIENCE: Duration = Duration::from_secs(20);

/// A fault that lasts as long as this value.
#[derive(Debug)]
pub struct Fault(Child);

impl Fault {
    /// From now on these system calls of the process go wrong: `fault` in the
    /// words of `strace -e inject`, such as `error=EIO` or
    /// `delay_enter=300ms`. With `paths`, only those on files that had these
    /// names; the others pass.
    ///
    /// # Errors
    /// A process that can not be traced, or no strace.
    pub fn inject(pid: u32, calls: &str, fault: &str, paths: &[PathBuf]) -> io::Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")]);
        for path in paths {
            command.arg("-P").arg(path);
        }
        let mut fault = Self(command.stdin(Stdio::null()).spawn()?);
        let step = Duration::from_millis(10);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            if let Some(status) = fault.0.try_wait()? {
                return Err(io::Error::other(format!("strace ended with {status}")));
            }
            if is_traced(pid)? {
                return Ok(fault);
            }
            std::thread::sleep(step);
        }
        Err(io::Error::other(format!("strace has not attached after {PATIENCE:?}")))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // Asked to end, it lets go of the threads in order.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Whether every thread has its tracer.
fn is_traced(pid: u32) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end at any time.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}
