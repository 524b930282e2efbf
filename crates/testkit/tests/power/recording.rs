//! What a program asked of the kernel, as `strace` wrote it down.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Everything that changes files, or what a descriptor stands for. A call
/// that this machine does not have is skipped for its `?`.
const CALLS: &str = "?open,openat,?openat2,?creat,close,?close_range,?dup,?dup2,dup3,fcntl,lseek,\
    write,writev,pwrite64,pwritev,?pwritev2,fsync,fdatasync,sync_file_range,sync,syncfs,msync,\
    ?rename,?renameat,?renameat2,?unlink,unlinkat,?rmdir,?mkdir,mkdirat,?link,linkat,?symlink,symlinkat,\
    truncate,ftruncate,fallocate,copy_file_range,sendfile,splice";

/// A step of the recording. Of one thread, steps are begin, end, begin, end;
/// what another thread does comes between them as it did.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Since the Unix epoch.
    pub(crate) at: Duration,
    pub(crate) thread: u32,
    pub(crate) step: Step,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Begin(Call),
    /// With the result, negative for an error.
    End(i64),
}

/// A file by its name, below an open directory if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) below: Option<i32>,
    pub(crate) path: PathBuf,
}

/// A system call, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Open {
        place: Place,
        create: bool,
        truncate: bool,
    },
    Close(i32),
    Duplicate(i32),
    Seek(i32),
    /// At the descriptor's own position when there is no offset.
    Write {
        descriptor: i32,
        offset: Option<u64>,
        bytes: Arc<[u8]>,
    },
    Truncate {
        descriptor: i32,
        length: u64,
    },
    /// Zeros, which also extend the file.
    Allocate {
        descriptor: i32,
        offset: u64,
        length: u64,
    },
    /// Zeros in place of what was there.
    Punch {
        descriptor: i32,
        offset: u64,
        length: u64,
    },
    Sync(i32),
    Rename {
        from: Place,
        to: Place,
    },
    Remove(Place),
    MakeDirectory(Place),
    /// Changes nothing that lasts: `sync_file_range` promises nothing.
    Nothing,
    /// One that the reader does not know; the descriptor it is about, if any.
    Unknown(Option<i32>, String),
}

/// Runs a program under `strace` to its end; what it did.
pub(crate) fn record(program: &Path, arguments: &[String], file: &Path) -> io::Result<Vec<Event>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-ttt", "-xx", "-v", "-s", "16777216", "--seccomp-bpf", "-e", "signal=none", "-e"]);
    strace.arg(format!("trace={CALLS}")).arg("-o").arg(file).arg("--").arg(program).args(arguments);
    let output = strace.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("strace: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let mut reader = Reader::default();
    for line in BufReader::new(File::open(file)?).lines() {
        reader.take(&line?).map_err(io::Error::other)?;
    }
    Ok(reader.events)
}

#[derive(Default)]
struct Reader {
    events: Vec<Event>,
    /// Names of calls that have begun and not ended, by thread.
    unfinished: HashMap<u32, String>,
}

