//! Which files may not be attached.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest extension that can be named.
const MAX_EXTENSION: usize = 32;

/// The extensions that SES refuses.
const OF_SES: [&str; 90] = [
    "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh", "der", "exe", "fxp",
    "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "ksh", "lib", "lnk", "mad", "maf", "mag", "mam",
    "maq", "mar", "mas", "mat", "mau", "mav", "maw", "mda", "mdb", "mde", "mdt", "mdw", "mdz", "msc", "msh", "msh1",
    "msh1xml", "msh2", "msh2xml", "mshxml", "msi", "msp", "mst", "ops", "pcd", "pif", "plg", "prf", "prg", "ps1",
    "ps1xml", "ps2", "ps2xml", "psc1", "psc2", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "tmp", "url", "vb",
    "vbe", "vbs", "vps", "vsmacros", "vss", "vst", "vsw", "vxd", "ws", "wsc", "wsf", "wsh", "xnk",
];

/// The extensions of files that may not be attached: `"ses"` for those that SES refuses, which
/// is the default, `"none"`, or a list, in which `"ses"` stands for all of SES's and `"!crt"`
/// takes one away that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedAttachments {
    extensions: BTreeSet<String>,
    /// As it was configured.
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Source {
    Word(String),
    List(Vec<String>),
}

impl BlockedAttachments {
    /// Those of this list.
    ///
    /// # Errors
    /// Which entry is none.
    pub fn of(list: &[&str]) -> Result<Self, String> {
        Self::from_source(Source::List(list.iter().map(|entry| (*entry).to_owned()).collect()))
    }

    /// Whether every file may be attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }

    /// Whether a file of this name may not be attached. Dots and blanks at its end are no part
    /// of it, as receivers' systems drop them, nor are characters that are not seen.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let seen: String = name.chars().filter(|c| !is_unseen(*c)).collect();
        let Some((_, extension)) = seen.trim_end_matches(['.', ' ']).rsplit_once('.') else { return false };
        let extension = extension.trim();
        extension.len() <= MAX_EXTENSION && self.extensions.contains(extension.to_ascii_lowercase().as_str())
    }

    fn from_source(source: Source) -> Result<Self, String> {
        let mut extensions = BTreeSet::new();
        let entries: &[String] = match &source {
            Source::Word(word) if word == "none" => &[],
            Source::Word(word) if word == "ses" => std::slice::from_ref(word),
            Source::Word(word) => return Err(format!("{word:?} is neither \"ses\" nor \"none\" nor a list")),
            Source::List(list) => list,
        };
        for entry in entries {
            let (takes_away, extension) = match entry.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, entry.as_str()),
            };
            let of_entry: Vec<String> = match extension {
                "ses" => OF_SES.map(str::to_owned).to_vec(),
                extension => vec![named(extension).ok_or_else(|| {
                    format!("{entry:?} is no extension: 1 to {MAX_EXTENSION} letters and digits, as \"exe\"")
                })?],
            };
            for extension in of_entry {
                if takes_away {
                    extensions.remove(&extension);
                } else {
                    extensions.insert(extension);
                }
            }
        }
        Ok(Self { extensions, source })
    }
}

/// Controls, and the marks that turn the direction of writing: a name seems to end elsewhere
/// with them.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn named(extension: &str) -> Option<String> {
    let extension = extension.strip_prefix('.').unwrap_or(extension);
    let is_one = (1..=MAX_EXTENSION).contains(&extension.len()) && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    is_one.then(|| extension.to_ascii_lowercase())
}

impl Default for BlockedAttachments {
    fn default() -> Self {
        Self {
            extensions: OF_SES.iter().map(|extension| (*extension).to_owned()).collect(),
            source: Source::Word("ses".to_owned()),
        }
    }
}

impl Serialize for BlockedAttachments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BlockedAttachments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_source(Source::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_ses() {
        let blocked = BlockedAttachments::default();
        assert_eq!(blocked.extensions.len(), 90, "none is there twice");
        for extension in OF_SES {
            assert!(blocked.contains(&format!("a.{extension}")), "{extension}");
        }
        for passes in ["a.pdf", "exe", "a.exe.zip", "a.ex", "", ".", "a.", "a.ps3", "smime.p7s", "encrypted.asc"] {
            assert!(!blocked.contains(passes), "{passes}");
        }
    }

    #[test]
    fn a_name_can_not_hide_its_extension() {
        let blocked = BlockedAttachments::default();
        for name in [
            "A.EXE",
            "a.exe.",
            "a.exe . .",
            "a.pdf.exe",
            ".exe",
            "a. exe",
            "a.exe\u{0}",
            "a.\u{202e}exe",
            "a.e\u{200b}xe",
            "a.exe\t",
        ] {
            assert!(blocked.contains(name), "{name:?}");
        }
    }

    #[test]
    fn a_list_adds_and_takes_away() {
        let read = |text: &str| serde_json::from_str::<BlockedAttachments>(text);
        let own = read(r#"["ses", "!crt", ".ZIP"]"#).unwrap();
        assert!(own.contains("a.exe") && own.contains("a.zip") && !own.contains("a.crt"));
        assert_eq!(serde_json::to_string(&own).unwrap(), r#"["ses","!crt",".ZIP"]"#);
        assert!(read(r#""none""#).unwrap().is_empty());
        assert_eq!(read(r#""ses""#).unwrap(), BlockedAttachments::default());
        assert_eq!(read(r#"["exe"]"#).unwrap(), BlockedAttachments::of(&["exe"]).unwrap());
        for bad in [r#""all""#, r#"["a.b"]"#, r#"[""]"#, r#"["*"]"#, "1", r#"["!"]"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
