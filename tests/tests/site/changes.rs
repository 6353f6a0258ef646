//! Files that change while they are sent to a client who takes its time, and files beyond 32 bits.

use super::get;
use rustix::net::RecvFlags;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tests::{Client, PATIENCE, Server, Site, eventually};

/// More than the kernel takes for a client who does not read.
const SIZE: usize = 32 << 20;

/// Asks for the file, takes one byte, and waits until the server has to wait, too.
fn begin(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(b"GET /file.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("the kernel takes it");
    client.stream().read_exact(&mut [0; 1]).expect("the head has come");
    let mut waiting = 0;
    eventually("nothing more comes", PATIENCE, || {
        let now = rustix::io::ioctl_fionread(client.stream()).expect("a socket");
        let before = std::mem::replace(&mut waiting, now);
        std::thread::park_timeout(Duration::from_millis(100));
        (now > 0 && now == before).then_some(())
    });
    client
}

/// What comes of the response: its content, and whether that is all of it.
fn rest(client: &mut Client) -> (Vec<u8>, bool) {
    let mut received = Vec::new();
    if let Err(error) = client.stream().read_to_end(&mut received) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let length = String::from_utf8_lossy(&received[..head]);
    let length: usize =
        length.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).expect("a length");
    assert!(received.len() - head <= length);
    let is_complete = received.len() - head == length;
    (received.split_off(head), is_complete)
}

fn overwrite(path: &Path, byte: u8, length: usize) {
    File::options()
        .write(true)
        .open(path)
        .expect("it is there")
        .write_all_at(&vec![byte; length], 0)
        .expect("there is room");
}

/// The client cannot tell a mixture from a file; it can tell that something is missing.
#[test]
fn a_file_that_is_rewritten_in_place_is_cut_off() {
    let site = Site::new();
    let path = site.path("html/file.bin");
    let server = site.start(&[]);
    let changes: [(&str, &dyn Fn()); 3] = [
        ("the same size", &|| overwrite(&path, b'n', SIZE)),
        ("one byte at the end", &|| {
            File::options().write(true).open(&path).unwrap().write_all_at(b"n", SIZE as u64 - 1).unwrap()
        }),
        ("truncated, and written as long again", &|| fs::write(&path, vec![b'n'; SIZE]).unwrap()),
    ];
    for (what, change) in changes {
        fs::write(&path, vec![b'o'; SIZE]).expect("there is room");
        let mut client = begin(&server);
        change();
        let (content, is_complete) = rest(&mut client);
        assert!(!is_complete, "{what}: {} bytes", content.len());
        // The next one gets the new one.
        let response = server.get("/file.bin");
        assert_eq!((response.body.len(), response.body.last()), (SIZE, Some(&b'n')), "{what}");
    }
}

#[test]
fn a_file_that_shrinks_is_cut_off() {
    let site = Site::new();
    let path = site.write("html/file.bin", vec![b'o'; SIZE]);
    let server = site.start(&[]);
    let mut client = begin(&server);
    File::options().write(true).open(&path).expect("it is there").set_len(SIZE as u64 - 1).expect("our own");
    let (content, is_complete) = rest(&mut client);
    assert!(!is_complete && content.iter().all(|byte| *byte == b'o'), "{} bytes", content.len());
}

/// A log, say: its beginning stays what it was, and that is what was promised.
#[test]
fn a_file_that_grows_arrives_as_long_as_it_was() {
    let site = Site::new();
    let path = site.write("html/file.bin", vec![b'o'; SIZE]);
    let server = site.start(&[]);
    let mut client = begin(&server);
    File::options().append(true).open(&path).expect("it is there").write_all(&[b'n'; 1000]).expect("there is room");
    let (content, is_complete) = rest(&mut client);
    assert!(is_complete && content.iter().all(|byte| *byte == b'o'), "{} bytes", content.len());
    assert_eq!(server.get("/file.bin").body.len(), SIZE + 1000);
}

