//! The last health report with all its details, which is given again while nothing happens but health requests.
//!
//! It takes three times as long to write as to send. A client that asks without end takes less of the one thread that
//! answers everybody, and no monitor can tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Page, prefers_text};
use crate::health::{Health, Mark};
use crate::http::head::{Head, Method};

/// How old a report may be: the clock shows in it too.
const FRESH: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(crate) struct Recent(Option<Report>);

#[derive(Debug)]
struct Report {
    at: Instant,
    mark: Mark,
    answer: Arc<Answer>,
}

impl Recent {
    /// Answers a request for a health page, with the last report where it still holds.
    pub(crate) fn answer(
        &mut self,
        page: Page,
        head: &Head,
        details: bool,
        now: Instant,
        health: &Health,
    ) -> Arc<Answer> {
        // Only to the plain question of a monitor that may see the details. What happens while the report is written
        // is not in this mark, and makes the report void.
        let kept = details
            && page == Page::Health
            && head.method == Method::Get
            && !prefers_text(head.accept());
        let mark = kept.then(|| health.mark());
        if let Some(report) = &self.0
            && mark == Some(report.mark)
            && now.saturating_duration_since(report.at) < FRESH
        {
            return report.answer.clone();
        }
        let answer = Arc::new(page.answer(head, details, health));
        if let Some(mark) = mark {
            self.0 = Some(Report {
                at: now,
                mark,
                answer: answer.clone(),
            });
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{self, Progress};

    fn head(text: &str) -> Head {
        let parsed = head::parse(text.as_bytes(), 1024, &mut Progress::default());
        parsed.unwrap().unwrap().1
    }

    #[test]
    fn a_report_is_given_again_for_a_moment_and_not_once_anything_has_happened() {
        let start = Instant::now();
        let health = Health::of_a_new_server(start);
        let asked = head("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut recent = Recent::default();
        let mut last = recent.answer(Page::Health, &asked, true, start, &health);
        let mut again = |page, head: &Head, details, now| {
            let answer = recent.answer(page, head, details, now, &health);
            let again = Arc::ptr_eq(&answer, &last);
            if page == Page::Health && details && head == &asked {
                last = answer;
            }
            again
        };
        assert!(again(Page::Health, &asked, true, start));
        assert!(again(Page::Health, &asked, true, start + FRESH / 2));
        for other in [
            "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS /health HTTP/1.0\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n",
        ] {
            assert!(!again(Page::Health, &head(other), true, start), "{other}");
        }
        assert!(!again(Page::Ready, &asked, true, start));
        assert!(!again(Page::Health, &asked, false, start));
        assert!(again(Page::Health, &asked, true, start), "others leave it");

        assert!(!again(Page::Health, &asked, true, start + FRESH));
        health.ended(crate::health::Outcome::Bad);
        assert!(!again(Page::Health, &asked, true, start + FRESH));
        health.check_changed();
        assert!(!again(Page::Health, &asked, true, start + FRESH));
        let draining = &health.gauges.draining;
        draining.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!again(Page::Health, &asked, true, start + FRESH));
        assert!(again(Page::Health, &asked, true, start + FRESH));
    }
}
