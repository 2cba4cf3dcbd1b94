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
        &["status", "--endpoint", "ftp://x"],
        &["dlq"],
        &["dlq", "list", "--sink", "kafka"],
        &["dlq", "replay", "--trail", "../x"],
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
            "auth.mode = \"sigv4\": needs credentials",
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
    assert_eq!(stderr, "", "nothing in it is doubtful");
}

#[test]
fn what_does_not_work_ends_with_1_and_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}");
    for arguments in [
        &["status", "--endpoint", &endpoint][..],
        &["wal", "check"],
        &["dlq", "list"],
        &["dlq", "replay", "--data-dir", "elsewhere"],
    ] {
        let (code, stdout, stderr) = traild(directory.path(), arguments);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(
            stderr.starts_with("error: cannot ") && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}

/// A letter of an event, and one of a gap.
fn letters(data_dir: &Path) -> (String, String) {
    let of = r#""trail":"main","sink":"bus","reason":"too_large","message":"over 262144 bytes""#;
    let event = format!(
        r#"{{"at":"2026-01-02T03:04:05Z",{of},"events":1,"position":7,"index":0,"body":{{"eventID":"e-1"}}}}"#
    );
    let gap = format!(r#"{{"at":"2026-01-02T03:04:06Z",{of},"events":40,"from":9,"to":800}}"#);
    let directory = data_dir.join("dead-letters");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(
        directory.join("main.bus.ndjson"),
        format!("{event}\n{gap}\n{{\"at\":\"20"),
    )
    .unwrap();
    (event, gap)
}

#[test]
fn dead_letters_are_listed_on_stdout_and_what_cannot_be_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (event, gap) = letters(directory.path());
    let (code, stdout, stderr) = traild(directory.path(), &["dlq", "list", "--data-dir", "."]);
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("TIME "), "{stdout}");
    assert!(
        lines[1].starts_with("2026-01-02T03:04:05Z  main") && lines[1].contains("  e-1  "),
        "{stdout}"
    );
    assert!(lines[2].ends_with("over 262144 bytes"), "{stdout}");
    assert_eq!(lines.len(), 3);
    assert!(
        stderr.starts_with("warning: 1 line of ./dead-letters/main.bus.ndjson cannot be read"),
        "{stderr}"
    );
    let json = &["dlq", "list", "--data-dir", ".", "--json"];
    let (code, stdout, _) = traild(directory.path(), json);
    assert_eq!((code, stdout), (0, format!("{event}\n{gap}\n")));
    let none = &["dlq", "list", "--data-dir", ".", "--trail", "other"];
    let (code, stdout, stderr) = traild(directory.path(), none);
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (0, "", "no dead letters\n")
    );
}

#[test]
fn dead_letters_are_handed_over_with_and_without_a_daemon() {
    for is_running in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        letters(directory.path());
        let held = is_running.then(|| traild::wal::DirLock::acquire(directory.path()).unwrap());
        let replay = &["dlq", "replay", "--data-dir", "."];
        let (code, stdout, stderr) = traild(directory.path(), replay);
        assert_eq!(
            (code, stdout.as_str()),
            (0, "main bus: 1 letter of 1 event handed back\n"),
            "{stderr}"
        );
        assert!(
            stderr.contains("1 gap of 40 events cannot be sent again"),
            "{stderr}"
        );
        let expected = match is_running {
            true => "traild is running, pid ",
            false => "traild is not running: they are sent when it runs next, ",
        };
        assert!(stderr.contains(expected), "{stderr}");
        drop(held);

        let waits = directory
            .path()
            .join("dead-letters/main.bus.replay-1.ndjson");
        assert!(waits.exists());
        let (_, stdout, _) = traild(directory.path(), &["dlq", "list", "--data-dir", "."]);
        assert_eq!(stdout.matches("  waits   ").count(), 2, "{stdout}");
        let (code, stdout, stderr) = traild(directory.path(), replay);
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (0, "", "no dead letters to send again\n")
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
