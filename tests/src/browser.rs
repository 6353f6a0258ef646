//! A real browser for one test: Chromium without a window, told what to do by W3C WebDriver through `chromedriver`, and by the
//! browser's own protocol (CDP) where WebDriver has no word.
//!
//! What has no need to be waited for is asked once; what comes about in the page's own time is for [`crate::eventually`].

use crate::{PATIENCE, eventually, process};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// A browser with one window and a profile of its own. Dropped, it ends with all processes that belong to it.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Removed at the end. Its path, which no other process has in its command line, tells the browser's processes.
    profile: tempfile::TempDir,
}

/// An element of the page that is shown.
#[derive(Debug)]
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

/// Keys that have no character (WebDriver §17.4.2).
pub mod key {
    /// The tabulator.
    pub const TAB: &str = "\u{e004}";
    /// The return key.
    pub const ENTER: &str = "\u{e007}";
}

/// The member by which WebDriver names elements (WebDriver §12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// It speaks to nobody but the test's server, and shares nothing with other browsers.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Containers have little of it, and a browser without enough crashes.
    "--disable-dev-shm-usage",
    "--disable-breakpad",
];

impl Browser {
    /// Starts one, with a window of 1280 to 800.
    ///
    /// # Panics
    /// `chromedriver` or Chromium is not installed, or does not start.
    pub fn start() -> Browser {
        let profile = tempfile::Builder::new().prefix("host-test-browser-").tempdir().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start chromedriver: {error}; tests/run installs it"));
        let stdout = driver.stdout.take().expect("a pipe");
        let (sender, port) = mpsc::channel();
        // Reads to the end, so that the driver never waits for a reader.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, after)) = line.split_once("started successfully on port ") {
                    _ = sender.send(after.trim_end_matches('.').parse());
                }
            }
        });
        let port: Option<u16> = port.recv_timeout(PATIENCE).ok().and_then(Result::ok);
        let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_default()));
        // From here on whatever fails ends the driver too.
        let mut browser = Browser { driver, address, session: String::new(), profile };
        assert!(port.is_some(), "chromedriver did not say on which port it listens");
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", browser.profile.path().display()));
        arguments.push("--window-size=1280,800".to_owned());
        // The sandbox of the browser does not work for root, who may do everything anyway.
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            arguments.push("--no-sandbox".to_owned());
        }
        let capabilities = json!({"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium(), "args": arguments},
        }});
        let session = browser.ask("POST", "/session", &json!({"capabilities": capabilities}));
        browser.session = session["sessionId"].as_str().expect("a session's name").to_owned();
        browser
    }

    /// Shows the page at `url`, and waits until it has been loaded.
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// The URL of the page that is shown.
    pub fn url(&self) -> String {
        text(self.command("GET", "/url", &Value::Null))
    }

    /// The page's title.
    pub fn title(&self) -> String {
        text(self.command("GET", "/title", &Value::Null))
    }

    /// The first element that the CSS selector matches, if there is one.
    pub fn look_for(&self, selector: &str) -> Option<Element<'_>> {
        self.all(selector).into_iter().next()
    }

    /// The first element that the CSS selector matches.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn find(&self, selector: &str) -> Element<'_> {
        self.look_for(selector).unwrap_or_else(|| panic!("no {selector} in {}", self.source()))
    }

    /// All elements that the CSS selector matches, in the order of the document.
    pub fn all(&self, selector: &str) -> Vec<Element<'_>> {
        let found = self.post("/elements", &json!({"using": "css selector", "value": selector}));
        found.as_array().expect("a list").iter().map(|element| self.element(element)).collect()
    }

    /// The element that has the focus.
    pub fn focused(&self) -> Element<'_> {
        self.element(&self.command("GET", "/element/active", &Value::Null))
    }

    /// The document as it is now, in HTML.
    pub fn source(&self) -> String {
        text(self.command("GET", "/source", &Value::Null))
    }

    /// Presses these keys, one after another, wherever the focus is.
    pub fn press(&self, keys: &[&str]) {
        let strokes: Vec<Value> = keys
            .iter()
            .flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})])
            .collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}));
    }

    /// What the body of a function, which gets `arguments`, returns in the page.
    pub fn run(&self, body: &str, arguments: &[Value]) -> Value {
        self.post("/execute/sync", &json!({"script": body, "args": arguments}))
    }

    /// A command of the browser's own protocol, and its result.
    pub fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Drags files from outside of the browser over the page, to this point of the window, and drops them there if `drop`.
    pub fn drag(&self, files: &[&Path], (x, y): (u32, u32), drop: bool) {
        let files: Vec<&str> = files.iter().map(|file| file.to_str().expect("a path in UTF-8")).collect();
        // The mask: as a copy.
        let data = json!({"items": [], "files": files, "dragOperationsMask": 1});
        for event in ["dragEnter", "dragOver", "drop"].iter().take(if drop { 3 } else { 2 }) {
            self.cdp("Input.dispatchDragEvent", &json!({"type": event, "x": x, "y": y, "data": data}));
        }
    }

    /// Makes the page what a window of this size shows, whatever the smallest window is that the browser would open.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.cdp("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the page asks of the browser in `prefers-color-scheme` and other media features.
    pub fn prefer(&self, feature: &str, value: &str) {
        self.cdp("Emulation.setEmulatedMedia", &json!({"features": [{"name": feature, "value": value}]}));
    }

    /// What the browser and the pages' scripts have complained about since this was last asked.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        entries.as_array().expect("a list").iter().map(|entry| text(entry["message"].clone())).collect()
    }

    /// Writes what is shown into the folder that `HOST_TEST_SHOTS` names, as `NAME.png`, for people to look at. Without the variable
    /// it does nothing.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn shoot(&self, name: &str) {
        let Some(folder) = std::env::var_os("HOST_TEST_SHOTS") else { return };
        let shot = text(self.cdp("Page.captureScreenshot", &json!({"format": "png"}))["data"].clone());
        fs::create_dir_all(&folder).expect("a folder for pictures");
        fs::write(Path::new(&folder).join(format!("{name}.png")), base64(&shot)).expect("a picture");
    }

    fn element(&self, reference: &Value) -> Element<'_> {
        Element { browser: self, id: text(reference[ELEMENT].clone()) }
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.command("POST", path, body)
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    /// Asks the driver (WebDriver §6.3).
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = exchange(self.address, method, path, &body);
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{method} {path} {body}: {}", value["message"]);
        value
    }

    /// The processes that belong to it, besides the driver.
    fn processes(&self) -> Vec<u32> {
        let profile = self.profile.path().to_string_lossy().into_owned();
        process::all()
            .into_iter()
            .filter(|process| process.command.contains(&profile))
            .map(|process| process.id)
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // It closes the window, and so the browser, in good order.
            _ = exchange(self.address, "DELETE", &format!("/session/{}", self.session), "");
        }
        _ = self.driver.kill();
        _ = self.driver.wait();
        let gone = || {
            let left = self.processes();
            for id in left.iter().filter_map(|&id| Pid::from_raw(id as i32)) {
                // It may have ended just now.
                _ = rustix::process::kill_process(id, Signal::KILL);
            }
            left.is_empty().then_some(())
        };
        // A second panic would hide the first.
        if thread::panicking() {
            gone();
        } else {
            eventually("the browser ends", PATIENCE, gone);
        }
    }
}

