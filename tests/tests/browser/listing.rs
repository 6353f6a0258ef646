//! Listings, as people see and use them.

use super::{faint, overflows, texts, url};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};
use tests::browser::key;
use tests::{Browser, Site, repository};

/// A folder as people have it.
fn site() -> Site {
    let site = Site::new();
    let folder = "html/holiday pictures/2026";
    for (name, bytes) in [
        ("Bridge at night.jpg", 3_245_678),
        ("coast.jpg", 812_345),
        ("notes.txt", 1_204),
        (LONG_NAME, 48_234_567),
        ("Übersicht.pdf", 92_000),
        ("empty", 0),
    ] {
        let file = site.write(&format!("{folder}/{name}"), "");
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_len(bytes).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_784_000_000 + 86_477 * bytes % 10_000_000))
            .unwrap();
    }
    site.write(&format!("{folder}/raw/a"), "a");
    site.write(&format!("{folder}/Drafts/a"), "a");
    symlink("coast.jpg", site.path(folder).join("latest")).unwrap();
    site
}

const LONG_NAME: &str =
    "A very long name that nobody would choose, but which a camera or a program may well give to a file (copy 12).tiff";

const FOLDER: &str = "/holiday%20pictures/2026/";

#[test]
fn a_listing_can_be_read_in_light_in_dark_and_on_a_narrow_screen() {
    let site = site();
    let server = site.start(&["--listing"]);
    let browser = Browser::start();
    browser.go(&url(&server, FOLDER));
    assert_eq!(browser.title(), "Index of /holiday pictures/2026/");
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer("prefers-color-scheme", scheme);
        assert_eq!(faint(&browser), [""; 0], "{scheme}");
        papers.push(browser.find("body").style("background-color"));
        browser.shoot(&format!("listing-{scheme}"));
    }
    assert_ne!(papers[0], papers[1], "the schemes differ, so the style has not been refused");
    browser.prefer("prefers-color-scheme", "light");
    // WCAG 2.2 §1.4.10: 320 pixels, which is also 1280 with a zoom of four.
    browser.resize(320, 800);
    assert!(!overflows(&browser), "it has to be moved sideways to be read");
    assert!(browser.all("data, time").iter().all(|cell| cell.is_shown()), "nothing is left out");
    browser.shoot("listing-narrow");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_listing_tells_what_it_is_to_those_who_do_not_see_it() {
    let site = site();
    let server = site.start(&["--listing"]);
    let browser = Browser::start();
    browser.go(&url(&server, FOLDER));
    assert_eq!(browser.run("return document.documentElement.lang", &[]), "en");
    assert_eq!(browser.all("h1").len(), 1);
    // Also where rows are laid out in two lines, for which browsers have been known to forget that a table is one.
    for width in [1280, 320] {
        browser.resize(width, 800);
        let roles = ["table", "thead th", "tbody th", "tbody td", "nav", "main", "nav a[aria-current=page]"]
            .map(|selector| (browser.find(selector).role(), browser.find(selector).label()));
        assert_eq!(
            roles.each_ref().map(|(role, label)| (role.as_str(), label.as_str())),
            [
                ("table", "Contents"),
                ("columnheader", "Name"),
                ("rowheader", LONG_NAME),
                ("cell", "46 MiB"),
                ("navigation", "Folders"),
                ("main", ""),
                ("link", "2026"),
            ],
            "{width}"
        );
    }
}

#[test]
fn a_listing_is_walked_with_the_keyboard() {
    let site = site();
    let server = site.start(&["--listing"]);
    let browser = Browser::start();
    browser.go(&url(&server, FOLDER));
    let mut found = Vec::new();
    for _ in 0..12 {
        browser.press(&[key::TAB]);
        let focused = browser.focused();
        assert_eq!((focused.style("outline-style"), focused.style("outline-width")), ("solid".into(), "3px".into()));
        found.push(focused.text());
    }
    assert_eq!(found[..3], ["Home", "holiday pictures", "2026"]);
    assert_eq!(
        found[4..],
        ["Bridge at night.jpg", "coast.jpg", "Drafts/", "empty", "latest@", "notes.txt", "raw/", "Übersicht.pdf"]
    );
    browser.find("tbody a[href='raw/']").send(key::ENTER);
    assert_eq!(browser.url(), url(&server, &format!("{FOLDER}raw/")));
    assert_eq!(
        texts(&browser.run("return [...document.querySelectorAll('tbody a')].map(a => a.textContent)", &[])),
        ["a"]
    );
    browser.find(".trail a").send(key::ENTER);
    assert_eq!(browser.url(), url(&server, "/"));
}

#[test]
fn names_are_shown_as_text_and_their_links_lead_to_their_files() {
    let site = Site::new();
    let names: [&[u8]; 14] = [
        b"<img src=x onerror='document.title=1'>",
        b"\"><script>document.title=1<script>",
        b"javascript:document.title=1.txt",
        b"https:example.org",
        b"\\\\example.org\\x",
        b"100%25",
        b"a#b?c&d;e",
        b"%2e%2e",
        b"  two  spaces  ",
        b"new\nline",
        b"not UTF-8 \xff",
        "\u{202e}gpj.exe".as_bytes(),
        "日本語 עברית".as_bytes(),
        b"~",
    ];
    for (number, name) in names.iter().enumerate() {
        site.write("html/new", "");
        let path = site.path("html").join(OsStr::from_bytes(name));
        fs::rename(site.path("html/new"), &path).unwrap();
        fs::write(path, format!("file {number}")).unwrap();
    }
    let server = site.start(&["--listing"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/"));
    browser.shoot("listing-nasty-names");
    assert_eq!(browser.title(), "Index of /");
    let shown =
        texts(&browser.run("return [...document.querySelectorAll('tbody bdi')].map(name => name.innerText)", &[]));
    let fetched = browser.run("return [...document.querySelectorAll('tbody a')].map(link => link.href)", &[]);
    let mut numbers: Vec<usize> = Vec::new();
    for (name, link) in shown.iter().zip(texts(&fetched)) {
        let path = link.strip_prefix(&url(&server, "")).unwrap_or_else(|| panic!("{name:?} leads to {link}"));
        let text = server.get(path).text().to_owned();
        let number: usize = text.strip_prefix("file ").unwrap().parse().unwrap();
        let expected: String = String::from_utf8_lossy(names[number])
            .chars()
            .map(|char| if char.is_control() || char == '\u{202e}' { '\u{fffd}' } else { char })
            .collect();
        assert_eq!(*name, expected);
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..names.len()).collect::<Vec<_>>());
    assert_eq!(browser.complaints(), [""; 0]);
    browser.find("tbody a[href^='javascript']").click();
    assert_eq!(browser.run("return document.body.textContent", &[]), json!("file 2"));
}

#[test]
fn a_page_that_is_not_there_says_so() {
    let site = site();
    for name in ["404.html", "style.css", "favicon.svg"] {
        site.write(&format!("html/{name}"), fs::read(repository().join("html").join(name)).unwrap());
    }
    let server = site.start(&["--listing"]);
    let browser = Browser::start();
    browser.go(&url(&server, "/a/nothing"));
    assert_eq!(browser.find("h1").text(), "Not found.");
    for scheme in ["light", "dark"] {
        browser.prefer("prefers-color-scheme", scheme);
        assert_eq!(faint(&browser), [""; 0], "{scheme}");
        browser.shoot(&format!("not-found-{scheme}"));
    }
    browser.find("main a").click();
    assert_eq!(browser.title(), "Index of /");
}
