//! `cargo xtask bench`: measures the promises of speed.
//!
//! Machines differ and have noisy neighbours, so figures are ratios where there is anything to compare
//! with: both sides measured in one run, in turn, round after round. Runs as root, in network
//! namespaces of its own.

#[cfg(test)]
mod agree;
mod aim;
mod facts;
mod figure;
mod frames;
mod lab;
mod latency;
mod live;
mod objects;
mod options;
mod p1;
mod p2;
mod p3;
mod p4;
mod p5;
mod p8;
mod plot;
mod report;
mod scale;
mod table;

use std::{fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};

use facts::Facts;
use figure::Figure;
use lab::Lab;
use report::Report;

#[derive(Parser)]
#[command(about = "Measures xgre's promises of speed")]
struct Options {
    /// What to measure; everything by default
    promises: Vec<Promise>,
    /// Rounds, in each of which every side is measured once [default: 9, quick: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: Option<u32>,
    /// Everything in a few minutes, with less certain figures
    #[arg(long)]
    quick: bool,
    /// The report.json of an earlier run, to print the change of each figure
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// An earlier build of the BPF programs, such as target/bpf/gre-ebpf, to be measured beside this one
    #[arg(long, value_name = "OBJECT")]
    object_against: Option<PathBuf>,
    /// Where report.json and the plots go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    out: PathBuf,
}

/// To add one: its name here, a module that measures it, and an arm of [`measure`].
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Promise {
    /// Cost of a packet against a C program that does the same
    P1,
    /// Packets per second against a program that only redirects
    P2,
    /// Packets per second with many routes and tunnels against one
    P3,
    /// Packets per second against what the kernel forwards into VXLAN
    P4,
    /// TCP of the gateway itself against the bare link, and against the kernel's VXLAN
    P5,
    /// Latency of a packet against a program that only redirects
    P8,
    /// Cost of a tunnel's options against none
    Options,
}

/// How much is measured.
struct Effort {
    rounds: u32,
    quick: bool,
    /// An earlier build of the BPF programs.
    earlier: Option<Vec<u8>>,
}

fn measure(promise: Promise, effort: &Effort) -> Result<Vec<Figure>> {
    match promise {
        Promise::P1 => p1::measure(effort),
        Promise::P2 => p2::measure(effort),
        Promise::P3 => p3::measure(effort),
        Promise::P4 => p4::measure(effort),
        Promise::P5 => p5::measure(effort),
        Promise::P8 => p8::measure(effort),
        Promise::Options => options::measure(effort),
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(nix::unistd::geteuid().is_root(), "BPF programs and network namespaces need root");
    tests::interrupt::install()?;
    let earlier = options
        .object_against
        .map(|path| fs::read(&path).with_context(|| format!("reading {}", path.display())))
        .transpose()?;
    let rounds = options.rounds.unwrap_or(if options.quick { 5 } else { 9 });
    let effort = Effort { rounds, quick: options.quick, earlier };
    // Before the new report comes into its place.
    let baseline = options.against.as_deref().map(Report::read).transpose()?;
    let out = options.out;
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;

    let mut promises = options.promises;
    if promises.is_empty() {
        promises = Promise::value_variants().to_vec();
    }
    let mut report = Report::new(Facts::gather()?);
    for promise in promises {
        let name = promise.to_possible_value().context("all promises have names")?;
        eprintln!("{}: {}", name.get_name(), name.get_help().context("and are explained")?);
        if promise == Promise::P1 {
            report.programs = apart(|| Lab::new(&effort)?.subjects.sizes())?;
        }
        report.figures.extend(apart(|| measure(promise, &effort))?);
        if promise == Promise::P4 {
            report.elsewhere.push(p4::in_a_guest());
        }
    }
    report.facts.at_the_end()?;

    println!("{}\n", report.facts);
    if !report.programs.is_empty() {
        println!("{}", objects::table(&report.programs));
    }
    if let Some(baseline) = &baseline {
        println!("before: {}\n", baseline.facts);
    }
    print!("{}", report.table(baseline.as_ref()));
    report.write(&out.join("report.json"))?;
    plot::write(&out, &report.figures)?;
    println!("\nreport.json and a plot for each promise are in {}", out.display());
    Ok(())
}

/// In a thread of its own: a namespace and a choice of CPUs are a thread's.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