impl Element<'_> {
    /// Its text as it is shown.
    pub fn text(&self) -> String {
        text(self.get("/text"))
    }

    /// The value of a property, such as `href`.
    pub fn property(&self, name: &str) -> Value {
        self.get(&format!("/property/{name}"))
    }

    /// What a property of its style comes to.
    pub fn style(&self, name: &str) -> String {
        text(self.get(&format!("/css/{name}")))
    }

    /// What it is for those who do not see it (WAI-ARIA).
    pub fn role(&self) -> String {
        text(self.get("/computedrole"))
    }

    /// How it is called for those who do not see it.
    pub fn label(&self) -> String {
        text(self.get("/computedlabel"))
    }

    /// Whether it is shown.
    pub fn is_shown(&self) -> bool {
        self.get("/displayed") == json!(true)
    }

    /// Clicks on it. What that leads to is waited for if it is another page.
    pub fn click(&self) {
        self.post("/click", &json!({}));
    }

    /// Types into it. To a file input it gives a file, or several with newlines between them.
    pub fn send(&self, keys: &str) {
        self.post("/value", &json!({"text": keys}));
    }

    fn get(&self, path: &str) -> Value {
        self.browser.command("GET", &format!("/element/{}{path}", self.id), &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.browser.command("POST", &format!("/element/{}{path}", self.id), body)
    }
}

/// Sends a request to the driver, and reads its answer. The tests' own client would not do: it takes what is valid HTTP, but not
/// how `host` writes it, for a mistake.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(io::Error::other)
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("not a text: {other}"),
    }
}

/// The path of Chromium.
fn chromium() -> String {
    let folders = std::env::var("PATH").unwrap_or_default();
    let found = folders.split(':').map(|folder| Path::new(folder).join("chromium")).find(|path| path.exists());
    found.expect("chromium is not installed; tests/run installs it").display().to_string()
}

/// What base64 stands for (RFC 4648 §4).
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).map(u32::from).collect();
    let group = |digits: &[u32]| {
        let bits = digits.iter().enumerate().fold(0, |bits, (at, digit)| bits | digit << (18 - 6 * at));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_back() {
        for (encoded, text) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(base64(encoded), text.as_bytes());
        }
    }

    #[test]
    fn a_browser_ends_with_all_of_its_processes() {
        let browser = Browser::start();
        let profile = browser.profile.path().display().to_string();
        assert!(browser.processes().len() > 1, "it has several");
        drop(browser);
        assert!(!process::all().iter().any(|process| process.command.contains(&profile)));
        assert!(!Path::new(&profile).exists());
    }
}
