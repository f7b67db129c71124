//! Reports what a long piece of work is doing while it runs.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// When a step is reported: first after `first`, then every `then`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub first: Duration,
    pub then: Duration,
}

/// What the work is doing now.
pub(super) struct Progress<R> {
    pace: Pace,
    report: R,
    step: Mutex<Option<Step>>,
}

struct Step {
    what: String,
    since: Instant,
    /// When the step is reported next.
    due: Instant,
    is_reported: bool,
}

/// Runs the work. `report` gets a line about each slow step, from another thread.
pub(super) fn reported<R, T>(pace: Pace, report: R, work: impl FnOnce(&Progress<R>) -> T) -> T
where
    R: Fn(&str) + Sync + Send,
{
    let progress = Progress {
        pace,
        report,
        step: Mutex::new(None),
    };
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let progress = &progress;
        scope.spawn(move || {
            let tick = pace.first.min(pace.then);
            while ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                progress.report_if_due();
            }
        });
        // Also dropped when the work panics, so the thread ends, and the scope with it.
        let _end = end;
        let result = work(progress);
        progress.finish();
        result
    })
}

impl<R: Fn(&str)> Progress<R> {
    /// Begins a step; the one before it is finished.
    pub fn begin(&self, what: String) {
        self.finish();
        let now = Instant::now();
        *self.step() = Some(Step {
            what,
            since: now,
            due: now + self.pace.first,
            is_reported: false,
        });
    }

    fn report_if_due(&self) {
        let mut step = self.step();
        let Some(step) = step.as_mut().filter(|step| step.due <= Instant::now()) else {
            return;
        };
        step.due += self.pace.then;
        step.is_reported = true;
        let seconds = step.since.elapsed().as_secs();
        (self.report)(&format!("{}: it has taken {seconds} s so far", step.what));
    }

    fn finish(&self) {
        if let Some(step) = self.step().take().filter(|step| step.is_reported) {
            let seconds = step.since.elapsed().as_secs();
            (self.report)(&format!("{}: done after {seconds} s", step.what));
        }
    }

    fn step(&self) -> MutexGuard<'_, Option<Step>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    /// Waits until a step has been reported twice.
    fn wait_for(lines: &Mutex<Vec<String>>, step: &str) {
        let is_of_step = |line: &&String| line.starts_with(step);
        let started = Instant::now();
        while lines.lock().unwrap().iter().filter(is_of_step).count() < 2 {
            assert!(started.elapsed() < Duration::from_secs(60), "never");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_long_step_is_reported_again_and_again_and_at_its_end() {
        let lines = Mutex::new(Vec::new());
        let pace = Pace {
            first: Duration::from_millis(1),
            then: Duration::from_millis(1),
        };
        let report = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let result = reported(pace, report, |progress| {
            progress.begin("one of two".to_owned());
            wait_for(&lines, "one");
            progress.begin("two of two".to_owned());
            wait_for(&lines, "two");
            "done"
        });
        assert_eq!(result, "done");
        let lines = lines.into_inner().unwrap();
        let first_of_two = lines.iter().position(|line| line.starts_with("two"));
        let (one, two) = lines.split_at(first_of_two.unwrap());
        for (step, name) in [(one, "one"), (two, "two")] {
            let (end, during) = step.split_last().unwrap();
            assert!(end.starts_with(&format!("{name} of two: done after ")));
            let begin = format!("{name} of two: it has taken ");
            assert!(!during.is_empty() && during.iter().all(|line| line.starts_with(&begin)));
        }
    }

    #[test]
    fn nothing_is_said_of_what_is_quick() {
        let pace = Pace {
            first: NEVER,
            then: NEVER,
        };
        let report = |line: &str| panic!("{line}");
        reported(pace, report, |progress| progress.begin("quick".to_owned()));
    }

    #[test]
    fn work_that_panics_leaves_no_thread_behind() {
        let pace = Pace {
            first: NEVER,
            then: NEVER,
        };
        let ended = std::panic::catch_unwind(|| {
            reported(pace, |_: &str| {}, |_| panic!("as a test"));
        });
        assert!(ended.is_err());
    }
}
