//! Range requests (RFC 9110 §14) from outside: parts of files of every size, to the byte.

use crate::settled;
use std::fs;
use std::io::{ErrorKind, Read};
use std::time::{Duration, SystemTime};
use tests::{Client, Response, Server, Site};

/// Sizes that are sent from memory, from a file that is kept open, and from one that is opened each time.
const SIZES: [usize; 4] = [100, 16 << 10, 300_000, 3 << 20];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 7 + at % 241) as u8).collect()
}

fn range(server: &Server, path: &str, range: &str) -> Response {
    server.connect().request("GET", path, &[("Range", range)], b"").unwrap()
}

/// The parts of a multipart/byteranges content, by the rules of RFC 2046: the fields of each, and its bytes.
fn parts(response: &Response) -> Vec<(Vec<String>, Vec<u8>)> {
    let boundary = response.field("Content-Type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter may do without the line end before it.
    let mut rest = [b"\r\n", &*response.body].concat();
    let mut parts = Vec::new();
    loop {
        assert!(rest.starts_with(delimiter.as_bytes()), "no delimiter after part {}", parts.len());
        rest.drain(..delimiter.len());
        if rest == b"--\r\n" {
            return parts;
        }
        assert!(rest.starts_with(b"\r\n"));
        rest.drain(..2);
        let end = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the end of a part's head") + 4;
        let head = String::from_utf8(rest.drain(..end).collect()).unwrap();
        let next = rest.windows(delimiter.len()).position(|bytes| bytes == delimiter.as_bytes()).expect("a delimiter");
        parts.push((head.trim_end().split("\r\n").map(str::to_owned).collect(), rest.drain(..next).collect()));
    }
}

#[test]
fn one_range_is_sent_to_the_byte() {
    let site = Site::new();
    for size in SIZES {
        site.write(&format!("html/{size}.txt"), content(size));
    }
    let server = site.start(&[]);
    for size in SIZES {
        let (path, whole, last) = (format!("/{size}.txt"), content(size), size - 1);
        assert_eq!(settled(&server, &path).field("Accept-Ranges"), Some("bytes"));
        for (asked, first, last) in [
            ("bytes=0-0".to_owned(), 0, 0),
            ("bytes=1-50".to_owned(), 1, 50),
            ("bytes=0-".to_owned(), 0, last),
            (format!("bytes={last}-"), last, last),
            (format!("bytes=10-{}", size * 2), 10, last),
            ("bytes=10-99999999999999999999".to_owned(), 10, last),
            ("bytes=-1".to_owned(), last, last),
            ("bytes=-99999999999999999999".to_owned(), 0, last),
            ("BYTES=5-6".to_owned(), 5, 6),
            ("bytes=20-29,0-9,5-25".to_owned(), 0, 29),
            ("bytes=40-49, 99999999-".to_owned(), 40, 49),
        ] {
            let response = range(&server, &path, &asked);
            assert_eq!(response.status, 206, "{asked} of {size}");
            assert!(response.body == whole[first..=last], "{asked} of {size}");
            assert_eq!(response.field("Content-Range"), Some(&*format!("bytes {first}-{last}/{size}")), "{asked}");
            assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
            // §15.3.7: what a 200 would say of it.
            for field in ["ETag", "Last-Modified", "X-Content-Type-Options"] {
                assert_eq!(response.field(field), server.get(&path).field(field), "{field}");
            }
        }
        for asked in [format!("bytes={size}-"), format!("bytes={size}-{}", size + 5), "bytes=-0".to_owned()] {
            let response = range(&server, &path, &asked);
            assert_eq!(response.status, 416, "{asked} of {size}");
            assert_eq!(response.field("Content-Range"), Some(&*format!("bytes */{size}")));
        }
        for asked in ["seconds=1-2", "bytes=2-1", "bytes=x-y", "bytes", "bytes=", "bytes=1-2,y"] {
            let response = range(&server, &path, asked);
            assert_eq!((response.status, response.field("Content-Range")), (200, None), "{asked} of {size}");
            assert!(response.body == whole, "{asked} of {size}");
        }
    }
}

#[test]
fn several_ranges_are_parts_of_one_response_and_its_length_is_exact() {
    let site = Site::new();
    for size in SIZES {
        site.write(&format!("html/{size}.html"), content(size));
    }
    let server = site.start(&[]);
    for size in SIZES {
        let whole = content(size);
        let far = size - 10;
        let asked = if size > 1000 {
            vec![(far, size - 1), (0, 9), (500, 520), (size / 2, size / 2 + 15_000.min(size / 4))]
        } else {
            continue;
        };
        let value: Vec<String> = asked.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        // Others follow on the connection: their heads would not be found if the length were wrong.
        let mut client = server.connect();
        let mut boundaries = Vec::new();
        for _ in 0..3 {
            let fields = [("Range", format!("bytes={}", value.join(",")))];
            let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
            let response = client.request("GET", &format!("/{size}.html"), &fields, b"").unwrap();
            assert_eq!((response.status, response.field("Content-Range")), (206, None));
            boundaries.push(response.field("Content-Type").unwrap().to_owned());
            let parts = parts(&response);
            assert_eq!(parts.len(), asked.len());
            for ((head, bytes), (first, last)) in parts.iter().zip(&asked) {
                let range = format!("Content-Range: bytes {first}-{last}/{size}");
                assert_eq!(*head, ["Content-Type: text/html; charset=utf-8".to_owned(), range]);
                assert!(*bytes == whole[*first..=*last], "{first}-{last} of {size}");
            }
        }
        boundaries.dedup();
        assert_eq!(boundaries.len(), 3, "each response has a boundary of its own");
    }
}

/// Whatever is asked for, no more is sent than the file and a bounded number of heads (§17.15).
#[test]
fn many_ranges_cost_no_more_than_the_file() {
    let site = Site::new();
    let size = 1 << 20;
    site.write("html/a.bin", content(size));
    let server = site.start(&[]);
    for (what, ranges) in [
        ("all of it again and again", vec!["0-".to_owned(); 50]),
        ("all of it more often than is looked at", vec!["0-".to_owned(); 1000]),
        ("overlapping", (0..60).map(|at| format!("{at}-")).collect()),
        ("backwards", (0..60).map(|at| format!("{}-{}", (60 - at) * 10_000, (60 - at) * 10_000 + 15_000)).collect()),
        ("one byte each", (0..2000).map(|at| format!("{}-{}", at * 200, at * 200)).collect()),
        ("suffixes", (1..60).map(|at| format!("-{}", at * 1000)).collect()),
    ] {
        let response = range(&server, "/a.bin", &format!("bytes={}", ranges.join(",")));
        assert!(matches!(response.status, 200 | 206), "{what}: {}", response.status);
        assert!(response.body.len() <= size + 64 * 200, "{what}: {}", response.body.len());
    }
}

#[test]
fn a_range_is_for_get_alone_and_of_nothing_there_is_none() {
    let site = Site::new();
    site.write("html/a.txt", "0123456789");
    site.write("html/empty.txt", "");
    let server = site.start(&[]);
    for asked in ["bytes=0-0", "bytes=100-"] {
        let response = server.connect().request("HEAD", "/a.txt", &[("Range", asked)], b"").unwrap();
        assert_eq!((response.status, response.field("Content-Length")), (200, Some("10")));
    }
    let response = range(&server, "/empty.txt", "bytes=0-");
    assert_eq!((response.status, response.field("Content-Range")), (416, Some("bytes */0")));
    let response = range(&server, "/empty.txt", "bytes=-5");
    assert_eq!((response.status, response.body.len()), (200, 0));
}

#[test]
fn a_download_goes_on_only_if_the_file_is_still_the_same() {
    let site = Site::new();
    let path = site.write("html/a.txt", "0123456789");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let server = site.start(&[]);
    let tag = settled(&server, "/a.txt").field("ETag").unwrap().to_owned();
    let go_on = |condition: &str| {
        let fields = [("Range", "bytes=4-"), ("If-Range", condition)];
        let response = server.connect().request("GET", "/a.txt", &fields, b"").unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    };
    let (rest, whole) = ((206, "456789".to_owned()), (200, "0123456789".to_owned()));
    assert_eq!(go_on(&tag), rest);
    assert_eq!(go_on("Sun, 06 Nov 1994 08:49:37 GMT"), rest);
    for other in
        [&format!("W/{tag}"), "\"x\"", "*", "Sun, 06 Nov 1994 08:49:38 GMT", "Sun, 06 Nov 1994 08:49:36 GMT", "x"]
    {
        assert_eq!(go_on(other), whole, "{other}");
    }
    site.write("html/a.txt", "abcdefghij");
    assert_eq!(go_on(&tag), (200, "abcdefghij".to_owned()));
}

/// The length has been promised, so the connection is aborted: the client must be able to tell.
#[test]
fn a_file_that_shrinks_while_a_part_is_sent_ends_the_connection_and_not_the_server() {
    for asked in ["bytes=1000-", "bytes=0-9,1000-,500-501"] {
        let site = Site::new();
        let size = 32 << 20;
        let path = site.write("html/file.bin", vec![b'x'; size]);
        site.write("html/a.txt", "a");
        let server = site.start(&[]);
        let mut client = server.connect();
        let request = format!("GET /file.bin HTTP/1.1\r\nHost: a\r\nRange: {asked}\r\n\r\n");
        client.send(format!("{request}GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        client.stream().read_exact(&mut [0; 1]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        let mut received = Vec::new();
        let end = client.stream().read_to_end(&mut received);
        assert!(end.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true), "{end:?}");
        assert!(received.starts_with(b"TTP/1.1 206 "), "{}", String::from_utf8_lossy(&received[..100]));
        assert!(received.len() < size - 1000, "{} bytes", received.len());
        assert!(!received.ends_with(b"\r\n\r\na"), "nothing may follow content that is not complete");
        assert_eq!(server.get("/a.txt").text(), "a");
        assert_eq!(range(&server, "/file.bin", asked).status, if asked.contains(',') { 206 } else { 416 });
    }
}

/// A client that takes little at a time gets the same bytes, however the pieces fall; and so does one that does not wait for one
/// answer before it asks for the next.
#[test]
fn parts_arrive_whole_at_a_client_that_reads_slowly() {
    let site = Site::new();
    let size = 8 << 20;
    site.write("html/a.bin", content(size));
    site.write("html/a.txt", content(1000));
    let server = site.start(&[]);
    let stream = server.connect();
    let mut client = Client::over(Slowly(stream.stream()));
    let ask = |path: &str, range: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nRange: bytes={range}\r\n\r\n");
    let large = ask("/a.bin", "4000000-7999999,0-9,1000000-2999999");
    let small = ask("/a.txt", "500-509,0-9");
    client.send([&*small, &*large, &*small, &*small].concat().as_bytes()).unwrap();
    let (whole, text) = (content(size), content(1000));
    let of_large = [&whole[4_000_000..8_000_000], &whole[..10], &whole[1_000_000..3_000_000]];
    let of_small = [&text[500..510], &text[..10]];
    for expected in [&of_small[..], &of_large[..], &of_small[..], &of_small[..]] {
        let parts = parts(&client.response().unwrap());
        assert!(parts.iter().map(|(_, bytes)| &bytes[..]).eq(expected.iter().copied()), "{} parts", parts.len());
    }
}

/// A stream of which little is read at a time.
struct Slowly<'a>(&'a std::net::TcpStream);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1000);
        self.0.read(&mut buffer[..length])
    }
}

impl std::io::Write for Slowly<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
