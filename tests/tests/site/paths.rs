//! Names: every byte of them counts, none leads out of the site, and what is no file is not there.

use super::{get, may_everything};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tests::{Client, PATIENCE, Server, Site, server};

/// Every byte percent-encoded.
fn encoded(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02X}")).collect()
}

fn write_named(site: &Site, name: &[u8], content: &str) {
    fs::write(site.path("html").join(OsStr::from_bytes(name)), content).expect("Linux has such names");
}

/// Linux names are bytes: each but `/` and NUL may stand in one, and a name is itself and no other.
#[test]
fn every_byte_may_be_in_a_name() {
    let site = Site::new();
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|byte| *byte != b'/').map(|byte| vec![b'n', byte]).collect();
    // Overlong forms of `.` and `/`, UTF-16 surrogates, half a character, a byte order mark: no dots, no slashes, just bytes.
    for name in [
        &b"\xc0\xae\xc0\xae"[..],
        b"\xc0\xafx",
        b"\xe0\x80\xae\xe0\x80\xae\xc0\xafx",
        b"\xed\xa0\x80",
        b"\xf0\x9f",
        b"\xef\xbb\xbfx",
        b"a..b",
        b"a.",
        b"a..",
        b" ",
        b" a ",
        b"\\..\\x",
        b"CON",
        b"a%2e",
        b"%2F..",
        b"a;b=c",
        b"~root",
        b"-rf",
        b"$(reboot)",
    ] {
        names.push(name.to_vec());
    }
    // One letter composed, and as a letter and an accent (NFC, NFD); full-width dots; a Kelvin sign.
    for name in ["\u{e9}", "e\u{301}", "\u{ff0e}\u{ff0e}", "\u{212a}", "k", "K", "\u{202e}gnp.txt"] {
        names.push(name.as_bytes().to_vec());
    }
    for name in &names {
        write_named(&site, name, &encoded(name));
    }
    let server = site.start(&[]);
    let mut client = server.connect();
    for name in &names {
        let path = format!("/{}", encoded(name));
        for path in [path.clone(), path.to_ascii_lowercase(), format!("/x/..{path}"), format!("/%2e{path}")] {
            let response = client.get(&path).expect("an answer");
            assert_eq!((response.status, response.text()), (200, &*encoded(name)), "{path}");
            let head = client.request("HEAD", &path, &[], b"").expect("an answer");
            let fields = |response: &tests::Response| {
                response.fields.iter().filter(|(name, _)| name != "Date").cloned().collect::<Vec<_>>()
            };
            assert_eq!((head.status, fields(&head)), (200, fields(&response)), "{path}");
        }
    }
}

#[test]
fn no_spelling_of_dots_and_slashes_leads_anywhere_else() {
    let site = Site::new();
    site.write("secret.txt", "secret");
    site.write("html/secret.txt/index.html", "page");
    site.write("html/d/a.txt", "a");
    let server = site.start(&[]);
    let mut client = server.connect();
    let dots =
        ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%ef%bc%8e%ef%bc%8e"];
    let others = [
        "..%00",
        "..%20",
        "...",
        "....",
        "..;",
        "..%09",
        "..%0d",
        "..%5c",
        "..\\",
        ".%00.",
        "%u002e%u002e",
        "%%32e%%32e",
    ];
    let slashes = ["/", "//", "/./", "/%2e/", "%2f", "%252f", "%5c", "\\", "%c0%af", "%e2%88%95", "%ef%bc%8f"];
    for dots in dots.iter().chain(&others) {
        for slash in slashes {
            for path in [
                format!("/{dots}{slash}secret.txt"),
                format!("/d{slash}{dots}{slash}{dots}{slash}secret.txt"),
                format!("/d/{dots}{slash}{dots}/secret.txt"),
                format!("/{dots}{slash}{dots}{slash}{dots}{slash}etc{slash}passwd"),
            ] {
                let Ok(response) = client.get(&path) else { panic!("no answer to {path}") };
                let text = String::from_utf8_lossy(&response.body).into_owned();
                assert!(text != "secret" && !text.contains("root:"), "{path}: {text}");
                // `/../` of nothing is the folder above the root for some; here it is an error of the client.
                assert!(matches!(response.status, 301 | 400 | 404), "{path}: {}", response.status);
                if response.closes() {
                    client = server.connect();
                }
            }
        }
    }
}

/// They are what somebody's editor or version control has left.
#[test]
fn names_with_a_dot_in_front_are_hidden_in_every_spelling() {
    let site = Site::new();
    for name in [".env", ".git/config", "d/.htpasswd", "...", "..a", ".well", ".so"] {
        site.write(&format!("html/{name}"), "secret");
    }
    let server = site.start(&[]);
    for path in [
        "/.env",
        "/%2eenv",
        "/%2Eenv",
        "/d/../.env",
        "/.git/config",
        "/%2egit/config",
        "/d/%2ehtpasswd",
        "/...",
        "/%2e%2e%2e",
        "/..a",
        "/%2e%2ea",
        "/.well",
        "/.so",
    ] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
}

