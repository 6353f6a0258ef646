//! The site with its cache: whatever happens to a file, the answer is that of a site that has never seen it.

use super::*;
use crate::sys::allocations;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

impl Fixture {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.site.root().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Asks for the target until it is answered from the cache, which it is as soon as the file is a little old.
    #[track_caller]
    pub(super) fn warm(&self, target: &str) {
        let start = Instant::now();
        while !self.is_cached(target) {
            drop(self.get(target));
            assert!(start.elapsed() < Duration::from_secs(30), "{target} is not cached; on which file system is it?");
        }
    }

    /// Whether the next request would be answered from the cache.
    pub(super) fn is_cached(&self, target: &str) -> bool {
        matches!(self.site.find(&http::path::Path::parse(target).unwrap()), Some(Target::Cached(_)))
    }

    /// That the site answers as one does that has just been opened, and does so again.
    #[track_caller]
    fn assert_true(&self, target: &str) {
        for _ in 0..2 {
            for method in ["GET", "HEAD"] {
                let fresh = Site::open(self.site.root()).unwrap();
                let expected = ask(&fresh, method, target, "").map(shown);
                assert_eq!(self.request(method, target, "").map(shown), expected, "{method} {target}");
            }
        }
    }
}

/// All that a client is told.
fn shown(mut response: Response) -> (u16, String, Option<u64>, Vec<u8>) {
    let content = content(&mut response);
    let lines = String::from_utf8(response.fields.lines().to_vec()).unwrap();
    (response.status.code, lines, response.fields.content_length, content)
}

#[test]
fn a_file_is_answered_from_the_cache_when_it_has_been_sent_once() {
    let fixture =
        Fixture::new().with("a.txt", "hello").with("docs/index.html", "docs").with("large", vec![b'x'; 50_000]);
    for target in ["/a.txt", "/docs/", "/docs/index.html", "/large"] {
        fixture.warm(target);
        fixture.assert_true(target);
        assert!(fixture.is_cached(target));
    }
    // The larger one is kept open.
    let file = || match fixture.get("/large").body {
        Body::File { file, .. } => file,
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&file(), &file()));
}

#[test]
fn a_head_request_and_a_current_copy_are_answered_from_the_cache() {
    let fixture = Fixture::new().with("a.txt", "hello").with("large", vec![b'x'; 50_000]);
    for (target, size) in [("/a.txt", 5), ("/large", 50_000)] {
        fixture.warm(target);
        let first = fixture.get(target);
        let (tag, date) = (field(&first, "ETag").unwrap(), field(&first, "Last-Modified").unwrap());
        let head = fixture.request("HEAD", target, "").unwrap();
        assert_eq!((head.status.code, head.fields.content_length), (200, Some(size)));
        assert!(matches!(head.body, Body::Empty));
        assert_eq!(head.fields.lines(), first.fields.lines());
        for condition in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
            for method in ["GET", "HEAD"] {
                let response = fixture.request(method, target, &condition).unwrap();
                assert_eq!(shown(response), (304, format!("ETag: {tag}\r\n"), None, Vec::new()), "{condition}");
            }
        }
        let response = fixture.request("GET", target, "If-None-Match: \"x\"\r\n").unwrap();
        assert_eq!(shown(response), shown(first));
        assert!(fixture.is_cached(target));
    }
}

#[test]
fn a_change_in_place_is_seen_even_if_the_size_and_the_time_stay() {
    let fixture = Fixture::new().with("a.txt", "hello");
    fixture.warm("/a.txt");
    let modified = fs::metadata(fixture.path("a.txt")).unwrap().modified().unwrap();
    fixture.write("a.txt", "HELLO");
    fs::File::options().write(true).open(fixture.path("a.txt")).unwrap().set_modified(modified).unwrap();
    assert_eq!(bytes(&fixture.get("/a.txt")), b"HELLO");
    fixture.assert_true("/a.txt");
}

