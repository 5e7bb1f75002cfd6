//! Completions for a shell, and man pages: both are made from the command line's own definition.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::failure::Failure;
use crate::output::Output;

/// The options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsOptions {
    /// Shell for which they are written
    shell: Shell,
}

/// The options of `man`.
#[derive(Debug, Args)]
pub struct ManOptions {
    /// Directory into which a page for each command is written; without it the first page is written to stdout
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Writes the completions to stdout.
///
/// # Errors
///
/// Fails if they cannot be written.
pub fn completions(options: &CompletionsOptions, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "oncecast", &mut script);
    Output::new(false).write(&script)
}

/// Writes the man page of the command to stdout, or those of all commands into a directory.
///
/// # Errors
///
/// Fails if they cannot be written.
pub fn man(options: &ManOptions, command: Command) -> Result<(), Failure> {
    let Some(directory) = &options.directory else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return Output::new(false).write(&page);
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, Path::new(directory)))
        .map_err(|error| Failure::of_file(directory, &error))
}
