//! What is counted for Prometheus, and the text that it reads. A count costs a few atomic operations
//! and takes no lock where verdicts are given; while metrics are off, nothing is counted.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// A counter that is kept at hand, so that counting looks nothing up.
pub type Counter = IntCounter;

const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];
const KEYS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The counters of a server; clones share them. By default off.
#[derive(Clone, Default)]
pub struct Metrics(Option<Arc<Counters>>);

struct Counters {
    registry: Registry,
    answers: IntCounterVec,
    /// By [`Verdict`].
    verdicts: [IntCounter; 3],
    verdict_seconds: Histogram,
    batch_keys: Histogram,
    refusals: IntCounterVec,
    accepted: IntCounter,
    attempts: IntCounterVec,
    relay_up: IntGauge,
}

/// What came of a question about a key.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    Works,
    DoesNot,
    /// There was no verdict.
    Unavailable,
}

impl Metrics {
    pub fn on() -> Self {
        Self(Some(Arc::new(Counters::new())))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Counts answers to requests for a route with a status.
    pub fn answers(&self, route: &str, status: u16) -> Option<Counter> {
        let counters = self.0.as_ref()?;
        let labels = [route, &status.to_string()];
        Some(counters.answers.with_label_values(&labels))
    }

    /// When a verdict is asked for, if that is measured.
    pub fn asked(&self) -> Option<Instant> {
        self.0.as_ref().map(|_| Instant::now())
    }

    pub fn verdict(&self, asked: Option<Instant>, verdict: Verdict) {
        if let (Some(counters), Some(asked)) = (&self.0, asked) {
            counters.verdicts[verdict as usize].inc();
            counters
                .verdict_seconds
                .observe(asked.elapsed().as_secs_f64());
        }
    }

    /// How many different keys were asked about at once.
    pub fn batch(&self, keys: usize) {
        if let Some(counters) = &self.0 {
            counters.batch_keys.observe(keys as f64);
        }
    }

    /// Makes the series of these reasons exist before the first refusal.
    pub fn know_refusals(&self, reasons: impl IntoIterator<Item = &'static str>) {
        for reason in reasons {
            self.refused(reason, 0);
        }
    }

    pub fn refused(&self, reason: &'static str, calls: u64) {
        if let Some(counters) = &self.0 {
            counters.refusals.with_label_values(&[reason]).inc_by(calls);
        }
    }

    pub fn accepted(&self, emails: usize) {
        if let Some(counters) = &self.0 {
            counters.accepted.inc_by(emails as u64);
        }
    }

    /// Makes the series of delivery exist: there is a relay.
    ///
    /// # Panics
    /// If it is called twice.
    pub fn know_relay(&self, outcomes: impl IntoIterator<Item = &'static str>) {
        if let Some(counters) = &self.0 {
            counters.relay_up.set(1);
            register(&counters.registry, &counters.relay_up);
            register(&counters.registry, &counters.attempts);
            for outcome in outcomes {
                counters.attempts.with_label_values(&[outcome]);
            }
        }
    }

    pub fn attempted(&self, outcome: &'static str) {
        if let Some(counters) = &self.0 {
            counters.attempts.with_label_values(&[outcome]).inc();
        }
    }

    pub fn relay_is_up(&self, is_up: bool) {
        if let Some(counters) = &self.0 {
            counters.relay_up.set(is_up.into());
        }
    }

    /// All counters, and the values of the moment, in Prometheus' text format 0.0.4.
    pub fn text(&self, values: &Values) -> String {
        let mut families = values.0.gather();
        if let Some(counters) = &self.0 {
            families.extend(counters.registry.gather());
        }
        // Only a family without a name or a value is an error, and there is none.
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_default()
    }
}

impl Counters {
    fn new() -> Self {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
        };
        let verdicts = counters(
            "tosend_verdicts_total",
            "Questions whether a key works, by what came of them.",
            &["verdict"],
        );
        let kept = |registry: &Registry, vec: IntCounterVec| {
            register(registry, &vec);
            vec
        };
        let verdicts = kept(&registry, verdicts);
        let histogram = |name, help, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(options).expect(VALID);
            register(&registry, &histogram);
            histogram
        };
        let answers = counters(
            "tosend_http_requests_total",
            "Answered requests by the pattern of their route and the status.",
            &["route", "status"],
        );
        let refusals = counters(
            "tosend_refusals_total",
            "Calls of the API that were refused, by reason.",
            &["reason"],
        );
        let accepted = IntCounter::new("tosend_emails_accepted_total", "Emails accepted.");
        let accepted = accepted.expect(VALID);
        register(&registry, &accepted);
        started(&registry);
        Self {
            verdict_seconds: histogram(
                "tosend_verdict_seconds",
                "How long a verdict took, from the question to the answer.",
                &SECONDS,
            ),
            batch_keys: histogram(
                "tosend_verdict_batch_keys",
                "How many different keys were asked about at once.",
                &KEYS,
            ),
            verdicts: ["works", "does_not", "unavailable"]
                .map(|verdict| verdicts.with_label_values(&[verdict])),
            answers: kept(&registry, answers),
            refusals: kept(&registry, refusals),
            accepted,
            attempts: counters(
                "tosend_delivery_attempts_total",
                "Attempts to deliver an email, by outcome.",
                &["outcome"],
            ),
            relay_up: IntGauge::new(
                "tosend_relay_up",
                "Whether the relay took this server's last email or connection.",
            )
            .expect(VALID),
            registry,
        }
    }
}