/// Writes come faster here than the clock of the file system moves on.
#[test]
fn no_write_is_too_soon_after_another_to_be_seen() {
    let fixture = Fixture::new().with("a.txt", "00000");
    for number in 0..500 {
        let content = format!("{number:05}");
        fixture.write("a.txt", &content);
        for _ in 0..number % 3 {
            assert_eq!(bytes(&fixture.get("/a.txt")), content.as_bytes());
        }
    }
    // And after a pause, with a cache that is in use.
    for number in 0..3 {
        fixture.warm("/a.txt");
        let content = format!("{number:05}");
        fixture.write("a.txt", &content);
        assert_eq!(bytes(&fixture.get("/a.txt")), content.as_bytes());
    }
}

#[test]
fn a_file_that_has_just_changed_is_not_kept() {
    let fixture = Fixture::new();
    let mut answered = 0;
    for _ in 0..1000 {
        fixture.write("a.txt", "hello");
        let changed = |metadata: fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
        let before = changed(fs::metadata(fixture.path("a.txt")).unwrap());
        drop(fixture.get("/a.txt"));
        let cached = fixture.is_cached("/a.txt");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let age = now.saturating_sub(Duration::new(before.0 as u64, before.1 as u32));
        // On a busy machine it may have become old meanwhile.
        if age < Duration::from_millis(20) {
            answered += 1;
            assert!(!cached, "it is {age:?} old");
        }
    }
    assert!(answered > 0, "this machine never answered within 20 ms");
}

#[test]
fn a_file_that_is_replaced_deleted_or_made_anew_is_seen() {
    for size in [5, 50_000] {
        let fixture = Fixture::new().with("a.txt", vec![b'a'; size]).with("b.txt", vec![b'b'; size]);
        fixture.warm("/a.txt");
        // The same size and the same time.
        let modified = fs::metadata(fixture.path("a.txt")).unwrap().modified().unwrap();
        fs::File::options().write(true).open(fixture.path("b.txt")).unwrap().set_modified(modified).unwrap();
        fs::rename(fixture.path("b.txt"), fixture.path("a.txt")).unwrap();
        assert_eq!(shown(fixture.get("/a.txt")).3, vec![b'b'; size]);
        fixture.assert_true("/a.txt");
        fixture.warm("/a.txt");
        fs::remove_file(fixture.path("a.txt")).unwrap();
        assert!(fixture.request("GET", "/a.txt", "").is_none());
        fixture.write("a.txt", "new");
        assert_eq!(bytes(&fixture.get("/a.txt")), b"new");
        fixture.warm("/a.txt");
        fs::remove_file(fixture.path("a.txt")).unwrap();
        fs::create_dir(fixture.path("a.txt")).unwrap();
        fixture.assert_true("/a.txt");
        fixture.write("a.txt/index.html", "index");
        assert_eq!(fixture.get("/a.txt").status.code, 301);
        fixture.assert_true("/a.txt");
    }
}

