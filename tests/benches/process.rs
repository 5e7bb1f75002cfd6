//! Processes and what they use: time of the CPU, memory, instructions.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The ticks of a second in `/proc/PID/stat`: Linux's `USER_HZ`, the same on every machine.
const TICKS: f64 = 100.0;

/// The variable that has the functions run below callgrind, which writes its counts to this file.
pub const COUNT_TO: &str = "BENCH_CALLGRIND";

/// The use of one process until now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The time of the CPU, in the program and in the kernel.
    pub cpu: Duration,
    /// The most memory that was resident at once, in MiB.
    pub peak_mib: f64,
}

/// Returns what a running process has used.
pub fn usage(pid: u32) -> Result<Usage, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The fields behind the name, which may contain blanks: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks: f64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0.0))
        .sum();
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks / TICKS),
        peak_mib: status(pid, "VmHWM:")? / 1_024.0,
    })
}

/// Forgets the peak memory of a process: <https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html>.
pub fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Returns a number of `/proc/PID/status`; memory is in KiB.
pub fn status(pid: u32, field: &str) -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let value = value.and_then(|value| value.split_whitespace().next());
    Ok(value.ok_or("field not in status")?.parse()?)
}

/// Returns the instructions of a process that has ended below callgrind.
pub fn instructions(counts: &Path) -> Result<f64, Box<dyn Error>> {
    let counts = fs::read_to_string(counts)?;
    let total = counts
        .lines()
        .find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")));
    Ok(total.ok_or("no sum in callgrind's output")?.trim().parse()?)
}

/// Returns a command, below callgrind if a file for its counts is given.
pub fn command(executable: &Path, count_to: Option<&Path>) -> Command {
    let Some(counts) = count_to else {
        return Command::new(executable);
    };
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(executable);
    command
}

/// Returns the directory of the executables of this profile: that of the benchmarks lies in its folder `deps`.
pub fn executables() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// Builds the executables of the three functions as they are deployed, and the function that does nothing.
pub fn build_functions() -> Result<(), Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--locked", "--bins"]);
    // A debug build is for the work on the benchmarks themselves, and uses what the tests have built.
    match cfg!(debug_assertions) {
        true => build.arg("--workspace"),
        false => build.args([
            "--release",
            "--package=send",
            "--package=process-job",
            "--package=scheduled",
            "--package=hello",
        ]),
    };
    let target = executables().parent().map(Path::to_owned).unwrap_or_default();
    match build.env("CARGO_TARGET_DIR", target).status()?.success() {
        true => Ok(()),
        false => Err("the functions were not built".into()),
    }
}
