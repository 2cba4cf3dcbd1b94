//! The program: what was typed, and the exit code.

fn main() -> std::process::ExitCode {
    traild::cli::main()
}
