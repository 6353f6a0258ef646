//! The welcome page tells the truth: the sources that it shows are those of the repository, each example handler is
//! linked, and nothing is loaded from elsewhere.

use std::fs;
use std::path::PathBuf;

#[test]
fn the_sources_on_the_welcome_page_are_those_of_the_repository() {
    let page = page();
    let mut shown = Vec::new();
    for part in page.split("<code data-source=\"").skip(1) {
        let (path, rest) = part.split_once("\">").expect("the attribute ends");
        let (code, _) = rest.split_once("</code>").expect("the element ends");
        let code = code.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let file = fs::read_to_string(repository().join(path)).expect(path);
        // The hello in Rust is an example in a comment, where each line begins with `//! `.
        let comment: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("//!")).collect();
        let comment = comment.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n");
        assert!(
            file.contains(&code) || comment.contains(&code),
            "html/index.html shows a source that {path} does not have: copy it from there again\n{code}"
        );
        shown.push(path.to_owned());
    }
    for handler in [
        "hello.c",
        "counter/src/lib.rs",
        "ctime/src/lib.rs",
        "echo/src/lib.rs",
        "framework/src/lib.rs",
        "sayhello/src/lib.rs",
    ] {
        assert!(shown.contains(&format!("handlers/{handler}")), "html/index.html does not show handlers/{handler}");
    }
}

#[test]
fn the_welcome_page_links_every_example_handler() {
    let page = page();
    for address in [
        "/hello.so",
        "/ctime.so",
        "/ctime.so?timezone=e8",
        "/echo.so/a/b?x=1",
        "/counter.so",
        "/sayhello.so",
        "/ctime",
        "/sayhello",
        "/sayhaha",
    ] {
        assert!(page.contains(&format!("href=\"{address}\"")), "{address} is not linked");
    }
}

#[test]
fn the_welcome_page_loads_nothing_from_elsewhere_and_runs_no_script() {
    for name in ["index.html", "404.html", "style.css", "favicon.svg"] {
        let text = read(name).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for foreign in ["<script", "javascript:", " onclick", "src=\"http", "href=\"http", "=\"//", "url(", "@import"] {
            assert!(!text.contains(foreign), "html/{name} has {foreign}");
        }
    }
}

fn page() -> String {
    read("index.html")
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join("html").join(name)).expect(name)
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}
