//! Programs of others that verify signatures.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use parking_lot::Mutex;
use postrider_account::DkimKey;

/// A public key, as the DNS would have it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) domain: String,
    pub(crate) selector: String,
    record: String,
}

impl From<DkimKey> for Key {
    fn from(key: DkimKey) -> Self {
        Self { domain: key.domain.to_string(), selector: key.selector.to_string(), record: key.public }
    }
}

impl Key {
    /// As `postrider dkim list --json` tells of it.
    pub(crate) fn listed(key: &serde_json::Value) -> Option<Self> {
        let text = |name: &str| key[name].as_str().map(str::to_owned);
        Some(Self { domain: text("domain")?, selector: text("selector")?, record: text("record")? })
    }

    fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// What a program says of one of our signatures.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// The file's name.
    pub(crate) message: String,
    pub(crate) selector: String,
    pub(crate) passes: bool,
    /// The program's words.
    #[expect(dead_code, reason = "shown when a test fails")]
    said: String,
}

/// All of them.
pub(crate) const ALL: [Verifier; 3] = [Verifier::Dkimpy, Verifier::OpenDkim, Verifier::MailAuth];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Verifier {
    Dkimpy,
    OpenDkim,
    MailAuth,
}

impl Verifier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dkimpy => "dkimpy",
            Self::OpenDkim => "OpenDKIM",
            Self::MailAuth => "mail-auth",
        }
    }

    /// Verifies the signatures by these keys on all messages of a folder.
    pub(crate) fn verify(self, folder: &Path, keys: &[Key]) -> Result<Vec<Verdict>, Box<dyn Error>> {
        match self {
            Self::Dkimpy => dkimpy(folder, keys),
            Self::OpenDkim => opendkim(folder, keys),
            Self::MailAuth => mail_auth(folder, keys),
        }
    }
}

/// One line for each signature: file, selector, whether it is good, why not.
const SCRIPT: &str = r#"
import os, sys, dkim
keys = dict(line.split('\t', 1) for line in open(sys.argv[2]).read().splitlines())
def dns(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return keys.get(name.rstrip('.'), '').encode() or None
for file in sorted(os.listdir(sys.argv[1])):
    message = dkim.DKIM(open(os.path.join(sys.argv[1], file), 'rb').read())
    fields = [value for name, value in message.headers if name.lower() == b'dkim-signature']
    for index, field in enumerate(fields):
        tags = dkim.util.parse_tag_value(field)
        name = (tags[b's'] + b'._domainkey.' + tags[b'd']).decode()
        if name not in keys:
            continue
        try:
            good, why = message.verify(idx=index, dnsfunc=dns), ''
        except Exception as error:
            good, why = False, repr(error)
        print(file, tags[b's'].decode(), 'pass' if good else 'fail', why)
"#;

fn dkimpy(folder: &Path, keys: &[Key]) -> Result<Vec<Verdict>, Box<dyn Error>> {
    let list = key_list(keys)?;
    let mut command = Command::new("/usr/bin/python3");
    let output = command.args(["-c", SCRIPT]).args([folder, list.path()]).output()?;
    if !output.status.success() {
        return Err(format!("dkimpy: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| read_line(line).ok_or_else(|| format!("dkimpy said {line:?}").into())).collect()
}

fn read_line(line: &str) -> Option<Verdict> {
    let mut words = line.splitn(4, ' ');
    let (message, selector, result) = (words.next()?, words.next()?, words.next()?);
    Some(Verdict { message: message.into(), selector: selector.into(), passes: result == "pass", said: line.into() })
}

/// A file with a line for each key: name, tab, record.
fn key_list(keys: &[Key]) -> std::io::Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let lines: String = keys.iter().map(|key| format!("{}\t{}\n", key.name(), key.record)).collect();
    std::fs::write(file.path(), lines)?;
    Ok(file)
}

/// It reads messages from files as if a mail server gave them, and shows the field that it would add.
fn opendkim(folder: &Path, keys: &[Key]) -> Result<Vec<Verdict>, Box<dyn Error>> {
    let list = key_list(keys)?;
    let configuration = tempfile::NamedTempFile::new()?;
    let text = format!(
        "Mode v\nUserID root\nAlwaysAddARHeader yes\nMaximumSignaturesToVerify 50\nTestPublicKeys {}\n",
        list.path().display()
    );
    std::fs::write(configuration.path(), text)?;
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut verdicts = Vec::new();
    for some in names.chunks(100) {
        let mut command = Command::new("/usr/sbin/opendkim");
        command
            .current_dir(folder)
            .arg("-x")
            .arg(configuration.path())
            .arg("-t")
            .arg(some.join(","))
            .args(["-v", "-v"]);
        let output = command.output()?;
        read_opendkim(&String::from_utf8_lossy(&output.stdout), keys, &mut verdicts);
    }
    Ok(verdicts)
}

fn read_opendkim(said: &str, keys: &[Key], verdicts: &mut Vec<Verdict>) {
    let mut field = String::new();
    for line in said.lines() {
        if line.starts_with("### INSHEADER") {
            line.clone_into(&mut field);
        } else if line.starts_with('\t') {
            field.push_str(line);
        } else if let Some((message, _)) = line.strip_prefix("opendkim: ").and_then(|line| line.split_once(':')) {
            for result in std::mem::take(&mut field).split("dkim=").skip(1) {
                let key = keys.iter().find(|key| {
                    let named = |tag: &str, value: &str| result.contains(&format!(" header.{tag}={value} "));
                    named("s", &key.selector) && named("d", &key.domain)
                });
                let Some(key) = key else { continue };
                let passes = result.starts_with("pass");
                let (message, selector) = (message.to_owned(), key.selector.clone());
                verdicts.push(Verdict { message, selector, passes, said: result.to_owned() });
            }
        }
    }
}

/// Answers instead of the DNS.
#[derive(Default)]
struct Answers(Mutex<HashMap<Box<str>, Txt>>);

impl ResolverCache<Box<str>, Txt> for Answers {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.0.lock().get(name).cloned()
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.0.lock().remove(name)
    }

    fn insert(&self, key: Box<str>, value: Txt, _: Instant) {
        self.0.lock().insert(key, value);
    }
}

fn mail_auth(folder: &Path, keys: &[Key]) -> Result<Vec<Verdict>, Box<dyn Error>> {
    let answers = Answers::default();
    for key in keys {
        let parsed = DomainKey::parse(key.record.as_bytes()).map_err(|error| error.to_string())?;
        answers.0.lock().insert(format!("{}.", key.name()).into(), Txt::DomainKey(Arc::new(parsed)));
    }
    // It knows no server: what is not in the answers is not found.
    let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    let authenticator = MessageAuthenticator::new(nowhere, ResolverOpts::default())?;
    let mut verdicts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let content = std::fs::read(entry.path())?;
        let Some(message) = AuthenticatedMessage::parse(&content) else {
            continue;
        };
        let asked = Parameters::new(&message).with_txt_cache(&answers);
        let outputs = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(authenticator.verify_dkim(asked))
        });
        for output in outputs {
            let Some(signature) = output.signature() else { continue };
            if keys.iter().any(|key| key.domain == signature.d && key.selector == signature.s) {
                verdicts.push(Verdict {
                    message: entry.file_name().to_string_lossy().into_owned(),
                    selector: signature.s.clone(),
                    passes: *output.result() == DkimResult::Pass,
                    said: format!("{:?}", output.result()),
                });
            }
        }
    }
    Ok(verdicts)
}
