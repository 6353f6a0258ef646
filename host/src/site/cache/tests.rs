//! The tables by themselves: bounds, eviction, age. What they promise over real files is in the tests of the site.

use super::super::description::Facts;
use super::*;
use crate::sys::files;
use std::time::UNIX_EPOCH;

fn entry(path: &str, content: Content, seen_ms: u64) -> Entry {
    let identity = Identity { device: 1, inode: 1, size: 1, modified_ns: 1, changed_ns: 1 };
    let place = Place { path: path.as_bytes().into(), coding: None, relative: CString::new(&path[1..]).unwrap() };
    let facts = Facts {
        identity: &identity,
        is_settled: true,
        content_type: "text/plain",
        coding: None,
        varies: false,
        cache_control: None,
    };
    let description = Description::new(&facts, UNIX_EPOCH);
    let (sidecars, beside, used) = (Codings::default(), None, AtomicBool::new(false));
    Entry { place, identity, description, content: Some(content), sidecars, beside, seen_ms, used }
}

fn in_memory(path: &str, size: usize) -> Entry {
    entry(path, Content::Memory(vec![0; size].into()), 0)
}

fn open(path: &str) -> (Entry, std::sync::Weak<OwnedFd>) {
    let file =
        Arc::new(files::Folder::open(std::path::Path::new("/")).unwrap().open_beneath(b"proc").unwrap().descriptor);
    let watched = Arc::downgrade(&file);
    (entry(path, Content::Open(file), 0), watched)
}

fn key(path: &str) -> Key<'_> {
    Key { path: path.as_bytes(), coding: None }
}

fn entries(table: &Table) -> Vec<Arc<Entry>> {
    table.sets.iter().flat_map(|set| &set.places).filter_map(ArcSwapOption::load_full).collect()
}

/// The table counts what it holds, neither more nor less.
#[track_caller]
fn assert_counts(table: &Table) {
    let held: usize = entries(table).iter().map(|entry| entry.bytes()).sum();
    assert_eq!(table.bytes.load(Ordering::Relaxed), held);
}

#[test]
fn an_entry_is_found_by_its_path_alone_until_it_is_too_old() {
    let cache = Cache::new();
    cache.insert(entry("/a", Content::Memory((*b"a").into()), 1000));
    assert_eq!(&*cache.find(b"/a", None, 1000).unwrap().place.path, b"/a");
    assert!(cache.find(b"/a", None, 1000 + BELIEVED_MS - 1).is_some());
    assert!(cache.find(b"/a", None, 1000 + BELIEVED_MS).is_none());
    assert!(
        cache.find(b"/b", None, 1000).is_none()
            && cache.find(b"/", None, 1000).is_none()
            && cache.find(b"/a/", None, 1000).is_none()
    );
}

