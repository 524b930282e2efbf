//! The spool's promise when the power fails: what was acknowledged is there,
//! whole; what ended does not come back; the feed says each thing once.
//!
//! Two ways. A file system of its own is shut down without flushing, under
//! load. And the system calls of a load are recorded, and the directory is
//! made anew as it could look after a cut at any moment: unsynced writes and
//! names are there, missing or torn, at random.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod cut;
mod ledger;
mod look;
mod machine;
mod recorded;
mod recording;
mod replay;
mod shadow;

use std::error::Error;
use std::time::Duration;

use postrider_base::Random;

use crate::cut::{Rounds, Timeline};
use crate::ledger::{Counts, Ledger};
use crate::machine::Machine;
use crate::recorded::{Cut, Recorded};
use crate::shadow::Manner;

/// Cuts of the recording that are compared when nothing else is asked for, and
/// after which time no more are.
const CUTS: u64 = 200;
const CUTTING: Duration = Duration::from_secs(40);
/// Cuts for which a recording is played once.
const PASS: u64 = 25;

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_stops_at_once_loses_nothing_acknowledged() -> Outcome {
    let rounds = number("POSTRIDER_POWER_ROUNDS", 6)?;
    let seed = number("POSTRIDER_POWER_SEED", Random::system().u64())?;
    let machine = match Machine::new() {
        Ok(machine) => machine,
        Err(error) => {
            println!("NOT TESTED on a real file system, the machine forbids it: {error}");
            return Ok(());
        }
    };
    println!("POSTRIDER_POWER_SEED={seed} POSTRIDER_POWER_ROUNDS={rounds}");
    let random = Random::seeded(seed);
    let mut all = Rounds { machine, random, ledger: Ledger::default(), timeline: Timeline::begin() };
    for round in 0..rounds {
        let counts = all.round(round).await?;
        println!("round {round}: {counts:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_between_any_two_system_calls_loses_nothing_acknowledged() -> Outcome {
    // Without a wish for more, a busy machine is not kept for long.
    let wish = number("POSTRIDER_POWER_CUTS", 0)?;
    let (most, patience) = if wish > 0 { (wish, Duration::MAX) } else { (CUTS, CUTTING) };
    let seed = number("POSTRIDER_POWER_SEED", Random::system().u64())?;
    println!("POSTRIDER_POWER_SEED={seed}");
    let random = Random::seeded(seed);
    let recorded = Recorded::make(500, 150)?;
    let (steps, syncs) = recorded.size();
    let timeline = Timeline::begin();
    let (mut cuts, mut counts) = (0, Counts::default());
    while cuts < most && timeline.now() < patience {
        let some = recorded.cuts(PASS, &random);
        counts += recorded.check(&some, &random).await?;
        // And cuts while what a cut left is recovered.
        let cut = recorded.cuts(1, &random)[0];
        let again = recorded.after(cut, 5, &random)?;
        let others = again.cuts(PASS, &random);
        let wrong = |error| format!("after {cut:?}, {error}");
        counts += again.check(&others, &random).await.map_err(wrong)?;
        cuts += 2 * PASS;
    }
    println!("{cuts} cuts in {steps} steps with {syncs} syncs: {counts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_missing_is_found_as_a_loss() -> Outcome {
    let recorded = Recorded::make(0, 20)?;
    let id = recorded.acked_and_untouched().ok_or("nothing was acknowledged")?;
    let (without, step) = recorded.without_sync_of(id).ok_or("it was not told")?;
    let (cut, random) = (Cut { step, manner: Manner::Nothing, without_index: false }, Random::seeded(1));
    recorded.check(&[cut], &random).await?;
    let wrong = without.check(&[cut], &random).await.err().ok_or("the loss was not found")?.to_string();
    assert!(wrong.contains(&format!("{id} recipient 0: LOST")), "{wrong}");
    Ok(())
}

/// A number from the environment.
fn number(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse().map_err(|error| format!("{name}: {error}"))?),
        Err(_) => Ok(default),
    }
}
