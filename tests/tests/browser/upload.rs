//! Uploads by the form of a listing, and by files that are dropped onto it.

use super::{faint, overflows, texts, url};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tests::{Browser, PATIENCE, Site, eventually};

/// What the page says of each file.
fn transfers(browser: &Browser) -> Vec<String> {
    texts(&browser.run(
        "return [...document.querySelectorAll('.transfers li')].map(item => item.innerText.replace(/\\s+/g, ' '))",
        &[],
    ))
}

/// What is listed.
fn listed(browser: &Browser) -> Vec<String> {
    texts(&browser.run("return [...document.querySelectorAll('tbody a')].map(link => link.textContent)", &[]))
}

#[track_caller]
fn wait_for(browser: &Browser, what: &str, script: &str) {
    eventually(what, PATIENCE, || (browser.run(script, &[]) == json!(true)).then_some(()));
}

/// Files that do not belong to the site.
fn local(site: &Site, files: &[(&str, usize)]) -> Vec<PathBuf> {
    let content = |bytes| (0..bytes).map(|at: usize| (at * 7 + at / 251) as u8).collect::<Vec<u8>>();
    files.iter().map(|(name, bytes)| site.write(&format!("local/{name}"), content(*bytes))).collect()
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read(one) == read(other), "{} is not {}", one.display(), other.display());
}

fn inbox() -> Site {
    let site = Site::new();
    site.write("html/in/already.txt", "there");
    site
}

