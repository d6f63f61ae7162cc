//! What is counted while serving, in the text format of Prometheus (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram of latencies, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

#[derive(Debug, Default)]
struct Latency {
    /// Requests by bucket, not cumulated; slower ones are in the count alone.
    buckets: [u64; BUCKETS.len()],
    sum: f64,
    count: u64,
}

#[derive(Debug, Default)]
struct Work {
    batches: u64,
    images: u64,
    seconds: f64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(String, u16), u64>,
    latency: BTreeMap<String, Latency>,
    work: BTreeMap<&'static str, Work>,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Measures(Mutex<Counts>);

impl Measures {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request to a route was answered with this status.
    pub fn request(&self, route: &str, status: u16, took: Duration) {
        let mut counts = self.lock();
        *counts.requests.entry((route.to_owned(), status)).or_default() += 1;
        let latency = counts.latency.entry(route.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            latency.buckets[bucket] += 1;
        }
        latency.sum += seconds;
        latency.count += 1;
    }

    /// The device did a batch of work.
    pub fn batch(&self, work: &'static str, images: usize, took: Duration) {
        let mut counts = self.lock();
        let done = counts.work.entry(work).or_default();
        done.batches += 1;
        done.images += images as u64;
        done.seconds += took.as_secs_f64();
    }

    /// All of it, with what waits, what is in progress and what is connected now.
    pub fn text(&self, waiting: usize, in_progress: usize, connections: usize) -> String {
        let counts = self.lock();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &mut dyn Iterator<Item = String>| {
            let _ = write!(text, "# HELP lesion_gpu_{name} {help}\n# TYPE lesion_gpu_{name} {kind}\n");
            lines.for_each(|line| {
                let _ = writeln!(text, "lesion_gpu_{name}{line}");
            });
        };
        family(
            "requests_total",
            "counter",
            "Requests by route and status.",
            &mut counts
                .requests
                .iter()
                .map(|((route, status), n)| format!("{{route=\"{route}\",status=\"{status}\"}} {n}")),
        );
        family(
            "request_duration_seconds",
            "histogram",
            "From a request's headers to its answer.",
            &mut counts.latency.iter().flat_map(|(route, latency)| latency.lines(route)),
        );
        let works = || counts.work.iter();
        family(
            "batches_total",
            "counter",
            "Batches that the device has done.",
            &mut works().map(|(work, done)| format!("{{work=\"{work}\"}} {}", done.batches)),
        );
        family(
            "images_total",
            "counter",
            "Images in these batches.",
            &mut works().map(|(work, done)| format!("{{work=\"{work}\"}} {}", done.images)),
        );
        family(
            "device_seconds_total",
            "counter",
            "Time that these batches took.",
            &mut works().map(|(work, done)| format!("{{work=\"{work}\"}} {}", done.seconds)),
        );
        family(
            "queue_length",
            "gauge",
            "Images that wait for the device.",
            &mut std::iter::once(format!(" {waiting}")),
        );
        family(
            "requests_in_progress",
            "gauge",
            "Requests for work that are not answered yet.",
            &mut std::iter::once(format!(" {in_progress}")),
        );
        family(
            "connections",
            "gauge",
            "Open connections, this one included.",
            &mut std::iter::once(format!(" {connections}")),
        );
        text
    }
}

impl Latency {
    /// The lines of a histogram behind its name; those of buckets and sums have names of their own.
    fn lines(&self, route: &str) -> Vec<String> {
        let mut below = 0;
        let mut lines: Vec<String> = BUCKETS
            .iter()
            .zip(self.buckets)
            .map(|(bound, n)| {
                below += n;
                format!("_bucket{{route=\"{route}\",le=\"{bound}\"}} {below}")
            })
            .collect();
        lines.push(format!("_bucket{{route=\"{route}\",le=\"+Inf\"}} {}", self.count));
        lines.push(format!("_sum{{route=\"{route}\"}} {}", self.sum));
        lines.push(format!("_count{{route=\"{route}\"}} {}", self.count));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_cumulated_by_bucket() {
        let measures = Measures::default();
        for ms in [4, 20, 60_000] {
            measures.request("/v1/predict", 200, Duration::from_millis(ms));
        }
        measures.request("other", 404, Duration::ZERO);
        measures.batch("predict", 3, Duration::from_millis(500));
        measures.batch("predict", 1, Duration::from_millis(250));
        let text = measures.text(7, 2, 3);
        for line in [
            "lesion_gpu_requests_total{route=\"/v1/predict\",status=\"200\"} 3",
            "lesion_gpu_requests_total{route=\"other\",status=\"404\"} 1",
            "lesion_gpu_request_duration_seconds_bucket{route=\"/v1/predict\",le=\"0.005\"} 1",
            "lesion_gpu_request_duration_seconds_bucket{route=\"/v1/predict\",le=\"0.01\"} 1",
            "lesion_gpu_request_duration_seconds_bucket{route=\"/v1/predict\",le=\"30\"} 2",
            "lesion_gpu_request_duration_seconds_bucket{route=\"/v1/predict\",le=\"+Inf\"} 3",
            "lesion_gpu_request_duration_seconds_count{route=\"/v1/predict\"} 3",
            "lesion_gpu_batches_total{work=\"predict\"} 2",
            "lesion_gpu_images_total{work=\"predict\"} 4",
            "lesion_gpu_device_seconds_total{work=\"predict\"} 0.75",
            "lesion_gpu_queue_length 7",
            "lesion_gpu_requests_in_progress 2",
            "lesion_gpu_connections 3",
            "# TYPE lesion_gpu_request_duration_seconds histogram",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
