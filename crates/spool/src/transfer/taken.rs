//! Which files were imported here, and how far.

use serde::{Deserialize, Serialize};

/// Files that are remembered; for one more the one imported longest ago is
/// forgotten. Together they take 3 kB of a record.
const MOST: usize = 100;

/// How far files were imported, the latest last. It stands in the log as a
/// whole, in the batch of the messages that it speaks of: either both are
/// there or none, so that no message of a file comes twice or not at all,
/// whatever interrupts an import.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Taken(Vec<(FileId, u64)>);

/// A number that no other export has.
pub(crate) type FileId = u128;

impl Taken {
    /// How many of the first messages of a file have been here.
    pub(crate) fn of(&self, file: FileId) -> u64 {
        self.0.iter().find(|(known, _)| *known == file).map_or(0, |(_, messages)| *messages)
    }

    /// So many of the first messages of a file have been here.
    pub(crate) fn note(&mut self, file: FileId, messages: u64) {
        self.0.retain(|(known, _)| *known != file);
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push((file, messages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{OperatorHead, VERSION, decode_head};

    #[test]
    fn it_reads_as_it_was_written_first() {
        let head = [VERSION, 4, 2, 7, 9, 8, 1];
        let Some(OperatorHead::Taken(taken)) = decode_head(&head) else { panic!("not read") };
        assert_eq!(taken, Taken(vec![(7, 9), (8, 1)]));
    }

    #[test]
    fn the_last_files_are_remembered() {
        let mut taken = Taken::default();
        assert_eq!(taken.of(7), 0);
        taken.note(7, 3);
        taken.note(7, 9);
        for file in 100..199 {
            taken.note(file, 1);
        }
        assert_eq!((taken.of(7), taken.of(100), taken.0.len()), (9, 1, MOST));
        // One that goes on is not the oldest any more.
        taken.note(7, 10);
        taken.note(500, 1);
        assert_eq!((taken.of(7), taken.of(100), taken.of(101), taken.0.len()), (10, 0, 1, MOST));
    }

    #[test]
    fn it_is_as_small_as_is_said() {
        let mut taken = Taken::default();
        (0..MOST as u128).for_each(|n| taken.note(u128::MAX - n, u64::MAX));
        assert!(postcard::to_allocvec(&taken).unwrap().len() <= 3_000);
    }
}
