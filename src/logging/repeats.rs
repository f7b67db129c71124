//! Keeps what fails again and again from filling the log: of each kind of warning or error, five
//! lines are written. While more come, there is one line a minute that says how many, with the last
//! one's words; it goes on until a minute had five or fewer.
//!
//! A kind is a place in the code, so memory is bounded, and neither strangers nor a database that is
//! away can write more than a few lines a minute.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of a kind that are written one by one.
const SINGLE: u64 = 5;
const MINUTE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(1);
/// How much of the last one's words is kept.
const WORDS_BYTES: usize = 500;

/// Their lines are bounded already: these here, and refused requests, whose kinds are the reasons.
const BOUNDED: [&str; 2] = [module_path!(), "tosend_dashboard::http::refusals"];

/// The kinds that came lately; clones share them.
#[derive(Clone, Default)]
pub struct Repeats(Arc<Mutex<HashMap<Identifier, Kind>>>);

struct Kind {
    /// When its minute began.
    begun: Instant,
    came: u64,
    /// How many of them are not written.
    unwritten: u64,
    /// Whether the minute before had too many.
    goes_on: bool,
    last: String,
}

/// What is told of a minute.
#[derive(Debug, PartialEq)]
struct Total {
    more: u64,
    last: String,
}

impl Repeats {
    /// Tells totals when their minute is over.
    pub fn keep_summing_up(&self) {
        loop {
            std::thread::sleep(TICK);
            self.sum_up(|kind| Instant::now().duration_since(kind.begun) >= MINUTE);
        }
    }

    /// Tells the totals of minutes that are not over.
    pub fn end(&self) {
        self.sum_up(|_| true);
    }

    fn sum_up(&self, is_over: impl Fn(&Kind) -> bool) {
        for Total { more, last } in self.end_minutes(Instant::now(), is_over) {
            tracing::warn!(more, last, "more of the same in the last minute");
        }
    }

    fn end_minutes(&self, now: Instant, is_over: impl Fn(&Kind) -> bool) -> Vec<Total> {
        let mut totals = Vec::new();
        self.lock().retain(|_, kind| {
            if !is_over(kind) {
                return true;
            }
            let last = std::mem::take(&mut kind.last);
            if kind.unwritten > 0 {
                let more = kind.unwritten;
                totals.push(Total { more, last });
            }
            let goes_on = kind.came > SINGLE;
            *kind = Kind {
                goes_on,
                ..Kind::beginning(now)
            };
            goes_on
        });
        totals
    }

    /// Counts one of a kind. Returns whether it is written.
    fn count(&self, kind: Identifier, now: Instant) -> bool {
        let mut kinds = self.lock();
        let kind = kinds.entry(kind).or_insert_with(|| Kind::beginning(now));
        kind.came += 1;
        let is_written = !kind.goes_on && kind.came <= SINGLE;
        kind.unwritten += u64::from(!is_written);
        is_written
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn beginning(now: Instant) -> Self {
        Self {
            begun: now,
            came: 0,
            unwritten: 0,
            goes_on: false,
            last: String::new(),
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || BOUNDED.contains(&metadata.target()) {
            return true;
        }
        let is_written = self.count(metadata.callsite(), Instant::now());
        if !is_written {
            let mut words = Words::default();
            event.record(&mut words);
            if let Some(kind) = self.lock().get_mut(&metadata.callsite()) {
                kind.last = words.finish();
            }
        }
        is_written
    }
}

/// The message of an event and its fields, as the log writes them.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Words {
    fn finish(self) -> String {
        let mut words = self.message + &self.fields;
        while words.len() > WORDS_BYTES {
            words.pop();
        }
        words
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        fn with(&self, text: &str) -> usize {
            let bytes = self.0.lock().unwrap();
            let all = String::from_utf8_lossy(&bytes);
            all.lines().filter(|line| line.contains(text)).count()
        }
    }

    fn fails(number: u64) {
        tracing::error!(number, "it fails");
    }

    #[test]
    fn what_fails_again_and_again_is_a_few_lines_and_one_a_minute() {
        let (repeats, lines) = (Repeats::default(), Lines::default());
        let log = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_ansi(false)
            .finish()
            .with(repeats.clone());
        tracing::subscriber::with_default(log, || {
            (0..1_000).for_each(fails);
            tracing::warn!("something else");
            assert_eq!(lines.with("it fails"), 5);
            assert_eq!(lines.with("something else"), 1);
            (0..1_000).for_each(|_| tracing::info!("all is well"));
            assert_eq!(lines.with("all is well"), 1_000);
            repeats.sum_up(|kind| kind.begun.elapsed() >= MINUTE);
            assert_eq!(
                lines.with("more of the same"),
                0,
                "before the minute is over"
            );
            repeats.sum_up(|_| true);
            assert_eq!(lines.with("more=995 last=\"it fails number=999\""), 1);
        });
    }

    #[test]
    fn a_kind_is_written_again_after_a_quiet_minute() {
        let repeats = Repeats::default();
        let kind = tracing::callsite::Identifier(&CALLSITE);
        let start = Instant::now();
        let came = |count, now| {
            (0..count)
                .filter(|_| repeats.count(kind.clone(), now))
                .count()
        };
        let over = |now: Instant| {
            let totals = repeats.end_minutes(now, |kind| now.duration_since(kind.begun) >= MINUTE);
            totals.iter().map(|total| total.more).collect::<Vec<_>>()
        };
        let minute = |number: u32| start + MINUTE * number;
        assert_eq!(came(6, minute(0)), 5);
        assert_eq!(over(minute(1)), [1]);
        assert_eq!(came(60, minute(1)), 0, "it goes on");
        assert_eq!(over(minute(2)), [60]);
        assert_eq!(came(2, minute(2)), 0);
        assert_eq!(over(minute(3)), [2]);
        assert_eq!(came(2, minute(3)), 2, "it was quiet");
        assert_eq!(over(minute(4)), [0; 0]);
        assert!(repeats.lock().is_empty());
    }

    struct Callsite;
    static CALLSITE: Callsite = Callsite;

    impl tracing::Callsite for Callsite {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("it is only compared")
        }
    }
}
