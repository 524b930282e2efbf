//! The operator's own filters: one on Sendmail's libmilter, and OpenDKIM.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::clamd::wait_for;
use crate::{Outcome, World};

/// A filter and its files.
struct Filter {
    directory: TempDir,
    child: Option<Child>,
}

impl Filter {
    fn new() -> io::Result<Self> {
        Ok(Self { directory: tempfile::Builder::new().prefix("filter-").tempdir()?, child: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts it; it takes connections when this returns.
    fn start(&mut self, command: &mut Command) -> io::Result<()> {
        let log = fs::File::create(self.path("log"))?;
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        wait_for(&self.path("socket")).map_err(|error| {
            io::Error::other(format!("{error}: {}", fs::read_to_string(self.path("log")).unwrap_or_default()))
        })
    }

    /// The one that does what a message's subject says.
    fn start_own(&mut self) -> io::Result<()> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filters/filter.py");
        let (socket, macros) = (self.path("socket"), self.path("macros"));
        self.start(Command::new("/usr/bin/python3").arg(program).arg(socket).arg(macros))
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn settings(&self, more: &str) -> String {
        let socket = self.path("socket");
        format!("[[submission.filters]]\nsocket = \"unix:{}\"\ntimeout = \"5s\"\n{more}\n", socket.display())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_on_libmilter_is_obeyed() -> Outcome {
    let mut filter = Filter::new()?;
    filter.start_own()?;
    let world = World::new(&filter.settings("")).await?;

    let id = world.taken("fine", "four").await?;
    let came = world.arrived("fine", 2).await;
    let (header, body) = came.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "four\r\n");
    assert!(header.starts_with("Received: "), "{header}");
    assert!(header.contains("\r\nX-First: yes\r\n"), "{header}");
    // Neither the field that the relay has put in front, nor one that never leaves.
    assert!(header.contains("X-Seen: 6 bytes,\r\n\tfields "), "{header}");
    let seen = header.split_once("\tfields ").unwrap().1;
    assert!(seen.contains("From,X-Secret,Subject") && !seen.contains("Received"), "{header}");
    assert!(!header.contains("X-Secret:"), "{header}");
    let macros = fs::read_to_string(filter.path("macros"))?;
    let (user, _) = world.relay.credentials();
    let expected =
        format!("i={id} j=localhost {{auth_authen}}={user} {{client_addr}}=127.0.0.1 {{mail_addr}}=app@example.com");
    let plain = macros.lines().next().unwrap_or_default();
    assert_eq!(plain, expected.replace("{{", "{").replace("}}", "}"));

    let refused = world.submit("refuse", "x").await?;
    assert_eq!(refused.to_string().trim_end(), "550 Not by this relay");
    assert_eq!(world.submit("later", "x").await?.code, 451);
    world.taken("discard", "x").await?;
    let held = world.taken("hold", "x").await?;
    assert_eq!(world.why(&held).0, "held");
    world.relay.cli(&["queue", "release", &held])?;
    world.arrived("hold", 2).await;
    let subjects: Vec<_> = world.kept.messages();
    assert_eq!(subjects.len(), 4, "what was refused or thrown away has left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_away_is_answered_for_as_the_settings_say() -> Outcome {
    let mut filter = Filter::new()?;
    filter.start_own()?;
    let strict = World::new(&filter.settings("")).await?;
    let loose = World::new(&filter.settings("when_down = \"accept\"")).await?;
    strict.taken("one", "x").await?;
    strict.arrived("one", 2).await;
    filter.stop();
    let refused = strict.submit("two", "x").await?;
    assert_eq!(refused.to_string().trim_end(), "451 Temporary service failure");
    loose.taken("two", "x").await?;
    assert!(!loose.arrived("two", 2).await.contains("X-Seen"));
    fs::remove_file(filter.path("socket"))?;
    filter.start_own()?;
    strict.taken("three", "x").await?;
    assert!(strict.arrived("three", 2).await.contains("X-Seen"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn opendkim_signs_as_a_filter() -> Outcome {
    let mut filter = Filter::new()?;
    let key = filter.path("key");
    let made =
        Command::new("/usr/bin/openssl").args(["genrsa", "-traditional", "-out"]).arg(&key).arg("2048").output()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let configuration = format!(
        "Mode s\nSyslog no\nDomain example.com\nSelector filter\nKeyFile {}\nSocket local:{}\nUserID root\n\
         RequireSafeKeys no\nBackground no\nCanonicalization relaxed/simple\n",
        key.display(),
        filter.path("socket").display(),
    );
    fs::write(filter.path("conf"), configuration)?;
    let conf = filter.path("conf");
    filter.start(Command::new("/usr/sbin/opendkim").arg("-f").arg("-x").arg(conf))?;
    let world = World::new(&filter.settings("")).await?;
    world.taken("signed", "text").await?;
    let came = world.arrived("signed", 2).await;
    let signature = came.split_once("DKIM-Signature: ").map(|(_, rest)| rest).unwrap_or_default();
    assert!(signature.contains("d=example.com") && signature.contains("s=filter"), "{came}");
    Ok(())
}