#[test]
fn the_form_uploads_without_scripts() {
    let site = inbox();
    let files = local(&site, &[("one.txt", 1000), ("already.txt", 20), ("drei über.bin", 300_000)]);
    let server = site.start(&["--listing", "--upload", "/in"]);
    let browser = Browser::start();
    browser.cdp("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.go(&url(&server, "/"));
    assert!(browser.look_for("form").is_none(), "where no files are taken there is no form");
    browser.go(&url(&server, "/in/"));
    assert!(!browser.find(".upload p").is_shown(), "what needs a script is not offered");
    let paths: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    browser.find("input[type=file]").send(&paths.join("\n"));
    browser.find("form button").click();
    assert_eq!(browser.find("h1").text(), "Uploaded");
    browser.shoot("uploaded-without-scripts");
    browser.find("main p a").click();
    assert_eq!(browser.url(), url(&server, "/in/"));
    assert_eq!(listed(&browser), ["already.txt", "already_1.txt", "drei über.bin", "one.txt"]);
    for (file, name) in files.iter().zip(["one.txt", "already_1.txt", "drei über.bin"]) {
        assert_same(file, &site.path("html/in").join(name));
    }
    assert_eq!(fs::read(site.path("html/in/already.txt")).unwrap(), b"there");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn several_files_dropped_onto_the_page_are_uploaded_with_their_progress() {
    let site = inbox();
    let files = local(&site, &[("a.bin", 3_000_000), ("already.txt", 2_000_000), ("<b>ü & #?.txt", 5)]);
    let server = site.start(&["--listing", "--upload", "/in"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/in/"));
    assert_eq!(browser.find(".upload p").text(), "Or drop files anywhere on this page.");
    // What the bars show, from the beginning.
    browser.run(
        "window.seen = [];
        new MutationObserver(() => document.querySelectorAll('progress').forEach(bar => seen.push([bar.ariaLabel, bar.value])))
            .observe(document.querySelector('.transfers'), {subtree: true, childList: true, attributes: true, characterData: true});",
        &[],
    );
    throttle(&browser, 2_000_000);
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    browser.drag(&paths, (400, 400), false);
    assert_eq!(browser.find("body").style("outline-style"), "dashed", "the page shows that it takes them");
    browser.drag(&paths, (400, 400), true);
    wait_for(&browser, "a file is under way", "return !!document.querySelector('progress')");
    assert_eq!(browser.find("progress").role(), "progressbar");
    assert_eq!(browser.find("progress").label(), "a.bin");
    wait_for(&browser, "all are there", "return document.querySelector('[role=status]').textContent !== ''");
    assert_eq!(browser.find("[role=status]").text(), "3 uploaded");
    assert_eq!(
        transfers(&browser),
        ["a.bin Uploaded", "already.txt Uploaded as already_1.txt", "<b>ü & #?.txt Uploaded"]
    );
    wait_for(&browser, "the list is new", "return document.querySelectorAll('tbody a').length === 4");
    assert_eq!(listed(&browser), ["<b>ü & #?.txt", "a.bin", "already.txt", "already_1.txt"]);
    for (file, name) in files.iter().zip(["a.bin", "already_1.txt", "<b>ü & #?.txt"]) {
        assert_same(file, &site.path("html/in").join(name));
    }
    let seen = browser.run("return seen", &[]);
    let of_first: Vec<f64> =
        seen.as_array().unwrap().iter().filter(|seen| seen[0] == "a.bin").filter_map(|seen| seen[1].as_f64()).collect();
    assert!(of_first.is_sorted() && of_first.iter().any(|&value| value > 0.0 && value < 1.0), "{of_first:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_refused_upload_says_why_and_the_others_go_on() {
    let site = inbox();
    let files = local(&site, &[("small.txt", 100), ("large.bin", 300_000), ("last.txt", 100)]);
    let server = site.start(&["--listing", "--upload", "/in", "--limit-upload", "100K"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/in/"));
    let paths: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    browser.find("input[type=file]").send(&paths.join("\n"));
    browser.find("form button").click();
    wait_for(&browser, "all are over", "return document.querySelector('[role=status]').textContent !== ''");
    assert_eq!(browser.find("[role=status]").text(), "2 uploaded, 1 not");
    let said = transfers(&browser);
    assert!(said[1].starts_with("large.bin 413 Content Too Large: "), "{said:?}");
    assert_eq!([&said[0], &said[2]], ["small.txt Uploaded", "last.txt Uploaded"]);
    wait_for(&browser, "the list is new", "return document.querySelectorAll('tbody a').length === 3");
    assert_eq!(listed(&browser), ["already.txt", "last.txt", "small.txt"]);
    for scheme in ["light", "dark"] {
        browser.prefer("prefers-color-scheme", scheme);
        assert_eq!(faint(&browser), [""; 0], "{scheme}");
        browser.shoot(&format!("upload-refused-{scheme}"));
    }
    // The browser itself notes an answer of 400 and more.
    assert!(browser.complaints().iter().all(|complaint| complaint.contains("413")));
}

#[test]
fn an_upload_can_be_cancelled_and_leaves_nothing() {
    let site = inbox();
    let files = local(&site, &[("slow.bin", 8_000_000), ("waiting.bin", 10)]);
    let server = site.start(&["--listing", "--upload", "/in"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/in/"));
    throttle(&browser, 200_000);
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    browser.drag(&paths, (400, 400), true);
    wait_for(&browser, "some of it has been sent", "return document.querySelector('progress')?.value > 0");
    browser.find("button[aria-label='Cancel waiting.bin']").click();
    browser.find("button[aria-label='Cancel slow.bin']").click();
    wait_for(&browser, "all are over", "return document.querySelector('[role=status]').textContent !== ''");
    assert_eq!(transfers(&browser), ["slow.bin Cancelled.", "waiting.bin Cancelled."]);
    eventually("nothing is left of it", PATIENCE, || {
        (fs::read_dir(site.path("html/in")).unwrap().count() == 1).then_some(())
    });
}

#[test]
fn a_form_asks_for_the_token_where_one_is_needed() {
    let site = inbox();
    let files = local(&site, &[("a.txt", 10)]);
    let token = site.write("token", "secret-token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let server = site.start(&["--listing", "--upload", "/in", "--upload-token-file", "token"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/in/"));
    let field = browser.find("input[name=token]");
    assert_eq!(field.label(), "Token");
    browser.drag(&[files[0].as_path()], (400, 400), true);
    assert_eq!(transfers(&browser), [""; 0], "nothing is sent without it");
    field.send("wrong");
    browser.drag(&[files[0].as_path()], (400, 400), true);
    wait_for(&browser, "it is refused", "return document.querySelector('[role=status]').textContent !== ''");
    assert!(transfers(&browser)[0].starts_with("a.txt 401 Unauthorized: "), "{:?}", transfers(&browser));
    browser.run("document.querySelector('input[name=token]').value = ''", &[]);
    field.send("secret-token");
    browser.find("input[type=file]").send(files[0].to_str().unwrap());
    browser.find("form button").click();
    wait_for(&browser, "it is taken", "return document.querySelectorAll('tbody a').length === 2");
    assert_same(&files[0], &site.path("html/in/a.txt"));
    // Without a script the form says it too.
    browser.cdp("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.go(&url(&server, "/in/"));
    browser.find("input[name=token]").send("secret-token");
    browser.find("input[type=file]").send(files[0].to_str().unwrap());
    browser.find("form button").click();
    assert_eq!(browser.find("h1").text(), "Uploaded");
    assert_same(&files[0], &site.path("html/in/a_1.txt"));
}

#[test]
fn a_large_upload_shows_how_far_it_is() {
    let site = inbox();
    let file = site.write("local/film.mkv", "");
    fs::File::options().write(true).open(&file).unwrap().set_len(200 << 20).unwrap();
    let server = site.start(&["--listing", "--upload", "/in"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/in/"));
    throttle(&browser, 40 << 20);
    browser.drag(&[file.as_path()], (400, 400), true);
    wait_for(&browser, "it is half way", "return document.querySelector('progress')?.value > 0.4");
    browser.shoot("upload-under-way");
    browser.resize(320, 800);
    assert!(!overflows(&browser));
    browser.shoot("upload-under-way-narrow");
    browser.resize(1280, 800);
    throttle(&browser, -1);
    wait_for(&browser, "it is there", "return document.querySelector('[role=status]').textContent === '1 uploaded'");
    wait_for(&browser, "the list is new", "return document.querySelectorAll('tbody a').length === 2");
    browser.shoot("upload-result");
    assert_eq!(fs::metadata(site.path("html/in/film.mkv")).unwrap().len(), 200 << 20);
}

/// Lets the page send so many bytes a second; -1 as many as it can.
fn throttle(browser: &Browser, bytes: i64) {
    browser.cdp("Network.enable", &Value::Object(Default::default()));
    let conditions = json!({"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes});
    browser.cdp("Network.emulateNetworkConditions", &conditions);
}
