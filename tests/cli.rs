//! The program as it is typed: exit codes, and what goes to stdout and what to stderr.

#![allow(clippy::unwrap_used)] // a test that cannot go on may stop

use std::path::Path;
use std::process::{Command, Output};

/// Runs traild in `directory`, where there is no configuration but what the test put there.
fn traild(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_traild"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("TRAILD_LOG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn usage_mistakes_end_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["fly"],
        &["run", "--fly"],
        &["send"],
        &["status", "--endpoint", "https://x"],
    ] {
        let (code, stdout, stderr) = traild(directory.path(), arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    }
}

#[test]
fn every_mistake_of_a_configuration_is_told_and_ends_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let text = "acount_id = \"1\"\n[delivery]\nmax_age = \"soon\"\n[auth]\nmode = \"sigv4\"\n";
    std::fs::write(directory.path().join("traild.toml"), text).unwrap();
    for command in ["validate", "run"] {
        let (code, stdout, stderr) = traild(directory.path(), &[command]);
        assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
        for part in [
            "./traild.toml:1: acount_id",
            "delivery.max_age = \"soon\"",
            "not supported by this version",
            "3 mistakes",
        ] {
            assert!(stderr.contains(part), "{part} is missing in {stderr}");
        }
    }
    let (code, _, stderr) = traild(directory.path(), &["validate", "--config", "missing.toml"]);
    assert_eq!(code, 78);
    assert!(
        stderr.contains("missing.toml: cannot read the configuration"),
        "{stderr}"
    );
}

#[test]
fn a_sound_configuration_is_summed_up_on_stdout() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[trails]]\nname = \"main\"\ns3_bucket_name = \"logs\"\nevent_bus = \"default\"\n";
    std::fs::write(directory.path().join("traild.toml"), text).unwrap();
    let (code, stdout, stderr) = traild(directory.path(), &["validate", "--offline"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("main: account 111122223333, all regions -> s3://logs"),
        "{stdout}"
    );
    assert!(
        stderr.contains("warning: ./traild.toml:4: trails[0].event_bus: is not delivered"),
        "{stderr}"
    );
}

#[test]
fn what_does_not_work_ends_with_1_and_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}");
    for arguments in [&["status", "--endpoint", &endpoint][..], &["wal", "check"]] {
        let (code, stdout, stderr) = traild(directory.path(), arguments);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(
            stderr.starts_with("error: cannot ") && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}

#[test]
fn completions_and_manual_are_data() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
    ] {
        let (code, stdout, stderr) = traild(directory.path(), arguments);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.contains("validate"), "{arguments:?}");
    }
}