/// A library is one by its very name, as it is for the loader: another case is another name, and just a file.
#[test]
fn code_is_not_sent_under_any_spelling_of_its_name() {
    let site = Site::new();
    for name in ["lib.so", "other.SO", "lib.so.1"] {
        site.write(&format!("html/{name}"), "bytes");
    }
    let server = site.start(&[]);
    for path in
        ["/lib.so", "/lib.s%6F", "/%6cib%2eso", "/lib.so/", "/lib.so?", "/x/../lib.so", "/lib.so/../lib.so", "/LIB.so"]
    {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
    assert_eq!(get(&server, "/other.SO"), (200, "bytes".to_owned()));
    assert_eq!(get(&server, "/other.so").0, 404);
    assert_eq!(get(&server, "/lib.so.1"), (200, "bytes".to_owned()));
}

#[test]
fn names_and_paths_may_be_as_long_as_the_system_has_them() {
    let site = Site::new();
    let longest = "n".repeat(255);
    site.write(&format!("html/{longest}"), "longest");
    // With a slash each: 15 of 255, and then what is left of 4095.
    let folder = vec![longest.replace('n', "f"); 15].join("/");
    let deep = format!("{folder}/{}", "d".repeat(4095 - folder.len() - 1));
    let script =
        format!("cd html && mkdir -p {folder} && cd {folder} && printf deep > {}", "d".repeat(4095 - folder.len() - 1));
    assert!(Command::new("sh").current_dir(site.path("")).args(["-c", &script]).status().expect("sh").success());
    let server = site.start(&[]);
    assert_eq!(get(&server, &format!("/{longest}")), (200, "longest".to_owned()));
    assert_eq!(get(&server, &format!("/{}", encoded(longest.as_bytes()))), (200, "longest".to_owned()));
    assert_eq!(deep.len(), 4095);
    assert_eq!(get(&server, &format!("/{deep}")), (200, "deep".to_owned()));
    // One byte more is no name, and no path; and neither is ten times as much, within the limit of a head.
    for path in [format!("{longest}n"), format!("{deep}x"), format!("{folder}/{}", "x".repeat(9000)), "a/".repeat(7000)]
    {
        let response = server.connect().get(&format!("/{path}")).expect("an answer");
        assert_eq!(response.status, 404, "{} bytes", path.len());
    }
}

/// A thread puts a link to the outside in the place of a folder, and the folder back, as fast as it can.
#[test]
fn a_folder_and_a_link_that_take_turns_never_lead_out() {
    let site = Site::new();
    for name in ["a.txt", "deep/a.txt", "index.html"] {
        site.write(&format!("html/d/{name}"), "inside");
        site.write(&format!("outside/{name}"), "secret");
    }
    symlink("../outside", site.path("html/link")).expect("a new link");
    symlink("../outside/a.txt", site.path("html/file-link")).expect("a new link");
    site.write("html/file", "inside");
    let server = site.start(&["--threads", "2"]);
    let (over, swaps, answers) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let exchange = |one: &Path, other: &Path| {
        // Both names at once, so that there is always one of the two (rename(2), RENAME_EXCHANGE).
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("the file system exchanges");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                exchange(&site.path("html/d"), &site.path("html/link"));
                exchange(&site.path("html/file"), &site.path("html/file-link"));
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let clients = ["/d/a.txt", "/d/deep/a.txt", "/d/", "/file"].map(|path| {
            let (over, answers) = (&over, &answers);
            let mut client = server.connect();
            scope.spawn(move || {
                let mut inside = 0;
                while !over.load(Ordering::Relaxed) {
                    let response = client.get(path).expect("an answer");
                    answers.fetch_add(1, Ordering::Relaxed);
                    match response.status {
                        200 => assert_eq!(response.text(), "inside", "{path}"),
                        status => assert!(matches!(status, 404 | 503), "{path}: {status}"),
                    }
                    inside += u64::from(response.status == 200);
                }
                inside
            })
        });
        let mut wait = tests::Wait::new(Duration::from_secs(3));
        while !wait.left().is_zero() && !clients.iter().any(|client| client.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().expect("only what is inside") > 0, "the folder is there half of the time");
        }
    });
    assert!(swaps.load(Ordering::Relaxed) > 100 && answers.load(Ordering::Relaxed) > 100);
}