impl Reader {
    /// Takes in `THREAD TIME CALL(ARGUMENTS) = RESULT`, or one of its halves
    /// `CALL(ARGUMENTS <unfinished ...>` and `<... CALL resumed>) = RESULT`.
    fn take(&mut self, line: &str) -> Result<(), String> {
        let bad = || format!("not understood: {}", line.get(..200).unwrap_or(line));
        let (thread, rest) = line.split_once(' ').ok_or_else(bad)?;
        let (at, rest) = rest.trim_start().split_once(' ').ok_or_else(bad)?;
        let thread: u32 = thread.parse().map_err(|_| bad())?;
        let at = seconds(at).ok_or_else(bad)?;
        let mut put = |step| self.events.push(Event { at, thread, step });
        if rest.starts_with("+++") {
            return Ok(());
        }
        if let Some(rest) = rest.strip_prefix("<... ") {
            let name = rest.split(' ').next().unwrap_or_default();
            if self.unfinished.remove(&thread).as_deref() != Some(name) {
                return Err(bad());
            }
            put(Step::End(result(rest).ok_or_else(bad)?));
            return Ok(());
        }
        let (name, arguments) = rest.split_once('(').ok_or_else(bad)?;
        if let Some(arguments) = arguments.strip_suffix("<unfinished ...>") {
            let arguments = arguments.trim_end().trim_end_matches(',');
            put(Step::Begin(call(name, arguments).ok_or_else(bad)?));
            self.unfinished.insert(thread, name.to_owned());
            return Ok(());
        }
        // No string has a bracket: all their bytes are in hexadecimal.
        let (arguments, _) = arguments.split_once(')').ok_or_else(bad)?;
        put(Step::Begin(call(name, arguments).ok_or_else(bad)?));
        put(Step::End(result(rest).ok_or_else(bad)?));
        Ok(())
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

/// The number behind the last `= `; a thread that ended with its process has
/// none, and did nothing more.
fn result(text: &str) -> Option<i64> {
    let (_, result) = text.rsplit_once(" = ")?;
    let number = result.split(' ').next()?;
    match number.strip_prefix("0x") {
        Some(hexadecimal) => i64::from_str_radix(hexadecimal, 16).ok(),
        None if number == "?" => Some(-1),
        None => number.parse().ok(),
    }
}

fn call(name: &str, arguments: &str) -> Option<Call> {
    let list: Vec<&str> = match name {
        // Bytes are long: what is split is only what follows them.
        "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => return write(name, arguments),
        _ => arguments.split(", ").collect(),
    };
    let text = |index: usize| list.get(index).copied();
    let descriptor = |index| text(index)?.parse::<i32>().ok();
    let number = |index| text(index)?.parse::<u64>().ok();
    let place = |index: usize| Some(Place { below: None, path: path(text(index)?)? });
    let below = |index: usize| {
        let directory = text(index)?;
        let below = if directory == "AT_FDCWD" { None } else { Some(directory.parse().ok()?) };
        Some(Place { below, path: path(text(index + 1)?)? })
    };
    let open = |place: Place, flags: &str| {
        let has = |flag| flags.split('|').any(|word| word == flag);
        Call::Open { place, create: has("O_CREAT"), truncate: has("O_TRUNC") }
    };
    Some(match name {
        "open" => open(place(0)?, text(1)?),
        "openat" => open(below(0)?, text(2)?),
        "close" => Call::Close(descriptor(0)?),
        "dup" => Call::Duplicate(descriptor(0)?),
        "fcntl" if text(1)?.starts_with("F_DUPFD") => Call::Duplicate(descriptor(0)?),
        "lseek" => Call::Seek(descriptor(0)?),
        "fsync" | "fdatasync" => Call::Sync(descriptor(0)?),
        "fcntl" | "sync_file_range" => Call::Nothing,
        "rename" => Call::Rename { from: place(0)?, to: place(1)? },
        "renameat" | "renameat2" => Call::Rename { from: below(0)?, to: below(2)? },
        "unlink" | "rmdir" => Call::Remove(place(0)?),
        "unlinkat" => Call::Remove(below(0)?),
        "mkdir" => Call::MakeDirectory(place(0)?),
        "mkdirat" => Call::MakeDirectory(below(0)?),
        "ftruncate" => Call::Truncate { descriptor: descriptor(0)?, length: number(1)? },
        "fallocate" if text(1)? == "FALLOC_FL_KEEP_SIZE" => Call::Nothing,
        "fallocate" if text(1)? == "0" => {
            Call::Allocate { descriptor: descriptor(0)?, offset: number(2)?, length: number(3)? }
        }
        "fallocate" if text(1)?.contains("FALLOC_FL_PUNCH_HOLE") => {
            Call::Punch { descriptor: descriptor(0)?, offset: number(2)?, length: number(3)? }
        }
        _ => Call::Unknown(descriptor(0), name.to_owned()),
    })
}

/// `FD, "BYTES", COUNT`, with `OFFSET` for a positioned one, or
/// `FD, [{iov_base="BYTES", iov_len=N}, ...], COUNT` for a vectored one.
fn write(name: &str, arguments: &str) -> Option<Call> {
    let (descriptor, rest) = arguments.split_once(", ")?;
    // The first quote opens the first string, the last one closes the last.
    let (first, last) = (rest.find('"')?, rest.rfind('"')?);
    let mut bytes = Vec::with_capacity((last - first) / 4);
    for string in rest[first..=last].split('"').filter(|text| text.starts_with("\\x")) {
        decode(string, &mut bytes)?;
    }
    let mut numbers = rest[last + 1..].rsplit_once(']').map_or(&rest[last + 1..], |(_, rest)| rest).split(", ").skip(1);
    let offset = match name {
        "write" | "writev" => None,
        _ => Some(numbers.nth(1)?.parse().ok()?),
    };
    Some(Call::Write { descriptor: descriptor.parse().ok()?, offset, bytes: bytes.into() })
}

fn path(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    decode(text.strip_prefix('"')?.strip_suffix('"')?, &mut bytes)?;
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

/// Reads `\x41\x42`.
fn decode(text: &str, bytes: &mut Vec<u8>) -> Option<()> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.wrapping_sub(b'a' - 10),
    };
    let codes = text.as_bytes().chunks_exact(4);
    if !codes.remainder().is_empty() {
        return None;
    }
    bytes.extend(codes.map(|code| nibble(code[2]) << 4 | nibble(code[3])));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<String> {
        let mut reader = Reader::default();
        lines.iter().for_each(|line| reader.take(line).unwrap());
        reader.events.iter().map(|event| format!("{} {:?}", event.thread, event.step)).collect()
    }

    #[test]
    fn halves_of_calls_stand_where_they_happened() {
        let events = read(&[
            r#"7 1.000001 pwritev(5, [{iov_base="\x41", iov_len=1}, {iov_base="\x42\x0a", iov_len=2}], 2, 4096 <unfinished ...>"#,
            r#"8 1.000002 fdatasync(5)                     = 0"#,
            r#"7 1.000003 <... pwritev resumed>)          = 3"#,
            r#"7 1.000004 +++ exited with 0 +++"#,
        ]);
        let write = "Begin(Write { descriptor: 5, offset: Some(4096), bytes: [65, 66, 10] })";
        let expected = [format!("7 {write}"), "8 Begin(Sync(5))".into(), "8 End(0)".into(), "7 End(3)".into()];
        assert_eq!(events, expected);
    }

    #[test]
    fn names_flags_and_errors_are_read() {
        let events = read(&[
            r#"7 1.0 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = -1 ENOENT (No such file or directory)"#,
            r#"7 1.0 unlinkat(9, "\x62", 0) = 0"#,
            r#"7 1.0 fallocate(4, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 4096, 8192) = 0"#,
            r#"7 1.0 write(1, "\x61", 1)              = 1"#,
            r#"7 1.0 fcntl(9, F_GETFD) = 0x1 (flags FD_CLOEXEC)"#,
        ]);
        let open = r#"Open { place: Place { below: None, path: "/a" }, create: true, truncate: false }"#;
        assert_eq!(events[0], format!("7 Begin({open})"));
        assert_eq!(events[1], "7 End(-1)");
        assert_eq!(events[2], r#"7 Begin(Remove(Place { below: Some(9), path: "b" }))"#);
        assert_eq!(events[4], "7 Begin(Punch { descriptor: 4, offset: 4096, length: 8192 })");
        assert_eq!(events[6], "7 Begin(Write { descriptor: 1, offset: None, bytes: [97] })");
        assert_eq!(events[9], "7 End(1)");
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for bad in ["", "7", "7 1.0 fsync", "x 1.0 fsync(3) = 0", r#"7 1.0 write(1, "\x6", 1) = 1"#] {
            assert!(Reader::default().take(bad).is_err(), "{bad}");
        }
    }
}
