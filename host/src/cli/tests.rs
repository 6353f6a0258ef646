//! The command line as a whole: precedence, origins of errors, and that no option is without variable, key and doc.

use super::*;
use crate::supervisor::console::Command;
use clap::ArgAction;

/// A folder with the default site in it, named by absolute options so that no test changes the current folder.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(site.path("html")).unwrap();
        std::fs::create_dir(site.path("handlers")).unwrap();
        site
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn parse(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, Refusal> {
        let (html, handlers) = (self.path("html"), self.path("handlers"));
        let folders = ["host", "--html", &html, "--handlers", &handlers];
        parse_texts(&[&folders, arguments].concat(), environment)
    }

    fn config(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match self.parse(arguments, environment) {
            Ok(Invocation::Serve(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(&self, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        text(&self.parse(arguments, environment).unwrap_err())
    }
}

fn parse_texts(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, Refusal> {
    parse(arguments.iter().map(OsString::from), |name| {
        environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    })
}

fn text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Arguments(error) => error.to_string(),
        Refusal::Settings(error) => format!("{error:#}"),
    }
}

#[test]
fn clap_finds_no_fault_in_the_command() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_configuration() {
    let config = Site::new().config(&[], &[]);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.bind, ["127.0.0.1:7788".parse().unwrap()]);
    assert!(config.reload && !config.trace && config.root.is_none());
    assert_eq!((config.server_header.as_str(), config.workers), ("host", 1));
}

#[test]
fn the_configuration_reaches_a_worker_unchanged() {
    let arguments = ["a/b:c", "-b0", "-bunix:/s", "--env=K=v", "--mount=/m=n", "--timeout-idle=1500ms"];
    let config = Site::new().config(&arguments, &[]);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
}

/// Every option can be set by its variable and by its key in the file, and is explained.
#[test]
fn every_option_has_a_variable_a_key_and_a_doc() {
    let site = Site::new();
    let file = site.path("host.toml");
    let (folder, token) = (site.path(""), site.path("token"));
    std::fs::write(&token, "secret").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let usual = format!("{:?}", site.config(&[], &[]));
    for argument in Cli::command().get_arguments() {
        let id = argument.get_id().as_str();
        let key = argument.get_long().unwrap_or(id);
        assert!(argument.get_help().is_some(), "--{key} has no doc");
        let variable = format!("HOST_{}", key.to_uppercase().replace('-', "_"));
        // A value that is not the default. An option that is missing here has not been thought about.
        let value = match id {
            "application" => "framework:app",
            "bind" => "[::1]:8080",
            "html" => "none",
            "handlers" | "runtime" => &folder,
            "mount" => "/a=b",
            "env" => "A=b",
            "upload" => "/a/",
            "upload_token_file" => &token,
            "cache_control" => "*.css=max-age=60",
            "workers" | "threads" => "77",
            "server_header" => "other",
            "log_format" => "json",
            "no_reload" | "trace" => "true",
            "config" => &file,
            "limit_memory" => "64M",
            _ if id.starts_with("limit_") => "2000",
            _ if id.starts_with("timeout_") => "0.125",
            _ => panic!("no sample value for --{key}"),
        };
        if id == "config" {
            std::fs::write(&file, "workers = 5").unwrap();
            assert_eq!(site.config(&[], &[(&variable, value)]).workers, 5);
            continue;
        }
        let line = match argument.get_action() {
            ArgAction::SetTrue => format!("{key} = {value}"),
            ArgAction::Append => format!("{key} = [{value:?}]"),
            _ => format!("{key} = {value:?}"),
        };
        std::fs::write(&file, line).unwrap();
        // The folders that `Site::config` always gives would win here.
        let (html, handlers) = (site.path("html"), site.path("handlers"));
        let mut arguments = vec!["host"];
        if id != "html" {
            arguments.extend(["--html", &html]);
        }
        if id != "handlers" {
            arguments.extend(["--handlers", &handlers]);
        }
        let by_variable = parse_texts(&arguments, &[(&variable, value)]).unwrap();
        arguments.extend(["--config", &file]);
        let by_file = parse_texts(&arguments, &[]).unwrap();
        let (Invocation::Serve(by_variable), Invocation::Serve(by_file)) = (by_variable, by_file) else { panic!() };
        assert_ne!(format!("{by_variable:?}"), usual, "{variable} changes nothing");
        assert_eq!(by_variable, by_file, "{variable} and {key} differ");
    }
}

#[test]
fn arguments_win_over_variables_and_these_over_the_file() {
    let site = Site::new();
    let file = site.path("host.toml");
    std::fs::write(&file, "bind = [1, \"[::1]:2\"]\nworkers = 2\nthreads = 2\nenv = [\"A=b, c\"]\ntrace = true\n")
        .unwrap();
    let config = site.config(
        &["--config", &file, "--threads", "4", "--env", "X=y, z"],
        &[("HOST_WORKERS", "3"), ("HOST_THREADS", "3"), ("HOST_ENV", "B=c,D=e"), ("HOST_TRACE", "0")],
    );
    assert_eq!(config.bind, ["1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    assert_eq!((config.workers, config.threads, config.trace), (3, 4, false));
    assert_eq!(config.env, ["X=y, z".parse().unwrap()]);
    assert_eq!(site.config(&["--config", &file], &[]).env, ["A=b, c".parse().unwrap()]);
    assert_eq!(site.config(&[], &[("HOST_ENV", "B=c, D=e")]).env.len(), 2);
}

#[test]
fn folders_that_take_uploads_are_paths_of_the_site() {
    let site = Site::new();
    let config = site.config(&["--upload", "/", "--upload=/a b/c//"], &[]);
    assert_eq!(config.uploads, ["", "/a b/c"]);
    assert_eq!((config.upload_token_file, config.upload_token), (None, None));
    for (arguments, expected) in [
        (&["--upload", "incoming"][..], "must start with a slash; say / for the whole site"),
        (&["--upload", "/a/../b"], "which no request's path can have"),
        (&["--upload", "/a//b"], "which no request's path can have"),
        (&["--upload", "/.git"], "the site does not show \".git\""),
        (&["--upload", "/a.so/b"], "the site does not show \"a.so\""),
        (&["--upload", "/a/", "--upload", "/a"], "--upload /a/ is given twice"),
        (&["--upload", "/", "--html", "none"], "name one with --html DIR"),
        (&["--upload-token-file", "nowhere"], "cannot read the token in /"),
    ] {
        let refusal = match arguments.contains(&"none") {
            true => {
                let handlers = site.path("handlers");
                text(&parse_texts(&[&["host", "--handlers", &handlers], arguments].concat(), &[]).unwrap_err())
            }
            false => site.refusal(arguments, &[]),
        };
        assert!(refusal.contains(expected), "{arguments:?}: {refusal}");
    }
}

#[test]
fn refusals_name_where_the_value_stands() {
    let site = Site::new();
    let file = site.path("host.toml");
    for (line, expected) in [
        ("limit-heads = 1", "unknown key \"limit-heads\"; did you mean \"limit-head\"?"),
        ("limit_head = 1", "did you mean \"limit-head\"?"),
        ("config = \"x\"", "\"config\" cannot be set here"),
        ("check = \"x\"", "unknown key \"check\""),
        ("help = true", "unknown key \"help\""),
        ("workers = true", "workers: a boolean stands where a string or a number is due"),
        ("trace = \"yes\"", "trace: a string stands where true or false is due"),
        ("trace = [true]", "trace: an array stands where"),
        ("bind = [[1]]", "bind: an array stands where"),
        ("[env]\nA = \"b\"", "env: a table stands where an array of strings is due"),
        ("limit-head = \"12Q\"", "limit-head: \"12Q\": not a size; say bytes"),
        ("bind = [\"a\"]", "bind: \"a\": not an address; say"),
        ("application = \"libx.so\"", "application: \"libx.so\": \"libx.so\" is a file; name the module, such as x"),
        ("log-format = \"xml\"", "[possible values: text, json]"),
        ("workers = ", "not TOML"),
    ] {
        std::fs::write(&file, format!("# A comment.\n{line}\n")).unwrap();
        let refusal = site.refusal(&["--config", &file], &[]);
        assert!(refusal.starts_with(&format!("{file}:2: ")), "{line}: {refusal}");
        assert!(refusal.contains(expected), "{line}: {refusal}");
    }
    let missing = site.path("missing.toml");
    assert!(site.refusal(&["--config", &missing], &[]).contains(&missing));
    let refusal = site.refusal(&[], &[("HOST_TIMEOUT_IDLE", "soon")]);
    assert!(refusal.starts_with("HOST_TIMEOUT_IDLE: ") && refusal.contains("say seconds"), "{refusal}");
    assert!(site.refusal(&[], &[("HOST_TRACE", "maybe")]).starts_with("HOST_TRACE: "));
    assert!(site.refusal(&["--limit-head", "12Q"], &[]).contains("--limit-head <SIZE>"));
}

#[test]
fn folders_that_are_missing_name_the_remedy() {
    let site = Site::new();
    let missing = site.path("nothing");
    let refusal = |arguments: &[&str]| text(&parse_texts(arguments, &[]).unwrap_err());
    assert_eq!(refusal(&["host", "--html", &missing]), format!("no folder {missing}; create it, or say --html none"));
    assert_eq!(
        refusal(&["host", "--html", "none", "--handlers", &missing]),
        format!("no folder {missing}; create it, or name another with --handlers DIR")
    );
    std::fs::write(&missing, "").unwrap();
    assert!(refusal(&["host", "--html", &missing]).contains("is not a folder"));
}

#[test]
fn what_is_given_twice_is_refused() {
    let site = Site::new();
    assert!(site.refusal(&["-b80", "-b127.0.0.1:80"], &[]).contains("given twice"));
    assert!(site.refusal(&["--mount=/a=x", "--mount=/a/=y"], &[]).contains("given twice"));
    assert_eq!(site.config(&["-b0", "-b0"], &[]).bind.len(), 2);
    let mounts = site.config(&["--mount=/a=x", "--mount=/a/b=y"], &[]).mounts;
    assert_eq!(mounts[0].prefix, "/a/b");
}

#[test]
fn commands_need_no_site() {
    let nothing: [(&str, &str); 1] = [("HOST_WORKERS", "none of its business")];
    assert!(
        matches!(parse_texts(&["host", "check", "a.so"], &nothing), Ok(Invocation::Check(files)) if files.len() == 1)
    );
    let Ok(Invocation::Console(Command::Rollback { server, module, generation })) =
        parse_texts(&["host", "rollback", "admin/ctime", "3"], &[("HOST_RUNTIME", "/r"), nothing[0]])
    else {
        panic!()
    };
    assert_eq!((module.as_str(), generation, server.runtime), ("admin/ctime", Some(3), Some("/r".into())));
    assert!(parse_texts(&["host", "rollback", "libctime.so"], &nothing).is_err());
    assert!(matches!(
        parse_texts(&["host", "replay", "12", "--to", "8080"], &nothing),
        Ok(Invocation::Console(Command::Replay { incident: 12, to: Some(_), .. }))
    ));
    for (what, expected) in [("header", "host_env"), ("man", ".TH host 1")] {
        let Ok(Invocation::Generate(what)) = parse_texts(&["host", "generate", what], &nothing) else { panic!() };
        let mut out = Vec::new();
        what.write(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains(expected));
    }
    assert!(parse_texts(&["host", "generate", "completions", "bash"], &nothing).is_ok());
    assert!(parse_texts(&["host", "check"], &nothing).is_err());
    assert!(parse_texts(&["host", "--trace", "check", "a.so"], &nothing).is_err());
}

/// A terminal of 80 columns shows each option on one line, the classic use first.
#[test]
fn help_is_short() {
    let Err(Refusal::Arguments(error)) = parse_texts(&["host", "--help"], &[]) else { panic!() };
    let help = error.to_string();
    assert!(help.lines().nth(2).unwrap().starts_with("  host  "));
    let command = Cli::command().term_width(80).try_get_matches_from(["host", "--help"]).unwrap_err().to_string();
    for line in command.lines() {
        assert!(
            line.chars().count() <= 80 && !line.starts_with("           "),
            "{line:?} is too long or a wrapped line"
        );
    }
}
