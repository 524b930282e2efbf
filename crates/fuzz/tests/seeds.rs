//! Every target over its seeds and over seeded mutations of them, so that a
//! broken promise shows without a fuzzer too.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::path::Path;

use postrider_base::Random;
use postrider_fuzz::TARGETS;

/// Mutations of each seed.
const MUTATIONS: usize = 2_000;
/// Words that random bytes would take long to find.
const WORDS: [&[u8]; 14] = [
    b"\r\n.\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"..",
    b"MAIL FROM:<",
    b"RCPT TO:<",
    b"DATA\r\n",
    b"BDAT 3 LAST\r\n",
    b"\xc3\xa9",
    b"250 ",
    b"250-",
    b" ",
];

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            keeps_its_promises(stringify!($name));
        })*

        #[test]
        fn none_is_left_out() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

targets! { chunk clamd command content conversation feedback header milter mime policy reply report results sasl session }

fn keeps_its_promises(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    let random = Random::seeded(1);
    for seed in &seeds {
        target(seed);
        for _ in 0..MUTATIONS {
            let other = &seeds[below(&random, seeds.len())];
            target(&mutate(&random, seed, other));
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One to four changes: a word put in, a span taken out or doubled, a byte
/// replaced, the end of another seed.
fn mutate(random: &Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=below(random, 4) {
        let at = below(random, data.len() + 1);
        let end = at + below(random, data.len() - at + 1);
        match below(random, 5) {
            0 => drop(data.splice(at..at, WORDS[below(random, WORDS.len())].iter().copied())),
            1 => drop(data.drain(at..end)),
            2 => {
                let span = data[at..end].to_vec();
                data.splice(at..at, span);
            }
            3 if at < data.len() => data[at] = random.u64().to_le_bytes()[0],
            _ => data.splice(at.., other[at.min(other.len())..].iter().copied()).for_each(drop),
        }
    }
    data
}

fn below(random: &Random, bound: usize) -> usize {
    usize::try_from(random.u64() % bound as u64).unwrap()
}
