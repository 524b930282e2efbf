//! A file system of its own that can lose its power: ext4's shutdown stops it
//! at once and writes nothing more, its journal neither.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use postrider_testkit::Volume;

/// Of the sparse image: the spool may take twice what lives and four segments.
const MEBIBYTES: u64 = 384;

/// Waits for a line, shuts the file system down, and ends.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH = 0x8004587d, 2
volume = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(volume, EXT4_IOC_SHUTDOWN, struct.pack('I', EXT4_GOING_FLAGS_NOLOGFLUSH))
";

pub(crate) struct Machine {
    volume: Volume,
    /// How the journal treats what it does not keep itself.
    mode: &'static str,
}

/// A hand on the switch.
pub(crate) struct Switch {
    program: Child,
    input: ChildStdin,
}

impl Machine {
    /// Makes one, and tries the switch.
    ///
    /// # Errors
    /// What the kernel or the machine does not allow.
    pub(crate) fn new() -> io::Result<Self> {
        let mut machine = Self { volume: Volume::ext4(MEBIBYTES)?, mode: "ordered" };
        machine.switch()?.off()?;
        machine.on_again()?;
        Ok(machine)
    }

    /// The top of the file system.
    pub(crate) fn path(&self) -> PathBuf {
        self.volume.outside("")
    }

    /// Gets ready to take its power away.
    pub(crate) fn switch(&self) -> io::Result<Switch> {
        let mut program = Command::new("python3")
            .args(["-c", SHUTDOWN])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = program.stdin.take().zip(program.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("the pipes were asked for"))?;
        let switch = Switch { program, input };
        match BufReader::new(output).read_line(&mut String::new())? {
            0 => Err(io::Error::other("python3 ended at once")),
            _ => Ok(switch),
        }
    }

    /// Mounts the file system again, with its journal in the other mode.
    /// Everybody who used it has ended, though perhaps only just.
    pub(crate) fn on_again(&mut self) -> io::Result<()> {
        self.mode = if self.mode == "ordered" { "writeback" } else { "ordered" };
        self.volume.run(&format!(
            "for i in $(seq 50); do umount $DISK 2>/dev/null && break; sleep 0.1; done
             mount -t ext4 -o loop,data={} $DISK/../image $DISK",
            self.mode
        ))
    }
}

impl Switch {
    /// Returns once the file system is dead.
    pub(crate) fn off(mut self) -> io::Result<()> {
        self.input.write_all(b"\n")?;
        match self.program.wait()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("ext4's shutdown was refused")),
        }
    }
}
