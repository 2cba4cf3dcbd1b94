//! The program: exit codes, nothing else.

fn main() -> std::process::ExitCode {
    traild::cli::main()
}
