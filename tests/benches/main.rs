//! The benchmarks, see README.md:
//!
//! ```sh
//! cargo bench -p tests                # all
//! cargo bench -p tests -- floor cost  # some, by the names of their sections
//! WRITE_SVG=1 cargo bench -p tests -- scale
//! ```

mod accept;
mod alternatives;
mod bare_loop;
mod beyond;
mod chart;
mod cold_start;
mod cost;
mod counter;
mod dollars;
mod floor;
mod local_stack;
mod pace;
mod process;
mod report;
mod scale;
mod stack;
mod up;

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
    Benchmark("alternatives", || Box::pin(alternatives::measure())),
    Benchmark("cost", || Box::pin(cost::measure())),
    Benchmark("cold_start", || Box::pin(cold_start::measure())),
    Benchmark("accept", || Box::pin(accept::measure())),
    Benchmark("pace", || Box::pin(pace::measure())),
    Benchmark("scale", || Box::pin(scale::measure())),
    Benchmark("local_stack", || Box::pin(local_stack::measure())),
    Benchmark("beyond", || Box::pin(beyond::measure())),
];

/// Benchmarks that take longer than an hour, and run only if they are named.
const LONG: &[Benchmark] = &[Benchmark("hour", || Box::pin(local_stack::measure_hour()))];

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
    let all = || BENCHMARKS.iter().chain(LONG);
    if let Some(unknown) = names.iter().find(|name| !all().any(|bench| bench.0 == **name)) {
        let known: Vec<_> = all().map(|bench| bench.0).collect();
        return Err(format!("no benchmark `{unknown}`; there are {}", known.join(", ")).into());
    }
    process::build_functions()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut sections = Vec::new();
    let chosen = match names {
        [] => BENCHMARKS.iter().collect::<Vec<_>>(),
        names => all().filter(|bench| names.contains(&bench.0)).collect(),
    };
    for Benchmark(_, run) in chosen {
        sections.push(runtime.block_on(run())?);
    }
    for section in &sections {
        print!("{section}");
    }
    let path = process::executables().join("benches.json");
    report::write(&sections, &path)?;
    println!("\nAs JSON: {}", path.display());
    Ok(())
}