const VALID: &str = "its name and labels are valid";

fn register(registry: &Registry, metric: &(impl Collector + Clone + 'static)) {
    registry
        .register(Box::new(metric.clone()))
        .expect("its name is its own");
}

/// Values that do not change.
fn started(registry: &Registry) {
    let name = "process_start_time_seconds";
    let start = Gauge::new(name, "When the server started, in seconds since 1970.").expect(VALID);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    start.set(since.unwrap_or_default().as_secs_f64());
    register(registry, &start);
    let options = Opts::new("tosend_build_info", "Always 1: the version of the server.");
    let build = GaugeVec::new(options, &["version"]).expect(VALID);
    build
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    register(registry, &build);
}

/// Values of one moment, each put down once. What is not known is left out.
#[derive(Default)]
pub struct Values(Registry);

impl Values {
    /// # Panics
    /// If the name is taken.
    pub fn put(&self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::new(name, help).expect(VALID);
        gauge.set(value);
        register(&self.0, &gauge);
    }

    /// One value for each value of a label.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn put_each<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let gauges = GaugeVec::new(Opts::new(name, help), &[label]).expect(VALID);
        for (of, value) in values {
            gauges.with_label_values(&[of]).set(value);
        }
        register(&self.0, &gauges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text_and_nothing_while_it_is_off() {
        let values = Values::default();
        values.put("tosend_database_up", "Whether it answers.", 1.0);
        for metrics in [Metrics::on(), Metrics::default()] {
            metrics.know_refusals(["unknown"]);
            metrics.refused("paused", 3);
            metrics.verdict(metrics.asked(), Verdict::DoesNot);
            metrics.batch(7);
            if let Some(counter) = metrics.answers("/v2/info", 200) {
                counter.inc();
            }
            let text = metrics.text(&values);
            for line in [
                "tosend_refusals_total{reason=\"paused\"} 3",
                "tosend_refusals_total{reason=\"unknown\"} 0",
                "tosend_verdicts_total{verdict=\"does_not\"} 1",
                "tosend_verdict_seconds_count 1",
                "tosend_verdict_batch_keys_bucket{le=\"8\"} 1",
                "tosend_verdict_batch_keys_bucket{le=\"4\"} 0",
                "tosend_http_requests_total{route=\"/v2/info\",status=\"200\"} 1",
            ] {
                assert_eq!(text.contains(line), metrics.is_on(), "{line} {text}");
            }
            assert!(text.contains("# TYPE tosend_database_up gauge\ntosend_database_up 1\n"));
            // Without a relay, nothing is said of it.
            assert!(!text.contains("tosend_relay_up") && !text.contains("delivery"));
        }
    }
}
