//! A file that declares state, with the places of what it says.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use postrider_control::{Declared, DeclaredKey, DeclaredKind, DeclaredState};
use postrider_mail::AccountId;

use super::plan::Planned;
use super::settle;
use crate::config::ConfigError;

pub(super) struct StateFile {
    path: PathBuf,
    text: String,
    /// What it declares, in the order in which it can be made.
    pub(super) things: Vec<Declared>,
    /// Which table of its kind each is.
    places: HashMap<DeclaredKey, usize>,
    /// The accounts that stay when what is not declared goes: those of which something is
    /// declared, the configuration's, and the one that every install has.
    pub(super) accounts: HashSet<AccountId>,
}

impl StateFile {
    /// Reads a file; things that name no account are of the one given.
    pub(super) fn parse(path: &Path, text: String, account: AccountId) -> Result<StateFile, ConfigError> {
        let state: DeclaredState = toml::from_str(&text).map_err(|error| ConfigError::of_toml(path, &text, &error))?;
        let mut file = StateFile {
            path: path.to_owned(),
            text,
            things: state.into_things(),
            places: HashMap::new(),
            accounts: HashSet::from([account, AccountId::default()]),
        };
        let mut counts: HashMap<DeclaredKind, usize> = HashMap::new();
        for thing in &mut file.things {
            settle(thing, account);
            file.accounts.extend(*thing.account_mut());
            let key = thing.key();
            let count = counts.entry(key.kind).or_default();
            let place = std::mem::replace(count, *count + 1);
            if file.places.insert(key.clone(), place).is_some() {
                let message = format!("{key} is declared a second time");
                return Err(ConfigError::at_key(path, &file.text, &table(key.kind, place), message));
            }
        }
        file.check()?;
        Ok(file)
    }

    /// What the types of the fields can not say.
    fn check(&self) -> Result<(), ConfigError> {
        for thing in &self.things {
            let Declared::Policy(policy) = thing else { continue };
            if policy.user.is_some() == policy.identity.is_some() {
                let reason = "a policy is attached to a user or to an identity: name one of them";
                return Err(self.at(&thing.key(), reason, reason.to_owned()));
            }
        }
        Ok(())
    }

    /// Why the node did not make a change; at the field that the reason begins with, if it does.
    pub(super) fn refusal(&self, planned: &Planned, reason: &str, done: usize) -> ConfigError {
        let before = match done {
            0 => "nothing was changed".to_owned(),
            done => format!("{done} changes were made before it, and the same command goes on from there"),
        };
        self.at(&planned.key, reason, format!("{}: {reason}; {before}", planned.key))
    }

    fn at(&self, key: &DeclaredKey, reason: &str, message: String) -> ConfigError {
        match self.places.get(key) {
            Some(place) => {
                let field = reason.split(':').next().unwrap_or_default();
                let path = format!("{}.{field}", table(key.kind, *place));
                ConfigError::at_key(&self.path, &self.text, &path, message)
            }
            None => ConfigError::about(&self.path, message),
        }
    }
}

fn table(kind: DeclaredKind, place: usize) -> String {
    format!("{}[{place}]", kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        StateFile::parse(Path::new("s.toml"), text.to_owned(), AccountId::default()).err().unwrap().to_string()
    }

    #[test]
    fn refusals_name_file_line_and_reason() {
        let refused = refusal("[[identity]]\nname = \"example.com\"\n\n[[identity]]\nname = \"not a domain\"\n");
        assert!(refused.starts_with("s.toml:5:8: "), "{refused}");
        let refused = refusal("[[identity]]\nname = \"example.com\"\ntrust = true\n");
        assert!(refused.starts_with("s.toml:3:1: unknown field `trust`"), "{refused}");
        let refused = refusal("[[pool]]\nname = \"a\"\n[[pool]]\nname = \"a\"\n");
        assert!(refused.starts_with("s.toml:3:"), "{refused}");
        assert!(refused.contains("is declared a second time"), "{refused}");
        let refused = refusal("[[policy]]\nname = \"p\"\ndocument = \"{}\"\n");
        assert!(refused.starts_with("s.toml:1:") && refused.contains("name one of them"), "{refused}");
        assert!(refusal("[[pool]\n").starts_with("s.toml:1:"));
    }
}
