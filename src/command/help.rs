//! Shell completions and the manual page, made from the command line's definition.

use anyhow::Result;
use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::output::Output;

pub(crate) fn completions(shell: clap_complete::Shell, out: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "postrider", &mut script);
    out.raw(&script)
}

pub(crate) fn man(out: &mut Output) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    out.raw(&page)
}