/// Starts a server for which permissions count, also if the tests are run by root: without the right to go past them.
fn start_without_rights(site: &Site) -> Server {
    let own = site.command(&["--bind", "127.0.0.1:0", "--runtime", "runtime"]);
    if !may_everything() {
        return Server::start(own);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search"]).arg(server::binary()).args(own.get_args());
    command.current_dir(site.path("")).stdin(Stdio::null());
    Server::start(command)
}

#[test]
fn what_may_not_be_read_is_forbidden_and_tells_nothing_of_what_is_in_it() {
    let site = Site::new();
    let set_mode = |name: &str, mode| {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(mode)).expect("our own");
    };
    for name in
        ["private.txt", "closed/a.txt", "closed/index.html", "unlisted/a.txt", "unlisted/index.html", "page/index.html"]
    {
        site.write(&format!("html/{name}"), "x");
    }
    set_mode("html/private.txt", 0o200);
    set_mode("html/closed", 0o600);
    set_mode("html/unlisted", 0o300);
    set_mode("html/page/index.html", 0o000);
    let server = start_without_rights(&site);
    for (path, status) in [
        ("/private.txt", 403),
        // A folder in which nothing can be looked up is as one without an index page.
        ("/closed/", 404),
        ("/closed", 404),
        // Whether it exists is not told.
        ("/closed/a.txt", 403),
        ("/closed/nothing", 403),
        ("/closed/deep/nothing", 403),
        ("/page/", 403),
        ("/page", 403),
        // To enter a folder does not take the right to read it.
        ("/unlisted/a.txt", 200),
        ("/unlisted/", 200),
        ("/unlisted", 301),
        ("/unlisted/nothing", 404),
    ] {
        assert_eq!(get(&server, path).0, status, "{path}");
    }
    // A right that is given counts at once, and one that is taken, too.
    for (mode, status) in [(0o600, 200), (0o200, 403), (0o400, 200), (0o000, 403)] {
        set_mode("html/private.txt", mode);
        assert_eq!(get(&server, "/private.txt").0, status, "{mode:o}");
    }
    set_mode("html/closed", 0o700);
    set_mode("html/unlisted", 0o700);
}

/// In a mount namespace of our own, so that it takes no right to make devices.
#[test]
fn devices_are_not_there_and_files_without_a_size_are_empty() {
    let site = Site::new();
    for name in ["zero", "tty", "version", "a.txt"] {
        site.write(&format!("html/{name}"), "a");
    }
    fs::create_dir(site.path("html/proc")).expect("a new folder");
    let script = "mount --bind /dev/zero html/zero && mount --bind /dev/tty html/tty && \
                  mount --bind /proc/version html/version && mount --rbind /proc/$$ html/proc && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(server::binary());
    command.args(["--bind", "127.0.0.1:0", "--runtime", "runtime"]).current_dir(site.path(""));
    let server = Server::start(command);
    for path in ["/zero", "/tty", "/proc/fd/0", "/proc/root/etc/passwd", "/proc/cwd/secret.txt", "/proc/exe"] {
        assert_eq!(get(&server, path).0, 404, "{path}");
    }
    // What it would give on reading is not known before: it says that it has no bytes.
    for path in ["/version", "/proc/status"] {
        for _ in 0..3 {
            let response = server.get(path);
            assert_eq!((response.status, response.body.len()), (200, 0), "{path}");
            assert_eq!(response.field("Content-Length"), Some("0"), "{path}");
        }
    }
    assert_eq!(get(&server, "/a.txt"), (200, "a".to_owned()));
}

#[test]
fn a_link_may_lead_through_forty_others_and_not_through_itself() {
    let site = Site::new();
    site.write("html/target.txt", "target");
    let html = site.path("html");
    symlink("target.txt", html.join("link0")).expect("a new link");
    for number in 1..60 {
        symlink(format!("link{}", number - 1), html.join(format!("link{number}"))).expect("a new link");
    }
    symlink("two", html.join("one")).expect("a new link");
    symlink("one", html.join("two")).expect("a new link");
    // By its absolute name it would be inside; but the kernel keeps to the folder, and takes no root but its own.
    symlink(html.join("target.txt"), html.join("absolute")).expect("a new link");
    symlink("../html/target.txt", html.join("out-and-in")).expect("a new link");
    symlink(".", html.join("here")).expect("a new link");
    fs::hard_link(html.join("target.txt"), html.join("hard")).expect("a new name");
    let server = site.start(&[]);
    for (path, status) in [
        ("/link0", 200),
        ("/link39", 200),
        ("/link45", 404),
        ("/one", 404),
        ("/absolute", 404),
        ("/out-and-in", 404),
        ("/here/here/here/target.txt", 200),
        ("/hard", 200),
    ] {
        for _ in 0..2 {
            let (given, text) = get(&server, path);
            assert_eq!(given, status, "{path}");
            assert_eq!(text == "target", status == 200, "{path}");
        }
    }
}

/// Nobody waits for more than a head's time with a path, whatever it is.
#[test]
fn every_byte_of_a_target_is_answered() {
    let site = Site::new();
    let server = site.start(&[]);
    let start = Instant::now();
    for byte in 0..=255u8 {
        let request = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        let mut client = Client::connect(server.address()).expect("the server accepts");
        client.send(&request).expect("the kernel takes it");
        let response = client.response().unwrap_or_else(|error| panic!("{byte:#x}: {error}"));
        let expected = if matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'%') { 404 } else { 400 };
        assert_eq!(response.status, expected, "{byte:#x}");
    }
    assert!(start.elapsed() < PATIENCE);
}
