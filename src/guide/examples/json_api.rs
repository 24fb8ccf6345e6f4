//! A JSON API with a data store and its checks.
//!
//! ```sh
//! cargo run --example json_api      # or: -- ADDRESS FILE
//! curl -d '{"text":"buy milk"}' localhost:8080/notes
//! curl localhost:8080/notes
//! curl 'localhost:8080/readyz?verbose'
//! ```
//!
//! Rename the file that it names at the start: a second later `/readyz` says that the store is down.

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll::{CheckSettings, Handler, Request, Response, Server, Store};
use rusqlite::Connection;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:8080".to_owned());
    let file = arguments
        .next()
        .map_or(env::temp_dir().join("plimsoll-notes.db"), Into::into);
    let notes = Notes::open(&file)?;

    // No note can be read or written without the file, so it is critical: /readyz fails while it can't be used.
    let store: Store = format!("sqlite:{}?writable", file.display()).parse()?;
    let settings = CheckSettings {
        critical: true,
        interval: Duration::from_secs(1),
        fall: 1,
        ..CheckSettings::default()
    };

    let server = Server::builder()
        .listen(address)
        .check_with("notes", settings, store)
        .handler(notes)
        .start()?;
    eprintln!("notes are in {}", file.display());
    eprintln!("listening on http://{}", server.local_addr());
    Ok(server.run_until_signal()?)
}

/// A table of texts. Workers share one connection; a busy service would have a pool.
struct Notes {
    connection: Mutex<Connection>,
}

impl Notes {
    fn open(file: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(file)?;
        let table = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
        connection.execute(table, ())?;
        Ok(Self {
            connection: Mutex::new(connection),
        })
    }

    /// All notes, the oldest first.
    fn list(&self) -> rusqlite::Result<Value> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare("SELECT id, text FROM notes ORDER BY id")?;
        let rows = statement.query_map((), |row| {
            Ok(json!({"id": row.get::<_, i64>(0)?, "text": row.get::<_, String>(1)?}))
        })?;
        rows.collect()
    }

    /// Adds a note, and gives it as it is then.
    fn add(&self, text: &str) -> rusqlite::Result<Value> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connection.execute("INSERT INTO notes (text) VALUES (?1)", [text])?;
        Ok(json!({"id": connection.last_insert_rowid(), "text": text}))
    }
}

impl Handler for Notes {
    fn handle(&self, request: &mut Request) -> Response {
        let answer = match (request.method(), request.path()) {
            ("GET" | "HEAD", "/notes") => self.list().map(|notes| (200, notes)),
            ("POST", "/notes") => {
                let body: Option<Value> = serde_json::from_slice(request.bytes()).ok();
                match body.as_ref().and_then(|body| body["text"].as_str()) {
                    Some(text) => self.add(text).map(|note| (201, note)),
                    None => Ok((400, json!({"error": r#"expected {"text": "..."}"#}))),
                }
            }
            (_, "/notes") => Ok((405, json!({"error": "expected GET or POST"}))),
            _ => Ok((404, json!({"error": "there is only /notes"}))),
        };
        let (status, body) = answer.unwrap_or_else(|error| {
            eprintln!("the data store failed: {error}");
            (500, json!({"error": "the data store failed"}))
        });
        Response::json(format!("{body}\n")).with_status(status)
    }
}