#[test]
fn a_file_that_may_not_be_read_any_more_is_looked_up_anew() {
    let fixture = Fixture::new().with("sub/a.txt", "hello");
    fixture.warm("/sub/a.txt");
    fs::set_permissions(fixture.path("sub/a.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(!fixture.is_cached("/sub/a.txt"), "also for a user who may read everything");
    fixture.assert_true("/sub/a.txt");
    fs::set_permissions(fixture.path("sub/a.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    fixture.warm("/sub/a.txt");
    fs::set_permissions(fixture.path("sub"), fs::Permissions::from_mode(0o000)).unwrap();
    fixture.assert_true("/sub/a.txt");
    fs::set_permissions(fixture.path("sub"), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.assert_true("/sub/a.txt");
}

#[test]
fn a_folder_on_the_way_that_is_renamed_or_replaced_is_seen() {
    let fixture = Fixture::new().with("sub/a.txt", "one").with("other/a.txt", "two");
    fixture.warm("/sub/a.txt");
    fixture.warm("/other/a.txt");
    fs::rename(fixture.path("sub"), fixture.path("gone")).unwrap();
    assert!(fixture.request("GET", "/sub/a.txt", "").is_none());
    fs::rename(fixture.path("other"), fixture.path("sub")).unwrap();
    assert_eq!(bytes(&fixture.get("/sub/a.txt")), b"two");
    for target in ["/sub/a.txt", "/gone/a.txt", "/other/a.txt"] {
        fixture.assert_true(target);
    }
}

#[test]
fn links_are_followed_to_where_they_lead_now() {
    let fixture = Fixture::new().with("one/a.txt", "one").with("two/a.txt", "two");
    symlink("one", fixture.path("folder")).unwrap();
    symlink("one/a.txt", fixture.path("file")).unwrap();
    for (target, link, to) in [("/folder/a.txt", "folder", "two"), ("/file", "file", "two/a.txt")] {
        fixture.warm(target);
        fs::remove_file(fixture.path(link)).unwrap();
        symlink(to, fixture.path(link)).unwrap();
        assert_eq!(bytes(&fixture.get(target)), b"two");
        fixture.assert_true(target);
    }
}

#[test]
fn a_link_that_comes_to_lead_outside_is_not_followed() {
    let fixture = Fixture::new().with("sub/a.txt", "inside").with("a.txt", "inside");
    let outside = fixture.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a.txt"), "secret").unwrap();
    for (target, name) in [("/sub/a.txt", "sub"), ("/a.txt", "a.txt")] {
        fixture.warm(target);
        let modified = fs::metadata(fixture.path(&target[1..])).unwrap().modified().unwrap();
        fs::File::options().write(true).open(outside.join("a.txt")).unwrap().set_modified(modified).unwrap();
        fs::rename(fixture.path(name), fixture.path("moved")).unwrap();
        let to = if name == "sub" { outside.clone() } else { outside.join("a.txt") };
        symlink(to, fixture.path(name)).unwrap();
        assert!(fixture.request("GET", target, "").is_none(), "{target}");
        fs::remove_file(fixture.path(name)).unwrap();
        fs::rename(fixture.path("moved"), fixture.path(name)).unwrap();
        fixture.assert_true(target);
    }
}

/// A hard link changes the inode's time, so a link to it from outside is not taken for the file that was opened inside.
#[test]
fn a_link_to_another_name_of_the_file_outside_is_not_followed() {
    let fixture = Fixture::new().with("sub/a.txt", "inside");
    let outside = fixture.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fixture.warm("/sub/a.txt");
    fs::hard_link(fixture.path("sub/a.txt"), outside.join("a.txt")).unwrap();
    fs::rename(fixture.path("sub"), fixture.path("moved")).unwrap();
    symlink(&outside, fixture.path("sub")).unwrap();
    assert!(fixture.request("GET", "/sub/a.txt", "").is_none());
}

/// The one case in which a look-up would find nothing and the cache does: nothing is sent then but what was at this path.
#[test]
fn a_folder_that_was_moved_out_behind_a_link_gives_nothing_new() {
    let fixture = Fixture::new().with("sub/a.txt", "inside").with("sub/b.txt", "never asked for");
    let outside = fixture.base.path().join("outside");
    fixture.warm("/sub/a.txt");
    fs::rename(fixture.path("sub"), &outside).unwrap();
    symlink(&outside, fixture.path("sub")).unwrap();
    assert!(fixture.request("GET", "/sub/b.txt", "").is_none());
    if let Some(response) = fixture.request("GET", "/sub/a.txt", "") {
        assert_eq!(bytes(&response), b"inside");
    }
    fs::write(outside.join("a.txt"), "SECRET").unwrap();
    assert!(fixture.request("GET", "/sub/a.txt", "").is_none());
}

#[test]
fn the_first_of_the_index_pages_counts_whenever_it_appears() {
    let fixture = Fixture::new().with("docs/index.htm", "second");
    for _ in 0..2 {
        fixture.assert_true("/docs/");
        assert!(!fixture.is_cached("/docs/"), "whether the first page is there must be asked each time");
        fixture.write("docs/index.html", "first");
        assert_eq!(bytes(&fixture.get("/docs/")), b"first");
        fixture.warm("/docs/");
        fs::remove_file(fixture.path("docs/index.html")).unwrap();
        assert_eq!(bytes(&fixture.get("/docs/")), b"second");
    }
    fs::remove_file(fixture.path("docs/index.htm")).unwrap();
    fixture.assert_true("/docs/");
}

#[test]
fn a_file_of_any_size_becomes_one_of_any_other() {
    let sizes = [5, 16 * 1024, 16 * 1024 + 1, 1024 * 1024, 1024 * 1024 + 1, 0];
    let fixture = Fixture::new().with("a", "");
    for size in sizes.into_iter().chain(sizes.into_iter().rev()) {
        fixture.write("a", vec![b'x'; size]);
        assert_eq!(shown(fixture.get("/a")).3.len(), size);
        if size <= 1024 * 1024 {
            fixture.warm("/a");
        }
        fixture.assert_true("/a");
        assert_eq!(fixture.is_cached("/a"), size <= 1024 * 1024, "{size}");
    }
}

#[test]
fn a_file_from_the_future_is_not_kept_because_each_answer_has_its_own_date() {
    let fixture = Fixture::new().with("later", "x").with("a.txt", "x");
    let file = fs::File::options().write(true).open(fixture.path("later")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    fixture.write("a.txt", "changed after it");
    fixture.warm("/a.txt");
    fixture.assert_true("/later");
    assert!(!fixture.is_cached("/later"));
}

#[test]
fn a_path_of_any_length_is_cached() {
    let name = format!("{}/{}/page.html", "a".repeat(200), "b".repeat(200));
    let fixture = Fixture::new().with(&name, "hello");
    fixture.warm(&format!("/{name}"));
    fixture.assert_true(&format!("/{name}"));
}

#[test]
fn more_files_than_the_cache_holds_are_answered_all_the_same() {
    let mut fixture = Fixture::new();
    for number in 0..200 {
        fixture = fixture.with(&format!("{number}"), format!("{number}").repeat(10_000));
    }
    for _ in 0..3 {
        for number in 0..200 {
            assert_eq!(shown(fixture.get(&format!("/{number}"))).3, format!("{number}").repeat(10_000).as_bytes());
        }
    }
    fixture.warm("/199");
}

/// A new version is published again and again, by renaming and by writing in place. What is answered is never older than
/// what was there when the request began, and never of two versions.
#[test]
fn readers_beside_a_writer_see_each_version_at_once_and_whole() {
    const VERSIONS: usize = 300;
    let version = |number: usize| format!("{number:08}").repeat(100);
    let fixture = Fixture::new().with("a.txt", version(0));
    let published = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let before = published.load(Ordering::Acquire);
                    let response = fixture.get("/a.txt");
                    let content = String::from_utf8(bytes(&response).to_vec()).unwrap();
                    let number = content[..8].parse().unwrap();
                    assert!(number >= before, "{number} after {before} was published");
                    assert!(content == version(number), "parts of several versions");
                    if before == VERSIONS {
                        break;
                    }
                }
            });
        }
        for number in 1..=VERSIONS {
            fixture.write("next", version(number));
            fs::rename(fixture.path("next"), fixture.path("a.txt")).unwrap();
            published.store(number, Ordering::Release);
            if number % 30 == 0 {
                fixture.warm("/a.txt");
            }
        }
    });
}

