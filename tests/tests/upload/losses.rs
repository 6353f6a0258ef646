//! Processes that are killed in the middle of uploads.

use super::{Form, content, form_head, names, read, site, start, worker};
use rustix::process::{Pid, Signal, kill_process};
use std::thread;
use tests::{PATIENCE, eventually};

fn kill(id: u32) {
    kill_process(Pid::from_raw(id.cast_signed()).expect("a process id"), Signal::KILL).expect("the process is there");
}

#[test]
fn a_worker_that_is_killed_leaves_nothing_visible_and_nothing_hidden() {
    let site = site();
    let server = start(&site, &[]);
    let form = Form::new().file("a", content(1000)).file("b", content(3 << 20)).end();
    let half = form.len() / 2;
    for _ in 0..3 {
        let before = worker(&server);
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(form_head("/in/", form.len()).as_bytes()).expect("it is taken");
            client.send(&form[..half]).expect("it is taken");
        }
        let put = b"PUT /in/c HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf of it";
        clients[0].send(b"").expect("it is taken");
        let mut other = server.connect();
        other.send(put).expect("it is taken");
        kill(before);
        assert_eq!(names(&site, "html/in"), [""; 0]);
        eventually("another worker serves", PATIENCE, || {
            let workers = tests::children(server.id());
            workers.iter().any(|child| child.command == "host: worker" && child.id != before).then_some(())
        });
    }
    assert_eq!(names(&site, "html/in"), [""; 0]);
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/").status, 201);
    assert_eq!(names(&site, "html/in"), ["a"]);
}

#[test]
fn a_file_that_is_there_is_whole_whenever_the_worker_is_killed() {
    let site = site();
    let server = start(&site, &["--threads", "2"]);
    let large = content(400_000);
    thread::scope(|scope| {
        for client in 0..4 {
            let (server, large) = (&server, &large);
            scope.spawn(move || {
                for number in 0..40 {
                    let form = Form::new().file(&format!("{client}-{number}"), large).end();
                    // It may be lost, with its connection.
                    let Ok(mut client) = tests::Client::connect(server.address()) else { continue };
                    let head = form_head("/in/", form.len());
                    if client.send(head.as_bytes()).and_then(|()| client.send(&form)).is_ok() {
                        _ = client.response();
                    }
                }
            });
        }
        for _ in 0..4 {
            eventually("uploads go on", PATIENCE, || (names(&site, "html/in").len() > 5).then_some(()));
            kill(worker(&server));
            eventually("there is a worker", PATIENCE, || {
                tests::children(server.id()).iter().any(|child| child.command == "host: worker").then_some(())
            });
        }
    });
    let names = names(&site, "html/in");
    assert!(names.len() > 5);
    for name in names {
        assert!(!name.starts_with('.'), "{name} was left behind");
        assert!(read(&site, &format!("html/in/{name}")) == large, "{name}");
    }
}

#[test]
fn hidden_files_that_were_left_behind_are_swept_away_by_the_next_upload() {
    let site = site();
    site.write("html/in/.host-upload-0123456789abcdef", "half");
    site.write("html/in/.of-somebody-else", "");
    let server = start(&site, &[]);
    assert_eq!(server.get("/in/.host-upload-0123456789abcdef").status, 404);
    assert_eq!(Form::new().file("a", "x").post(&server, "/in/").status, 201);
    assert_eq!(names(&site, "html/in"), [".of-somebody-else", "a"]);
}
