//! Keys for TSIG, in the file format of BIND: what `tsig-keygen` and `keymgr -t` write.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, TSigner};

/// How far the clocks of the two sides may be apart, in seconds (RFC 8945 section 10 advises 300).
const FUDGE: u16 = 300;
/// A key file is a few lines.
const LONGEST_FILE: u64 = 64 * 1024;

/// A secret that we share with a name server.
#[derive(Clone)]
pub struct TsigKey {
    name: String,
    pub(super) signer: TSigner,
}

impl TsigKey {
    /// Reads the first key of a file.
    ///
    /// # Errors
    /// What is wrong, in one line without the secret.
    pub fn load(path: &Path) -> Result<TsigKey, String> {
        let shown = path.display();
        let cannot = |error| format!("{shown}: cannot read the key: {error}");
        if std::fs::metadata(path).map_err(cannot)?.len() > LONGEST_FILE {
            return Err(format!("{shown}: too long for a key file"));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        TsigKey::parse(&text).map_err(|reason| format!("{shown}: {reason}"))
    }

    /// Reads `key "name" { algorithm hmac-sha256; secret "base64"; };`.
    ///
    /// # Errors
    /// What is wrong, in one line without the secret.
    pub fn parse(text: &str) -> Result<TsigKey, String> {
        let text = without_comments(text);
        let mut words = words(&text);
        words.find(|word| *word == "key").ok_or("there is no key \"name\" { ... } in it")?;
        let name = words.next().ok_or("the key has no name")?;
        let (mut algorithm, mut secret) = (None, None);
        while let Some(word) = words.next().filter(|word| *word != "}") {
            match word {
                "algorithm" => algorithm = words.next(),
                "secret" => secret = words.next(),
                _ => {}
            }
        }
        let algorithm = self::algorithm(algorithm.ok_or("the key has no algorithm")?)?;
        let secret = secret.ok_or("the key has no secret")?;
        let secret = STANDARD.decode(secret).map_err(|_| "the secret is not base64")?;
        let owner = Name::from_ascii(name).map_err(|_| format!("{name:?} cannot be the name of a key"))?;
        let signer = TSigner::new(secret, algorithm, owner, FUDGE).map_err(|error| error.to_string())?;
        Ok(TsigKey { name: name.to_owned(), signer })
    }

    /// Its name, which the server knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// RFC 8945 section 6: those that may still be used.
fn algorithm(name: &str) -> Result<TsigAlgorithm, String> {
    match name.to_ascii_lowercase().trim_end_matches('.') {
        "hmac-sha256" => Ok(TsigAlgorithm::HmacSha256),
        "hmac-sha384" => Ok(TsigAlgorithm::HmacSha384),
        "hmac-sha512" => Ok(TsigAlgorithm::HmacSha512),
        other => Err(format!("the algorithm must be hmac-sha256, hmac-sha384 or hmac-sha512, found {other:?}")),
    }
}

/// Words and `}`, without quotes and `{` and `;`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('}')
        .flat_map(|part| {
            let (inner, end) = part.strip_suffix('}').map_or((part, None), |inner| (inner, Some("}")));
            inner.split(|c: char| c.is_whitespace() || "{;\"".contains(c)).chain(end)
        })
        .filter(|word| !word.is_empty())
}

/// `#` and `//` up to the end of the line, `/* */`; never inside quotes.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let end = match rest {
            _ if quoted => None,
            rest if rest.starts_with('#') || rest.starts_with("//") => Some(rest.find('\n').unwrap_or(rest.len())),
            rest if rest.starts_with("/*") => Some(rest.find("*/").map_or(rest.len(), |end| end + 2)),
            _ => None,
        };
        match end {
            Some(end) => rest = &rest[end..],
            None => {
                quoted ^= c == '"';
                clean.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "# made by tsig-keygen\nkey \"relay.example\" {\n\talgorithm hmac-sha256; // the usual\n\t\
                        secret \"bm90IGEgc2VjcmV0IC8vIGF0IGFsbA==\";\n};\n";

    #[test]
    fn a_file_of_bind_is_read() {
        let key = TsigKey::parse(GOOD).unwrap();
        assert_eq!(key.name(), "relay.example");
        assert_eq!(key.signer.key(), b"not a secret // at all");
        assert!(TsigKey::parse("/* x */ key k{algorithm HMAC-SHA512.;secret \"aGk=\";};").is_ok());
        assert!(!format!("{key:?}").contains("not a"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for (bad, said) in [
            ("", "there is no key"),
            ("secret \"aGk=\";", "there is no key"),
            ("key \"k\" { secret \"aGk=\"; };", "no algorithm"),
            ("key \"k\" { algorithm hmac-sha256; };", "no secret"),
            ("key \"k\" { algorithm hmac-md5; secret \"aGk=\"; };", "hmac-sha256"),
            ("key \"k\" { algorithm hmac-sha256; secret \"sesame!\"; };", "not base64"),
            ("key \"a..b\" { algorithm hmac-sha256; secret \"aGk=\"; };", "name of a key"),
        ] {
            let error = TsigKey::parse(bad).unwrap_err();
            assert!(error.contains(said) && !error.contains("sesame"), "{bad}: {error}");
        }
        let nowhere = TsigKey::load(Path::new("/nowhere/key")).unwrap_err();
        assert!(nowhere.starts_with("/nowhere/key: cannot read the key"), "{nowhere}");
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "(key|secret|algorithm|\"|\\{|\\}|;|/\\*|//|#|\\PC| ){0,40}") {
            let _ = TsigKey::parse(&text);
        }
    }
}
