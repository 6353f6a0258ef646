//! Under which names files are stored.

use super::{Form, names, read, site, start};
use std::fs;
use std::os::unix::fs::symlink;
use std::thread;

#[test]
fn the_last_part_of_a_name_is_kept_whatever_stands_before_it() {
    let site = site();
    let server = start(&site, &[]);
    for (said, name) in [
        ("../../etc/passwd", "passwd"),
        ("/absolute", "absolute"),
        ("C:\\Users\\me\\Photo 1.jpg", "Photo 1.jpg"),
        ("\u{fc}\u{1f980}.txt", "\u{fc}\u{1f980}.txt"),
        ("quote%22.txt", "quote\".txt"),
        ("100%25.txt", "100%25.txt"),
        ("<script>", "<script>"),
        (" ", " "),
        ("-rf", "-rf"),
    ] {
        let response = Form::new().file(said, said).post(&server, "/in/");
        assert_eq!(response.status, 201, "{said}: {}", response.text());
        assert_eq!(String::from_utf8(read(&site, &format!("html/in/{name}"))).unwrap(), said);
        // What the answer says leads there.
        assert_eq!(server.get(response.field("Location").expect("one file")).text(), said);
    }
    let part = "form-data; name=\"file\"; filename=\"plain\"; filename*=UTF-8''%C3%BCber.txt";
    let response = Form::new().part(part, b"x").post(&server, "/in/");
    assert_eq!(response.field("Location"), Some("/in/%C3%BCber.txt"));
    assert_eq!(names(&site, "html"), ["in"]);
}

#[test]
fn names_that_a_site_does_not_show_are_refused_and_nothing_is_stored() {
    let site = site();
    let server = start(&site, &[]);
    let long = "x".repeat(256);
    for (said, reason) in [
        (".htaccess", "begin with a dot"),
        ("..", "are folders"),
        ("a/.", "are folders"),
        ("module.so", "end in .so"),
        ("a/", "no name"),
        ("a\tb", "control characters"),
        ("a%0Ab", "control characters"),
        ("a\u{85}b", "control characters"),
        (&long, "255 bytes"),
    ] {
        let response = Form::new().file("good", "x").file(said, "x").post(&server, "/in/");
        assert_eq!(response.status, 400, "{said}");
        assert!(response.text().contains(reason), "{said}: {}", response.text());
    }
    let mut part = Form::new().file("?", "x").0;
    *part.iter_mut().find(|byte| **byte == b'?').expect("its name") = 0xff;
    let response = Form(part).post(&server, "/in/");
    assert_eq!((response.status, response.text().contains("must be UTF-8")), (400, true));
    assert_eq!(names(&site, "html/in"), [""; 0]);
}

#[test]
fn a_name_that_is_taken_gets_a_number() {
    let site = site();
    fs::create_dir(site.path("html/in/folder.d")).unwrap();
    symlink("nowhere", site.path("html/in/link")).unwrap();
    site.write("outside", "untouched");
    symlink("../../outside", site.path("html/in/away")).unwrap();
    let longest = "x".repeat(255);
    site.write(&format!("html/in/{longest}"), "");
    let server = start(&site, &[]);
    let stored = |said: &str| Form::new().file(said, "x").post(&server, "/in/").field("Location").map(str::to_owned);
    for (said, location) in [
        ("a.txt", "/in/a.txt"),
        ("a.txt", "/in/a_1.txt"),
        ("a.txt", "/in/a_2.txt"),
        ("a_1.txt", "/in/a_1_1.txt"),
        ("folder.d", "/in/folder_1.d"),
        ("link", "/in/link_1"),
        ("away", "/in/away_1"),
        (&longest, &format!("/in/{}_1", "x".repeat(253))),
    ] {
        assert_eq!(stored(said).as_deref(), Some(location), "{said}");
    }
    assert_eq!(read(&site, "outside"), b"untouched");
    let two = Form::new().file("b", "1").file("b", "2").post(&server, "/in/");
    assert_eq!(two.text(), "stored b, 1 bytes\nstored b_1, 1 bytes: the name b was taken\n");
}

#[test]
fn no_upload_is_sent_in_the_stead_of_another_file() {
    let site = site();
    site.write("html/in/page.html", "page");
    let server = start(&site, &[]);
    for (said, location) in [
        ("page.html.gz", "/in/page.html_1.gz"),
        ("page.html.br", "/in/page.html_1.br"),
        ("page.html.zst", "/in/page.html_1.zst"),
        ("other.html.gz", "/in/other.html.gz"),
        // It is newer than the one beside it, which therefore is not taken for it.
        ("other.html", "/in/other.html"),
    ] {
        let stored = Form::new().file(said, "evil").post(&server, "/in/");
        assert_eq!(stored.field("Location"), Some(location), "{said}");
    }
    let fields = [("Accept-Encoding", "gzip, br, zstd")];
    let page = server.connect().request("GET", "/in/page.html", &fields, b"").expect("an answer");
    assert_eq!((page.text(), page.field("Content-Encoding")), ("page", None));
}

#[test]
fn sixteen_uploads_of_the_same_name_at_once_keep_sixteen_files() {
    let site = site();
    let server = start(&site, &["--threads", "2", "--workers", "2"]);
    let contents: Vec<Vec<u8>> = (0..16u8).map(|number| vec![number; 300_000]).collect();
    thread::scope(|scope| {
        for content in &contents {
            let server = &server;
            scope.spawn(move || assert_eq!(Form::new().file("same.bin", content).post(server, "/in/").status, 201));
        }
    });
    let names = names(&site, "html/in");
    assert_eq!(names.len(), 16);
    let mut stored: Vec<Vec<u8>> = names.iter().map(|name| read(&site, &format!("html/in/{name}"))).collect();
    stored.sort();
    assert!(stored == contents);
    assert!((1..16).all(|number| names.contains(&format!("same_{number}.bin"))), "{names:?}");
}
