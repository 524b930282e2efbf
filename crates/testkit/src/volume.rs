//! A small file system of a test's own, in a mount namespace of its own: nobody
//! else sees it, and it is gone when the test is, however that ends. It needs
//! root.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::postfix;

/// A mounted file system and the namespace that sees it.
#[derive(Debug)]
pub struct Volume {
    directory: TempDir,
    /// Holds the namespace until its input ends: with this value, or with this process.
    anchor: Child,
}

impl Volume {
    /// A file system in memory, with options of tmpfs such as `size=48m`.
    ///
    /// # Errors
    /// The system's, with what `mount` printed.
    pub fn tmpfs(options: &str) -> io::Result<Self> {
        Self::new(directory()?, &format!("mount -t tmpfs -o {options},mode=0755 tmpfs"))
    }

    /// An ext4 file system of so many MiB on a loop device, which turns
    /// read-only at the first error.
    ///
    /// # Errors
    /// As [`Volume::tmpfs`].
    pub fn ext4(mebibytes: u64) -> io::Result<Self> {
        let directory = directory()?;
        let image = directory.path().join("image");
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        postfix::run("mkfs.ext4", &["-q", "-F", "-m", "0", &image.display().to_string()])?;
        Self::new(directory, &format!("mount -o loop,errors=remount-ro {}", image.display()))
    }

    fn new(directory: TempDir, mount: &str) -> io::Result<Self> {
        let place = directory.path().join("disk");
        fs::create_dir(&place)?;
        let script =
            format!("set -e; mount --make-rprivate /; {mount} {}; echo mounted; exec cat > /dev/null", place.display());
        let mut anchor = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = anchor.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let volume = Self { directory, anchor };
        match said.trim() {
            "mounted" => Ok(volume),
            _ => Err(io::Error::other(format!("{mount} failed"))),
        }
    }

    /// Where it is mounted, for those who are in the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// A path below the mount point as this process, outside, sees it.
    #[must_use]
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.path().join(path);
        let inside = path.strip_prefix("/").unwrap_or(&path);
        Path::new("/proc").join(self.anchor.id().to_string()).join("root").join(inside)
    }

    /// The words that run a command in the namespace when they stand before it.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.anchor.id()), "--".to_owned()]
    }

    /// Runs a shell script in the namespace; `$DISK` is the mount point.
    ///
    /// # Errors
    /// A script that fails; the message is what it printed.
    pub fn run(&self, script: &str) -> io::Result<()> {
        let prefix = self.prefix();
        let script = format!("set -e; DISK={}; {script}", self.path().display());
        let arguments: Vec<&str> = prefix[1..].iter().map(String::as_str).chain(["sh", "-c", &script]).collect();
        postfix::run(&prefix[0], &arguments)
    }

    /// Makes an ext4 file system find an error in itself, as a bad block
    /// would: everybody's next write fails with `EROFS`, although files are open.
    ///
    /// # Errors
    /// The system's.
    pub fn turn_read_only(&self) -> io::Result<()> {
        self.run("echo 1 > /sys/fs/ext4/$(basename $(findmnt -no SOURCE $DISK))/trigger_fs_error")
    }

    /// Mounts an ext4 file system again, which replays its journal; nobody may
    /// have files open on it.
    ///
    /// # Errors
    /// The system's.
    pub fn mount_again(&self) -> io::Result<()> {
        let image = self.directory.path().join("image");
        self.run(&format!("umount $DISK; mount -o loop,errors=remount-ro {} $DISK", image.display()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The file system goes with the last process that is in the namespace.
        drop(self.anchor.stdin.take());
        let _ = self.anchor.wait();
    }
}

fn directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("volume-").tempdir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_seen_inside_only_and_has_its_size() {
        let volume = Volume::tmpfs("size=1m").unwrap();
        volume.run("echo inside > $DISK/file").unwrap();
        assert_eq!(fs::read_to_string(volume.outside("file")).unwrap(), "inside\n");
        assert!(!volume.path().join("file").exists());
        assert!(fs::write(volume.outside("file"), vec![0; 2 << 20]).is_err());
        assert!(volume.run("false").is_err());
    }
}