#[test]
fn nothing_is_allocated_for_a_small_file_that_is_cached() {
    let long = "n".repeat(250);
    let fixture =
        Fixture::new().with("a.txt", "hello").with("index.html", "root").with(&format!("{long}/{long}"), "long");
    let mut request = request();
    for target in ["/a.txt", "/", &format!("/{long}/{long}")] {
        fixture.warm(target);
        let tag = field(&fixture.get(target), "ETag").unwrap();
        for (method, condition) in [("GET", ""), ("HEAD", ""), ("GET", &*format!("If-None-Match: {tag}\r\n"))] {
            let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{condition}\r\n");
            request.head.parse(text.as_bytes(), HeadLimits { head_bytes_max: 8192 }).unwrap().unwrap();
            request.path.parse_into(target).unwrap();
            // The first one makes the buffers, which the server gives back to the request.
            let answer = |request: &mut Request| {
                let found = fixture.site.find(&request.path).unwrap();
                let response = fixture.site.reply(found, request);
                request.spare.take_back(response.fields, Vec::new());
            };
            answer(&mut request);
            let (count, ()) = allocations::during(|| (0..10).for_each(|_| answer(&mut request)));
            assert_eq!(count, 0, "{method} {target} {condition}");
        }
    }
    let (count, _) = allocations::during(|| vec![0u8; 10]);
    assert_eq!(count, 1, "the count works");
}
