fn main() -> std::process::ExitCode {
    oncecast::main()
}
