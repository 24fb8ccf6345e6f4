//! The numbers of the data stores and of the pools in front of them, as Prometheus has them.

use super::{CheckReport, CheckState};
use crate::metrics::{Exposition, Measured, labels, since_epoch};

/// A number of a check.
type Gauge = fn(&CheckReport) -> f64;

const GAUGES: [(&str, &str, Gauge); 3] = [
    (
        "plimsoll_check_duration_seconds",
        "How long the last run took; no number before the first.",
        |check| check.duration.map_or(f64::NAN, |took| took.as_secs_f64()),
    ),
    (
        "plimsoll_check_last_success_timestamp_seconds",
        "When the data store was last found serving, since the Unix epoch; 0 for never.",
        |check| check.last_success.map_or(0.0, since_epoch),
    ),
    (
        "plimsoll_check_consecutive_failures",
        "Runs that have failed since the last success.",
        |check| f64::from(check.consecutive_failures),
    ),
];

impl Measured for Vec<CheckReport> {
    fn metrics(&self, page: &mut Exposition) {
        // A family without samples says nothing.
        if self.is_empty() {
            return;
        }
        let up = "plimsoll_check_up";
        let help = "Whether the data store serves; 0 while it does not, and before the first run.";
        page.family(up, "gauge", help);
        for check in self {
            let critical = if check.critical { "true" } else { "false" };
            let labels = labels(&[("check", &check.name), ("critical", critical)]);
            page.sample(up, &labels, u8::from(check.state == CheckState::Up));
        }
        for (name, help, read) in GAUGES {
            page.family(name, "gauge", help);
            for check in self {
                page.sample(name, &labels(&[("check", &check.name)]), read(check));
            }
        }
        pools(page, self);
    }
}

fn pools(page: &mut Exposition, checks: &[CheckReport]) {
    let pools = checks.iter();
    let pools: Vec<_> = pools
        .filter_map(|check| Some((&*check.name, check.pool?)))
        .collect();
    if pools.is_empty() {
        return;
    }
    let name = "plimsoll_pool_connections";
    let help =
        "Connections of the pool: used ones are lent out, idle ones are open and not lent out.";
    page.family(name, "gauge", help);
    for (pool, status) in &pools {
        for (state, count) in [("used", status.used), ("idle", status.idle)] {
            page.sample(name, &labels(&[("pool", pool), ("state", state)]), count);
        }
    }
    let name = "plimsoll_pool_connections_max";
    page.family(name, "gauge", "Most connections that the pool opens.");
    for (pool, status) in &pools {
        page.sample(name, &labels(&[("pool", pool)]), status.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::PoolStatus;
    use std::time::{Duration, SystemTime};

    fn page(checks: &Vec<CheckReport>) -> String {
        let mut page = Exposition::with_capacity(0);
        checks.metrics(&mut page);
        page.into_text()
    }

    #[test]
    fn every_store_and_pool_has_its_numbers() {
        let mut db = CheckReport::sample("db", true, CheckState::Up);
        db.duration = Some(Duration::from_millis(2));
        db.last_success = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500));
        db.pool = Some(PoolStatus {
            used: 3,
            idle: 2,
            max: 8,
        });
        let mut cache = CheckReport::sample("ca\"che", false, CheckState::Down);
        cache.consecutive_failures = 7;
        let page = page(&vec![
            db,
            cache,
            CheckReport::sample("new", true, CheckState::NotYet),
        ]);
        for line in [
            "plimsoll_check_up{check=\"db\",critical=\"true\"} 1",
            "plimsoll_check_up{check=\"ca\\\"che\",critical=\"false\"} 0",
            "plimsoll_check_up{check=\"new\",critical=\"true\"} 0",
            "plimsoll_check_duration_seconds{check=\"db\"} 0.002",
            "plimsoll_check_duration_seconds{check=\"new\"} NaN",
            "plimsoll_check_last_success_timestamp_seconds{check=\"db\"} 1.5",
            "plimsoll_check_last_success_timestamp_seconds{check=\"new\"} 0",
            "plimsoll_check_consecutive_failures{check=\"ca\\\"che\"} 7",
            "plimsoll_pool_connections{pool=\"db\",state=\"used\"} 3",
            "plimsoll_pool_connections{pool=\"db\",state=\"idle\"} 2",
            "plimsoll_pool_connections_max{pool=\"db\"} 8",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
        assert_eq!(page.matches("plimsoll_pool_connections_max{").count(), 1);
    }

    #[test]
    fn without_stores_there_is_no_family() {
        assert_eq!(page(&Vec::new()), "");
    }
}
