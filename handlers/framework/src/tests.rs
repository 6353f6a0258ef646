//! What `/static/` gives, and what it must never give.

use super::site_file;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

#[test]
fn static_files_are_those_of_the_site_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("html");
    fs::create_dir_all(root.join("images/.cache")).unwrap();
    for file in ["html/index.html", "html/images/a b.png", "html/.secret", "html/images/.cache/x", "outside.txt"] {
        fs::write(folder.path().join(file), file).unwrap();
    }
    symlink(folder.path().join("outside.txt"), root.join("out.txt")).unwrap();
    symlink(root.join(".secret"), root.join("secret.txt")).unwrap();
    symlink(root.join("index.html"), root.join("home.html")).unwrap();
    let root = root.as_os_str().as_bytes();

    for (name, media_type, content) in [
        ("index.html", "text/html; charset=utf-8", "html/index.html"),
        ("home.html", "text/html; charset=utf-8", "html/index.html"),
        ("images/a b.png", "image/png", "html/images/a b.png"),
    ] {
        let (given, mut file) = site_file(root, name.as_bytes()).expect(name);
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!((given, read.as_str()), (media_type, content), "{name}");
    }

    let outside = folder.path().join("outside.txt");
    let absolute_inside = [root, b"/index.html"].concat();
    for name in [
        b"",
        b"absent.html",
        b"images",
        b"../outside.txt",
        b"images/../index.html",
        b".secret",
        b"images/.cache/x",
        b"out.txt",
        b"secret.txt",
        b"index.html\0",
        outside.as_os_str().as_bytes(),
        absolute_inside.as_slice(),
    ] as [&[u8]; 12]
    {
        assert!(site_file(root, name).is_none(), "{}", name.escape_ascii());
    }
}
