//! The forms in which a file is sent: compressed files beside it, parts of it, with fields by rules. From the cache or not, an answer
//! is that of a site that has never seen any of them.

use super::*;
use crate::config::CacheControl;
use crate::sys::allocations;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// What a browser sends, and what gets each of the forms.
const ACCEPTED: [&str; 6] = [
    "",
    "Accept-Encoding: gzip, deflate, br, zstd\r\n",
    "Accept-Encoding: gzip\r\n",
    "Accept-Encoding: zstd;q=0.9, gzip;q=0.5\r\n",
    "Accept-Encoding: br\r\n",
    "Accept-Encoding: identity;q=0, *;q=0\r\n",
];

impl Fixture {
    /// Waits until no file of the site has changed for so long that it would not count as a sidecar.
    fn rest(&self) {
        let start = Instant::now();
        let newest = || {
            let files = fs::read_dir(self.site.root()).unwrap().map(|file| file.unwrap().metadata().unwrap());
            files.map(|file| Duration::new(file.ctime() as u64, file.ctime_nsec() as u32)).max().unwrap()
        };
        while SystemTime::now().duration_since(UNIX_EPOCH).unwrap() <= newest() + Duration::from_secs(1) {
            assert!(start.elapsed() < Duration::from_secs(30), "the clock stands still");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Gives a file the time of modification of another, moved by some seconds.
    fn set_modified(&self, name: &str, other: &str, seconds: i64) {
        let modified = fs::metadata(self.path(other)).unwrap().modified().unwrap();
        let delta = Duration::from_secs(seconds.unsigned_abs());
        let modified = if seconds < 0 { modified - delta } else { modified + delta };
        fs::File::options().write(true).open(self.path(name)).unwrap().set_modified(modified).unwrap();
    }

    /// What a client with these fields is told: status, lines of fields without the boundary, length, content.
    fn told(site: &Site, target: &str, fields: &str) -> Option<(u16, String, Option<u64>, String)> {
        let mut response = ask(site, "GET", target, fields)?;
        let content = String::from_utf8_lossy(&content(&mut response)).into_owned();
        let lines = String::from_utf8(response.fields.lines().to_vec()).unwrap();
        let told = (response.status.code, lines, response.fields.content_length, content);
        let boundary = told.1.split_once("boundary=").map(|(_, rest)| rest[..32].to_owned());
        Some(match boundary {
            Some(boundary) => (told.0, told.1.replace(&boundary, "B"), told.2, told.3.replace(&boundary, "B")),
            None => told,
        })
    }

    /// That it answers as a site does that has just been opened, whoever asks and whatever was asked before.
    #[track_caller]
    fn assert_like_new(&self, target: &str) {
        for round in 0..3 {
            for fields in ACCEPTED {
                for others in ["", "Range: bytes=1-2\r\n", "Range: bytes=0-0,-1\r\n", "If-None-Match: *\r\n"] {
                    let fields = format!("{fields}{others}");
                    let expected = Fixture::told(&Site::open(self.site.root()).unwrap(), target, &fields);
                    assert_eq!(Fixture::told(&self.site, target, &fields), expected, "{target} {fields} round {round}");
                }
            }
        }
    }

    /// The content for a client with these fields, and its coding.
    #[track_caller]
    fn sent(&self, target: &str, fields: &str) -> (String, Option<String>) {
        let mut response = self.request("GET", target, fields).unwrap();
        (String::from_utf8(content(&mut response)).unwrap(), field(&response, "Content-Encoding"))
    }
}

const GZIP: &str = "Accept-Encoding: gzip\r\n";

fn gzipped(text: &str) -> (String, Option<String>) {
    (text.to_owned(), Some("gzip".to_owned()))
}

fn plain(text: &str) -> (String, Option<String>) {
    (text.to_owned(), None)
}

#[test]
fn a_sidecar_is_sent_to_who_takes_its_coding() {
    for size in [5, 50_000, 2_000_000] {
        let whole = |byte: &str| byte.repeat(size);
        let fixture = Fixture::new()
            .with("a.css", whole("o"))
            .with("a.css.br", whole("b"))
            .with("a.css.zst", whole("z"))
            .with("a.css.gz", whole("g"))
            .with("index.html", "page")
            .with("index.html.gz", "packed");
        fixture.rest();
        let mut tags = Vec::new();
        for _ in 0..3 {
            for (fields, byte, coding) in [
                (ACCEPTED[0], "o", None),
                (ACCEPTED[1], "b", Some("br")),
                (ACCEPTED[2], "g", Some("gzip")),
                (ACCEPTED[3], "z", Some("zstd")),
                (ACCEPTED[5], "o", None),
            ] {
                let mut response = fixture.request("GET", "/a.css", fields).unwrap();
                assert!(content(&mut response) == whole(byte).as_bytes(), "{fields}");
                assert_eq!(field(&response, "Content-Encoding").as_deref(), coding, "{fields}");
                assert_eq!(field(&response, "Content-Type").as_deref(), Some("text/css; charset=utf-8"));
                assert_eq!(field(&response, "Vary").as_deref(), Some("Accept-Encoding"));
                let tag = field(&response, "ETag").unwrap();
                tags.push((byte, tag.clone()));
                // A client that has it in this form is told so, with the fields that a cache needs.
                let response = fixture.request("GET", "/a.css", &format!("{fields}If-None-Match: {tag}\r\n")).unwrap();
                assert_eq!(response.status.code, 304);
                assert_eq!(response.fields.lines(), format!("ETag: {tag}\r\nVary: Accept-Encoding\r\n").as_bytes());
            }
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 4, "each form has a tag of its own: {tags:?}");
        assert_eq!(fixture.sent("/", GZIP), gzipped("packed"));
        fixture.assert_like_new("/a.css");
        fixture.assert_like_new("/");
        // Asked for by its own name it is a file like others.
        let mut response = fixture.request("GET", "/a.css.gz", GZIP).unwrap();
        assert!(content(&mut response) == whole("g").as_bytes());
        assert_eq!(field(&response, "Content-Type").as_deref(), Some("application/gzip"));
        assert_eq!((field(&response, "Content-Encoding"), field(&response, "Vary")), (None, None));
    }
}

#[test]
fn a_sidecar_that_is_older_than_its_file_is_not_sent() {
    let fixture = Fixture::new().with("a.css", "old").with("a.css.gz", "packed");
    // One from the future would never become older.
    for seconds in [-1, 86_400] {
        fixture.set_modified("a.css.gz", "a.css", seconds);
        fixture.rest();
        let site = Site::open(fixture.site.root()).unwrap();
        for _ in 0..3 {
            let response = ask(&site, "GET", "/a.css", GZIP).unwrap();
            assert_eq!((bytes(&response), field(&response, "Vary")), (&b"old"[..], None));
        }
    }
    // The same time is what compressors give.
    fixture.set_modified("a.css.gz", "a.css", 0);
    fixture.rest();
    for _ in 0..3 {
        assert_eq!(fixture.sent("/a.css", GZIP), gzipped("packed"));
    }
    // And now the file is changed: at the very next request its old form is not sent any more.
    fixture.write("a.css", "new");
    assert_eq!(fixture.sent("/a.css", GZIP), plain("new"));
    fixture.assert_like_new("/a.css");
}

#[test]
fn a_sidecar_that_is_being_written_is_not_sent() {
    let fixture = Fixture::new().with("a.css", "old").with("a.css.gz", "pack");
    let changed = fs::metadata(fixture.path("a.css.gz")).unwrap();
    let changed = UNIX_EPOCH + Duration::new(changed.ctime() as u64, changed.ctime_nsec() as u32);
    // It is seen as soon as it is at rest: until then nothing is remembered of the file.
    let mut before = 0;
    loop {
        let asked = SystemTime::now();
        let sent = fixture.sent("/a.css", GZIP);
        let age = |time: SystemTime| time.duration_since(changed).unwrap_or_default();
        if sent == gzipped("pack") {
            assert!(age(SystemTime::now()) >= Duration::from_secs(1));
            break;
        }
        assert_eq!(sent, plain("old"));
        assert!(age(asked) <= Duration::from_secs(1), "it is at rest");
        before += 1;
    }
    assert!(before > 0, "this machine took a second for one request");
}

#[test]
fn whatever_happens_to_a_sidecar_the_answer_is_right_at_once() {
    let fixture = Fixture::new().with("a.css", "plain").with("a.css.gz", "one").with("a.css.br", "br");
    let secret = fixture.base.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    fixture.rest();
    let warm = || {
        for _ in 0..3 {
            ACCEPTED.iter().for_each(|fields| drop(fixture.request("GET", "/a.css", fields)));
        }
    };
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: [Change<'_>; 9] = [
        ("written", &|| fixture.write("a.css.gz", "two")),
        ("made older", &|| fixture.set_modified("a.css.gz", "a.css", -10)),
        ("made newer", &|| fixture.set_modified("a.css.gz", "a.css", 0)),
        ("replaced", &|| {
            fixture.write("next", "three");
            fs::rename(fixture.path("next"), fixture.path("a.css.gz")).unwrap();
        }),
        ("deleted", &|| fs::remove_file(fixture.path("a.css.gz")).unwrap()),
        ("a folder", &|| fs::create_dir(fixture.path("a.css.gz")).unwrap()),
        ("a link to outside", &|| {
            fs::remove_dir(fixture.path("a.css.gz")).unwrap();
            symlink(&secret, fixture.path("a.css.gz")).unwrap();
        }),
        ("the other one is deleted", &|| fs::remove_file(fixture.path("a.css.br")).unwrap()),
        ("the file itself is deleted", &|| fs::remove_file(fixture.path("a.css")).unwrap()),
    ];
    for (what, change) in changes {
        warm();
        change();
        // First who would have got it: the others may be told for a while that there are several forms.
        for fields in [ACCEPTED[1], GZIP] {
            let fresh = || {
                let expected = Fixture::told(&Site::open(fixture.site.root()).unwrap(), "/a.css", fields);
                (expected, Fixture::told(&fixture.site, "/a.css", fields))
            };
            let (expected, told) = fresh();
            // Between the two answers a second may have passed.
            let (expected, told) = if expected == told { (expected, told) } else { fresh() };
            assert_eq!(told, expected, "{what}, {fields}");
            assert!(told.is_none_or(|told| !told.3.contains("secret")), "{what}");
        }
        fixture.rest();
    }
}

/// Links can be led elsewhere and back without any change of what they lead to.
#[test]
fn a_sidecar_that_is_known_beside_another_file_is_not_sent() {
    let fixture =
        Fixture::new().with("1/a", "one").with("1/z", "packed one").with("2/a", "two").with("2/z", "packed two");
    let lead = |link: &str, to: &str| {
        _ = fs::remove_file(fixture.path(link));
        symlink(to, fixture.path(link)).unwrap();
    };
    for (name, seconds) in [("1/a", -2000), ("1/z", -2000), ("2/a", -1000), ("2/z", -1000)] {
        fixture.set_modified(name, name, seconds);
    }
    lead("a.css", "1/a");
    lead("a.css.gz", "1/z");
    fixture.rest();
    for _ in 0..3 {
        assert_eq!(fixture.sent("/a.css", GZIP), gzipped("packed one"));
    }
    lead("a.css", "2/a");
    assert_eq!(fixture.sent("/a.css", GZIP), plain("two"), "what is packed is older");
    lead("a.css.gz", "2/z");
    // So that it is looked up again, now with the newer one; nobody asks for that.
    fs::set_permissions(fixture.path("2/a"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    fixture.warm("/a.css");
    assert_eq!(field(&fixture.get("/a.css"), "Vary").as_deref(), Some("Accept-Encoding"));
    lead("a.css.gz", "1/z");
    assert_eq!(fixture.sent("/a.css", GZIP), plain("two"));
    lead("a.css.gz", "2/z");
    fs::set_permissions(fixture.path("2/a"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(fixture.sent("/a.css", GZIP), gzipped("packed two"));
}

#[test]
fn a_new_sidecar_is_sent_when_its_file_is_looked_up_again() {
    let fixture = Fixture::new().with("a.css", "plain");
    fixture.warm("/a.css");
    fixture.write("a.css.gz", "packed");
    let start = Instant::now();
    while fixture.sent("/a.css", GZIP) != gzipped("packed") {
        assert_eq!(fixture.sent("/a.css", GZIP), plain("plain"));
        assert!(start.elapsed() < Duration::from_secs(30), "it is never seen");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    fixture.assert_like_new("/a.css");
}

#[test]
fn nothing_is_allocated_for_a_small_sidecar_that_is_cached() {
    let fixture = Fixture::new().with("a.css", "plain").with("a.css.gz", "packed");
    fixture.rest();
    let mut request = request();
    let text = format!("GET /a.css HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n");
    request.head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
    request.path.parse_into("/a.css").unwrap();
    let mut answer = || {
        let found = fixture.site.find(&request.path).unwrap();
        let response = fixture.site.reply(found, &mut request);
        assert_eq!(bytes(&response), b"packed");
        request.spare.take_back(response.fields, Vec::new());
    };
    // It is looked up again some time: once in a while an answer may allocate.
    let counts: Vec<u64> = (0..100).map(|_| allocations::during(&mut answer).0).collect();
    assert!(counts.iter().filter(|count| **count == 0).count() > 90, "{counts:?}");
}

#[test]
fn parts_come_from_every_kind_of_content() {
    for size in [10, 16 * 1024, 50_000, 2_000_000] {
        let text: String = (0..size).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let fixture = Fixture::new().with("a.txt", &text);
        for _ in 0..3 {
            for (range, part, told) in [
                ("0-0", &text[..1], format!("bytes 0-0/{size}")),
                ("3-5", &text[3..6], format!("bytes 3-5/{size}")),
                ("-4", &text[size - 4..], format!("bytes {}-{}/{size}", size - 4, size - 1)),
                ("2-", &text[2..], format!("bytes 2-{}/{size}", size - 1)),
            ] {
                let mut response = fixture.request("GET", "/a.txt", &format!("Range: bytes={range}\r\n")).unwrap();
                assert_eq!(response.status.code, 206);
                assert!(content(&mut response) == part.as_bytes(), "{range} of {size}");
                assert_eq!(field(&response, "Content-Range"), Some(told));
                assert_eq!(field(&response, "Content-Type").as_deref(), Some("text/plain; charset=utf-8"));
            }
            let response = fixture.request("HEAD", "/a.txt", "Range: bytes=0-0\r\n").unwrap();
            assert_eq!((response.status.code, response.fields.content_length), (200, Some(size as u64)));
            fixture.get("/a.txt");
        }
        fixture.assert_like_new("/a.txt");
    }
}

#[test]
fn caches_are_told_what_the_rules_say() {
    let fixture = Fixture::new()
        .with("index.html", "x")
        .with("a.css", "x")
        .with("assets/b.css", "x")
        .with("assets/b.css.gz", "x")
        .with("assets/c.png", "x");
    let rules = ["*.css=max-age=60", "/assets/=immutable", "no-cache"];
    let rules: Vec<CacheControl> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let value = |site: &Site, target: &str, fields: &str| {
        let response = ask(site, "GET", target, fields).unwrap();
        (response.status.code, field(&response, "Cache-Control"))
    };
    let open = || Site::open(fixture.site.root()).unwrap();
    assert_eq!(value(&open(), "/a.css", ""), (200, None));
    let site = open().with_cache_control(rules);
    for _ in 0..2 {
        for (target, expected) in [
            ("/", "no-cache"),
            ("/index.html", "no-cache"),
            ("/a.css", "max-age=60"),
            // The first that matches.
            ("/assets/b.css", "max-age=60"),
            ("/assets/c.png", "immutable"),
            ("/assets/b.css.gz", "immutable"),
        ] {
            for (fields, status) in
                [("", 200), (GZIP, 200), ("Range: bytes=0-0\r\n", 206), ("If-None-Match: *\r\n", 304)]
            {
                assert_eq!(value(&site, target, fields), (status, Some(expected.to_owned())), "{target} {fields}");
            }
        }
        // What is wrong now may be right in a moment.
        assert_eq!(value(&site, "/a.css", "Range: bytes=1-\r\n"), (416, Some("no-store".to_owned())));
        assert_eq!(value(&site, "/a.css", "If-Match: \"x\"\r\n"), (412, Some("no-store".to_owned())));
    }
}
