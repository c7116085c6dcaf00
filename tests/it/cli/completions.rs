//! `attachd completions`: what a shell is given names all commands and their options, and bash can read it.

use std::fs;
use std::process::Command;

use super::attachd;

#[test]
fn completions_name_the_commands_and_their_options() {
    let here = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = attachd(here.path(), &["completions", shell], &[]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["serve", "upload", "download", "list", "delete", "completions", "output-file", "if-match"] {
            assert!(outcome.stdout.contains(word), "{shell} {word}");
        }
    }
    let outcome = attachd(here.path(), &["completions", "tcsh"], &[]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("bash, zsh, fish"), "{outcome:?}");
}

#[test]
fn bash_completes_a_command_and_an_option() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("attachd.bash"), attachd(here.path(), &["completions", "bash"], &[]).stdout).unwrap();
    for (words, completed) in [("attachd downl", "download"), ("attachd download --forc", "--force")] {
        let (before, last) = words.rsplit_once(' ').unwrap();
        let script = format!(
            ". ./attachd.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _attachd attachd {last} {before}; echo \"${{COMPREPLY[@]}}\""
        );
        let done = Command::new("bash").args(["-c", &script]).current_dir(here.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), completed, "{done:?}");
    }
}
