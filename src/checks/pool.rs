//! Checks of stores behind an [r2d2](https://docs.rs/r2d2) pool.
//!
//! Of a pool two things are worth knowing: whether the store serves, and whether connections are left. They are told
//! apart: a pool without a free connection is a [warning](PoolStatus::is_exhausted), and says nothing about the store.

use std::sync::Mutex;
use std::time::Instant;

use r2d2::{ManageConnection, Pool};

use super::{Check, CheckError, PoolStatus};
use crate::panics::lock;

/// The state of a pool, as it counts its connections itself.
fn status<M: ManageConnection>(pool: &Pool<M>) -> PoolStatus {
    let state = pool.state();
    PoolStatus {
        used: state.connections.saturating_sub(state.idle_connections),
        idle: state.idle_connections,
        max: pool.max_size(),
    }
}

/// Gets a connection from the pool, by the deadline. The pool tests it, unless it was told not to
/// (`test_on_check_out`).
///
/// When no connection comes because all of them are lent out, nothing is known against the store, and the check
/// succeeds: the pool's status is the warning. Those who have the connections may be waiting for a store that hangs,
/// though, and this check waits in one line with them; [`PoolCheck`] does neither.
impl<M: ManageConnection> Check for Pool<M> {
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.get_timeout(left) {
            Ok(_) => Ok(()),
            Err(_) if status(self).is_exhausted() => Ok(()),
            Err(error) => Err(CheckError::new(error.to_string())),
        }
    }

    fn pool(&self) -> Option<PoolStatus> {
        Some(status(self))
    }
}

/// Checks the store behind a pool by a connection of its own, so that an exhausted pool neither hides nor fakes the
/// store's state; and tells the pool's.
///
/// The connection is kept from run to run. When it turns out broken, another is opened in the same run, so that a store
/// which has been restarted is not taken for one that is down.
///
/// r2d2 waits its whole `connection_timeout` (30 s by default) in `build` and in `get` for a store that refuses
/// connections. `build_unchecked` opens connections in the background, so that the program starts while its store is
/// down, and says that it is not ready.
///
/// ```no_run
/// use std::time::Duration;
///
/// use plimsoll::{CheckSettings, PoolCheck, Server};
/// use r2d2::Pool;
/// use redis::Client;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = Client::open("redis://127.0.0.1:6379")?;
/// let pool = Pool::builder()
///     .max_size(8)
///     .connection_timeout(Duration::from_millis(500))
///     .build_unchecked(manager.clone());
/// let critical = CheckSettings { critical: true, ..CheckSettings::default() };
/// let server = Server::builder()
///     .check_with("cache", critical, PoolCheck::new(pool.clone(), manager))
///     .handler(move |_: &mut plimsoll::Request| match pool.get() {
///         Ok(_connection) => (200, "served\n"),
///         Err(_) => (503, "no connection\n"),
///     })
///     .start()?;
/// # Ok(())
/// # }
/// ```
pub struct PoolCheck<M: ManageConnection> {
    pool: Pool<M>,
    manager: M,
    /// The connection of its own, between two runs.
    connection: Mutex<Option<M::Connection>>,
}

impl<M: ManageConnection> PoolCheck<M> {
    /// A check of the store that `manager` connects to, and of the pool's status. Opens no connection yet.
    pub fn new(pool: Pool<M>, manager: M) -> Self {
        Self {
            pool,
            manager,
            connection: Mutex::new(None),
        }
    }

    /// Keeps the connection if it is good.
    fn test(&self, mut connection: M::Connection) -> Result<(), CheckError> {
        let valid = self.manager.is_valid(&mut connection);
        valid.map_err(|error| CheckError::new(error.to_string()))?;
        if self.manager.has_broken(&mut connection) {
            return Err(CheckError::new("the connection broke"));
        }
        *lock(&self.connection) = Some(connection);
        Ok(())
    }
}

impl<M: ManageConnection> Check for PoolCheck<M> {
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        // Not while the lock is held: what follows may hang.
        let kept = lock(&self.connection).take();
        if let Some(connection) = kept {
            let tested = self.test(connection);
            if tested.is_ok() || Instant::now() >= deadline {
                return tested;
            }
        }
        let connection = self.manager.connect();
        self.test(connection.map_err(|error| CheckError::new(error.to_string()))?)
    }

    fn pool(&self) -> Option<PoolStatus> {
        Some(status(&self.pool))
    }
}

impl<M: ManageConnection> std::fmt::Debug for PoolCheck<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A manager may hold a password, and r2d2 would show it.
        f.debug_struct("PoolCheck")
            .field("pool", &status(&self.pool))
            .finish_non_exhaustive()
    }
}
