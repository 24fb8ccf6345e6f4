//! A real browser beside a test: chromium, told what to do by chromedriver over its HTTP interface
//! (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Reserved;
use super::process::{Process, TempDir, find};

/// Longest a browser is waited for: a machine with two busy cores takes its time to start one.
const PATIENCE: Duration = Duration::from_secs(90);

/// Browsers are large: the tests of one binary have one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A window without a screen. The browser is closed, and chromedriver stopped, when dropped.
pub(crate) struct Browser {
    address: SocketAddr,
    session: String,
    _driver: Process,
    _directory: TempDir,
    _port: Reserved,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one; `None` when this machine has none, which is said in the test's output.
    pub(crate) fn start() -> Option<Self> {
        let driver = find("chromedriver", "chromium-driver")?;
        let chromium = find("chromium", "chromium")?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = TempDir::new("browser");
        let port = Reserved::new();
        let mut command = Command::new(driver);
        command.arg(format!("--port={}", port.port()));
        command.env("HOME", directory.path());
        let driver = Process::start(&mut command, directory.path());
        let profile = directory.path().join("profile");
        let mut browser = Self {
            address: port.address,
            session: String::new(),
            _driver: driver,
            _directory: directory,
            _port: port,
            _turn: turn,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(browser.address).is_err() {
            assert!(Instant::now() < deadline, "chromedriver does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        let profile = format!("--user-data-dir={}", profile.display());
        let arguments = [
            "--headless",
            // Tests may run as root, and in containers whose shared memory is small.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
        }}});
        let session = browser.call("POST", "/session", &capabilities);
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        Some(browser)
    }

    /// Goes to a page, and returns when it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url }));
    }

    /// What a script returns that runs in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.command("/execute/sync", &body)
    }

    /// The text of the element with that id.
    pub(crate) fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().expect("text").to_owned()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn wait_until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return {expression}")) != Value::Bool(true) {
            let state = "return document.body.innerText.slice(0, 300)";
            assert!(
                Instant::now() < deadline,
                "not within {PATIENCE:?}: {expression}: {}",
                self.run(state)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the window as wide, and its reader wish for dark pages, or not.
    pub(crate) fn set_media(&self, width: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
        let metrics =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the page has said on the console, and the browser about it, since the last look.
    pub(crate) fn console(&self) -> Vec<String> {
        let text = |entry: &Value| entry["message"].as_str().expect("text").to_owned();
        self.log("browser").iter().map(text).collect()
    }

    /// Every address that the page has asked for since the last look.
    pub(crate) fn requests(&self) -> Vec<String> {
        let mut requests = Vec::new();
        for entry in self.log("performance") {
            let message = entry["message"].as_str().expect("text");
            let event: Value = serde_json::from_str(message).expect("JSON");
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str();
                let url = url.expect("an address");
                // The browser's own first page.
                if !url.starts_with("chrome:") {
                    requests.push(url.to_owned());
                }
            }
        }
        requests
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.command("/se/log", &json!({ "type": kind }));
        entries.as_array().expect("a list").clone()
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.command("/goog/cdp/execute", &body);
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("chromedriver listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let body = body.to_string();
        stream
            .write_all(request(method, path, &body).as_bytes())
            .expect("a write");
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        let status = line();
        let mut length = 0;
        loop {
            let header = line();
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("Content-Length") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        let value = &answer["value"];
        assert!(status.contains(" 200 "), "{method} {path}: {value}");
        value.clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closes the browser. Nothing here may panic; what goes wrong leaves the test's result as it is.
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = stream.write_all(request("DELETE", &self.session, "").as_bytes());
            // The answer comes when the browser has gone.
            let _ = stream.read(&mut [0; 1024]);
        }
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    )
}
