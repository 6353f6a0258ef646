//! Uploads that are under way while workers are replaced arrive whole.

use super::{Form, content, form_head, names, read, site, worker};
use rustix::process::Signal;
use std::os::unix::fs::symlink;
use tests::{Client, PATIENCE, Server, Site, children, eventually};

const CRASHES: &str = r#"#include "host.h"
    HOST_EXPORT host_body *application(host_env *env, host_start_response *start_response) {
        (void)env, (void)start_response;
        *(volatile int *)8 = 1;
        return NULL;
    }"#;

/// A form that is sent bit by bit, while things happen between the bits.
struct Slow {
    client: Client,
    form: Vec<u8>,
    sent: usize,
}

impl Slow {
    fn begin(server: &Server, path: &str, form: Vec<u8>) -> Slow {
        let mut client = server.connect();
        client.send(form_head(path, form.len()).as_bytes()).expect("it is taken");
        Slow { client, form, sent: 0 }
    }

    fn send(&mut self, bytes: usize) {
        let end = self.form.len().min(self.sent + bytes);
        self.client.send(&self.form[self.sent..end]).expect("it is taken");
        self.sent = end;
    }

    fn finish(mut self) -> tests::Response {
        self.send(usize::MAX / 2);
        self.client.response().expect("an answer")
    }
}

fn until_replaced(server: &Server, before: u32) {
    eventually("the worker is replaced", PATIENCE, || {
        let workers: Vec<_> =
            children(server.id()).into_iter().filter(|child| child.command == "host: worker").collect();
        (workers.len() == 1 && workers[0].id != before && workers[0].state != 'Z').then_some(())
    });
}

fn reload(server: &Server) {
    let before = worker(server);
    let mark = server.mark();
    server.signal(Signal::HUP);
    server.wait_for_log_since(mark, "reloaded everything", PATIENCE);
    until_replaced(server, before);
}

#[test]
fn an_upload_goes_on_through_reloads() {
    let site = site();
    let server = super::start(&site, &["--threads", "2"]);
    let (small, large) = (content(100_000), content(2_000_000));
    // A token would be asked for in the form; here a boundary, the head of a part and content are cut in their midst.
    let form = Form::new().field("x", "y").file("small", &small).file("large", &large).file("last", "end").end();
    let mut upload = Slow::begin(&server, "/in/", form);
    for bytes in [10, 60, 50_000, 50_120, 700_000, 300_000] {
        upload.send(bytes);
        reload(&server);
        assert_eq!(names(&site, "html/in"), [""; 0]);
    }
    let response = upload.finish();
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(names(&site, "html/in"), ["large", "last", "small"]);
    assert!(read(&site, "html/in/small") == small && read(&site, "html/in/large") == large);
    assert_eq!(read(&site, "html/in/last"), b"end");
}

#[test]
fn an_upload_goes_on_when_a_handler_crashes() {
    let site = site();
    site.compile("crash", CRASHES);
    let server = super::start(&site, &["--threads", "2"]);
    let large = content(1_500_000);
    let mut upload = Slow::begin(&server, "/in/", Form::new().file("form", &large).end());
    upload.send(700_000);
    let mut put = server.connect();
    put.send(format!("PUT /in/put HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len()).as_bytes())
        .expect("it is taken");
    put.send(&large[..400_000]).expect("it is taken");
    let before = worker(&server);
    assert_eq!(server.get("/crash.so").status, 500);
    until_replaced(&server, before);
    put.send(&large[400_000..]).expect("it is taken");
    assert_eq!(put.response().expect("an answer").status, 201);
    assert_eq!(upload.finish().status, 201);
    assert!(read(&site, "html/in/form") == large && read(&site, "html/in/put") == large);
    assert_eq!(names(&site, "html/in"), ["form", "put"]);
}

#[test]
fn an_upload_goes_on_through_an_upgrade() {
    let site = site();
    symlink(tests::server::binary(), site.path("host")).expect("a link in our own folder");
    let arguments = ["--bind", "127.0.0.1:0", "--runtime", "runtime", "--threads", "2", "--upload", "/in"];
    let mut server = Server::start(site.command_by(&site.path("host"), &arguments));
    let large = content(1_500_000);
    let mut upload = Slow::begin(&server, "/in/", Form::new().file("form", &large).end());
    upload.send(700_000);
    server.upgrade();
    upload.send(100_000);
    assert_eq!(upload.finish().status, 201);
    assert!(read(&site, "html/in/form") == large);
}

#[test]
fn an_upload_that_a_new_configuration_does_not_take_is_refused() {
    let site: Site = site();
    site.write("host.toml", "upload = [\"/in\"]\n");
    let server = site.start(&["--config", "host.toml"]);
    let mut upload = Slow::begin(&server, "/in/", Form::new().file("form", content(1_500_000)).end());
    upload.send(700_000);
    site.write("host.toml", "upload = []\n");
    reload(&server);
    assert_eq!(upload.finish().status, 404);
    assert_eq!(names(&site, "html/in"), [""; 0]);
}
