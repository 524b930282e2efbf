//! Mail that another machine exported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postrider_base::{Disk, Random, SimDisk};
use postrider_mail::MessageId;
use postrider_spool::{Content, Error, ExportOptions, ImportOptions, Selector};

use super::{DOMAINS, Life, passes};
use crate::crash::model::Message;
use crate::rig::Rig;

/// Messages in a file.
const COUNT: usize = 5;

/// The files, made when they are first wanted, on a disk that does not fail.
#[derive(Default)]
pub(super) struct Carrier {
    disk: SimDisk,
    files: BTreeMap<usize, File>,
}

#[derive(Clone)]
struct File {
    path: PathBuf,
    /// Each to one recipient.
    messages: Vec<(MessageId, Content)>,
}

impl Carrier {
    async fn file(&mut self, number: usize, here: &Rig) -> File {
        if !self.files.contains_key(&number) {
            let file = self.export(number, here).await;
            self.files.insert(number, file);
        }
        self.files[&number].clone()
    }

    async fn export(&self, number: usize, here: &Rig) -> File {
        let seed = 1_000 + number as u64;
        let there = Rig { clock: here.clock.clone(), random: Random::seeded(seed), ..Rig::new() };
        let spool = there.open().await;
        let mut messages = Vec::new();
        for n in 0..COUNT {
            let message = there.message(&[&format!("r0@{}", DOMAINS[n % DOMAINS.len()])]);
            messages.push((message.id, message.content.clone()));
            spool.accept(message).await.unwrap();
        }
        // In the order of the queues.
        messages.sort_by_key(|(id, _)| *id);
        self.disk.create_dir_all(Path::new("/carried")).unwrap();
        let path = PathBuf::from(format!("/carried/{number}"));
        let options = ExportOptions {
            disk: Arc::new(self.disk.clone()),
            path: path.clone(),
            selector: Selector::All,
            from: "there".into(),
            id: u128::from(seed),
            keep: false,
        };
        assert_eq!(spool.export(options).await.unwrap().moved, COUNT as u64);
        File { path, messages }
    }
}

impl Life<'_> {
    pub(super) async fn import(&mut self, number: usize) {
        let file = self.carrier.file(number, &self.rig).await;
        for (id, content) in &file.messages {
            let unsure = || Message::unsure(content.clone(), 1);
            self.model.messages.entry(*id).or_insert_with(unsure);
        }
        let disk = Arc::new(self.carrier.disk.clone());
        let options = ImportOptions { disk, path: file.path, again: false };
        match self.spool().import(options).await {
            Ok(imported) => {
                assert_eq!((imported.messages + imported.taken_before, imported.skipped), (COUNT as u64, 0));
                if imported.messages > 0 && imported.taken_before > 0 {
                    self.tally.count("imported again after a part");
                }
                for (id, _) in &file.messages {
                    self.model.messages.get_mut(id).unwrap().unsure = false;
                }
                if imported.messages > 0 {
                    self.model.synced();
                }
            }
            Err(Error::Full(_) | Error::NoFile) => self.tally.count("imported in part, or refused"),
            Err(error) => {
                assert!(passes(&error), "{error}");
                self.tally.count("imported in part");
            }
        }
    }
}
