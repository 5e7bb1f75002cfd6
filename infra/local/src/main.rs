//! The executable `local`: see [`local::main`].

fn main() -> std::process::ExitCode {
    local::main()
}
