//! Shell completions and the manual page, made from the command line's definition; the reference of metrics.

use std::fmt::Write as _;

use anyhow::Result;
use clap::CommandFactory as _;
use postrider_base::Metrics;

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

pub(crate) fn metrics(out: &mut Output) -> Result<()> {
    let mut page = String::from(
        "# Metrics\n\nServed at `/metrics` in the OpenMetrics text format. \
         Every time series exists, at zero, from the start.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in Metrics::reference() {
        let labels = metric.labels.iter().map(|(key, values)| match values.is_empty() {
            true => format!("{key}: as the configuration names them"),
            false => format!("{key}: {}", values.join(", ")),
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind, metric.help)?;
    }
    out.raw(page.as_bytes())
}
