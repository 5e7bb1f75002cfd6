//! The benchmarks, see README.md:
//!
//! ```sh
//! cargo bench -p tests                # all
//! cargo bench -p tests -- floor cost  # some, by the names of their sections
//! WRITE_SVG=1 cargo bench -p tests -- scale
//! ```

mod accept;
mod bare_loop;
mod cost;
mod counter;
mod dollars;
mod chart;
mod cold_start;
mod floor;
mod pace;
mod process;
mod report;
mod scale;
mod stack;

use std::error::Error;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use futures_util::future::LocalBoxFuture;

use crate::report::Section;

type Measured = Result<Section, Box<dyn Error>>;

/// A benchmark: the name of its section, and its measurement.
struct Benchmark(&'static str, fn() -> LocalBoxFuture<'static, Measured>);

const BENCHMARKS: &[Benchmark] = &[
    Benchmark("floor", || Box::pin(floor::measure())),
    Benchmark("cost", || Box::pin(cost::measure())),
    Benchmark("cold_start", || Box::pin(cold_start::measure())),
    Benchmark("accept", || Box::pin(accept::measure())),
    Benchmark("pace", || Box::pin(pace::measure())),
    Benchmark("scale", || Box::pin(scale::measure())),
];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["function", name] => Err(run_function(name)),
        ["bare-loop"] => bare_loop::run(),
        ref names => measure(names),
    }
}

/// Becomes the executable of a function, as a stack asks for it. Returns if that cannot be started.
fn run_function(name: &str) -> Box<dyn Error> {
    let count_to = std::env::var_os(process::COUNT_TO).filter(|_| name == "process-job");
    let executable = process::executables().join(name);
    process::command(&executable, count_to.map(PathBuf::from).as_deref())
        .exec()
        .into()
}

fn measure(names: &[&str]) -> Result<(), Box<dyn Error>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !BENCHMARKS.iter().any(|bench| bench.0 == **name))
    {
        let known: Vec<_> = BENCHMARKS.iter().map(|bench| bench.0).collect();
        return Err(format!("no benchmark `{unknown}`; there are {}", known.join(", ")).into());
    }
    process::build_functions()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut sections = Vec::new();
    for Benchmark(name, run) in BENCHMARKS {
        if names.is_empty() || names.contains(name) {
            sections.push(runtime.block_on(run())?);
        }
    }
    for section in &sections {
        print!("{section}");
    }
    let path = process::executables().join("benches.json");
    report::write(&sections, &path)?;
    println!("\nAs JSON: {}", path.display());
    Ok(())
}