#[test]
fn a_sidecar_is_another_entry_under_the_same_path() {
    let cache = Cache::new();
    let sidecar = |coding, content| {
        let mut entry = entry("/a", Content::Memory(content), 0);
        entry.place.coding = coding;
        entry
    };
    for (coding, content) in [(None, *b"a"), (Some(Coding::Gzip), *b"g"), (Some(Coding::Brotli), *b"b")] {
        cache.insert(sidecar(coding, content.into()));
    }
    let found = |coding| match &cache.find(b"/a", coding, 0)?.content {
        Some(Content::Memory(bytes)) => Some(bytes[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!((found(None), found(Some(Coding::Gzip))), (Some(b'a'), Some(b'g')));
    assert_eq!((found(Some(Coding::Brotli)), found(Some(Coding::Zstandard))), (Some(b'b'), None));
}

#[test]
fn a_path_has_one_entry_whatever_its_size_becomes() {
    let cache = Cache::new();
    cache.insert(in_memory("/a", 10));
    cache.insert(in_memory("/a", 20));
    assert_eq!(entries(&cache.memory).len(), 1);
    let (larger, watched) = open("/a");
    cache.insert(larger);
    assert!(matches!(cache.find(b"/a", None, 0).unwrap().content, Some(Content::Open(_))));
    assert_eq!((entries(&cache.memory).len(), entries(&cache.open).len()), (0, 1));
    cache.insert(in_memory("/a", 30));
    assert!(matches!(&cache.find(b"/a", None, 0).unwrap().content, Some(Content::Memory(bytes)) if bytes.len() == 30));
    assert!(watched.upgrade().is_none(), "the file is closed");
    assert_counts(&cache.memory);
    assert_counts(&cache.open);
}

#[test]
fn an_entry_that_is_not_true_is_removed_and_no_other() {
    let cache = Cache::new();
    cache.insert(in_memory("/a", 10));
    let first = cache.find(b"/a", None, 0).unwrap();
    cache.insert(in_memory("/a", 10));
    cache.remove(&first);
    let second = cache.find(b"/a", None, 0).expect("the newer entry stays");
    cache.remove(&second);
    cache.remove(&second);
    assert!(cache.find(b"/a", None, 0).is_none());
    assert_eq!(cache.memory.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn open_files_are_bounded_in_number() {
    let cache = Cache::new();
    let watched: Vec<_> = (0..1000)
        .map(|number| {
            let (entry, watched) = open(&format!("/{number}"));
            cache.insert(entry);
            watched
        })
        .collect();
    let held = watched.iter().filter(|file| file.upgrade().is_some()).count();
    assert_eq!(held, OPEN_SETS * WAYS);
    assert_eq!(entries(&cache.open).len(), held);
}

#[test]
fn memory_is_bounded_in_bytes_and_in_number() {
    for size in [0, 16 * 1024] {
        let cache = Cache::new();
        for number in 0..3 * MEMORY_SETS * WAYS {
            cache.insert(in_memory(&format!("/{number}"), size));
            assert!(cache.memory.bytes.load(Ordering::Relaxed) <= MEMORY_BYTES_MAX);
        }
        assert_counts(&cache.memory);
        let count = entries(&cache.memory).len();
        assert!(count <= MEMORY_SETS * WAYS);
        assert!(count > MEMORY_BYTES_MAX / (20 * 1024), "it is used: {count}");
        let last = format!("/{}", 3 * MEMORY_SETS * WAYS - 1);
        assert!(cache.find(last.as_bytes(), None, 0).is_some(), "the newest is there");
    }
}

#[test]
fn what_is_used_outlives_what_was_asked_for_once() {
    for size in [0, 16 * 1024] {
        let cache = Cache::new();
        cache.insert(in_memory("/used", size));
        for number in 0..3 * MEMORY_SETS * WAYS {
            assert!(cache.find(b"/used", None, 0).is_some(), "after {number}");
            cache.insert(in_memory(&format!("/{number}"), size));
        }
    }
}

#[test]
fn a_set_whose_entries_are_all_used_takes_a_newcomer_all_the_same() {
    let table = Table::new(1);
    for number in 0..WAYS {
        table.insert(in_memory(&format!("/{number}"), 0), number as u64, MEMORY_BYTES_MAX);
        assert!(table.find(key(&format!("/{number}")), number as u64).is_some());
    }
    for path in ["/x", "/y"] {
        table.insert(in_memory(path, 0), 0, MEMORY_BYTES_MAX);
        assert!(table.find(key(path), 0).is_some());
    }
    assert_eq!(entries(&table).len(), WAYS);
    assert_counts(&table);
}

/// Threads find, insert and remove in one small table, so that they meet at every place.
#[test]
fn threads_that_meet_at_one_place_neither_lose_count_nor_find_another_ones_entry() {
    let table = Table::new(2);
    let bytes_max = 4 * in_memory("/0", 1000).bytes();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let table = &table;
            scope.spawn(move || {
                let mut state = thread + 1;
                for _ in 0..20_000 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let path = format!("/{}", (state >> 33) % 16);
                    let key = key(&path);
                    let hash = key.hash();
                    match (state >> 60, table.find(key, hash)) {
                        (0..4, Some(entry)) => table.remove(&entry, hash),
                        (_, Some(entry)) => assert_eq!(*entry.place.path, *path.as_bytes()),
                        (_, None) => table.insert(in_memory(&path, 1000), hash, bytes_max),
                    }
                }
            });
        }
    });
    assert_counts(&table);
    assert!(!entries(&table).is_empty());
}
