//! `cargo run --release -p bench -- [P1] [P2]`: measures the promises of speed.
//!
//! Machines differ and have noisy neighbours, so every figure is a ratio: both sides measured in
//! one run, in turn, round after round. Runs as root, in a network namespace of its own.

mod facts;
mod figure;
mod frames;
mod lab;
mod objects;
mod options;
mod p1;
mod p2;
mod table;

use std::{fs::File, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use facts::Facts;
use figure::Figure;
use lab::Lab;

#[derive(Parser)]
#[command(about = "Measures xgre's promises of speed")]
struct Options {
    /// What to measure; everything by default
    promises: Vec<Promise>,
    /// Rounds, in each of which every side is measured once
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(5..))]
    rounds: u32,
    /// Packets of live frames a round
    #[arg(long, default_value_t = 1 << 20)]
    packets: u32,
    /// An earlier build of the BPF programs, to be measured beside this one
    #[arg(long, value_name = "OBJECT")]
    against: Option<PathBuf>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Promise {
    /// Cost of a packet against a C program that does the same
    P1,
    /// Packets per second against a program that only redirects
    P2,
    /// Cost of a tunnel's options against none
    Options,
}

#[derive(Serialize)]
struct Report {
    facts: Facts,
    programs: Vec<objects::Size>,
    figures: Vec<Figure>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(nix::unistd::geteuid().is_root(), "BPF programs and network namespaces need root");
    let against = options
        .against
        .map(|path| std::fs::read(&path).with_context(|| format!("reading {}", path.display())))
        .transpose()?;

    let facts = Facts::gather()?;
    println!("{facts}\n");
    let mut lab = Lab::new(against)?;
    let programs = lab.subjects.sizes()?;
    println!("{}", objects::table(&programs));

    let wanted = |promise| options.promises.is_empty() || options.promises.contains(&promise);
    let mut figures = Vec::new();
    if wanted(Promise::P1) {
        figures.extend(p1::measure(&mut lab, options.rounds)?);
    }
    if wanted(Promise::Options) {
        figures.extend(options::measure(&mut lab, options.rounds)?);
    }
    if wanted(Promise::P2) {
        figures.extend(p2::measure(&mut lab, options.rounds, options.packets)?);
    }
    print!("{}", figure::table(&figures));

    if let Some(path) = options.json {
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        serde_json::to_writer_pretty(file, &Report { facts, programs, figures })?;
    }
    Ok(())
}
