//! How fast keys are verified, by a real server with a real database, beside a bare actix-web
//! server on the same machine in the same minutes. `cargo bench --bench verify -- --help`

mod cases;
mod changes;
mod load;
mod postgres;
mod relay;
mod report;
mod seed;
mod server;

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tempfile::TempDir;

use cases::{Bench, Dashboard};
use postgres::Cluster;
use report::{Report, grouped};
use seed::{Database, Keys};
use server::Server;

/// What all cases run with; other sizes run the valid key only.
const MAIN_SIZE: u64 = 1_000_000;
const TEN_MILLION: u64 = 10_000_000;

/// Measures the dashboard's server in pairs with a bare actix-web server, and prints tables.
///
/// Databases are made in the temporary folder (TMPDIR) and removed at the end: up to 2 GB, or 6 GB
/// with ten million keys.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench verify --")]
struct Args {
    /// Measure with this database only
    #[arg(long)]
    database: Option<Backend>,
    /// How many keys the databases have
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, MAIN_SIZE],
        value_parser = clap::value_parser!(u64).range(1_000..))]
    keys: Vec<u64>,
    /// Also measure with 10,000,000 keys: takes minutes more
    #[arg(long)]
    ten_million: bool,
    /// Measure these cases only
    #[arg(long, num_args = 1..)]
    case: Vec<Case>,
    /// How many pairs of samples a case has; results are their medians
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// How many seconds a sample takes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many connections send requests at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// `cargo bench` gives this, `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the reference
    #[arg(long, hide = true)]
    reference: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        })
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Case {
    ValidKey,
    /// While keys of other accounts are changed
    AmidChanges,
    UnknownKey,
    FailedChecksum,
    NoKey,
    Info,
    KeysPage,
    Emails,
    Pages,
    Delivery,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.reference {
        return server::serve_reference();
    }
    if !args.bench {
        println!("This takes minutes: run it with `cargo bench --bench verify`.");
        return Ok(());
    }
    let keys = Keys::generate();
    let mut report = Report::default();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        if args.database.is_none_or(|only| only == backend) {
            let folder = TempDir::with_prefix("tosend-bench-")?;
            measure(backend, folder.path(), &args, &keys, &mut report)?;
        }
    }
    report.print(args.pairs, args.seconds, args.connections);
    Ok(())
}

/// All cases with one database system.
fn measure(
    backend: Backend,
    folder: &Path,
    args: &Args,
    keys: &Keys,
    report: &mut Report,
) -> Result<()> {
    let cluster = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(Cluster::start()?),
    };
    let databases = (args.sizes().into_iter())
        .map(|count| seed(folder, cluster.as_ref(), count, keys))
        .collect::<Result<Vec<_>>>()?;
    if args.cases().contains(&Case::Pages) {
        let main = databases.iter().rfind(|d| d.keys <= MAIN_SIZE);
        let start = Instant::now();
        if let Some(database) = main.or(databases.first()) {
            database.age_many(cases::AGED_ROWS)?;
        }
        eprintln!("Added a year in {:.1} s", start.elapsed().as_secs_f64());
    }
    let dashboards = databases.iter().map(Dashboard::start);
    let dashboards = dashboards.collect::<Result<Vec<_>>>()?;
    let mut bench = Bench {
        backend,
        args,
        keys,
        reference: Server::reference(folder)?,
        report,
        connections: args.connections,
    };
    let result = bench.run(&dashboards);
    dashboards.iter().try_for_each(|d| d.server.check_log())?;
    result
}

fn seed(folder: &Path, cluster: Option<&Cluster>, count: u64, keys: &Keys) -> Result<Database> {
    let start = Instant::now();
    let database = Database::seed(folder, cluster, count, keys)?;
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("Seeded {} keys in {seconds:.1} s", grouped(count));
    Ok(database)
}

impl Args {
    fn sizes(&self) -> Vec<u64> {
        let mut sizes = self.keys.clone();
        sizes.extend(self.ten_million.then_some(TEN_MILLION));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn cases(&self) -> &[Case] {
        match self.case.is_empty() {
            true => Case::value_variants(),
            false => &self.case,
        }
    }
}