/// Whatever happens to a name or a mode, the file that was opened is the one that is sent.
#[test]
fn a_file_that_is_renamed_unlinked_or_replaced_arrives_whole() {
    let site = Site::new();
    let path = site.path("html/file.bin");
    let server = site.start(&[]);
    let new = site.path("new.bin");
    let changes: [&dyn Fn(); 5] = [
        &|| fs::rename(&path, site.path("html/other.bin")).unwrap(),
        &|| fs::remove_file(&path).unwrap(),
        &|| fs::rename(&new, &path).unwrap(),
        &|| fs::hard_link(&path, site.path("html/hard.bin")).unwrap(),
        &|| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        _ = fs::remove_file(&path);
        fs::write(&path, vec![b'o'; SIZE]).expect("there is room");
        fs::write(&new, vec![b'n'; SIZE]).expect("there is room");
        let mut client = begin(&server);
        change();
        let (content, is_complete) = rest(&mut client);
        assert!(is_complete && content.iter().all(|byte| *byte == b'o'), "{number}: {} bytes", content.len());
    }
}

/// Files that are kept open, and files in memory: a change is seen by the next request, and no answer is a mixture.
#[test]
fn small_files_that_change_under_load_are_one_or_the_other() {
    for size in [100, 10_000, 100_000] {
        let site = Site::new();
        let path = site.write("html/file.bin", vec![b'0'; size]);
        let server = site.start(&[]);
        let load = tests::Load::start(server.address(), 4, &["/file.bin"], move |_, response| {
            let first = response.body.first().copied().unwrap_or(0);
            let is_one = response.body.len() == size && response.body.iter().all(|byte| *byte == first);
            is_one.then_some(()).ok_or_else(|| format!("{} {}", response.status, response.body.len()))
        });
        for round in 0..200u32 {
            let new = site.write("new.bin", vec![b'0' + (round % 10) as u8; size]);
            fs::rename(new, &path).expect("it is there");
            load.flow(2);
        }
        load.finish().assert_nothing_lost();
    }
}

#[test]
fn lengths_and_places_have_more_than_32_bits() {
    const LENGTH: u64 = (5 << 30) + 7;
    let site = Site::new();
    let path = site.write("html/large.bin", "first");
    let file = File::options().write(true).open(&path).expect("it is there");
    // It takes no room: there is nothing between.
    file.set_len(LENGTH).expect("the file system has sparse files");
    file.write_all_at(b"behind", (4 << 30) - 3).expect("there is room");
    file.write_all_at(b"last", LENGTH - 4).expect("there is room");
    let server = site.start(&[]);
    let head = server.connect().request("HEAD", "/large.bin", &[], b"").expect("an answer");
    assert_eq!(head.field("Content-Length"), Some(&*LENGTH.to_string()));
    let mut client = server.connect();
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("the kernel takes it");
    let mut head = vec![0; head.head.len() + "Connection: close\r\n".len()];
    client.stream().read_exact(&mut head).expect("a head");
    assert!(head.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&head));
    let mut place = 0;
    let mut piece = vec![0; 1 << 20];
    let mut skip_to = |place: &mut u64, goal: u64| {
        while *place < goal {
            let room = piece.len().min((goal - *place) as usize);
            // The kernel drops it, so that nobody has to look at five gigabytes of nothing (tcp(7), MSG_TRUNC).
            let flags = RecvFlags::TRUNC;
            let (_, count) = rustix::net::recv(client.stream(), &mut piece[..room], flags).expect("content");
            assert!(count > 0, "{place} of {LENGTH} bytes");
            *place += count as u64;
        }
    };
    let mut words = Vec::new();
    for (at, length) in [(0, 5), ((4u64 << 30) - 3, 6), (LENGTH - 4, 4)] {
        skip_to(&mut place, at);
        let mut word = vec![0; length];
        client.stream().read_exact(&mut word).expect("content");
        place += length as u64;
        words.push(String::from_utf8(word).expect("text"));
    }
    assert_eq!((words, place), (vec!["first".to_owned(), "behind".to_owned(), "last".to_owned()], LENGTH));
    assert_eq!(client.stream().read(&mut [0]).expect("the end"), 0);
    assert_eq!(get(&server, "/nothing").0, 404);
}
