use super::*;

fn one(text: &str) -> Instruction {
    parse("Dockerfile", &format!("FROM scratch\n{text}")).unwrap().statements.remove(1).instruction
}

fn refused(text: &str) -> String {
    parse("Dockerfile", text).unwrap_err().to_string()
}

#[test]
fn the_articles_dockerfile_parses() {
    let text = "# Use an official Python runtime as a parent image\nFROM python:3.11-slim-bookworm\nWORKDIR /app\nCOPY . /app\nRUN pip install --no-cache-dir -r requirements.txt\nEXPOSE 8000\nENV NAME Docker\nCMD [\"python\", \"app.py\"]\n";
    let file = parse("Dockerfile", text).unwrap();
    assert_eq!(file.statements.len(), 7);
    assert_eq!(file.statements[5].instruction, Instruction::Env(vec![("NAME".into(), "Docker".into())]));
    assert_eq!(file.statements[6].instruction, Instruction::Cmd(Command::Exec(vec!["python".into(), "app.py".into()])));
    assert_eq!(file.statements[0].line, 2);
}

#[test]
fn continued_lines_join_and_comments_between_vanish() {
    let Instruction::Run(run) = one("RUN apt-get update \\\n  # why\n\n && apt-get install -y x") else { panic!() };
    assert_eq!(run.command, Command::Shell("apt-get update  && apt-get install -y x".into()));
}

#[test]
fn the_escape_directive_changes_the_continuation() {
    let file = parse("Dockerfile", "# escape=`\nFROM scratch\nRUN dir `\n  c:\\\n").unwrap();
    assert_eq!(file.statements.len(), 2);
    assert_eq!(file.statements[1].text, "RUN dir   c:\\");
}

#[test]
fn heredocs_belong_to_their_instruction() {
    let file =
        parse("Dockerfile", "FROM scratch\nCOPY <<A <<'B' /d/\none $X\nA\ntwo\nB\nRUN <<EOF\necho hi\nEOF\nUSER x\n")
            .unwrap();
    let Instruction::Copy(copy) = &file.statements[1].instruction else { panic!() };
    let inline: Vec<_> = copy
        .sources
        .iter()
        .map(|s| match s {
            CopySource::Inline(h) => (h.name.as_str(), h.expand, h.content.as_str()),
            CopySource::Path(_) => panic!(),
        })
        .collect();
    assert_eq!(inline, [("A", true, "one $X\n"), ("B", false, "two\n")]);
    assert_eq!(file.statements[3].instruction, Instruction::User("x".into()));
    assert!(refused("FROM scratch\nRUN <<EOF\nnever").contains("unterminated heredoc"));
}

#[test]
fn shell_redirections_are_no_heredocs() {
    let Instruction::Run(run) = one("RUN cat <<<word && echo $((1<<2))") else { panic!() };
    assert!(run.heredocs.is_empty());
}

#[test]
fn instructions_keep_their_forms() {
    assert_eq!(
        one("env a=b c=\"d e\""),
        Instruction::Env(vec![("a".into(), "b".into()), ("c".into(), "\"d e\"".into())])
    );
    assert_eq!(one("ARG A=1 B"), Instruction::Arg(vec![("A".into(), Some("1".into())), ("B".into(), None)]));
    assert_eq!(one("VOLUME /a /b"), Instruction::Volume(vec!["/a".into(), "/b".into()]));
    assert_eq!(one("VOLUME [\"/a b\"]"), Instruction::Volume(vec!["/a b".into()]));
    assert_eq!(one("SHELL [\"/bin/bash\", \"-c\"]"), Instruction::Shell(vec!["/bin/bash".into(), "-c".into()]));
    assert_eq!(one("CMD [\"a\", 1]"), Instruction::Cmd(Command::Shell("[\"a\", 1]".into())));
    assert_eq!(one("ONBUILD RUN make"), Instruction::Onbuild("RUN make".into()));
    let Instruction::Healthcheck(check) = one("HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x") else {
        panic!()
    };
    assert_eq!(
        (check.interval_ns, check.retries, check.test),
        (90_000_000_000, 3, vec!["CMD-SHELL".to_owned(), "curl -f x".to_owned()])
    );
    let Instruction::Copy(copy) = one("COPY --from=build --chown=1:2 a b /c/") else { panic!() };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.destination.as_str(), copy.sources.len()),
        (Some("build"), Some("1:2"), "/c/", 2)
    );
}

#[test]
fn mistakes_name_the_file_the_line_and_its_text() {
    for (text, wanted) in [
        (
            "FROM a\n\nRUNN x",
            "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?) (Dockerfile:3: RUNN x)",
        ),
        ("RUN x", "dockerfile parse error on line 1: no build stage in current context (Dockerfile:1: RUN x)"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("FROM a\nCOPY x", "COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nENV a=b c", "Syntax error - can't find = in \"c\""),
        ("FROM a\nSHELL x", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nCOPY --fron=x a b", "unknown flag: --fron for COPY"),
        ("FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("FROM a\nRUN --mount=type=cache y", "target is required"),
        ("FROM a\nRUN --network=all y", "invalid network mode: \"all\""),
        ("FROM a\nRUN --security=none y", "security \"none\" is not valid"),
        ("# comment only", "the Dockerfile (Dockerfile) cannot be empty"),
    ] {
        let got = refused(text);
        assert!(got.contains(wanted), "{text:?}: {got}");
    }
}

/// Texts that look like Dockerfiles, and such that do not.
fn texts() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let words = prop_oneof![
        Just("FROM a".to_owned()),
        Just("FROM --platform=$X a AS b".to_owned()),
        Just("RUN <<EOF".to_owned()),
        Just("RUN --mount=type=cache,target=/x".to_owned()),
        Just("COPY <<-\"A\" <<B /d".to_owned()),
        Just("EOF".to_owned()),
        Just("A".to_owned()),
        Just("ONBUILD RUN x".to_owned()),
        Just("HEALTHCHECK --interval=1h1ns CMD".to_owned()),
        Just("# escape=`".to_owned()),
        Just("ENV a=\"b".to_owned()),
        Just("ARG X=${Y:-${Z}}".to_owned()),
        Just("CMD [\"a\", ".to_owned()),
        "[ \\t\\\\`\"'$#<=-]{0,12}",
        "[A-Z]{2,11} [^\n]{0,24}",
        any::<String>(),
    ];
    proptest::collection::vec(words, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest::proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_at_a_line_that_it_has(text in texts()) {
        let lines = text.lines().count().max(1);
        match parse("Dockerfile", &text) {
            Ok(file) => {
                proptest::prop_assert!(file.statements.windows(2).all(|pair| pair[0].line < pair[1].line));
                proptest::prop_assert!(file.statements.iter().all(|statement| statement.line <= lines));
                // What was parsed once is parsed again from its own instructions' text.
                proptest::prop_assert!(crate::check::checks(&file).is_ok() || file.directives.check.is_some());
            }
            Err(BuildError::Parse { line, .. }) => proptest::prop_assert!((1..=lines).contains(&line), "{line} of {lines}"),
            Err(BuildError::Empty { .. }) => {}
            Err(other) => proptest::prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn any_text_is_expanded_or_refused_and_stays_bounded(text in proptest::prelude::any::<String>(), value in "[^a]{0,40}") {
        let lookup = |_: &str| Some(value.clone());
        let expander = crate::expand::Expander { escape: '\\', lookup: &lookup };
        for expanded in [expander.word(&text), expander.text(&text)].into_iter().flatten() {
            proptest::prop_assert!(expanded.len() <= 2 << 20);
        }
    }
}
